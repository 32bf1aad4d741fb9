// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/row_scale.hpp: rows times one number each, and the dot products that are its
// gradient
#pragma once
#include <spectral/ops/row_scale.hpp>
#include <spectral/reference/executor.hpp>

namespace spectral::reference {

template <class T>
void scale_rows_kernel(executor&, const_matrix<T> x, const_matrix<statistic<T>> c, matrix_view<T> y, write mode) {
    for (index n = 0; n < x.rows(); ++n)
        for (index i = 0; i < x.width(); ++i)
            y(n, i) = (mode == write::accumulate ? y(n, i) : T(0)) + c(n, 0) * x(n, i);
}

template <class T>
void row_dot_kernel(executor&, view<const T, 2> a, const_matrix<T> b, matrix_view<statistic<T>> d) {
    for (index n = 0; n < a.rows(); ++n) {
        double sum = 0;
        for (index i = 0; i < a.width(); ++i) sum += double(a(n, i)) * b(n, i);
        d(n, 0) = static_cast<T>(sum);
    }
}

}  // namespace spectral::reference
