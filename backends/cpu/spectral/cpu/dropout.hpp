// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/dropout.hpp: counter-based dropout, four draws to a Philox block
//
// Element i = n C + c of the mask is word i mod 4 of block i / 4. A row is cut into chunks of 64 blocks; their words
// are made in one vectorised loop (no lane depends on another) and then compared in a second one.
#pragma once
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/ops/dropout.hpp>

namespace spectral::cpu {

namespace detail {

// Blocks [first, first + count) of the stream: word w of block first + b at words[4 b + w].
inline void philox_blocks(const random_stream& draw, std::uint64_t first, index count, std::uint32_t* words) {
    const std::uint64_t key = draw.key, stream = draw.stream;
#pragma omp simd
    for (index b = 0; b < count; ++b) {
        // philox() of core/random.hpp, written out so that the loop over blocks is one of independent lanes
        std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
        const std::uint64_t counter = first + static_cast<std::uint64_t>(b);
        std::uint32_t c0 = static_cast<std::uint32_t>(counter), c1 = static_cast<std::uint32_t>(counter >> 32);
        std::uint32_t c2 = static_cast<std::uint32_t>(stream), c3 = static_cast<std::uint32_t>(stream >> 32);
        for (int round = 0; round < 10; ++round) {
            const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0, p1 = std::uint64_t{0xCD9E8D57u} * c2;
            c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
            c1 = static_cast<std::uint32_t>(p1);
            c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
            c3 = static_cast<std::uint32_t>(p0);
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        words[4 * b] = c0;
        words[4 * b + 1] = c1;
        words[4 * b + 2] = c2;
        words[4 * b + 3] = c3;
    }
}

}  // namespace detail

template <class T>
void dropout_kernel(executor& ex, const_matrix<T> x, double p, random_stream draw, matrix_view<T> y) {
    const std::uint32_t threshold = probability_threshold(p);
    const T scale = static_cast<T>(1 / (1 - p));
    const index C = x.width();
    detail::for_each_row(ex, x.rows(), C, [&](index n) {
        constexpr index blocks = 64;
        alignas(64) std::uint32_t words[4 * blocks];
        const T* from = x.row(n);
        T* to = y.row(n);
        for (index c = 0; c < C;) {
            const auto element = static_cast<std::uint64_t>(n * C + c);
            const auto skip = static_cast<index>(element % 4);  // a row may begin inside a block
            const index count = std::min(C - c, 4 * blocks - skip);
            detail::philox_blocks(draw, element / 4, (skip + count + 3) / 4, words);
            const std::uint32_t* word = words + skip;
            const T* in = from + c;
            T* out = to + c;
#pragma omp simd
            for (index i = 0; i < count; ++i) {
                const T kept = in[i] * scale;  // loaded either way: a load under a condition is not vectorised
                out[i] = word[i] >= threshold ? kept : T(0);
            }
            c += count;
        }
    });
}

}  // namespace spectral::cpu
