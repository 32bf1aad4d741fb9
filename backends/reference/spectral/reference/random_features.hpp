// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/random_features.hpp: φ = [cos p, sin p], p = x ω / √R
#pragma once
#include <spectral/ops/random_features.hpp>
#include <spectral/reference/executor.hpp>

#include <cmath>

namespace spectral::reference {

template <class T>
void random_features_forward_kernel(executor&, const_matrix<T> x, const_matrix<T> omega, matrix_view<T> phi) {
    const index R = omega.width();
    for (index n = 0; n < x.rows(); ++n)
        for (index r = 0; r < R; ++r) {
            double p = 0;
            for (index i = 0; i < x.width(); ++i) p += double(x(n, i)) * omega(i, r);
            p /= std::sqrt(static_cast<double>(R));
            phi(n, r) = static_cast<T>(std::cos(p));
            phi(n, R + r) = static_cast<T>(std::sin(p));
        }
}

template <class T>
void random_features_backward_kernel(executor&, matrix_view<T> dL_dphi, const_matrix<T> phi, const_matrix<T> omega,
                                     matrix_view<T> dL_dx) {
    const index R = omega.width();
    for (index n = 0; n < phi.rows(); ++n) {
        for (index r = 0; r < R; ++r)
            dL_dphi(n, r) = phi(n, r) * dL_dphi(n, R + r) - phi(n, R + r) * dL_dphi(n, r);  // dL_dp
        for (index i = 0; i < dL_dx.width(); ++i) {
            double sum = 0;
            for (index r = 0; r < R; ++r) sum += double(dL_dphi(n, r)) * omega(i, r);
            dL_dx(n, i) += static_cast<T>(sum / std::sqrt(static_cast<double>(R)));
        }
    }
}

}  // namespace spectral::reference
