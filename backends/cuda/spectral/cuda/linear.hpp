// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/linear.hpp: y = x Wᵀ + b
#pragma once
#include <spectral/cuda/detail/gemm.hpp>
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/ops/linear.hpp>

namespace spectral::cuda {

// The bias is cuBLASLt's epilogue in float and bfloat16; in double, where it has none, a pass of its own.
template <class T>
void linear_forward_kernel(executor& ex, const_matrix<T> x, const_matrix<T> w, const_vector<T> b, matrix_view<T> y, write mode) {
    if (y.empty()) return;
    constexpr bool epilogue = !std::is_same_v<T, double>;
    detail::gemm<T>(ex, "linear_forward", {x}, {w, true}, 1, mode == write::accumulate ? 1 : 0, y, epilogue ? b.data : nullptr);
    if (epilogue || !b.data) return;
    const auto out = detail::rows_in(y);
    const T* bias = b.data;
    detail::for_each_element(ex, "linear_forward", y.rows(), y.width(), [=] __device__(index n, index o) {
        out(n)[o] = detail::narrow<T>(detail::widen(out(n)[o]) + detail::widen(bias[o]));
    });
}

template <class T>
void linear_backward_input_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> w, matrix_view<T> dL_dx, write mode) {
    detail::gemm<T>(ex, "linear_backward_input", {dL_dy}, {w}, 1, mode == write::accumulate ? 1 : 0, dL_dx);
}

template <class T>
void linear_backward_weight_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> x, matrix_view<T> dL_dw, out_vector<T> dL_db) {
    using A = detail::compute<T>;
    if (x.rows() == 0) return;
    detail::gemm<T>(ex, "linear_backward_weight", {dL_dy, true}, {x}, 1, 1, dL_dw);
    if (!dL_db.data) return;
    const auto dy = detail::rows_in(dL_dy);
    T* db = dL_db.data;
    detail::column_sums<1, A>(
        ex, "linear_backward_weight", dL_dy.rows(), dL_dy.width(),
        [=] __device__(index n, index o, A(&sum)[1]) { sum[0] += detail::widen(dy(n)[o]); },
        [=] __device__(index o, const A(&total)[1]) { db[o] = detail::narrow<T>(detail::widen(db[o]) + total[0]); });
}

}  // namespace spectral::cuda
