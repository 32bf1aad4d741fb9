// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/elementwise.hpp: sums, copies, column order
#pragma once
#include <spectral/cuda/detail/launch.hpp>
#include <spectral/ops/elementwise.hpp>

namespace spectral::cuda {

template <class T>
void add_kernel(executor& ex, const_matrix<T> x, double a, matrix_view<T> y) {
    using A = detail::compute<T>;
    const A factor = static_cast<A>(a);
    detail::map_elements<T>(ex, "add", {x, y}, {y},
                            [=] __device__(const A* in, A* out) { out[0] = in[1] + factor * in[0]; });
}

template <class T>
void copy_kernel(executor& ex, const_matrix<T> x, matrix_view<T> y) {
    using A = detail::compute<T>;
    detail::map_elements<T>(ex, "copy", {x}, {y}, [=] __device__(const A* in, A* out) { out[0] = in[0]; });
}

template <class T>
void add_constant_kernel(executor& ex, double a, matrix_view<T> y) {
    using A = detail::compute<T>;
    const A constant = static_cast<A>(a);
    detail::map_elements<T>(ex, "add_constant", {y}, {y},
                            [=] __device__(const A* in, A* out) { out[0] = in[0] + constant; });
}

template <class T>
void permute_columns_kernel(executor& ex, const_matrix<T> x, const_vector<row_index> order, matrix_view<T> y) {
    const auto from = detail::rows_in(x);
    const auto to = detail::rows_in(y);
    const row_index* column = order.data;
    detail::for_each_element(ex, "permute_columns", x.rows(), x.width(),
                             [=] __device__(index n, index c) { to(n)[c] = from(n)[column[c]]; });
}

}  // namespace spectral::cuda
