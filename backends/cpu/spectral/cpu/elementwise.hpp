// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/elementwise.hpp: sums, copies and permuted columns, at the speed of memory
#pragma once
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/ops/elementwise.hpp>

namespace spectral::cpu {

template <class T>
void add_kernel(executor& ex, const_matrix<T> x, double a, matrix_view<T> y) {
    const T scale = static_cast<T>(a);
    detail::for_each_row(ex, y.rows(), y.width(), [&](index n) {
        const T* from = x.row(n);
        T* to = y.row(n);
#pragma omp simd
        for (index c = 0; c < y.width(); ++c) to[c] += scale * from[c];
    });
}

template <class T>
void copy_kernel(executor& ex, const_matrix<T> x, matrix_view<T> y) {
    detail::for_each_row(ex, y.rows(), y.width(), [&](index n) {
        if (x.row(n) != y.row(n)) std::copy_n(x.row(n), y.width(), y.row(n));
    });
}

template <class T>
void add_constant_kernel(executor& ex, double a, matrix_view<T> y) {
    const T constant = static_cast<T>(a);
    detail::for_each_row(ex, y.rows(), y.width(), [&](index n) {
        T* to = y.row(n);
#pragma omp simd
        for (index c = 0; c < y.width(); ++c) to[c] += constant;
    });
}

template <class T>
void permute_columns_kernel(executor& ex, const_matrix<T> x, const_vector<row_index> order, matrix_view<T> y) {
    detail::for_each_row(ex, y.rows(), y.width(), [&](index n) {
        const T* from = x.row(n);
        T* to = y.row(n);
        for (index c = 0; c < y.width(); ++c) to[c] = from[order[c]];
    });
}

}  // namespace spectral::cpu
