// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/linear.hpp: affine map of every row, as matrix products
//
// The bias, and y where it is added to, are what the product starts from (detail/gemm.hpp), so adding them costs
// nothing; another addend is a pass of its own. A few rows, as in decoding, are dot products that read the weight once
// (detail/few_rows.hpp): packing it would cost more than multiplying. Weights kept as bfloat16 are widened in registers
// there, and while panels are packed otherwise.
#pragma once
#include <spectral/cpu/detail/few_rows.hpp>
#include <spectral/cpu/detail/gemm.hpp>
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/cpu/elementwise.hpp>
#include <spectral/ops/linear.hpp>

namespace spectral::cpu {

template <class T, class W>
void linear_forward_kernel(executor& ex, const_matrix<T> x, matrix_view<const W> w, const_vector<T> b, matrix_view<T> y,
                           const_matrix<T> addend, double scale) {
    const T by = static_cast<T>(scale);
    if (x.rows() <= detail::few_rows) return detail::few_rows_forward<T, W>(ex, x, w, b, y, addend, by);
    const bool adds = addend.data == y.data;
    detail::gemm<T>(ex, detail::transpose::no, detail::transpose::yes, by, x, w,
                    adds ? write::accumulate : write::overwrite, y, b);
    if (addend.data && !adds) add_kernel<T>(ex, addend, 1, y);
}

template <class T, class W>
void linear_backward_input_kernel(executor& ex, const_matrix<T> dL_dy, matrix_view<const W> w, matrix_view<T> dL_dx,
                                  write mode, double scale) {
    detail::gemm<T>(ex, detail::transpose::no, detail::transpose::no, static_cast<T>(scale), dL_dy, w, mode, dL_dx);
}

template <class T>
void linear_backward_weight_kernel(executor& ex, view<const T, 2> dL_dy, const_matrix<T> x,
                                   matrix_view<statistic<T>> dL_dw, out_vector<statistic<T>> dL_db, write mode) {
    detail::gemm<T>(ex, detail::transpose::yes, detail::transpose::no, T(1), dL_dy, x, mode, dL_dw);
    if (!dL_db.data) return;
    arena_scope scratch(ex);
    detail::put_column_sums<T>(ex, dL_dy.rows(), bias_gradient<T>{dL_db, mode}, [&](index n, T* sum) {
        const T* row = dL_dy.row(n);
#pragma omp simd
        for (index c = 0; c < dL_dy.width(); ++c) sum[c] += row[c];
    });
}

}  // namespace spectral::cpu
