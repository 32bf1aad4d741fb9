// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/attention.hpp: softmax attention of packed queries against packed keys, tile by tile
//
// bfloat16 whose rows are whole 16-byte packs runs on tensor cores (detail/attention_tensor.hpp), everything else in
// ordinary arithmetic (detail/attention_plain.hpp), few queries a sequence against many keys in
// detail/attention_decode.hpp. In all of them positions ascend, so a tile's last query's position ends its walk through
// the keys: time follows visible pairs, also for a routed subset of queries. Gradients are added up by one block each, or
// by several in a given order: the same bits in every run. How many rows a sequence has is known on the device alone:
// blocks find their sequence and tile there.
#pragma once
#include <spectral/cuda/detail/attention_decode.hpp>
#include <spectral/cuda/detail/attention_plain.hpp>
#include <spectral/cuda/detail/attention_tensor.hpp>
#include <spectral/cuda/rotary.hpp>

namespace spectral::cuda {

namespace detail {

// f(integral_constant<int, width>) with the narrowest of the compiled widths that holds D
template <int First, int... Others, class F>
void with_head_width(const char* what, index D, F&& f) {
    if (D <= First)
        f(std::integral_constant<int, First>{});
    else if constexpr (sizeof...(Others) > 0)
        with_head_width<Others...>(what, D, f);
    else
        fail(what, "head widths up to 256 are supported on cuda, found ", D);
}

// Whether attention of these runs on tensor cores.
template <class T, class... Views>
bool on_tensor_cores(const executor& ex, const attention_options& o, const Views&... views) {
    return std::is_same_v<T, bfloat16> && ex.architecture() >= 80 && o.scale > 0 && takes_packs(views...);
}

}  // namespace detail

template <class T>
void attention_forward_kernel(executor& ex, const_matrix<T> q, const_matrix<T> k, const_matrix<T> v,
                              const row_map& q_rows, const row_map& k_rows, const attention_options& o,
                              matrix_view<T> out, matrix_view<statistic<T>> lse) {
    constexpr const char* what = "attention_forward";
    const index N = q.rows(), S = q_rows.sequences(), D = q.width() / o.heads;
    if (N == 0) return;
    const auto problem = detail::make_problem<T>(q, k, v, q_rows, k_rows, o);
    if (N <= 2 * S && q_rows.sequence.data) {
        detail::with_head_width<32, 64, 128, 256>(
            what, D, [&](auto width) { detail::attention_forward_decode<width(), T>(ex, problem, N, out, lse); });
        return;
    }
    if constexpr (std::is_same_v<T, bfloat16>)
        if (D % 8 == 0 && detail::on_tensor_cores<T>(ex, o, q, k, v, out)) {
            detail::with_head_width<32, 64, 96, 128, 256>(what, D, [&](auto width) {
                detail::attention_forward_products<width()>(ex, problem, detail::rows_in(out), detail::rows_in(lse));
            });
            return;
        }
    detail::with_head_width<32, 64, 128, 256>(what, D, [&](auto width) {
        detail::attention_forward_plain<width(), T>(ex, problem, N, detail::rows_in(out), detail::rows_in(lse));
    });
}

// rotary: null, or the table that q and k were rotated by: their gradients are turned back
template <class T>
void attention_backward_kernel(executor& ex, const_matrix<T> dL_dout, const_matrix<T> q, const_matrix<T> k,
                               const_matrix<T> v, const_matrix<T> out, const_matrix<statistic<T>> lse,
                               const row_map& q_rows, const row_map& k_rows, const attention_options& o,
                               const_matrix<statistic<T>> rotary, matrix_view<T> dL_dq, matrix_view<T> dL_dk,
                               matrix_view<T> dL_dv) {
    constexpr const char* what = "attention_backward";
    const index N = q.rows(), D = q.width() / o.heads;
    const auto problem = detail::make_problem<T>(q, k, v, q_rows, k_rows, o);
    const auto gradient = detail::rows_in(dL_dout), value = detail::rows_in(out);
    const auto lse_rows = detail::rows_in(lse);
    const auto dq = detail::rows_in(dL_dq), dk = detail::rows_in(dL_dk), dv = detail::rows_in(dL_dv);
    // on tensor cores a lane holds both halves of a head, where no column of it is padding
    const bool tensor_cores = std::is_same_v<T, bfloat16> && D % 8 == 0 && D <= 128 &&
                              detail::on_tensor_cores<T>(ex, o, q, k, v, out, dL_dout, dL_dq, dL_dk, dL_dv);
    const bool turned = tensor_cores && (D == 32 || D == 64 || D == 96 || D == 128) && rotary.row_stride % 2 == 0 &&
                        reinterpret_cast<std::uintptr_t>(rotary.data) % 8 == 0;
    if (tensor_cores) {
        if constexpr (std::is_same_v<T, bfloat16>)
            detail::with_head_width<32, 64, 96, 128>(what, D, [&](auto width) {
                detail::attention_backward_products<width()>(ex, problem, gradient, value, lse_rows,
                                                             turned ? detail::rows_in(rotary) : decltype(lse_rows){},
                                                             dq, dk, dv);
            });
    } else {
        detail::with_head_width<32, 64, 128, 256>(what, D, [&](auto width) {
            detail::attention_backward_plain<width(), T>(ex, problem, N, gradient, value, lse_rows, dq, dk, dv);
        });
    }
    if (!rotary.data || turned) return;
    rotary_kernel<T>(ex, dL_dq, q_rows.position, rotary, rotation::inverse);
    rotary_kernel<T>(ex, dL_dk, k_rows.position, rotary, rotation::inverse);
}

}  // namespace spectral::cuda
