// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/spectral_filter.hpp: learned filter in the DCT domain, alone and fused with residual and norm
//   filter(x) = idct(w ⊙ dct(x)) = g Cᵀ (w ⊙ C x),   g = 1 (ortho) or 2 (reference)
//   mix(x)    = LayerNorm(x + filter(x))              the DCT mixing operator of CHIAR-Former (arXiv:2606.08327)
// Shapes: x, y (N, d); w, γ, β (d); mean, rstd (N). The mix reads and writes the selected rows only.
// Throws error for other shapes and for a selection of another capacity than N.
#pragma once
#include <spectral/core/rows.hpp>
#include <spectral/ops/dct.hpp>

namespace spectral {

template <executor Exec, class T>
void spectral_filter_forward(Exec& ex, const_matrix<T> x, const_vector<T> w, dct_norm norm, matrix_view<T> y) {
    check_shape(w, {x.width()}, "spectral_filter_forward", "w");
    check_shape(y, {x.rows(), x.width()}, "spectral_filter_forward", "y");
    SPECTRAL_CALL_KERNEL(spectral_filter_forward_kernel, ex, x, w, filter_gain(norm), y);
}

// dL_dx += g Cᵀ (w ⊙ C dL_dy);  dL_dw += g Σ_n (C dL_dy) ⊙ (C x)
template <executor Exec, class T>
void spectral_filter_backward(Exec& ex, const_matrix<T> dL_dy, const_matrix<T> x, const_vector<T> w, dct_norm norm,
                              matrix_view<T> dL_dx, out_vector<statistic<T>> dL_dw) {
    check_shape(dL_dy, {x.rows(), x.width()}, "spectral_filter_backward", "dL_dy");
    check_shape(dL_dx, {x.rows(), x.width()}, "spectral_filter_backward", "dL_dx");
    check_shape(w, {x.width()}, "spectral_filter_backward", "w");
    check_shape(dL_dw, {x.width()}, "spectral_filter_backward", "dL_dw");
    SPECTRAL_CALL_KERNEL(spectral_filter_backward_kernel, ex, dL_dy, x, w, filter_gain(norm), dL_dx, dL_dw);
}

// What the backward pass of the mix keeps: two numbers a row; spectra are recomputed.
template <class T>
struct norm_statistics {
    vector_view<statistic<T>> mean, rstd;  // (N), by row number; rows that are not selected keep what they hold
};

template <executor Exec, class T>
void spectral_mix_forward(Exec& ex, const_matrix<T> x, const selection& rows, const_vector<T> w, dct_norm norm,
                          const_vector<T> gamma, const_vector<T> beta, double eps, matrix_view<T> y,
                          norm_statistics<T> stats) {
    check_shape(w, {x.width()}, "spectral_mix_forward", "w");
    check_shape(y, {x.rows(), x.width()}, "spectral_mix_forward", "y");
    check_shape(gamma, {x.width()}, "spectral_mix_forward", "gamma");
    check_shape(beta, {x.width()}, "spectral_mix_forward", "beta");
    check_shape(stats.mean, {x.rows()}, "spectral_mix_forward", "mean");
    check_shape(stats.rstd, {x.rows()}, "spectral_mix_forward", "rstd");
    check_equal(rows.capacity, x.rows(), "spectral_mix_forward", "capacity of the selection");
    SPECTRAL_CALL_KERNEL(spectral_mix_forward_kernel, ex, x, rows, w, filter_gain(norm), gamma, beta, eps, y, stats);
}

// dL_dx[rows] += …; dL_dw, dL_dgamma, dL_dbeta accumulate
template <executor Exec, class T>
void spectral_mix_backward(Exec& ex, const_matrix<T> dL_dy, const_matrix<T> x, const selection& rows, const_vector<T> w,
                           dct_norm norm, const_vector<T> gamma, norm_statistics<T> stats, matrix_view<T> dL_dx,
                           out_vector<statistic<T>> dL_dw, out_vector<statistic<T>> dL_dgamma,
                           out_vector<statistic<T>> dL_dbeta) {
    check_shape(dL_dy, {x.rows(), x.width()}, "spectral_mix_backward", "dL_dy");
    check_shape(dL_dx, {x.rows(), x.width()}, "spectral_mix_backward", "dL_dx");
    check_shape(w, {x.width()}, "spectral_mix_backward", "w");
    check_shape(gamma, {x.width()}, "spectral_mix_backward", "gamma");
    check_shape(stats.mean, {x.rows()}, "spectral_mix_backward", "mean");
    check_shape(stats.rstd, {x.rows()}, "spectral_mix_backward", "rstd");
    check_shape(dL_dw, {x.width()}, "spectral_mix_backward", "dL_dw");
    check_shape(dL_dgamma, {x.width()}, "spectral_mix_backward", "dL_dgamma");
    check_shape(dL_dbeta, {x.width()}, "spectral_mix_backward", "dL_dbeta");
    check_equal(rows.capacity, x.rows(), "spectral_mix_backward", "capacity of the selection");
    SPECTRAL_CALL_KERNEL(spectral_mix_backward_kernel, ex, dL_dy, x, rows, w, filter_gain(norm), gamma, stats, dL_dx,
                         dL_dw, dL_dgamma, dL_dbeta);
}

}  // namespace spectral
