// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/pool.hpp: means over rows
//   batch:    p[0] = mean of all rows;   sequence: p[s] = mean of the rows of sequence s (0 if it has none)
//   causal:   p[n] = mean of the rows of n's sequence up to and including n
// Shapes: x (N, C); p (G, C) with G = pooled_rows(): 1, S or N. Rows are real tokens: packed rows need no mask.
// Throws error for other shapes.
#pragma once
#include <spectral/core/rows.hpp>

namespace spectral {

// What one mean is taken over.
enum class pool_scope { batch, sequence, causal };

inline index pooled_rows(const row_map& map, pool_scope scope) {
    return scope == pool_scope::batch ? 1 : scope == pool_scope::sequence ? map.sequences() : map.rows();
}

// history (S, C), causal only, may be empty: sums of the rows that came before in each sequence (decoding goes on from
// there); read and then advanced by the rows of x. A row's count is its position + 1.
template <executor Exec, class T>
void mean_pool_forward(Exec& ex, const_matrix<T> x, const row_map& map, pool_scope scope, matrix_view<T> pooled,
                       out_matrix<statistic<T>> history = {}) {
    check_equal(x.rows(), map.rows(), "mean_pool_forward", "rows of x against its row map");
    check_shape(pooled, {pooled_rows(map, scope), x.width()}, "mean_pool_forward", "pooled");
    if (history.data) check_shape(history, {map.sequences(), x.width()}, "mean_pool_forward", "history");
    SPECTRAL_CALL_KERNEL(mean_pool_forward_kernel, ex, x, map, scope, pooled, history);
}

// dL_dx += the share of every mean that a row is part of
template <executor Exec, class T>
void mean_pool_backward(Exec& ex, const_matrix<T> dL_dpooled, const row_map& map, pool_scope scope,
                        matrix_view<T> dL_dx) {
    check_equal(dL_dx.rows(), map.rows(), "mean_pool_backward", "rows of dL_dx against its row map");
    check_shape(dL_dpooled, {pooled_rows(map, scope), dL_dx.width()}, "mean_pool_backward", "dL_dpooled");
    SPECTRAL_CALL_KERNEL(mean_pool_backward_kernel, ex, dL_dpooled, map, scope, dL_dx);
}

}  // namespace spectral
