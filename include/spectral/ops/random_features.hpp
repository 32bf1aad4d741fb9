// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/random_features.hpp: random Fourier features of a radial basis kernel
//   p = x ω / √R;  φ = [cos p, sin p]           (Rahimi and Recht 2007; ω fixed, entries of variance 2γ)
// Shapes: x (N, d), ω (d, R), φ (N, 2R). RBF mixing is attention with q = k = v = φ and scale 1.
// Throws error for other shapes.
#pragma once
#include <spectral/ops/embedding.hpp>

namespace spectral {

template <executor Exec, class T>
void random_features_forward(Exec& ex, const_matrix<T> x, const_matrix<T> omega, matrix_view<T> phi) {
    check_equal(omega.rows(), x.width(), "random_features_forward", "rows of omega against the width of x");
    check_shape(phi, {x.rows(), 2 * omega.width()}, "random_features_forward", "phi");
    SPECTRAL_CALL_KERNEL(random_features_forward_kernel, ex, x, omega, phi);
}

// dL_dp = −sin p · dL_dcos + cos p · dL_dsin (both read from φ);  dL_dx += dL_dp ωᵀ / √R. dL_dphi is overwritten.
template <executor Exec, class T>
void random_features_backward(Exec& ex, matrix_view<T> dL_dphi, const_matrix<T> phi, const_matrix<T> omega,
                              matrix_view<T> dL_dx) {
    check_shape(phi, {dL_dphi.rows(), dL_dphi.width()}, "random_features_backward", "phi");
    check_shape(dL_dx, {phi.rows(), omega.rows()}, "random_features_backward", "dL_dx");
    SPECTRAL_CALL_KERNEL(random_features_backward_kernel, ex, dL_dphi, phi, omega, dL_dx);
}

}  // namespace spectral
