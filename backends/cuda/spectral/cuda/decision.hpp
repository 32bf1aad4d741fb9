// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/decision.hpp: which operator a row goes to: one small number a row
#pragma once
#include <spectral/cuda/detail/launch.hpp>
#include <spectral/ops/decision.hpp>

namespace spectral::cuda {

template <class T>
void argmax_rows_kernel(executor& ex, matrix_view<T> s, vector_view<row_index> op) {
    const auto share = detail::rows_in(s);
    const index K = s.width();
    row_index* out = op.data;
    detail::for_each(ex, "argmax_rows", s.rows(), [=] __device__(index n) {
        index best = 0;
        for (index o = 1; o < K; ++o)
            if (detail::widen(share(n)[o]) > detail::widen(share(n)[best])) best = o;
        out[n] = static_cast<row_index>(best);
    });
}

template <class T>
void pick_columns_forward_kernel(executor& ex, const_matrix<T> s, const_vector<row_index> op, matrix_view<T> picked) {
    const auto share = detail::rows_in(s);
    const auto out = detail::rows_in(picked);
    const row_index* chosen = op.data;
    detail::for_each(ex, "pick_columns_forward", s.rows(),
                     [=] __device__(index n) { out(n)[0] = share(n)[chosen[n]]; });
}

template <class T>
void pick_columns_backward_kernel(executor& ex, const_matrix<T> dL_dpicked, const_vector<row_index> op,
                                  matrix_view<T> dL_ds) {
    const auto in = detail::rows_in(dL_dpicked);
    const auto out = detail::rows_in(dL_ds);
    const row_index* chosen = op.data;
    detail::for_each_element(
        ex, "pick_columns_backward", dL_ds.rows(), dL_ds.width(),
        [=] __device__(index n, index o) { out(n)[o] = o == chosen[n] ? in(n)[0] : detail::narrow<T>(0); });
}

template <class T>
void one_hot_rows_kernel(executor& ex, const_vector<row_index> op, matrix_view<T> y) {
    const auto out = detail::rows_in(y);
    const row_index* chosen = op.data;
    detail::for_each_element(ex, "one_hot_rows", y.rows(), y.width(), [=] __device__(index n, index o) {
        out(n)[o] = detail::narrow<T>(o == chosen[n] ? 1 : 0);
    });
}

inline void random_rows_kernel(executor& ex, const_vector<row_index> position, random_stream draw, double share,
                               vector_view<row_index> op) {
    const std::uint32_t threshold = probability_threshold(share);
    const bool always = share >= 1;
    const row_index* at = position.data;
    row_index* out = op.data;
    detail::for_each(ex, "random_rows", op.size(), [=] __device__(index n) {
        out[n] = always || draw.bits(static_cast<std::uint64_t>(at[n])) < threshold;
    });
}

template <class T>
void threshold_rows_kernel(executor& ex, vector_view<T> value, std::span<const double> ascending,
                           vector_view<row_index> op) {
    double limits[3] = {};
    std::copy(ascending.begin(), ascending.end(), limits);
    const double first = limits[0], second = limits[1], third = limits[2];
    const int count = static_cast<int>(ascending.size());
    const T* in = value.data;
    row_index* out = op.data;
    detail::for_each(ex, "threshold_rows", value.size(), [=] __device__(index n) {
        const double v = detail::widen(in[n]);
        out[n] = (v > first) + (count > 1 && v > second) + (count > 2 && v > third);
    });
}

}  // namespace spectral::cuda
