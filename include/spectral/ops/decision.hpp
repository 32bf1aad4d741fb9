// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/decision.hpp: which operator a row goes to: one small number a row
//   argmax_rows: the largest of s[n,·];   threshold_rows: how many thresholds a value exceeds;   random_rows: a coin by
//   position; pick_columns: s[n, op[n]] and its gradient;   one_hot_rows
// Shapes: s (N, K); values, op (N), op in [0, K); one-hot rows (N, K).
// Throws error for other shapes, a share outside [0, 1], and no or more than three thresholds.
#pragma once
#include <spectral/core/random.hpp>
#include <spectral/core/view.hpp>
#include <spectral/ops/embedding.hpp>

#include <span>

namespace spectral {

// op[n] = the first index of the largest s[n,·]
template <executor Exec, class T>
void argmax_rows(Exec& ex, matrix_view<T> s, vector_view<row_index> op) {
    check_shape(op, {s.rows()}, "argmax_rows", "op");
    SPECTRAL_CALL_KERNEL(argmax_rows_kernel, ex, s, op);
}

// picked[n] = s[n, op[n]];  and its gradient: dL_ds[n,o] = dL_dpicked[n] if o = op[n], else 0 (overwritten)
template <executor Exec, class T>
void pick_columns_forward(Exec& ex, const_matrix<T> s, const_vector<row_index> op, matrix_view<T> picked) {
    check_shape(op, {s.rows()}, "pick_columns_forward", "op");
    check_shape(picked, {s.rows(), 1}, "pick_columns_forward", "picked");
    SPECTRAL_CALL_KERNEL(pick_columns_forward_kernel, ex, s, op, picked);
}
template <executor Exec, class T>
void pick_columns_backward(Exec& ex, const_matrix<T> dL_dpicked, const_vector<row_index> op, matrix_view<T> dL_ds) {
    check_shape(op, {dL_ds.rows()}, "pick_columns_backward", "op");
    check_shape(dL_dpicked, {dL_ds.rows(), 1}, "pick_columns_backward", "dL_dpicked");
    SPECTRAL_CALL_KERNEL(pick_columns_backward_kernel, ex, dL_dpicked, op, dL_ds);
}

// y[n, o] = 1 if o = op[n], else 0
template <executor Exec, class T>
void one_hot_rows(Exec& ex, const_vector<row_index> op, matrix_view<T> y) {
    check_shape(op, {y.rows()}, "one_hot_rows", "op");
    SPECTRAL_CALL_KERNEL(one_hot_rows_kernel, ex, op, y);
}

// op[n] = 1 if draw.bits(position[n]) < probability_threshold(share), else 0
template <executor Exec>
void random_rows(Exec& ex, const_vector<row_index> position, random_stream draw, double share,
                 vector_view<row_index> op) {
    check(share >= 0 && share <= 1, "random_rows", "share must be in [0, 1], found ", share);
    check_shape(op, {position.size()}, "random_rows", "op");
    SPECTRAL_CALL_KERNEL(random_rows_kernel, ex, position, draw, share, op);
}

// op[n] = number of thresholds that value[n] exceeds: strictly greater, so a tie stays below
template <executor Exec, class T>
void threshold_rows(Exec& ex, vector_view<T> value, std::span<const double> ascending, vector_view<row_index> op) {
    check_shape(op, {value.size()}, "threshold_rows", "op");
    check(!ascending.empty() && ascending.size() <= 3, "threshold_rows", "1 to 3 thresholds, found ", ascending.size());
    SPECTRAL_CALL_KERNEL(threshold_rows_kernel, ex, value, ascending, op);
}

}  // namespace spectral
