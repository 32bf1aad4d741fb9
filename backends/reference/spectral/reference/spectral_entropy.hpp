// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/spectral_entropy.hpp: normalised entropy of a row's power spectrum
#pragma once
#include <spectral/ops/spectral_entropy.hpp>
#include <spectral/reference/dct.hpp>

#include <cmath>

namespace spectral::reference {

template <class T>
void spectral_entropy_forward_kernel(executor& ex, view<const T, 2> x, dct_scale scale,
                                     vector_view<statistic<T>> entropy) {
    arena_scope scratch(ex);
    auto X = ex.memory().template matrix<double>(x.rows(), x.width()),
         wide = ex.memory().template matrix<double>(x.rows(), x.width());
    for (index n = 0; n < x.rows(); ++n)
        for (index c = 0; c < x.width(); ++c) wide(n, c) = x(n, c);
    dct_kernel<double>(ex, wide, scale, X);
    for (index n = 0; n < x.rows(); ++n) {
        double power = entropy_epsilon, sum = 0;
        for (index k = 0; k < x.width(); ++k) power += X(n, k) * X(n, k);
        for (index k = 0; k < x.width(); ++k) {
            const double p = X(n, k) * X(n, k) / power;
            sum -= p * std::log(p + entropy_epsilon);
        }
        entropy[n] = static_cast<T>(sum / (std::log(static_cast<double>(x.width())) + entropy_epsilon));
    }
}

template <class T>
void spectral_entropy_backward_kernel(executor& ex, const_vector<statistic<T>> dL_dentropy, const_matrix<T> x,
                                      dct_scale scale, matrix_view<T> dL_dx) {
    arena_scope scratch(ex);
    auto X = ex.memory().template matrix<double>(x.rows(), x.width()),
         wide = ex.memory().template matrix<double>(x.rows(), x.width());
    for (index n = 0; n < x.rows(); ++n)
        for (index c = 0; c < x.width(); ++c) wide(n, c) = x(n, c);
    dct_kernel<double>(ex, wide, scale, X);
    const double norm = std::log(static_cast<double>(x.width())) + entropy_epsilon;
    for (index n = 0; n < x.rows(); ++n) {
        double power = entropy_epsilon, weighted = 0;
        for (index k = 0; k < x.width(); ++k) power += X(n, k) * X(n, k);
        const auto slope = [&](double p) {
            return -(std::log(p + entropy_epsilon) + p / (p + entropy_epsilon)) / norm;
        };
        for (index k = 0; k < x.width(); ++k) {
            const double p = X(n, k) * X(n, k) / power;
            weighted += slope(p) * p;
        }
        for (index k = 0; k < x.width(); ++k) {
            const double p = X(n, k) * X(n, k) / power;
            wide(n, k) = dL_dentropy[n] * 2 * X(n, k) / power * (slope(p) - weighted);
        }
    }
    idct_kernel<double>(ex, wide, scale, X);
    for (index n = 0; n < x.rows(); ++n)
        for (index c = 0; c < x.width(); ++c) dL_dx(n, c) += static_cast<T>(X(n, c));
}

}  // namespace spectral::reference
