// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/elementwise.hpp: sums and copies of equal shapes
//   add: y += a x;   copy: y = x;   add_constant: y += a;   permute_columns: features in another order
// Shapes: x, y (N, C); order (C).
// Throws error for other shapes.
#pragma once
#include <spectral/core/executor.hpp>

namespace spectral {

template <executor Exec, class T>
void add(Exec& ex, const_matrix<T> x, matrix_view<T> y, double a = 1) {
    check_shape(x, {y.rows(), y.width()}, "add", "x");
    SPECTRAL_CALL_KERNEL(add_kernel, ex, x, a, y);
}

template <executor Exec, class T>
void copy(Exec& ex, const_matrix<T> x, matrix_view<T> y) {
    check_shape(x, {y.rows(), y.width()}, "copy", "x");
    SPECTRAL_CALL_KERNEL(copy_kernel, ex, x, y);
}

// y += a, on every element
template <executor Exec, class T>
void add_constant(Exec& ex, matrix_view<T> y, double a) {
    SPECTRAL_CALL_KERNEL(add_constant_kernel, ex, a, y);
}

// y[n, c] = x[n, order[c]]: features in another order (the `permuted` control)
template <executor Exec, class T>
void permute_columns(Exec& ex, const_matrix<T> x, const_vector<row_index> order, matrix_view<T> y) {
    check_shape(order, {x.width()}, "permute_columns", "order");
    check_shape(y, {x.rows(), x.width()}, "permute_columns", "y");
    SPECTRAL_CALL_KERNEL(permute_columns_kernel, ex, x, order, y);
}

}  // namespace spectral
