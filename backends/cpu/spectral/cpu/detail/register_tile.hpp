// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/register_tile.hpp: a tile of C held in registers while a block of the depth goes by
//   C[0..rows, 0..width) = base + α Σ_k a(r, k) b(k, j),   rows ≤ tile_rows, width ≤ 3 vectors
//
// Per step of k: three loads of b, and per row one broadcast of a and three multiply-adds. With 32 registers 8 rows and
// 24 sums fit, with 16 registers 4 rows and 12 sums. b comes packed, three vectors per k (the last columns of C: one or
// two, so that a width of 256 is not computed as 288); a is read where it lies when its rows run along k (each row is
// then a stream of its own), or from a panel of tile_rows elements per k.
#pragma once
#include <spectral/core/half.hpp>
#include <spectral/cpu/detail/lane_fft.hpp>

#include <algorithm>

namespace spectral::cpu::detail {

// One register of T from where the values are stored: as they are, or as bfloat16, the upper halves of floats.
template <class T>
struct narrow_lanes;
template <>
struct narrow_lanes<float> {
    typedef std::uint16_t stored __attribute__((vector_size(vector_bytes / 2), may_alias, aligned(2)));
    typedef std::uint32_t bits __attribute__((vector_size(vector_bytes)));
    typedef float wide __attribute__((vector_size(vector_bytes)));
};
template <>
struct narrow_lanes<double> {
    typedef std::uint16_t stored __attribute__((vector_size(vector_bytes / 4), may_alias, aligned(2)));
    typedef std::uint32_t bits __attribute__((vector_size(vector_bytes / 2)));
    typedef float wide __attribute__((vector_size(vector_bytes / 2)));
};
template <class T, class Stored>
lane_vec<T> load_widened(const Stored* p) {
    if constexpr (std::is_same_v<Stored, T>) {
        return load_unaligned(p);
    } else {
        using lanes = narrow_lanes<T>;
        const auto bits =
            __builtin_convertvector(*reinterpret_cast<const typename lanes::stored*>(p), typename lanes::bits) << 16;
        return __builtin_convertvector(reinterpret_cast<typename lanes::wide>(bits), lane_vec<T>);
    }
}

inline constexpr index tile_rows = vector_bytes == 64 ? 8 : 4;

// What the sums are added to: nothing, a row vector, what C holds, or both.
template <class T>
struct tile_base {
    bool keep;
    const T* bias;  // may be null; moves with the columns
};

template <bool Panel, int Vectors, class T>
void multiply_tile(index depth, const T* a, index a_stride, const T* b, T alpha, tile_base<T> base, T* c,
                   index c_stride, index rows, index width) {
    using V = lane_vec<T>;
    constexpr index lanes = lane_count<T>;
    V sum[tile_rows][Vectors] = {};
    const T* row[tile_rows];
    for (index r = 0; r < tile_rows; ++r) row[r] = Panel ? a + r : a + std::min(r, rows - 1) * a_stride;
    for (index k = 0; k < depth; ++k) {
        V right[Vectors];
        SPECTRAL_LANE_UNROLL for (index v = 0; v < Vectors; ++v) right[v] = *as_lanes(b + v * lanes);
        b += Vectors * lanes;
        SPECTRAL_LANE_UNROLL for (index r = 0; r < tile_rows; ++r) {
            const T factor = Panel ? a[k * tile_rows + r] : row[r][k];
            SPECTRAL_LANE_UNROLL for (index v = 0; v < Vectors; ++v) sum[r][v] += factor * right[v];
        }
    }
    if (width == Vectors * lanes) {
        SPECTRAL_LANE_UNROLL for (index r = 0; r < tile_rows; ++r) {
            if (r >= rows) break;
            T* out = c + r * c_stride;
            SPECTRAL_LANE_UNROLL for (index v = 0; v < Vectors; ++v) {
                V value = alpha * sum[r][v];
                if (base.bias) value += load_unaligned(base.bias + v * lanes);
                if (base.keep) value += load_unaligned(out + v * lanes);
                store_unaligned<T>(out + v * lanes, value);
            }
        }
        return;
    }
    alignas(64) T edge[tile_rows][Vectors * lanes];
    SPECTRAL_LANE_UNROLL for (index r = 0; r < tile_rows; ++r) {
        SPECTRAL_LANE_UNROLL for (index v = 0; v < Vectors; ++v) * as_lanes(&edge[r][v * lanes]) = alpha * sum[r][v];
    }
    for (index r = 0; r < rows; ++r)
        for (index j = 0; j < width; ++j) {
            T& out = c[r * c_stride + j];
            out = edge[r][j] + (base.bias ? base.bias[j] : T(0)) + (base.keep ? out : T(0));
        }
}

// ---- packing: what is kept as bfloat16 is widened on the way --------------------------------------------------------

// packed[k · Width + i] = x[k · stride + i] for i < count, else 0: rows of x run along the panel
template <index Width, class T, class Stored>
void pack_along(const Stored* x, index stride, index depth, index count, T* packed) {
    for (index k = 0; k < depth; ++k, packed += Width, x += stride) {
        if (count == Width) {
            for (index i = 0; i < Width; ++i) packed[i] = widen<T>(x[i]);
        } else {
            for (index i = 0; i < Width; ++i) packed[i] = i < count ? widen<T>(x[i]) : T(0);
        }
    }
}

// packed[k · Width + i] = x[i · stride + k] for i < count, else 0: rows of x run along the depth
template <index Width, class T, class Stored>
void pack_across(const Stored* x, index stride, index depth, index count, T* packed) {
    using V = lane_vec<T>;
    constexpr index lanes = lane_count<T>;
    static_assert(Width % lanes == 0);
    for (index first = 0; first < Width; first += lanes) {
        const index rows = std::clamp<index>(count - first, 0, lanes);
        index k = 0;
        if (rows == lanes)
            for (; k + lanes <= depth; k += lanes) {
                V block[lanes];
                SPECTRAL_LANE_UNROLL for (index i = 0; i < lanes; ++i) block[i] =
                    load_widened<T>(x + (first + i) * stride + k);
                transpose_lanes<T>(block);
                SPECTRAL_LANE_UNROLL for (index i = 0; i < lanes; ++i) * as_lanes(packed + (k + i) * Width + first) =
                    block[i];
            }
        for (; k < depth; ++k)
            for (index i = 0; i < lanes; ++i)
                packed[k * Width + first + i] = i < rows ? widen<T>(x[(first + i) * stride + k]) : T(0);
    }
}

}  // namespace spectral::cpu::detail
