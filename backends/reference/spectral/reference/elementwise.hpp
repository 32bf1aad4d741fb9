// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/elementwise.hpp: sums, copies, column order
#pragma once
#include <spectral/ops/elementwise.hpp>
#include <spectral/reference/executor.hpp>

namespace spectral::reference {

template <class T>
void add_kernel(executor&, const_matrix<T> x, double a, matrix_view<T> y) {
    for (index n = 0; n < x.rows(); ++n)
        for (index c = 0; c < x.width(); ++c) y(n, c) = static_cast<T>(y(n, c) + a * x(n, c));
}

template <class T>
void copy_kernel(executor&, const_matrix<T> x, matrix_view<T> y) {
    for (index n = 0; n < x.rows(); ++n)
        for (index c = 0; c < x.width(); ++c) y(n, c) = x(n, c);
}

template <class T>
void add_constant_kernel(executor&, double a, matrix_view<T> y) {
    for (index n = 0; n < y.rows(); ++n)
        for (index c = 0; c < y.width(); ++c) y(n, c) = static_cast<T>(y(n, c) + a);
}

template <class T>
void permute_columns_kernel(executor&, const_matrix<T> x, const_vector<row_index> order, matrix_view<T> y) {
    for (index n = 0; n < x.rows(); ++n)
        for (index c = 0; c < x.width(); ++c) y(n, c) = x(n, order[c]);
}

}  // namespace spectral::reference
