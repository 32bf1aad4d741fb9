// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/pool.hpp: means over rows, running means, and their gradients
//
// Threads own columns and walk down the rows, so a running sum needs no second pass and every sum is in row order. Sums
// are kept in double: a causal mean of thousands of rows is a small difference of large sums.
#pragma once
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/ops/pool.hpp>

namespace spectral::cpu {

namespace detail {

// f(first column, count ≤ 128) over all columns: a strip of running sums stays in registers and first-level cache
template <class F>
void for_each_strip(const executor& ex, index width, F&& f) {
    parallel_ranges(ex, width, 16, [&](index first, index last, int) {
        for (index c = first; c < last; c += 128) f(c, std::min<index>(128, last - c));
    });
}

// f(first row, last row, group) for every run of rows with a mean of its own; causal: every sequence is one run
template <class F>
void for_each_run(const row_map& map, pool_scope scope, F&& f) {
    if (scope == pool_scope::batch) return f(index{0}, map.rows(), index{0});
    for (index s = 0; s < map.sequences(); ++s) f(index{map.begin[s]}, index{map.end[s]}, s);
}

}  // namespace detail

template <class T>
void mean_pool_forward_kernel(executor& ex, const_matrix<T> x, const row_map& map, pool_scope scope,
                              matrix_view<T> pooled, out_matrix<statistic<T>> history) {
    detail::for_each_strip(ex, x.width(), [&](index column, index count) {
        detail::for_each_run(map, scope, [&](index first, index last, index group) {
            double sum[128] = {};
            if (history.data) std::copy_n(history.row(group) + column, count, sum);
            for (index n = first; n < last; ++n) {
                const T* row = x.row(n) + column;
#pragma omp simd
                for (index c = 0; c < count; ++c) sum[c] += row[c];
                if (scope != pool_scope::causal) continue;
                const double share = 1 / (static_cast<double>(map.position[n]) + 1);
                T* out = pooled.row(n) + column;
#pragma omp simd
                for (index c = 0; c < count; ++c) out[c] = static_cast<T>(sum[c] * share);
            }
            if (history.data)
                for (index c = 0; c < count; ++c) history(group, column + c) = static_cast<T>(sum[c]);
            if (scope == pool_scope::causal) return;
            const double share = last > first ? 1 / static_cast<double>(last - first) : 0;
            for (index c = 0; c < count; ++c) pooled(group, column + c) = static_cast<T>(sum[c] * share);
        });
    });
}

template <class T>
void mean_pool_backward_kernel(executor& ex, const_matrix<T> dL_dpooled, const row_map& map, pool_scope scope,
                               matrix_view<T> dL_dx) {
    detail::for_each_strip(ex, dL_dx.width(), [&](index column, index count) {
        detail::for_each_run(map, scope, [&](index first, index last, index group) {
            if (last <= first) return;
            double sum[128] = {};  // what a row receives: causal rows gather it from the end of the sequence
            const auto add_share = [&](index g, index rows) {
                const double share = 1 / static_cast<double>(rows);
                const T* row = dL_dpooled.row(g) + column;
#pragma omp simd
                for (index c = 0; c < count; ++c) sum[c] += row[c] * share;
            };
            if (scope != pool_scope::causal) add_share(group, last - first);
            for (index n = last; n-- > first;) {
                if (scope == pool_scope::causal) add_share(n, n - first + 1);
                T* out = dL_dx.row(n) + column;
#pragma omp simd
                for (index c = 0; c < count; ++c) out[c] += static_cast<T>(sum[c]);
            }
        });
    });
}

}  // namespace spectral::cpu
