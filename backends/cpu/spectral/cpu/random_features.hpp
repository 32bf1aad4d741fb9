// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/random_features.hpp: random Fourier features: one product, then cos and sin in place
#pragma once
#include <spectral/cpu/detail/gemm.hpp>
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/ops/random_features.hpp>

#include <cmath>

namespace spectral::cpu {

template <class T>
void random_features_forward_kernel(executor& ex, const_matrix<T> x, const_matrix<T> omega, matrix_view<T> phi) {
    const index R = omega.width();
    const T scale = static_cast<T>(1 / std::sqrt(static_cast<double>(R)));
    detail::gemm<T>(ex, detail::transpose::no, detail::transpose::no, scale, x, omega, write::overwrite,
                    phi.columns(0, R));
    detail::for_each_row(ex, phi.rows(), 64 * R, [&](index n) {  // 64: a sine costs tens of additions
        T *cosine = phi.row(n), *sine = cosine + R;
        for (index r = 0; r < R; ++r) {
            const T p = cosine[r];
            cosine[r] = std::cos(p);
            sine[r] = std::sin(p);
        }
    });
}

template <class T>
void random_features_backward_kernel(executor& ex, matrix_view<T> dL_dphi, const_matrix<T> phi, const_matrix<T> omega,
                                     matrix_view<T> dL_dx) {
    const index R = omega.width();
    const T scale = static_cast<T>(1 / std::sqrt(static_cast<double>(R)));
    detail::for_each_row(ex, phi.rows(), 2 * R, [&](index n) {
        const T *cosine = phi.row(n), *sine = cosine + R;
        T *dcosine = dL_dphi.row(n), *dsine = dcosine + R;
#pragma omp simd
        for (index r = 0; r < R; ++r) dcosine[r] = cosine[r] * dsine[r] - sine[r] * dcosine[r];  // dL_dp
    });
    detail::gemm<T>(ex, detail::transpose::no, detail::transpose::yes, scale, dL_dphi.columns(0, R), omega,
                    write::accumulate, dL_dx);
}

}  // namespace spectral::cpu
