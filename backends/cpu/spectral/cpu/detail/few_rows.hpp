// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/few_rows.hpp: y = x Wᵀ + b for a few rows of x, as in decoding: W at memory speed
//
// The time is that of reading W, so W is read once, in order, by all threads: each takes a range of outputs. Outputs go
// by in small groups that share the loads of x, all rows of x share each load of W, and bfloat16 is widened in registers.
// A result does not depend on the group, the thread or the number of rows: one vector of partial sums each, then a tree.
#pragma once
#include <spectral/cpu/detail/parallel.hpp>
#include <spectral/cpu/detail/register_tile.hpp>
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/ops/embedding.hpp>

namespace spectral::cpu::detail {

inline constexpr index few_rows = 8;

// Σ of the lanes, by halves
template <class T, int Half, int... I>
SPECTRAL_LANE_INLINE lane_vec<T> fold_lanes(lane_vec<T> v, std::integer_sequence<int, I...>) {
    return v + __builtin_shufflevector(v, v, ((I + Half) % lane_count<T>)...);
}
template <class T, int Half = lane_count<T> / 2>
SPECTRAL_LANE_INLINE T sum_lanes(lane_vec<T> v) {
    if constexpr (Half == 0) return v[0];
    else return sum_lanes<T, Half / 2>(fold_lanes<T, Half>(v, std::make_integer_sequence<int, lane_count<T>>{}));
}

// sum[o][r] = w[o] · x[r] over the width
template <int Outputs, int Rows, class T, class W>
SPECTRAL_LANE_INLINE void dot_rows(index width, const T* const* x, const W* w, index stride, T (&sum)[Outputs][Rows]) {
    using V = lane_vec<T>;
    constexpr index lanes = lane_count<T>;
    constexpr index ahead = 4096 / static_cast<index>(sizeof(W));   // the hardware stops at pages; far enough for memory
    V part[Outputs][Rows] = {};
    index c = 0;
    for (; c + lanes <= width; c += lanes) {
        V right[Outputs];
        SPECTRAL_LANE_UNROLL for (int o = 0; o < Outputs; ++o) {
            right[o] = load_widened<T>(w + o * stride + c);
            __builtin_prefetch(w + o * stride + c + ahead);
        }
        SPECTRAL_LANE_UNROLL for (int r = 0; r < Rows; ++r) {
            const V left = load_unaligned(x[r] + c);
            SPECTRAL_LANE_UNROLL for (int o = 0; o < Outputs; ++o) part[o][r] += left * right[o];
        }
    }
    SPECTRAL_LANE_UNROLL for (int o = 0; o < Outputs; ++o) {
        SPECTRAL_LANE_UNROLL for (int r = 0; r < Rows; ++r) {
            sum[o][r] = sum_lanes<T>(part[o][r]);
            for (index i = c; i < width; ++i) sum[o][r] += x[r][i] * widen<T>(w[o * stride + i]);
        }
    }
}

template <int Rows, class T, class W>
void few_rows_range(index first, index last, const_matrix<T> x, matrix_view<const W> w, const_vector<T> b,
                    matrix_view<T> y, write mode) {
    constexpr int Outputs = vector_bytes == 64 ? (Rows <= 4 ? 4 : 2) : (Rows <= 2 ? 4 : Rows <= 4 ? 2 : 1);   // registers
    const T* in[Rows];
    for (index r = 0; r < Rows; ++r) in[r] = x.row(std::min(r, x.rows() - 1));
    const auto group = [&]<int Count>(index o, std::integral_constant<int, Count>) {
        T sum[Count][Rows];
        dot_rows<Count, Rows, T>(x.width(), in, w.row(o), w.row_stride, sum);
        for (index i = 0; i < Count; ++i)
            for (index r = 0; r < std::min<index>(Rows, x.rows()); ++r) {
                T& out = y(r, o + i);
                out = sum[i][r] + (b.data ? b[o + i] : T(0)) + (mode == write::accumulate ? out : T(0));
            }
    };
    index o = first;
    for (; o + Outputs <= last; o += Outputs) group(o, std::integral_constant<int, Outputs>{});
    for (; o < last; ++o) group(o, std::integral_constant<int, 1>{});
}

template <class T, class W>
void few_rows_forward(executor& ex, const_matrix<T> x, matrix_view<const W> w, const_vector<T> b, matrix_view<T> y,
                      write mode) {
    if (x.rows() == 0) return;
    parallel_ranges(ex, w.rows(), std::max<index>(rows_grain(x.width()), 4) / 4 * 4, [&](index first, index last, int) {
        const auto run = [&]<int Rows>(std::integral_constant<int, Rows>) {
            few_rows_range<Rows, T, W>(first, last, x, w, b, y, mode);
        };
        if (x.rows() == 1) run(std::integral_constant<int, 1>{});
        else if (x.rows() == 2) run(std::integral_constant<int, 2>{});
        else if (x.rows() <= 4) run(std::integral_constant<int, 4>{});
        else run(std::integral_constant<int, 8>{});
    });
}

}  // namespace spectral::cpu::detail
