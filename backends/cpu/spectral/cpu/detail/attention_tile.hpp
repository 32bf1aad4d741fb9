// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/attention_tile.hpp: the inner loops of attention: small products, exp, transposition
//
// A tile holds up to 64 query rows and runs over 64 keys at a time. Queries lie on the lanes of vectors: scores are
// kept as S (keys, queries), results as O (D, queries), so that maxima, sums and masks of softmax are lane by lane,
// keys and values are read where they are (one number at a time, spread over the lanes), and any D is as good as
// another. Vectors are the compiler's own (GCC and Clang), as wide as the instruction set that the program is built
// for.
#pragma once
#include <spectral/core/random.hpp>
#include <spectral/cpu/executor.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

namespace spectral::cpu::detail::attention {

// Sums held in registers: block_rows x block_vectors, with block_vectors + 1 more for the factors.
#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64, block_rows = 6, block_vectors = 4;  // 32 registers
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32, block_rows = 6, block_vectors = 2;  // 16 registers
#else
inline constexpr int vector_bytes = 16, block_rows = 4, block_vectors = 2;
#endif
inline constexpr index tile = 64;

template <class T>
struct vector_types;
template <>
struct vector_types<float> {
    typedef float real __attribute__((vector_size(vector_bytes)));
    typedef std::uint32_t whole __attribute__((vector_size(vector_bytes)));
    typedef std::int32_t mask __attribute__((vector_size(vector_bytes)));
};
template <>
struct vector_types<double> {
    typedef double real __attribute__((vector_size(vector_bytes)));
    typedef std::uint64_t whole __attribute__((vector_size(vector_bytes)));
    typedef std::int64_t mask __attribute__((vector_size(vector_bytes)));
};
template <class T>
using vec = typename vector_types<T>::real;
template <class T>
inline constexpr index lanes = vector_bytes / static_cast<index>(sizeof(T));

template <class T>
vec<T> load(const T* p) {
    vec<T> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
template <class T>
void store(T* p, vec<T> v) {
    __builtin_memcpy(p, &v, sizeof v);
}
template <class T>
vec<T> splat(T x) {
    return x - vec<T>{};
}
template <class V>
V larger(V a, V b) {
    return a > b ? a : b;
}

// For decoding: rows of a long cache lie apart, out of reach of the processor's own look-ahead.
template <class T>
void prefetch_rows(const T* p, index stride, index n, index d) {
    for (index i = 0; i < n; ++i)
        for (index c = 0; c < d; c += 64 / static_cast<index>(sizeof(T))) __builtin_prefetch(p + i * stride + c);
}

// --- exp ------------------------------------------------------------------------------------------------------------
// For x ≤ 88: e^x = 2^n e^r, n = round(x / ln 2), |r| ≤ ln 2 / 2; e^r = 1 + r + r² p(r) with p of degree 4 fitted to a
// relative error of 4e-9; 0 below -87, where float is about to run out of exponents. Shorter than vector_math.hpp's
// exp, which is right for every float: here x is a score less the largest one.
inline vec<float> exp(vec<float> x) {
    using whole = vector_types<float>::whole;
    const vec<float> shifter =
        splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number, kept in the low bits
    const vec<float> n_shifted = x * 1.44269504f + shifter, n = n_shifted - shifter;
    vec<float> r = x - n * 0.693359375f;  // ln 2 in two parts: the first times n is exact
    r = r - n * -2.12194440e-4f;
    vec<float> p = r * 1.393408608e-3f + 8.369345833e-3f;
    p = p * r + 4.166647229e-2f;
    p = p * r + 1.666651397e-1f;
    p = p * r + 0.5f;
    p = p * (r * r) + r + 1.0f;
    const vec<float> power = (vec<float>)((whole)p + ((whole)n_shifted << 23));
    return x < splat(-87.0f) ? vec<float>{} : power;
}
inline vec<double> exp(vec<double> x) {
    for (index i = 0; i < lanes<double>; ++i) x[i] = std::exp(x[i]);
    return x;
}

// --- products -------------------------------------------------------------------------------------------------------
// C (m, n) = from + A (m, depth) B (depth, n), n whole vectors; A(i, k) = a[i * stride + k], or a[k * stride + i] with
// Across. `from` is 0, C, or C times a factor of each column.
enum class start { zero, add, scaled };

template <bool Across, int Rows, int Vectors, class T>
inline __attribute__((always_inline)) void product_block(index depth, const T* a, index a_stride, const T* b,
                                                         index b_stride, T* c, index c_stride, start from,
                                                         const T* factor) {
    constexpr index w = lanes<T>;
    vec<T> sum[Rows][Vectors];
    for (int i = 0; i < Rows; ++i)
        for (int v = 0; v < Vectors; ++v) {
            if (from == start::zero)
                sum[i][v] = vec<T>{};
            else
                sum[i][v] = load(c + i * c_stride + v * w);
            if (from == start::scaled) sum[i][v] *= load(factor + v * w);
        }
    for (index k = 0; k < depth; ++k) {
        vec<T> right[Vectors];
        for (int v = 0; v < Vectors; ++v) right[v] = load(b + k * b_stride + v * w);
        for (int i = 0; i < Rows; ++i) {
            const vec<T> left = splat(Across ? a[k * a_stride + i] : a[i * a_stride + k]);
            for (int v = 0; v < Vectors; ++v) sum[i][v] += left * right[v];
        }
    }
    for (int i = 0; i < Rows; ++i)
        for (int v = 0; v < Vectors; ++v) store(c + i * c_stride + v * w, sum[i][v]);
}

template <bool Across, int Vectors, class T>
__attribute__((noinline)) void product_columns(index m, index depth, const T* a, index a_stride, const T* b,
                                               index b_stride, T* c, index c_stride, start from, const T* factor) {
    const index a_row = Across ? 1 : a_stride;
    index i = 0;
    for (; i + block_rows <= m; i += block_rows)
        product_block<Across, block_rows, Vectors>(depth, a + i * a_row, a_stride, b, b_stride, c + i * c_stride,
                                                   c_stride, from, factor);
    if (i + 4 <= m && block_rows > 4) {
        product_block<Across, 4, Vectors>(depth, a + i * a_row, a_stride, b, b_stride, c + i * c_stride, c_stride, from,
                                          factor);
        i += 4;
    }
    if (i + 2 <= m) {
        product_block<Across, 2, Vectors>(depth, a + i * a_row, a_stride, b, b_stride, c + i * c_stride, c_stride, from,
                                          factor);
        i += 2;
    }
    if (i < m)
        product_block<Across, 1, Vectors>(depth, a + i * a_row, a_stride, b, b_stride, c + i * c_stride, c_stride, from,
                                          factor);
}

template <bool Across, class T>
void product(index m, index vectors, index depth, const T* a, index a_stride, const T* b, index b_stride, T* c,
             index c_stride, start from, const T* factor = nullptr) {
    static_assert(block_vectors == 2 || block_vectors == 4);
    constexpr index w = lanes<T>;
    for (index v = 0; v < vectors;) {
        const index left = vectors - v;
        const T *bv = b + v * w, *fv = factor ? factor + v * w : nullptr;
        T* cv = c + v * w;
        if (block_vectors == 4 && left >= 4) {
            product_columns<Across, 4>(m, depth, a, a_stride, bv, b_stride, cv, c_stride, from, fv);
            v += 4;
        } else if (block_vectors == 4 && left == 3) {
            product_columns<Across, 3>(m, depth, a, a_stride, bv, b_stride, cv, c_stride, from, fv);
            v += 3;
        } else if (left >= 2) {
            product_columns<Across, 2>(m, depth, a, a_stride, bv, b_stride, cv, c_stride, from, fv);
            v += 2;
        } else {
            product_columns<Across, 1>(m, depth, a, a_stride, bv, b_stride, cv, c_stride, from, fv);
            v += 1;
        }
    }
}

// --- transposition --------------------------------------------------------------------------------------------------
// A square of lanes x lanes numbers, in place: stage `Step` swaps that bit of the row number with that of the lane.
// Unrolled by hand: the square must stay in registers.
template <index Step, class V, std::size_t... L>
inline __attribute__((always_inline)) void transpose_pair(V& a, V& b, std::index_sequence<L...>) {
    constexpr index w = sizeof...(L);
    const V low = __builtin_shufflevector(a, b, static_cast<int>((L & Step) ? w + L - Step : L)...);
    b = __builtin_shufflevector(a, b, static_cast<int>((L & Step) ? w + L : L + Step)...);
    a = low;
}
template <index Step, class V, std::size_t... I>
inline __attribute__((always_inline)) void transpose_stage(V* r, std::index_sequence<I...> all) {
    ((I & Step ? void() : transpose_pair<Step>(r[I & ~Step], r[I | Step], all)), ...);
}
template <class T, index Step = 1>
inline __attribute__((always_inline)) void transpose_square(vec<T> (&r)[lanes<T>]) {
    if constexpr (Step < lanes<T>) {
        transpose_stage<Step>(r, std::make_index_sequence<lanes<T>>{});
        transpose_square<T, Step * 2>(r);
    }
}

// to (d, tile) = factor * from[lane][0 .. d), with zeros on the lanes after the last row
template <class T>
void load_lanes(const T* const* from, index rows, index d, T factor, T* to) {
    constexpr index w = lanes<T>;
    for (index v = 0; v * w < rows; ++v) {
        index c = 0;
        for (; c + w <= d; c += w) {
            vec<T> r[w];
            if ((v + 1) * w <= rows)
                for (index i = 0; i < w; ++i) r[i] = load(from[v * w + i] + c) * factor;
            else
                for (index i = 0; i < w; ++i) r[i] = v * w + i < rows ? load(from[v * w + i] + c) * factor : vec<T>{};
            transpose_square<T>(r);
            for (index i = 0; i < w; ++i) store(to + (c + i) * tile + v * w, r[i]);
        }
        for (; c < d; ++c)
            for (index i = v * w; i < (v + 1) * w; ++i) to[c * tile + i] = i < rows ? from[i][c] * factor : T(0);
    }
}

// to[lane][0 .. d) = factor[lane] * from (d, tile)
template <class T>
void store_lanes(const T* from, index rows, index d, const T* factor, T* const* to) {
    constexpr index w = lanes<T>;
    for (index v = 0; v * w < rows; ++v) {
        const vec<T> f = load(factor + v * w);
        index c = 0;
        for (; c + w <= d; c += w) {
            vec<T> r[w];
            for (index i = 0; i < w; ++i) r[i] = load(from + (c + i) * tile + v * w) * f;
            transpose_square<T>(r);
            if ((v + 1) * w <= rows)
                for (index i = 0; i < w; ++i) store(to[v * w + i] + c, r[i]);
            else
                for (index i = 0; v * w + i < rows; ++i) store(to[v * w + i] + c, r[i]);
        }
        for (; c < d; ++c)
            for (index i = v * w; i < (v + 1) * w && i < rows; ++i) to[i][c] = from[c * tile + i] * factor[i];
    }
}

// --- dropout --------------------------------------------------------------------------------------------------------
// keep[j * tile] = 1/(1-p) or 0 for draws first .. first + n - 1, n ≤ tile: all their Philox blocks side by side.
template <class T>
void draw_keep(const random_stream& draw, std::uint64_t first, index n, std::uint32_t threshold, T kept, T* keep) {
    constexpr int most = tile / 4 + 1;
    std::uint32_t c0[most], c1[most], c2[most], c3[most], words[4 * most];
    const std::uint64_t block = first / 4;
    for (int i = 0; i < most; ++i) {
        const std::uint64_t counter = block + static_cast<std::uint64_t>(i);
        c0[i] = static_cast<std::uint32_t>(counter);
        c1[i] = static_cast<std::uint32_t>(counter >> 32);
        c2[i] = static_cast<std::uint32_t>(draw.stream);
        c3[i] = static_cast<std::uint32_t>(draw.stream >> 32);
    }
    std::uint32_t k0 = static_cast<std::uint32_t>(draw.key), k1 = static_cast<std::uint32_t>(draw.key >> 32);
    for (int round = 0; round < 10; ++round) {
        for (int i = 0; i < most; ++i) {
            const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0[i], p1 = std::uint64_t{0xCD9E8D57u} * c2[i];
            c0[i] = static_cast<std::uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
            c2[i] = static_cast<std::uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
            c1[i] = static_cast<std::uint32_t>(p1);
            c3[i] = static_cast<std::uint32_t>(p0);
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < most; ++i) {
        words[4 * i] = c0[i];
        words[4 * i + 1] = c1[i];
        words[4 * i + 2] = c2[i];
        words[4 * i + 3] = c3[i];
    }
    const index offset = static_cast<index>(first % 4);
    for (index j = 0; j < n; ++j) keep[j * tile] = words[offset + j] >= threshold ? kept : T(0);
}

}  // namespace spectral::cpu::detail::attention
