// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/dropout.hpp: counter-based dropout, four draws to a Philox block
//
// Element i = n C + c of the mask is word i mod 4 of block i / 4, as on every executor. One thread makes one block's
// four words and takes the four elements they belong to, which may lie in two rows.
#pragma once
#include <spectral/cuda/detail/launch.hpp>
#include <spectral/ops/dropout.hpp>

namespace spectral::cuda {

namespace detail {

template <bool Packs, class T>
__global__ void dropout_elements(index rows, index width, rows_of<const T> x, std::uint32_t threshold, compute<T> scale,
                                 random_stream draw, rows_of<T> y) {
    using A = compute<T>;
    const index elements = rows * width, blocks = (elements + 3) / 4;
    for (index b = index{blockIdx.x} * blockDim.x + threadIdx.x; b < blocks; b += index{gridDim.x} * blockDim.x) {
        const philox_words words = philox(draw.key, draw.stream, static_cast<std::uint64_t>(b));
        index n = 4 * b / width, c = 4 * b - n * width;
        if constexpr (Packs) {  // rows are whole numbers of blocks
            A v[4];
            load<4>(x(n) + c, v);
#pragma unroll
            for (int i = 0; i < 4; ++i) v[i] = words.word[i] >= threshold ? v[i] * scale : A(0);
            store<4>(y(n) + c, v);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (4 * b + i >= elements) break;
                y(n)[c] = words.word[i] >= threshold ? narrow<T>(widen(x(n)[c]) * scale) : narrow<T>(A(0));
                if (++c == width) c = 0, ++n;
            }
        }
    }
}

}  // namespace detail

template <class T>
void dropout_kernel(executor& ex, const_matrix<T> x, double p, random_stream draw, matrix_view<T> y) {
    if (x.empty()) return;
    const auto scale = static_cast<detail::compute<T>>(1 / (1 - p));
    const std::uint32_t threshold = probability_threshold(p);
    const unsigned blocks = detail::blocks_for(ex, detail::divide_up(x.size(), 4), 256);
    const auto whole_blocks = [](const auto& v) {  // rows that begin with a block, four values to an access
        return v.width() % 4 == 0 && (v.row_stride % 4 == 0 || v.rows() <= 1) &&
               reinterpret_cast<std::uintptr_t>(v.data) % (4 * sizeof(T)) == 0;
    };
    const auto kernel =
        whole_blocks(x) && whole_blocks(y) ? detail::dropout_elements<true, T> : detail::dropout_elements<false, T>;
    detail::launch(ex, "dropout", blocks, 256, 0, kernel, x.rows(), x.width(), detail::rows_in(x), threshold, scale,
                   draw, detail::rows_in(y));
}

}  // namespace spectral::cuda
