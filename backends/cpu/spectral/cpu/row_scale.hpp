// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/row_scale.hpp: rows times one number each, and the dot products that are its gradient
#pragma once
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/ops/row_scale.hpp>

namespace spectral::cpu {

template <class T>
void scale_rows_kernel(executor& ex, const_matrix<T> x, const_matrix<statistic<T>> c, matrix_view<T> y, write mode) {
    detail::for_each_row(ex, x.rows(), x.width(), [&](index n) {
        const T factor = c(n, 0), *in = x.row(n);
        T* out = y.row(n);
        if (mode == write::overwrite) {
#pragma omp simd
            for (index i = 0; i < x.width(); ++i) out[i] = factor * in[i];
        } else {
#pragma omp simd
            for (index i = 0; i < x.width(); ++i) out[i] += factor * in[i];
        }
    });
}

template <class T>
void row_dot_kernel(executor& ex, view<const T, 2> a, const_matrix<T> b, matrix_view<statistic<T>> d) {
    detail::for_each_row(ex, a.rows(), a.width(), [&](index n) {
        const T *left = a.row(n), *right = b.row(n);
        d(n, 0) = detail::row_sum<T>(a.width(), [=](index i) { return left[i] * right[i]; });
    });
}

}  // namespace spectral::cpu
