// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/random_features.hpp: φ = [cos p, sin p], p = x ω / √R
#pragma once
#include <spectral/cuda/detail/gemm.hpp>
#include <spectral/ops/random_features.hpp>

#include <cmath>

namespace spectral::cuda {

template <class T>
void random_features_forward_kernel(executor& ex, const_matrix<T> x, const_matrix<T> omega, matrix_view<T> phi) {
    using A = detail::compute<T>;
    const index R = omega.width();
    arena_scope scratch(ex);
    auto p = ex.memory().template matrix<A>(x.rows(), R);  // angles keep the precision of the sum
    detail::gemm<T, A>(ex, "random_features_forward", {x}, {omega}, 1 / std::sqrt(static_cast<double>(R)), {}, p);
    const auto angle = detail::rows_in(p);
    const auto out = detail::rows_in(phi);
    detail::for_each_element(ex, "random_features_forward", x.rows(), R, [=] __device__(index n, index r) {
        const A angle_here = angle(n)[r];
        out(n)[r] = detail::narrow<T>(cos(angle_here));
        out(n)[R + r] = detail::narrow<T>(sin(angle_here));
    });
}

template <class T>
void random_features_backward_kernel(executor& ex, matrix_view<T> dL_dphi, const_matrix<T> phi, const_matrix<T> omega,
                                     matrix_view<T> dL_dx) {
    const index R = omega.width();
    const auto gradient = detail::rows_in(dL_dphi);
    const auto feature = detail::rows_in(phi);
    detail::for_each_element(ex, "random_features_backward", phi.rows(), R, [=] __device__(index n, index r) {
        gradient(n)[r] = detail::narrow<T>(detail::widen(feature(n)[r]) * detail::widen(gradient(n)[R + r]) -
                                           detail::widen(feature(n)[R + r]) * detail::widen(gradient(n)[r]));  // dL_dp
    });
    detail::gemm<T>(ex, "random_features_backward", {dL_dphi.columns(0, R)}, {omega, true},
                    1 / std::sqrt(static_cast<double>(R)), dL_dx, dL_dx);
}

}  // namespace spectral::cuda
