// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/spectral_entropy.hpp: normalised entropy of a row's power spectrum, in [0, 1]
//   X = dct(x);  P_k = X_k² / (Σ_j X_j² + ε);  H = − Σ_k P_k ln(P_k + ε) / (ln d + ε),   ε = 1e-8
// (CHIAR-Former, arXiv:2606.08327) Shapes: x (N, d), H (N). In the reference convention coefficient 0 counts double.
// Throws error for other shapes.
#pragma once
#include <spectral/ops/dct.hpp>

namespace spectral {

// ε, as in the authors' code.
inline constexpr double entropy_epsilon = 1e-8;

template <executor Exec, class T>
void spectral_entropy_forward(Exec& ex, deduced_matrix<T> x, dct_norm norm, vector_view<statistic<T>> entropy) {
    check_shape(entropy, {x.rows()}, "spectral_entropy_forward", "entropy");
    SPECTRAL_CALL_KERNEL(spectral_entropy_forward_kernel, ex, view<const T, 2>(x), forward_scale(norm), entropy);
}

// With Q = Σ X² + ε and a_k = dH/dP_k = −(ln(P_k + ε) + P_k/(P_k + ε)) / (ln d + ε):
//   dL_dX_k = dL_dH · 2 X_k / Q · (a_k − Σ_j a_j P_j);   dL_dx += (S C)ᵀ dL_dX
template <executor Exec, class T>
void spectral_entropy_backward(Exec& ex, const_vector<statistic<T>> dL_dentropy, const_matrix<T> x, dct_norm norm,
                               matrix_view<T> dL_dx) {
    check_shape(dL_dentropy, {x.rows()}, "spectral_entropy_backward", "dL_dentropy");
    check_shape(dL_dx, {x.rows(), x.width()}, "spectral_entropy_backward", "dL_dx");
    SPECTRAL_CALL_KERNEL(spectral_entropy_backward_kernel, ex, dL_dentropy, x, forward_scale(norm), dL_dx);
}

}  // namespace spectral
