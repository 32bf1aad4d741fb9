// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/norm.hpp: layer norm, root-mean-square norm
#pragma once
#include <spectral/ops/norm.hpp>
#include <spectral/reference/executor.hpp>

#include <cmath>
#include <vector>

namespace spectral::reference {

template <class T>
void layer_norm_forward_kernel(executor&, const_matrix<T> s, const_vector<T> gamma, const_vector<T> beta, double eps,
                               matrix_view<T> y, out_vector<statistic<T>> mean, out_vector<statistic<T>> rstd) {
    const index C = s.width();
    for (index n = 0; n < s.rows(); ++n) {
        double m = 0, variance = 0;
        for (index c = 0; c < C; ++c) m += s(n, c);
        m /= static_cast<double>(C);
        for (index c = 0; c < C; ++c) variance += (s(n, c) - m) * (s(n, c) - m);
        const double r = 1 / std::sqrt(variance / static_cast<double>(C) + eps);
        for (index c = 0; c < C; ++c) y(n, c) = static_cast<T>((s(n, c) - m) * r * gamma[c] + beta[c]);
        mean[n] = static_cast<T>(m);
        rstd[n] = static_cast<T>(r);
    }
}

template <class T>
void layer_norm_backward_kernel(executor&, const_matrix<T> dL_dy, const_matrix<T> s, const_vector<T> gamma,
                                const_vector<statistic<T>> mean, const_vector<statistic<T>> rstd, matrix_view<T> dL_ds,
                                out_vector<statistic<T>> dL_dgamma, out_vector<statistic<T>> dL_dbeta, write mode,
                                bias_gradient<T> bias) {
    const index C = s.width();
    std::vector<double> sum_gamma(static_cast<std::size_t>(C)), sum_beta = sum_gamma, sum = sum_gamma;
    for (index n = 0; n < s.rows(); ++n) {
        double mean_g = 0, mean_gs = 0;
        for (index c = 0; c < C; ++c) {
            const double g = double(dL_dy(n, c)) * gamma[c], hat = (double(s(n, c)) - mean[n]) * rstd[n];
            mean_g += g / static_cast<double>(C);
            mean_gs += g * hat / static_cast<double>(C);
        }
        for (index c = 0; c < C; ++c) {
            const double g = double(dL_dy(n, c)) * gamma[c], hat = (double(s(n, c)) - mean[n]) * rstd[n];
            sum_gamma[static_cast<std::size_t>(c)] += dL_dy(n, c) * hat;
            sum_beta[static_cast<std::size_t>(c)] += dL_dy(n, c);
            const double value = rstd[n] * (g - mean_g - hat * mean_gs);
            sum[static_cast<std::size_t>(c)] += value;
            dL_ds(n, c) = static_cast<T>(value + (mode == write::accumulate ? dL_ds(n, c) : T(0)));
        }
    }
    for (index c = 0; c < C; ++c) {
        dL_dgamma[c] += static_cast<T>(sum_gamma[static_cast<std::size_t>(c)]);
        dL_dbeta[c] += static_cast<T>(sum_beta[static_cast<std::size_t>(c)]);
        bias.put(c, static_cast<T>(sum[static_cast<std::size_t>(c)]));
    }
}

template <class T>
void add_layer_norm_forward_kernel(executor& ex, const_matrix<T> x, const_matrix<T> r, const_vector<T> gamma,
                                   const_vector<T> beta, double eps, matrix_view<T> s, matrix_view<T> y,
                                   out_vector<statistic<T>> mean, out_vector<statistic<T>> rstd) {
    for (index n = 0; n < x.rows(); ++n)
        for (index c = 0; c < x.width(); ++c) s(n, c) = x(n, c) + r(n, c);
    layer_norm_forward_kernel<T>(ex, s, gamma, beta, eps, y, mean, rstd);
}

template <class T>
void rms_norm_forward_kernel(executor&, const_matrix<T> s, const_vector<T> gamma, double eps, matrix_view<T> y,
                             out_vector<statistic<T>> rstd) {
    for (index n = 0; n < s.rows(); ++n) {
        double square = 0;
        for (index c = 0; c < s.width(); ++c) square += double(s(n, c)) * s(n, c);
        const double r = 1 / std::sqrt(square / static_cast<double>(s.width()) + eps);
        for (index c = 0; c < s.width(); ++c) y(n, c) = static_cast<T>(s(n, c) * r * gamma[c]);
        rstd[n] = static_cast<T>(r);
    }
}

template <class T>
void rms_norm_backward_kernel(executor&, const_matrix<T> dL_dy, const_matrix<T> s, const_vector<T> gamma,
                              const_vector<statistic<T>> rstd, matrix_view<T> dL_ds, out_vector<statistic<T>> dL_dgamma,
                              const_matrix<T> addend) {
    const index C = s.width();
    std::vector<double> sum_gamma(static_cast<std::size_t>(C));
    for (index n = 0; n < s.rows(); ++n) {
        double mean_gs = 0;
        for (index c = 0; c < C; ++c)
            mean_gs += double(dL_dy(n, c)) * gamma[c] * s(n, c) * rstd[n] / static_cast<double>(C);
        for (index c = 0; c < C; ++c) {
            const double g = double(dL_dy(n, c)) * gamma[c], hat = double(s(n, c)) * rstd[n];
            sum_gamma[static_cast<std::size_t>(c)] += dL_dy(n, c) * hat;
            dL_ds(n, c) = static_cast<T>(rstd[n] * (g - hat * mean_gs) + (addend.data ? addend(n, c) : T(0)));
        }
    }
    if (dL_dgamma.data)
        for (index c = 0; c < C; ++c) dL_dgamma[c] += static_cast<T>(sum_gamma[static_cast<std::size_t>(c)]);
}

}  // namespace spectral::reference
