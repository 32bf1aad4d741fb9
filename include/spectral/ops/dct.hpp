// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/dct.hpp: discrete cosine transform along the width of each row, in two conventions
//   C[k,n] = √(2/d) cos(π (2n+1) k / (2d)), row 0 divided by √2: orthonormal, so C Cᵀ = 1
//   ortho:      dct(x) = C x;         idct(X) = Cᵀ X
//   reference:  dct(x) = S C x, S = diag(2√2, 2, 2, …);  idct(X) = Cᵀ diag(1/√2, 1, 1, …) X;  idct(dct(x)) = 2 x
// `reference` is what the authors' published CHIAR-Former checkpoints were trained with (arXiv:2606.08327).
// Shapes: x, y (N, d), any d ≥ 1. May run in place.
// Throws error where y has another shape than x.
#pragma once
#include <spectral/core/executor.hpp>

namespace spectral {

// √2
constexpr double sqrt2 = 1.41421356237309504880;

// The two conventions above; configurations call them "ortho" and "reference".
enum class dct_norm { ortho, reference };

// Factors on C (dct), on Cᵀ (idct) and on the filter, for coefficient 0 and for the others.
struct dct_scale {
    double first, rest;
};
constexpr dct_scale forward_scale(dct_norm n) {
    return n == dct_norm::ortho ? dct_scale{1, 1} : dct_scale{2 * sqrt2, 2};
}
constexpr dct_scale inverse_scale(dct_norm n) {
    return n == dct_norm::ortho ? dct_scale{1, 1} : dct_scale{1 / sqrt2, 1};
}
constexpr double filter_gain(dct_norm n) { return n == dct_norm::ortho ? 1.0 : 2.0; }

namespace detail {
// y = diag(scale) C x
template <executor Exec, class T>
void scaled_dct(Exec& ex, const_matrix<T> x, dct_scale scale, matrix_view<T> y, const char* where) {
    check_shape(y, {x.rows(), x.width()}, where, "output");
    SPECTRAL_CALL_KERNEL(dct_kernel, ex, x, scale, y);
}
// y = Cᵀ diag(scale) x
template <executor Exec, class T>
void scaled_idct(Exec& ex, const_matrix<T> x, dct_scale scale, matrix_view<T> y, const char* where) {
    check_shape(y, {x.rows(), x.width()}, where, "output");
    SPECTRAL_CALL_KERNEL(idct_kernel, ex, x, scale, y);
}
}  // namespace detail

template <executor Exec, class T>
void dct_forward(Exec& ex, const_matrix<T> x, dct_norm norm, matrix_view<T> y) {
    detail::scaled_dct(ex, x, forward_scale(norm), y, "dct_forward");
}
template <executor Exec, class T>
void dct_backward(Exec& ex, const_matrix<T> dL_dy, dct_norm norm, matrix_view<T> dL_dx) {
    detail::scaled_idct(ex, dL_dy, forward_scale(norm), dL_dx, "dct_backward");  // (S C)ᵀ = Cᵀ S
}

template <executor Exec, class T>
void idct_forward(Exec& ex, const_matrix<T> x, dct_norm norm, matrix_view<T> y) {
    detail::scaled_idct(ex, x, inverse_scale(norm), y, "idct_forward");
}
template <executor Exec, class T>
void idct_backward(Exec& ex, const_matrix<T> dL_dy, dct_norm norm, matrix_view<T> dL_dx) {
    detail::scaled_dct(ex, dL_dy, inverse_scale(norm), dL_dx, "idct_backward");
}

}  // namespace spectral
