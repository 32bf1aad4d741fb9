// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/row_scale.hpp: y = c[n] x[n] (or y += …), and the gradient of c: d[n] = a[n]·b[n]
// Shapes: x, y, a, b (N, C); c, d (N).
// Throws error for other shapes.
#pragma once
#include <spectral/ops/embedding.hpp>

namespace spectral {

// c is a column of a (N, K) matrix: element n at c.row(n)
template <executor Exec, class T>
void scale_rows(Exec& ex, const_matrix<T> x, const_matrix<statistic<T>> c, matrix_view<T> y,
                write mode = write::overwrite) {
    check_shape(c, {x.rows(), 1}, "scale_rows", "c");
    check_shape(y, {x.rows(), x.width()}, "scale_rows", "y");
    SPECTRAL_CALL_KERNEL(scale_rows_kernel, ex, x, c, y, mode);
}

template <executor Exec, class T>
void row_dot(Exec& ex, deduced_matrix<T> a, const_matrix<T> b, matrix_view<statistic<T>> d) {
    check_shape(b, {a.rows(), a.width()}, "row_dot", "b");
    check_shape(d, {a.rows(), 1}, "row_dot", "d");
    SPECTRAL_CALL_KERNEL(row_dot_kernel, ex, view<const T, 2>(a), b, d);
}

}  // namespace spectral
