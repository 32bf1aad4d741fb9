// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/next_token.hpp: the most likely token, rows that move on
#pragma once
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/ops/next_token.hpp>

namespace spectral::cuda {

namespace detail {

// A logit as a number that grows with it, above the complement of its id: the largest is the first of the largest
// logits. A NaN is larger than all.
template <class T>
__device__ inline std::uint64_t ranked(T logit, index id) {
    const float value = static_cast<float>(widen(logit));
    const unsigned bits = __float_as_uint(value);
    const unsigned order = value != value ? 0xFFFFFFFFu : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return std::uint64_t{order} << 32 | (0xFFFFFFFFu - static_cast<unsigned>(id));
}
struct larger {
    template <class A>
    __device__ A operator()(A a, A b) const {
        return a > b ? a : b;
    }
};

template <class T>
__global__ void choose_parts(rows_of<const T> logits, index known, const row_index* sequence, std::uint64_t* parts) {
    const T* z = logits(sequence[blockIdx.y]);
    std::uint64_t best = 0;
    for (index v = index{blockIdx.x} * blockDim.x + threadIdx.x; v < known; v += index{gridDim.x} * blockDim.x)
        best = larger{}(best, ranked(z[v], v));
    best = block_reduce(best, larger{});
    if (threadIdx.x == 0) parts[index{blockIdx.y} * gridDim.x + blockIdx.x] = best;
}

template <int>
__global__ void choose_from_parts(index count, const std::uint64_t* parts, const row_index* position, row_index* ids,
                                  rows_of<row_index> chosen) {
    std::uint64_t best = 0;
    for (index i = threadIdx.x; i < count; i += 32) best = larger{}(best, parts[blockIdx.x * count + i]);
    best = warp_reduce(best, larger{});
    if (threadIdx.x != 0) return;
    const bool broken = best >> 32 == 0xFFFFFFFFu;
    const auto id = static_cast<row_index>(0xFFFFFFFFu - static_cast<unsigned>(best));
    ids[blockIdx.x] = broken ? 0 : id;
    chosen(blockIdx.x)[position[blockIdx.x]] = broken ? -1 : id;
}

}  // namespace detail

// Doubles are compared as floats: of logits that differ less, the first.
template <class T>
void choose_tokens_kernel(executor& ex, view<const T, 2> logits, index known, const_vector<row_index> sequence,
                          const_vector<row_index> position, out_vector<row_index> ids, out_matrix<row_index> chosen) {
    if (ids.empty()) return;
    const index blocks = std::min<index>(detail::divide_up(known, 1024), 128);
    arena_scope scratch(ex);
    auto parts = ex.memory().template vector<std::uint64_t>(ids.size() * blocks);
    detail::launch(ex, "choose_tokens", dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(ids.size())), 256, 0,
                   detail::choose_parts<T>, detail::rows_in(logits), known, sequence.data, parts.data);
    detail::launch(ex, "choose_tokens", static_cast<unsigned>(ids.size()), 32, 0, detail::choose_from_parts<0>, blocks,
                   static_cast<const std::uint64_t*>(parts.data), position.data, ids.data, detail::rows_in(chosen));
}

inline void advance_rows_kernel(executor& ex, vector_view<row_index> position) {
    row_index* at = position.data;
    detail::for_each(ex, "advance_rows", position.size(), [=] __device__(index n) { at[n] += 1; });
}

}  // namespace spectral::cuda
