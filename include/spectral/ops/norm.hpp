// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/norm.hpp: layer norm, root-mean-square norm, and layer norm of a residual sum
//   LayerNorm: y = (s − mean(s)) · rstd · γ + β,  rstd = 1/√(var(s) + eps), biased variance
//   RMSNorm:   y = s · rstd · γ,                  rstd = 1/√(mean(s²) + eps)
// (Ba et al., arXiv:1607.06450; Zhang and Sennrich, arXiv:1910.07467)
// Shapes: s, y (N, C), γ, β (C); mean, rstd (N) are kept for backward. γ and β gradients accumulate.
// Throws error for other shapes.
#pragma once
#include <spectral/ops/bias_gradient.hpp>
#include <spectral/ops/embedding.hpp>

namespace spectral {

template <executor Exec, class T>
void layer_norm_forward(Exec& ex, const_matrix<T> s, const_vector<T> gamma, const_vector<T> beta, double eps,
                        matrix_view<T> y, out_vector<statistic<T>> mean, out_vector<statistic<T>> rstd) {
    check_shape(y, {s.rows(), s.width()}, "layer_norm_forward", "y");
    check_shape(gamma, {s.width()}, "layer_norm_forward", "gamma");
    check_shape(beta, {s.width()}, "layer_norm_forward", "beta");
    check_shape(mean, {s.rows()}, "layer_norm_forward", "mean");
    check_shape(rstd, {s.rows()}, "layer_norm_forward", "rstd");
    SPECTRAL_CALL_KERNEL(layer_norm_forward_kernel, ex, s, gamma, beta, eps, y, mean, rstd);
}

// dL_ds (= or +=)  rstd (g − mean(g) − ŝ mean(g ŝ)),  g = dL_dy γ,  ŝ = (s − mean) rstd;  bias: that of a map whose
// output is part of s, the sum of what dL_ds is given, over the rows
template <executor Exec, class T>
void layer_norm_backward(Exec& ex, const_matrix<T> dL_dy, const_matrix<T> s, const_vector<T> gamma,
                         const_vector<statistic<T>> mean, const_vector<statistic<T>> rstd, matrix_view<T> dL_ds,
                         out_vector<statistic<T>> dL_dgamma, out_vector<statistic<T>> dL_dbeta,
                         write mode = write::overwrite, out_bias<T> bias = {}) {
    check_shape(dL_dy, {s.rows(), s.width()}, "layer_norm_backward", "dL_dy");
    check_shape(dL_ds, {s.rows(), s.width()}, "layer_norm_backward", "dL_ds");
    check_shape(gamma, {s.width()}, "layer_norm_backward", "gamma");
    check_shape(mean, {s.rows()}, "layer_norm_backward", "mean");
    check_shape(rstd, {s.rows()}, "layer_norm_backward", "rstd");
    check_shape(dL_dgamma, {s.width()}, "layer_norm_backward", "dL_dgamma");
    check_shape(dL_dbeta, {s.width()}, "layer_norm_backward", "dL_dbeta");
    check_bias(bias, s.width(), "layer_norm_backward");
    SPECTRAL_CALL_KERNEL(layer_norm_backward_kernel, ex, dL_dy, s, gamma, mean, rstd, dL_ds, dL_dgamma, dL_dbeta, mode,
                         bias);
}

// s = x + r; y = LayerNorm(s). s may be the memory of r.
template <executor Exec, class T>
void add_layer_norm_forward(Exec& ex, const_matrix<T> x, const_matrix<T> r, const_vector<T> gamma, const_vector<T> beta,
                            double eps, matrix_view<T> s, matrix_view<T> y, out_vector<statistic<T>> mean,
                            out_vector<statistic<T>> rstd) {
    check_shape(r, {x.rows(), x.width()}, "add_layer_norm_forward", "r");
    check_shape(s, {x.rows(), x.width()}, "add_layer_norm_forward", "s");
    check_shape(y, {x.rows(), x.width()}, "add_layer_norm_forward", "y");
    check_shape(gamma, {x.width()}, "add_layer_norm_forward", "gamma");
    check_shape(beta, {x.width()}, "add_layer_norm_forward", "beta");
    check_shape(mean, {x.rows()}, "add_layer_norm_forward", "mean");
    check_shape(rstd, {x.rows()}, "add_layer_norm_forward", "rstd");
    SPECTRAL_CALL_KERNEL(add_layer_norm_forward_kernel, ex, x, r, gamma, beta, eps, s, y, mean, rstd);
}

template <executor Exec, class T>
void rms_norm_forward(Exec& ex, const_matrix<T> s, const_vector<T> gamma, double eps, matrix_view<T> y,
                      out_vector<statistic<T>> rstd) {
    check_shape(y, {s.rows(), s.width()}, "rms_norm_forward", "y");
    check_shape(gamma, {s.width()}, "rms_norm_forward", "gamma");
    check_shape(rstd, {s.rows()}, "rms_norm_forward", "rstd");
    SPECTRAL_CALL_KERNEL(rms_norm_forward_kernel, ex, s, gamma, eps, y, rstd);
}

// dL_ds = rstd (g − ŝ mean(g ŝ)) + addend,  g = dL_dy γ,  ŝ = s rstd; dL_dgamma may be empty (frozen). addend (N, C) or
// empty: the gradient that reaches s beside the norm, as by a residual; dL_ds itself, to add to it
template <executor Exec, class T>
void rms_norm_backward(Exec& ex, const_matrix<T> dL_dy, const_matrix<T> s, const_vector<T> gamma,
                       const_vector<statistic<T>> rstd, matrix_view<T> dL_ds, out_vector<statistic<T>> dL_dgamma,
                       const_matrix<T> addend = {}) {
    check_shape(dL_dy, {s.rows(), s.width()}, "rms_norm_backward", "dL_dy");
    check_shape(dL_ds, {s.rows(), s.width()}, "rms_norm_backward", "dL_ds");
    check_shape(gamma, {s.width()}, "rms_norm_backward", "gamma");
    check_shape(rstd, {s.rows()}, "rms_norm_backward", "rstd");
    if (dL_dgamma.data) check_shape(dL_dgamma, {s.width()}, "rms_norm_backward", "dL_dgamma");
    if (addend.data) check_shape(addend, {s.rows(), s.width()}, "rms_norm_backward", "addend");
    SPECTRAL_CALL_KERNEL(rms_norm_backward_kernel, ex, dL_dy, s, gamma, rstd, dL_ds, dL_dgamma, addend);
}

}  // namespace spectral
