// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/activation.hpp: GELU (exact), SiLU gate
//   gelu(x) = x Φ(x) = x/2 (1 + erf(x/√2));        silu_gate(g, u) = g σ(g) u
// (Hendrycks and Gimpel, arXiv:1606.08415; Shazeer, arXiv:2002.05202)
// Shapes: all (N, C), sums of a bias gradient (C). gelu may run in place, its backward too.
// Throws error for other shapes.
#pragma once
#include <spectral/ops/bias_gradient.hpp>
#include <spectral/ops/embedding.hpp>

namespace spectral {

template <executor Exec, class T>
void gelu_forward(Exec& ex, const_matrix<T> x, matrix_view<T> y) {
    check_shape(y, {x.rows(), x.width()}, "gelu_forward", "y");
    SPECTRAL_CALL_KERNEL(gelu_forward_kernel, ex, x, y);
}

// dL_dx = dL_dy (Φ(x) + x φ(x)); bias: that of the map that made x, Σ_n dL_dx[n]
template <executor Exec, class T>
void gelu_backward(Exec& ex, const_matrix<T> dL_dy, const_matrix<T> x, matrix_view<T> dL_dx, out_bias<T> bias = {}) {
    check_shape(dL_dy, {x.rows(), x.width()}, "gelu_backward", "dL_dy");
    check_shape(dL_dx, {x.rows(), x.width()}, "gelu_backward", "dL_dx");
    check_bias(bias, x.width(), "gelu_backward");
    SPECTRAL_CALL_KERNEL(gelu_backward_kernel, ex, dL_dy, x, dL_dx, bias);
}

template <executor Exec, class T>
void silu_gate_forward(Exec& ex, const_matrix<T> gate, const_matrix<T> up, matrix_view<T> y) {
    check_shape(up, {gate.rows(), gate.width()}, "silu_gate_forward", "up");
    check_shape(y, {gate.rows(), gate.width()}, "silu_gate_forward", "y");
    SPECTRAL_CALL_KERNEL(silu_gate_forward_kernel, ex, gate, up, y);
}

// dL_dup = dL_dy g σ(g);  dL_dgate = dL_dy u σ(g) (1 + g (1 − σ(g)))
template <executor Exec, class T>
void silu_gate_backward(Exec& ex, const_matrix<T> dL_dy, const_matrix<T> gate, const_matrix<T> up,
                        matrix_view<T> dL_dgate, matrix_view<T> dL_dup) {
    check_shape(dL_dy, {gate.rows(), gate.width()}, "silu_gate_backward", "dL_dy");
    check_shape(dL_dgate, {gate.rows(), gate.width()}, "silu_gate_backward", "dL_dgate");
    check_shape(dL_dup, {gate.rows(), gate.width()}, "silu_gate_backward", "dL_dup");
    SPECTRAL_CALL_KERNEL(silu_gate_backward_kernel, ex, dL_dy, gate, up, dL_dgate, dL_dup);
}

}  // namespace spectral
