// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/attention_decode.hpp: few queries a sequence: keys split among blocks
#pragma once
#include <spectral/cuda/detail/attention_problem.hpp>

namespace spectral::cuda::detail {

// One block for (query row, head, share of its keys); a warp takes every fourth 32 keys. Result: D sums, the sum of the
// weights, the largest score.
template <int Columns, class T>  // Columns of 32
__global__ void attention_decode_parts(attention_problem<T> a, compute<T>* parts) {
    using A = compute<T>;
    constexpr int warps = 4;
    __shared__ A shared[warps][32 * Columns + 2];
    const index n = blockIdx.x, s = a.q_rows.sequence[n];
    const int h = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32, D = a.width;
    index keys = 0, k_first = 0;
    if (s >= 0) {
        k_first = a.k_rows.begin[s];
        keys = a.k_rows.end[s] - k_first;
        if (a.causal) keys = lower_bound(a.k_rows.position + k_first, keys, index{a.q_rows.position[n]} + 1);
    }
    const index share = (keys + gridDim.z - 1) / gridDim.z;
    const index first = k_first + blockIdx.z * share, last = min(first + share, k_first + keys);
    const T* query = a.q(n) + index{h} * D;
    const index column = index{h / a.group} * D;
    A largest = -INFINITY, sum = 0, acc[Columns] = {};
    for (index base = first + 32 * warp; base < last; base += 32 * warps) {
        const index m = base + lane;
        A score = -INFINITY;
        if (m < last) {
            const T* key = a.k(m) + column;
            score = 0;
#pragma unroll 8
            for (int d = 0; d < D; ++d) score += widen(query[d]) * widen(key[d]);
            score *= a.scale;
        }
        const A most = greater{}(largest, warp_reduce(score, greater{}));
        const A shrink = most == -INFINITY ? A(1) : exp(largest - most);
        A weight = score == -INFINITY ? A(0) : exp(score - most);
        sum = sum * shrink + warp_reduce(weight);
        largest = most;
        if (weight != 0) weight *= a.dropout(n, h, m);
#pragma unroll
        for (int c = 0; c < Columns; ++c) acc[c] *= shrink;
        const int here = static_cast<int>(min(index{32}, last - base));
        for (int i = 0; i < here; ++i) {
            const A w = __shfl_sync(full_warp, weight, i);
            const T* value = a.v(base + i) + column;
#pragma unroll
            for (int c = 0; c < Columns; ++c)
                if (lane + 32 * c < D) acc[c] += w * widen(value[lane + 32 * c]);
        }
    }
#pragma unroll
    for (int c = 0; c < Columns; ++c) shared[warp][lane + 32 * c] = acc[c];
    if (lane == 0) shared[warp][32 * Columns] = sum, shared[warp][32 * Columns + 1] = largest;
    __syncthreads();
    A most = -INFINITY, total = 0;
    for (int w = 0; w < warps; ++w) most = greater{}(most, shared[w][32 * Columns + 1]);
    A* out = parts + ((n * a.heads + h) * gridDim.z + blockIdx.z) * (D + 2);
    const auto factor = [&](int w) { return most == -INFINITY ? A(0) : exp(shared[w][32 * Columns + 1] - most); };
    for (int w = 0; w < warps; ++w) total += shared[w][32 * Columns] * factor(w);
    for (int d = threadIdx.x; d < D; d += blockDim.x) {
        A value = 0;
        for (int w = 0; w < warps; ++w) value += shared[w][d] * factor(w);
        out[d] = value;
    }
    if (threadIdx.x == 0) out[D] = total, out[D + 1] = most;
}

// The parts of (n, h) put together.
template <class T>
void merge_decode_parts(executor& ex, index rows, int heads, int D, index parts_each, const compute<T>* parts,
                        matrix_view<T> out, matrix_view<statistic<T>> lse) {
    using A = compute<T>;
    const auto to = rows_in(out);
    const auto to_lse = rows_in(lse);
    for_each_element(ex, "attention_forward", rows * heads, D, [=] __device__(index i, index d) {
        const A* mine = parts + i * parts_each * (D + 2);
        A most = -INFINITY, total = 0, value = 0;
        for (index z = 0; z < parts_each; ++z) most = greater{}(most, mine[z * (D + 2) + D + 1]);
        for (index z = 0; z < parts_each && most != -INFINITY; ++z) {
            const A factor = exp(mine[z * (D + 2) + D + 1] - most);
            total += factor * mine[z * (D + 2) + D];
            value += factor * mine[z * (D + 2) + d];
        }
        const index n = i / heads, h = i % heads;
        to(n)[h * D + d] = narrow<T>(total == 0 ? A(0) : value / total);
        if (d == 0) to_lse(n)[h] = total == 0 ? A(-INFINITY) : most + log(total);
    });
}

template <int Width, class T>
void attention_forward_decode(executor& ex, const attention_problem<T>& problem, index rows, matrix_view<T> out,
                              matrix_view<statistic<T>> lse) {
    const index sequences = problem.q_rows.sequences;
    const index split = std::clamp<index>(divide_up(problem.key_rows, 512 * std::max<index>(sequences, 1)), 1, 64);
    arena_scope scratch(ex);
    auto parts = ex.memory().template vector<compute<T>>(rows * problem.heads * split * (problem.width + 2));
    launch(ex, "attention_forward",
           dim3(static_cast<unsigned>(rows), static_cast<unsigned>(problem.heads), static_cast<unsigned>(split)), 128,
           0, attention_decode_parts<Width / 32, T>, problem, parts.data);
    merge_decode_parts<T>(ex, rows, problem.heads, problem.width, split, parts.data, out, lse);
}

}  // namespace spectral::cuda::detail
