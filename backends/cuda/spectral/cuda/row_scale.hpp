// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/row_scale.hpp: rows times one number each, and the dot products that are its gradient
#pragma once
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/ops/row_scale.hpp>

namespace spectral::cuda {

template <class T>
void scale_rows_kernel(executor& ex, const_matrix<T> x, const_matrix<statistic<T>> c, matrix_view<T> y, write mode) {
    const auto in = detail::rows_in(x);
    const auto factor = detail::rows_in(c);
    const auto out = detail::rows_in(y);
    const bool accumulate = mode == write::accumulate;
    detail::for_each_element(ex, "scale_rows", x.rows(), x.width(), [=] __device__(index n, index i) {
        auto value = factor(n)[0] * detail::widen(in(n)[i]);
        if (accumulate) value += detail::widen(out(n)[i]);
        out(n)[i] = detail::narrow<T>(value);
    });
}

template <class T>
void row_dot_kernel(executor& ex, view<const T, 2> a, const_matrix<T> b, matrix_view<statistic<T>> d) {
    using A = detail::compute<T>;
    const auto left = detail::rows_in(a), right = detail::rows_in(b);
    const auto out = detail::rows_in(d);
    detail::row_sums<A>(
        ex, "row_dot", a.rows(), a.width(),
        [=] __device__(index n, index c) { return detail::widen(left(n)[c]) * detail::widen(right(n)[c]); },
        [=] __device__(index n, A sum) { out(n)[0] = sum; });
}

}  // namespace spectral::cuda
