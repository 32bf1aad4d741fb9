// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/few_rows.hpp: y = scale · x Wᵀ + b + addend for a few rows of x,
// as in decoding: W at memory speed
//
// The time is that of reading W: each thread reads its range of W once, front to back, as one stream (several outputs
// at a time are several streams, and slower). All rows of x share each load of W; bfloat16 is widened in registers. A
// result does not depend on the number of rows or threads: two vectors of partial sums each, then a tree.
#pragma once
#include <spectral/cpu/detail/parallel.hpp>
#include <spectral/cpu/detail/register_tile.hpp>
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/ops/embedding.hpp>

namespace spectral::cpu::detail {

inline constexpr index few_rows = vector_bytes == 64 ? 8 : 4;  // their sums fit into the registers
inline constexpr index few_rows_ahead = 4096;  // bytes: the hardware's prefetching stops at pages

// Σ of the lanes, by halves
template <class T, int Half, int... I>
SPECTRAL_LANE_INLINE lane_vec<T> fold_lanes(lane_vec<T> v, std::integer_sequence<int, I...>) {
    return v + __builtin_shufflevector(v, v, ((I + Half) % lane_count<T>)...);
}
template <class T, int Half = lane_count<T> / 2>
SPECTRAL_LANE_INLINE T sum_lanes(lane_vec<T> v) {
    if constexpr (Half == 0)
        return v[0];
    else
        return sum_lanes<T, Half / 2>(fold_lanes<T, Half>(v, std::make_integer_sequence<int, lane_count<T>>{}));
}

// sum[r] = w · x[r] over the width
template <int Rows, class T, class W>
SPECTRAL_LANE_INLINE void dot_rows(index width, const T* const* x, const W* w, T* sum) {
    using V = lane_vec<T>;
    constexpr index lanes = lane_count<T>, ahead = few_rows_ahead / static_cast<index>(sizeof(W));
    V part[2][Rows] = {};
    const auto step = [&](index c, V* into) {
        const V right = load_widened<T>(w + c);
        SPECTRAL_LANE_UNROLL for (int r = 0; r < Rows; ++r) into[r] += load_unaligned(x[r] + c) * right;
    };
    index c = 0;
    for (; c + 2 * lanes <= width; c += 2 * lanes) {
        SPECTRAL_LANE_UNROLL for (index line = 0; line < 2 * lanes * static_cast<index>(sizeof(W)); line += 64)
            __builtin_prefetch(reinterpret_cast<const char*>(w + c + ahead) + line);
        step(c, part[0]);
        step(c + lanes, part[1]);
    }
    if (c + lanes <= width) {
        step(c, part[0]);
        c += lanes;
    }
    SPECTRAL_LANE_UNROLL for (int r = 0; r < Rows; ++r) {
        sum[r] = sum_lanes<T>(part[0][r] + part[1][r]);
        for (index i = c; i < width; ++i) sum[r] += x[r][i] * widen<T>(w[i]);
    }
}

template <int Rows, class T, class W>
void few_rows_range(index first, index last, const_matrix<T> x, matrix_view<const W> w, const_vector<T> b,
                    matrix_view<T> y, const_matrix<T> addend, T scale) {
    const T* in[Rows];
    for (index r = 0; r < Rows; ++r) in[r] = x.row(std::min(r, x.rows() - 1));
    for (index o = first; o < last; ++o) {
        T sum[Rows];
        dot_rows<Rows, T>(x.width(), in, w.row(o), sum);
        for (index r = 0; r < std::min<index>(Rows, x.rows()); ++r)
            y(r, o) = scale * sum[r] + (b.data ? b[o] : T(0)) + (addend.data ? addend(r, o) : T(0));
    }
}

template <class T, class W>
void few_rows_forward(executor& ex, const_matrix<T> x, matrix_view<const W> w, const_vector<T> b, matrix_view<T> y,
                      const_matrix<T> addend, T scale) {
    if (x.rows() == 0) return;
    parallel_ranges(ex, w.rows(), rows_grain(x.width()), [&](index first, index last, int) {
        const auto run = [&]<int Rows>(std::integral_constant<int, Rows>) {
            few_rows_range<Rows, T, W>(first, last, x, w, b, y, addend, scale);
        };
        if (x.rows() == 1)
            run(std::integral_constant<int, 1>{});
        else if (x.rows() == 2)
            run(std::integral_constant<int, 2>{});
        else if (x.rows() <= 4)
            run(std::integral_constant<int, 4>{});
        else
            run(std::integral_constant<int, few_rows>{});
    });
}

}  // namespace spectral::cpu::detail
