// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/norm.hpp: layer norm, root-mean-square norm, one visit to memory per row
//
// A row is read once from memory and then stays in the first-level cache: its sums, the variance around the mean (not
// E s² − mean², which cancels) and the output are separate short loops over it. γ and β gradients: column_sums.
#pragma once
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/ops/norm.hpp>

#include <cmath>

namespace spectral::cpu {

namespace detail {

template <class T>
void normalize_row(const T* s, index C, const T* gamma, const T* beta, double eps, T* y, T& mean, T& rstd) {
    const T m = row_sum<T>(C, [=](index c) { return s[c]; }) / static_cast<T>(C);
    const T variance = row_sum<T>(C, [=](index c) { return (s[c] - m) * (s[c] - m); }) / static_cast<T>(C);
    const T r = 1 / std::sqrt(variance + static_cast<T>(eps));
#pragma omp simd
    for (index c = 0; c < C; ++c) y[c] = (s[c] - m) * r * gamma[c] + beta[c];
    mean = m;
    rstd = r;
}

}  // namespace detail

template <class T>
void layer_norm_forward_kernel(executor& ex, const_matrix<T> s, const_vector<T> gamma, const_vector<T> beta, double eps,
                               matrix_view<T> y, out_vector<statistic<T>> mean, out_vector<statistic<T>> rstd) {
    const index C = s.width();
    detail::for_each_row(ex, s.rows(), C, [&](index n) {
        detail::normalize_row<T>(s.row(n), C, gamma.data, beta.data, eps, y.row(n), mean[n], rstd[n]);
    });
}

template <class T>
void layer_norm_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> s, const_vector<T> gamma,
                                const_vector<statistic<T>> mean, const_vector<statistic<T>> rstd, matrix_view<T> dL_ds,
                                out_vector<statistic<T>> dL_dgamma, out_vector<statistic<T>> dL_dbeta, write mode,
                                bias_gradient<T> bias) {
    const index C = s.width();
    arena_scope scratch(ex);
    const auto backward = [&](auto asked) {  // for the bias's gradient: a third sum, which costs time
        const auto sums =
            detail::column_sums<T>(ex, s.rows(), asked ? 3 * C : 2 * C, [&](index first, index last, T* part) {
                T *sum_gamma = part, *sum_beta = part + C, *sum = part + 2 * C;
                const T* scale = gamma.data;
                for (index n = first; n < last; ++n) {
                    const T *dy = dL_dy.row(n), *in = s.row(n);
                    T* out = dL_ds.row(n);
                    const T m = mean[n], r = rstd[n];
                    const T mean_g =
                        detail::row_sum<T>(C, [=](index c) { return dy[c] * scale[c]; }) / static_cast<T>(C);
                    const T mean_gs =
                        detail::row_sum<T>(C, [=](index c) { return dy[c] * scale[c] * ((in[c] - m) * r); }) /
                        static_cast<T>(C);
                    const T keep = mode == write::accumulate ? T(1) : T(0);
#pragma omp simd
                    for (index c = 0; c < C; ++c) {
                        const T hat = (in[c] - m) * r, g = dy[c];
                        sum_gamma[c] += g * hat;
                        sum_beta[c] += g;
                        const T value = r * (g * scale[c] - mean_g - hat * mean_gs);
                        if constexpr (asked) sum[c] += value;
                        out[c] = keep != 0 ? out[c] + value : value;
                    }
                }
            });
        for (index c = 0; c < C; ++c) {
            dL_dgamma[c] += sums[c];
            dL_dbeta[c] += sums[C + c];
            if constexpr (asked) bias.put(c, sums[2 * C + c]);
        }
    };
    if (bias.sums.data)
        backward(std::true_type{});
    else
        backward(std::false_type{});
}

template <class T>
void add_layer_norm_forward_kernel(executor& ex, const_matrix<T> x, const_matrix<T> r, const_vector<T> gamma,
                                   const_vector<T> beta, double eps, matrix_view<T> s, matrix_view<T> y,
                                   out_vector<statistic<T>> mean, out_vector<statistic<T>> rstd) {
    const index C = x.width();
    detail::for_each_row(ex, x.rows(), C, [&](index n) {
        const T *a = x.row(n), *b = r.row(n);
        T* sum = s.row(n);
#pragma omp simd
        for (index c = 0; c < C; ++c) sum[c] = a[c] + b[c];
        detail::normalize_row<T>(sum, C, gamma.data, beta.data, eps, y.row(n), mean[n], rstd[n]);
    });
}

template <class T>
void rms_norm_forward_kernel(executor& ex, const_matrix<T> s, const_vector<T> gamma, double eps, matrix_view<T> y,
                             out_vector<statistic<T>> rstd) {
    const index C = s.width();
    detail::for_each_row(ex, s.rows(), C, [&](index n) {
        const T *in = s.row(n), *scale = gamma.data;
        T* out = y.row(n);
        const T square = detail::row_sum<T>(C, [=](index c) { return in[c] * in[c]; });
        const T r = 1 / std::sqrt(square / static_cast<T>(C) + static_cast<T>(eps));
#pragma omp simd
        for (index c = 0; c < C; ++c) out[c] = in[c] * r * scale[c];
        rstd[n] = r;
    });
}

template <class T>
void rms_norm_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> s, const_vector<T> gamma,
                              const_vector<statistic<T>> rstd, matrix_view<T> dL_ds, out_vector<statistic<T>> dL_dgamma,
                              const_matrix<T> addend) {
    const index C = s.width();
    arena_scope scratch(ex);
    const auto sums = detail::column_sums<T>(ex, s.rows(), C, [&](index first, index last, T* sum_gamma) {
        const T* scale = gamma.data;
        for (index n = first; n < last; ++n) {
            const T *dy = dL_dy.row(n), *in = s.row(n);
            const T* more = addend.data ? addend.row(n) : nullptr;
            T* out = dL_ds.row(n);
            const T r = rstd[n];
            const T mean_gs =
                detail::row_sum<T>(C, [=](index c) { return dy[c] * scale[c] * (in[c] * r); }) / static_cast<T>(C);
#pragma omp simd
            for (index c = 0; c < C; ++c) {
                const T hat = in[c] * r, g = dy[c];
                sum_gamma[c] += g * hat;
                const T value = r * (g * scale[c] - hat * mean_gs);
                out[c] = more ? more[c] + value : value;
            }
        }
    });
    if (dL_dgamma.data)
        for (index c = 0; c < C; ++c) dL_dgamma[c] += sums[c];
}

}  // namespace spectral::cpu
