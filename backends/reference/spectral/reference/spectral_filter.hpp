// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/spectral_filter.hpp: filter in the DCT domain, alone and with residual and norm
#pragma once
#include <spectral/ops/spectral_filter.hpp>
#include <spectral/reference/dct.hpp>
#include <spectral/reference/norm.hpp>
#include <spectral/reference/partition.hpp>

namespace spectral::reference {

template <class T>
void spectral_filter_forward_kernel(executor& ex, const_matrix<T> x, const_vector<T> w, double gain, matrix_view<T> y) {
    dct_kernel<T>(ex, x, {1, 1}, y);
    for (index n = 0; n < x.rows(); ++n)
        for (index k = 0; k < x.width(); ++k) y(n, k) = static_cast<T>(gain * w[k] * y(n, k));
    idct_kernel<T>(ex, y, {1, 1}, y);
}

template <class T>
void spectral_filter_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> x, const_vector<T> w,
                                     double gain, matrix_view<T> dL_dx, out_vector<statistic<T>> dL_dw) {
    arena_scope scratch(ex);
    auto spectrum = ex.memory().template matrix<T>(x.rows(), x.width());  // C x
    auto dL_dspectrum = ex.memory().template matrix<T>(x.rows(), x.width());  // C dL_dy
    dct_kernel<T>(ex, x, {1, 1}, spectrum);
    dct_kernel<T>(ex, dL_dy, {1, 1}, dL_dspectrum);
    for (index k = 0; k < x.width(); ++k) {
        double sum = 0;
        for (index n = 0; n < x.rows(); ++n) sum += double(dL_dspectrum(n, k)) * spectrum(n, k);
        dL_dw[k] += static_cast<T>(gain * sum);
    }
    for (index n = 0; n < x.rows(); ++n)
        for (index k = 0; k < x.width(); ++k) dL_dspectrum(n, k) = static_cast<T>(gain * w[k] * dL_dspectrum(n, k));
    idct_kernel<T>(ex, dL_dspectrum, {1, 1}, dL_dspectrum);
    for (index n = 0; n < x.rows(); ++n)
        for (index c = 0; c < x.width(); ++c) dL_dx(n, c) += dL_dspectrum(n, c);
}

// s = x + filter(x) on the selected rows, packed
template <class T>
void spectral_residual(executor& ex, const_matrix<T> packed, const_vector<T> w, double gain, matrix_view<T> s) {
    spectral_filter_forward_kernel<T>(ex, packed, w, gain, s);
    for (index i = 0; i < s.rows(); ++i)
        for (index c = 0; c < s.width(); ++c) s(i, c) += packed(i, c);
}

template <class T>
void spectral_mix_forward_kernel(executor& ex, const_matrix<T> x, const selection& rows, const_vector<T> w, double gain,
                                 const_vector<T> gamma, const_vector<T> beta, double eps, matrix_view<T> y,
                                 norm_statistics<T> stats) {
    arena_scope scratch(ex);
    const index n = selected_rows(ex, rows);
    auto packed = ex.memory().template matrix<T>(n, x.width()), s = ex.memory().template matrix<T>(n, x.width());
    gather_rows_kernel<T>(ex, x, rows, packed);
    spectral_residual<T>(ex, packed, w, gain, s);
    auto mean = ex.memory().template vector<statistic<T>>(n), rstd = ex.memory().template vector<statistic<T>>(n);
    layer_norm_forward_kernel<T>(ex, s, gamma, beta, eps, packed, mean, rstd);
    scatter_rows_kernel<T>(ex, packed, rows, y, write::overwrite);
    for (index i = 0; i < n; ++i) {
        stats.mean[row_of(rows, i)] = mean[i];
        stats.rstd[row_of(rows, i)] = rstd[i];
    }
}

template <class T>
void spectral_mix_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> x, const selection& rows,
                                  const_vector<T> w, double gain, const_vector<T> gamma, norm_statistics<T> stats,
                                  matrix_view<T> dL_dx, out_vector<statistic<T>> dL_dw,
                                  out_vector<statistic<T>> dL_dgamma, out_vector<statistic<T>> dL_dbeta) {
    arena_scope scratch(ex);
    const index n = selected_rows(ex, rows), C = x.width();
    auto packed = ex.memory().template matrix<T>(n, C), s = ex.memory().template matrix<T>(n, C);
    auto dy = ex.memory().template matrix<T>(n, C), ds = ex.memory().template matrix<T>(n, C),
         dx = ex.memory().template matrix<T>(n, C);
    gather_rows_kernel<T>(ex, x, rows, packed);
    gather_rows_kernel<T>(ex, dL_dy, rows, dy);
    spectral_residual<T>(ex, packed, w, gain, s);
    auto mean = ex.memory().template vector<statistic<T>>(n), rstd = ex.memory().template vector<statistic<T>>(n);
    for (index i = 0; i < n; ++i) {
        mean[i] = stats.mean[row_of(rows, i)];
        rstd[i] = stats.rstd[row_of(rows, i)];
    }
    layer_norm_backward_kernel<T>(ex, dy, s, gamma, mean, rstd, ds, dL_dgamma, dL_dbeta, write::overwrite, {});
    for (index i = 0; i < n; ++i)
        for (index c = 0; c < C; ++c) dx(i, c) = ds(i, c);
    spectral_filter_backward_kernel<T>(ex, ds, packed, w, gain, dx, dL_dw);
    scatter_rows_kernel<T>(ex, dx, rows, dL_dx, write::accumulate);
}

}  // namespace spectral::reference
