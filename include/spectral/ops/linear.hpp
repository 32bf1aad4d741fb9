// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/linear.hpp: affine map of every row
//   y = scale · x Wᵀ + b + addend
// Shapes: x (N, I), W (O, I), b (O) or empty, y (N, O), addend (N, O) or empty. W may be kept as bfloat16.
// Throws error for other shapes.
#pragma once
#include <spectral/ops/embedding.hpp>

namespace spectral {

// addend: a residual, for instance; y itself, to add to it, or memory apart from y's
template <executor Exec, class T>
void linear_forward(Exec& ex, const_matrix<T> x, const_weight<T> w, const_vector<T> b, matrix_view<T> y,
                    const_matrix<T> addend = {}, double scale = 1) {
    check_equal(w.width(), x.width(), "linear_forward", "width of the weight against the width of x");
    check_shape(y, {x.rows(), w.rows()}, "linear_forward", "y");
    if (b.data) check_shape(b, {w.rows()}, "linear_forward", "bias");
    if (addend.data) check_shape(addend, {x.rows(), w.rows()}, "linear_forward", "addend");
    w.visit([&](auto weight) { SPECTRAL_CALL_KERNEL(linear_forward_kernel, ex, x, weight, b, y, addend, scale); });
}

// dL_dx (=, or += with accumulate) scale · dL_dy W
template <executor Exec, class T>
void linear_backward_input(Exec& ex, const_matrix<T> dL_dy, const_weight<T> w, matrix_view<T> dL_dx,
                           write mode = write::overwrite, double scale = 1) {
    check_equal(w.rows(), dL_dy.width(), "linear_backward_input", "rows of the weight against the width of dL_dy");
    check_shape(dL_dx, {dL_dy.rows(), w.width()}, "linear_backward_input", "dL_dx");
    w.visit([&](auto weight) {
        SPECTRAL_CALL_KERNEL(linear_backward_input_kernel, ex, dL_dy, weight, dL_dx, mode, scale);
    });
}

// dL_dw (+=, or = with overwrite) dL_dyᵀ x;  dL_db likewise Σ_n dL_dy[n] (dL_db may be empty)
template <executor Exec, class T>
void linear_backward_weight(Exec& ex, deduced_matrix<T> dL_dy, const_matrix<T> x, matrix_view<statistic<T>> dL_dw,
                            out_vector<statistic<T>> dL_db, write mode = write::accumulate) {
    check_equal(dL_dy.rows(), x.rows(), "linear_backward_weight", "rows of dL_dy against rows of x");
    check_shape(dL_dw, {dL_dy.width(), x.width()}, "linear_backward_weight", "dL_dw");
    if (dL_db.data) check_shape(dL_db, {dL_dy.width()}, "linear_backward_weight", "dL_db");
    SPECTRAL_CALL_KERNEL(linear_backward_weight_kernel, ex, view<const T, 2>(dL_dy), x, dL_dw, dL_db, mode);
}

}  // namespace spectral
