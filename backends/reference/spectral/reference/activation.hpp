// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/activation.hpp: GELU, SiLU gate
#pragma once
#include <spectral/ops/activation.hpp>
#include <spectral/reference/executor.hpp>

#include <cmath>

namespace spectral::reference {

// Φ, φ and σ
inline double normal_cdf(double x) { return 0.5 * std::erfc(-x / 1.41421356237309504880); }
inline double normal_density(double x) { return 0.39894228040143267794 * std::exp(-0.5 * x * x); }
inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

template <class T>
void gelu_forward_kernel(executor&, const_matrix<T> x, matrix_view<T> y) {
    for (index n = 0; n < x.rows(); ++n)
        for (index c = 0; c < x.width(); ++c) y(n, c) = static_cast<T>(x(n, c) * normal_cdf(x(n, c)));
}

template <class T>
void gelu_backward_kernel(executor&, const_matrix<T> dL_dy, const_matrix<T> x, matrix_view<T> dL_dx,
                          bias_gradient<T> bias) {
    for (index c = 0; c < x.width(); ++c) {
        double sum = 0;
        for (index n = 0; n < x.rows(); ++n) {
            const double v = x(n, c), made = dL_dy(n, c) * (normal_cdf(v) + v * normal_density(v));
            dL_dx(n, c) = static_cast<T>(made);
            sum += made;
        }
        bias.put(c, static_cast<T>(sum));
    }
}

template <class T>
void silu_gate_forward_kernel(executor&, const_matrix<T> gate, const_matrix<T> up, matrix_view<T> y) {
    for (index n = 0; n < y.rows(); ++n)
        for (index c = 0; c < y.width(); ++c) y(n, c) = static_cast<T>(gate(n, c) * sigmoid(gate(n, c)) * up(n, c));
}

template <class T>
void silu_gate_backward_kernel(executor&, const_matrix<T> dL_dy, const_matrix<T> gate, const_matrix<T> up,
                               matrix_view<T> dL_dgate, matrix_view<T> dL_dup) {
    for (index n = 0; n < dL_dy.rows(); ++n)
        for (index c = 0; c < dL_dy.width(); ++c) {
            const double dy = dL_dy(n, c), g = gate(n, c), u = up(n, c), s = sigmoid(g);
            dL_dup(n, c) = static_cast<T>(dy * g * s);
            dL_dgate(n, c) = static_cast<T>(dy * u * s * (1 + g * (1 - s)));
        }
}

}  // namespace spectral::reference
