// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/linear.hpp: y = scale · x Wᵀ + b + addend
#pragma once
#include <spectral/cuda/detail/gemm.hpp>
#include <spectral/cuda/elementwise.hpp>
#include <spectral/cuda/partition.hpp>
#include <spectral/ops/linear.hpp>

namespace spectral::cuda {

namespace detail {

// Rows to a block of logits: equal blocks of at most 1 GB. Each block adds to the whole gradient of the head, so few
// are better.
inline index rows_of_logits(index rows, index row_bytes) {
    const index most = std::clamp<index>((index{1} << 30) / row_bytes, 64, std::max<index>(rows, 64));
    return std::max<index>(1, divide_up(rows, std::max<index>(1, divide_up(rows, most))));
}

// f(first, count) for the rows of a head that cuBLASLt multiplies fast, a multiple of 8, and for what is left: with all
// 50257 in one product the head takes three times as long (bench/results/cuda/vocabulary_h100.jsonl).
template <class F>
void for_head_parts(index rows, F&& f) {
    const index whole = rows < 64 ? rows : rows / 8 * 8;
    f(index{0}, whole);
    if (whole < rows) f(whole, rows - whole);
}

// y (=, +=) scale · x Wᵀ + b where y's rows are not aligned, as of 50257 logits: into rows that are, a block of them at
// a time
template <class T>
void linear_by_aligned_rows(executor& ex, const_matrix<T> x, const_matrix<T> w, const_vector<T> b, matrix_view<T> y,
                            bool accumulate, double scale) {
    const index N = y.rows(), O = y.width(), stride = divide_up(O, 16) * 16,
                block = rows_of_logits(N, stride * static_cast<index>(sizeof(T)));
    arena_scope scratch(ex);
    const auto memory = ex.memory().template matrix<T>(block, stride).columns(0, O);
    for (index first = 0; first < N; first += block) {
        const auto out = memory.slice(0, std::min(block, N - first));
        for_head_parts(O, [&](index o, index part) {
            gemm<T>(ex, "linear_forward", {x.slice(first, out.rows())}, {w.slice(o, part), true}, scale, {},
                    out.columns(o, part), b.data ? b.data + o : nullptr);
        });
        move<T>(ex, "linear_forward", out.rows(), out, nullptr, y.slice(first, out.rows()), nullptr, accumulate);
    }
}

}  // namespace detail

// addend is read by the product itself. The bias is cuBLASLt's epilogue in float and bfloat16; in double, where it has
// none, a pass of its own.
template <class T>
void linear_forward_kernel(executor& ex, const_matrix<T> x, const_matrix<T> w, const_vector<T> b, matrix_view<T> y,
                           const_matrix<T> addend, double scale) {
    if (y.empty()) return;
    const bool by_aligned_rows =
        std::is_same_v<T, bfloat16> && y.row_stride % 8 != 0 && y.width() > 1024 && y.rows() > 1;
    if (addend.data && addend.data != y.data && (by_aligned_rows || addend.row_stride != y.row_stride)) {
        copy_kernel<T>(ex, addend, y);
        addend = y;
    }
    if (by_aligned_rows) return detail::linear_by_aligned_rows<T>(ex, x, w, b, y, addend.data, scale);
    constexpr bool epilogue = !std::is_same_v<T, double>;
    detail::gemm<T>(ex, "linear_forward", {x}, {w, true}, scale, addend, y, epilogue ? b.data : nullptr);
    if (epilogue || !b.data) return;
    const auto out = detail::rows_in(y);
    const T* bias = b.data;
    detail::for_each_element(ex, "linear_forward", y.rows(), y.width(), [=] __device__(index n, index o) {
        out(n)[o] = detail::narrow<T>(detail::widen(out(n)[o]) + detail::widen(bias[o]));
    });
}

template <class T>
void linear_backward_input_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> w, matrix_view<T> dL_dx,
                                  write mode, double scale) {
    detail::gemm<T>(ex, "linear_backward_input", {dL_dy}, {w}, scale, detail::added_to(mode, dL_dx), dL_dx);
}

// Where the operator that makes dL_dy has not summed it, the bias's gradient is a pass of its own, before the product,
// while dL_dy may still be in the cache; by options().fused_bias_gradient, and where nothing is added to, cuBLASLt's
// epilogue, whose products lose what the pass costs, or nearly (docs/08-why.md).
template <class T>
void linear_backward_weight_kernel(executor& ex, view<const T, 2> dL_dy, const_matrix<T> x,
                                   matrix_view<statistic<T>> dL_dw, out_vector<statistic<T>> dL_db, write mode) {
    using A = detail::compute<T>;
    const bool adds = mode == write::accumulate;
    if (x.rows() == 0) {
        if (adds) return;
        detail::fill<A>(ex, "linear_backward_weight", dL_dw, A(0));
        if (dL_db.data)
            detail::fill<A>(ex, "linear_backward_weight", matrix_view<A>(dL_db.data, {1, dL_db.size()}), A(0));
        return;
    }
    const bool epilogue = std::is_same_v<T, bfloat16> && ex.options().fused_bias_gradient && !adds;
    const bias_gradient<T> bias{dL_db, mode};
    if (dL_db.data && !epilogue) detail::put_column_sums<T>(ex, "linear_backward_weight", dL_dy, bias);
    const bool summed =
        detail::gemm<T, A>(ex, "linear_backward_weight", {dL_dy, true}, {x}, 1, detail::added_to(mode, dL_dw), dL_dw,
                           nullptr, epilogue ? dL_db.data : nullptr);
    if (dL_db.data && epilogue && !summed) detail::put_column_sums<T>(ex, "linear_backward_weight", dL_dy, bias);
}

// ---- a weight kept as bfloat16 while the model computes in another type: widened a part at a time -------------------

namespace detail {

// to = w: a function of its own, since nvcc takes no __device__ lambda in one that is given another function's lambda
template <class T>
void widen_rows(executor& ex, const char* what, view<const bfloat16, 2> w, matrix_view<T> out) {
    const auto from = rows_in(w);
    const auto to = rows_in(out);
    for_each_element(ex, what, w.rows(), w.width(),
                     [=] __device__(index n, index c) { to(n)[c] = static_cast<T>(widen(from(n)[c])); });
}

// f(first, count, rows [first, first + count) of w in T): at most 64 MB of them exist at a time
template <class T, class F>
void for_widened_rows(executor& ex, const char* what, view<const bfloat16, 2> w, F&& f) {
    if (w.empty()) return;
    const index most = std::clamp<index>((index{64} << 20) / (w.width() * static_cast<index>(sizeof(T))), 1, w.rows());
    arena_scope scratch(ex);
    const auto memory = ex.memory().template matrix<T>(most, w.width());
    for (index first = 0; first < w.rows(); first += most) {
        const index count = std::min(most, w.rows() - first);
        widen_rows<T>(ex, what, w.slice(first, count), memory.slice(0, count));
        f(first, count, view<const T, 2>(memory.slice(0, count)));
    }
}

}  // namespace detail

template <class T>
    requires(!std::is_same_v<T, bfloat16>)
void linear_forward_kernel(executor& ex, const_matrix<T> x, view<const bfloat16, 2> w, const_vector<T> b,
                           matrix_view<T> y, const_matrix<T> addend, double scale) {
    if (w.width() == 0) return linear_forward_kernel<T>(ex, x, view<const T, 2>(nullptr, w.shape), b, y, addend, scale);
    detail::for_widened_rows<T>(ex, "linear_forward", w, [&](index first, index count, view<const T, 2> rows) {
        linear_forward_kernel<T>(ex, x, rows, b.data ? b.slice(first, count) : b, y.columns(first, count),
                                 addend.data ? addend.columns(first, count) : addend, scale);
    });
}

template <class T>
    requires(!std::is_same_v<T, bfloat16>)
void linear_backward_input_kernel(executor& ex, const_matrix<T> dL_dy, view<const bfloat16, 2> w, matrix_view<T> dL_dx,
                                  write mode, double scale) {
    if (w.rows() == 0)
        return linear_backward_input_kernel<T>(ex, dL_dy, view<const T, 2>(nullptr, w.shape), dL_dx, mode, scale);
    detail::for_widened_rows<T>(ex, "linear_backward_input", w, [&](index first, index count, view<const T, 2> rows) {
        linear_backward_input_kernel<T>(ex, dL_dy.columns(first, count), rows, dL_dx,
                                        first == 0 ? mode : write::accumulate, scale);
    });
}

}  // namespace spectral::cuda
