// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/attention_one_pass_plan.hpp: the pieces of work of detail/attention_one_pass.hpp
//
// A kernel of its own lists them before: keys, the queries that see them, and in which order pieces add to a tile of
// queries. It makes the rows' statistics besides.
#pragma once
#include <spectral/cuda/detail/attention_backward_tensor.hpp>

namespace spectral::cuda::detail {

// Keys first.. below last, number `block` of their sequence (of `blocks`), and the queries q_first.. below q_last that
// see them. Their first tile is number `tile` of those that keep sums.
struct key_work {
    int first, last, block, blocks, q_first, q_last, tile;
};

// Tiles of queries of sequences of more than one piece keep sums, head by head. The pieces of the last
// keys, which the fewest queries see, add first. Each begins a tile or two after the piece that follows it, so that all
// of a head can start at once and find their turn come, tile after tile.
struct one_pass_plan {
    key_work* work;
    int *pieces, *taken;  // how many pieces a head has; how many of all heads' have been taken
    int* tiles_used;
    int *adding, *added;  // of a tile: how many pieces add to it; of a head and tile: how many have
    int *first, *last;  // of a tile: its first query, and where its sequence ends
    float* sums;  // of heads × tiles, in the order of lanes
    index tiles;  // of queries that there can be
    int parts;  // of a key/value head's query heads, each a piece's
    float *key_sums, *value_sums;  // (parts, key rows, their width), where there are several parts
    int together;  // parts of heads whose pieces run at the same time
};

inline constexpr int one_pass_keys = 128, one_pass_queries = 64;

// By one block for each sequence: its part of the plan
__device__ inline void plan_sequence(const attention_problem<bfloat16>& a, const one_pass_plan& plan, index sequence) {
    constexpr int Keys = one_pass_keys, Queries = one_pass_queries;
    const auto pieces = [&](index s) { return (a.k_rows.end[s] - a.k_rows.begin[s] + Keys - 1) / Keys; };
    const auto tiles = [&](index s) {
        return pieces(s) > 1 ? (a.q_rows.end[s] - a.q_rows.begin[s] + Queries - 1) / Queries : 0;
    };
    pair_of<int> before{0, 0};
    if (a.q_rows.sequences == 0) {
        if (threadIdx.x == 0) *plan.pieces = *plan.taken = *plan.tiles_used = 0;
        return;
    }
    for (index s = threadIdx.x; s < sequence; s += blockDim.x) before = before + pair_of<int>{pieces(s), tiles(s)};
    before = block_reduce(before);
    const int blocks = pieces(sequence), adding_tiles = tiles(sequence);
    const index q_begin = a.q_rows.begin[sequence], q_end = a.q_rows.end[sequence], k_begin = a.k_rows.begin[sequence],
                k_end = a.k_rows.end[sequence];
    if (threadIdx.x == 0 && sequence == a.q_rows.sequences - 1)
        *plan.pieces = before.a + blocks, *plan.taken = 0, *plan.tiles_used = before.b + adding_tiles;
    const row_index* position = a.q_rows.position;
    for (int block = threadIdx.x; block < blocks; block += blockDim.x) {
        const index first = k_begin + index{block} * Keys;
        index unseen = 0;  // queries that see none of these keys; the first piece comes to every tile
        if (a.causal && block > 0) unseen = lower_bound(position + q_begin, q_end - q_begin, a.k_rows.position[first]);
        if (q_begin + unseen < q_end) unseen -= unseen % Queries;
        plan.work[before.a + blocks - 1 - block] = {static_cast<int>(first),
                                                    static_cast<int>(min(first + Keys, k_end)),
                                                    block,
                                                    blocks,
                                                    static_cast<int>(q_begin + unseen),
                                                    static_cast<int>(q_end),
                                                    before.b + static_cast<int>(unseen / Queries)};
    }
    if (adding_tiles == 0) return;
    for (int b = threadIdx.x; b < adding_tiles; b += blockDim.x) {
        const row_index seen = position[min(q_begin + (b + index{1}) * Queries, q_end) - 1];
        int adding = a.causal ? 0 : blocks;  // pieces whose first key the last query sees: the comparison made above
        for (int left = a.causal ? blocks : 0; left > 0;) {
            const int half = left / 2;
            if (a.k_rows.position[k_begin + index{adding + half} * Keys] <= seen)
                adding += half + 1, left -= half + 1;
            else
                left = half;
        }
        plan.adding[before.b + b] = max(adding, 1);
        plan.first[before.b + b] = static_cast<int>(q_begin + b * index{Queries});
        plan.last[before.b + b] = static_cast<int>(q_end);
        for (int h = 0; h < a.heads; ++h) plan.added[h * plan.tiles + before.b + b] = 0;
    }
}

// The first `planning` blocks make the plan, the next `clearing` give zeros to rows of no sequence and to queries of one
// without keys, the others make statistics.
template <int>
__global__ void __launch_bounds__(statistics_threads)
    attention_one_pass_plan(attention_problem<bfloat16> a, rows_of<const bfloat16> dL_dout, rows_of<const bfloat16> out,
                            rows_of<const float> lse, query_statistics* to, unsigned planning, unsigned clearing,
                            one_pass_plan plan, rows_of<bfloat16> dL_dq, rows_of<bfloat16> dL_dk,
                            rows_of<bfloat16> dL_dv) {
    const index block = blockIdx.x;
    if (block < planning) return plan_sequence(a, plan, block);
    if (block >= planning + clearing) return make_statistics(a, dL_dout, out, lse, to, block - planning - clearing);
    const index number = block - planning;
    const int kv_width = a.heads / a.group * a.width;
    clear_outside(a.k_rows, a.key_rows, number, number, clearing, [&](index m) {
        for (const auto& rows : {dL_dk, dL_dv}) clear_columns(rows(m), kv_width);
    });
    clear_outside(
        a.q_rows, a.query_rows, number, number, clearing, [&](index n) { clear_columns(dL_dq(n), a.heads * a.width); },
        &a.k_rows);
}

struct piece : key_work {
    int kv_head;  // < 0: there are no more
    int part, first_head, last_head;  // its query heads: first_head.. below last_head

    __device__ bool none() const { return kv_head < 0; }
    __device__ bool alone() const { return blocks == 1; }  // no other adds to its queries
    __device__ int tiles() const {
        return (q_last - q_first + one_pass_queries - 1) / one_pass_queries * (last_head - first_head);
    }
    // visit(first query, head, number of the tile) for every tile, head by head
    template <class Visit>
    __device__ __forceinline__ void walk(Visit visit) const {
        for (int h = first_head; h < last_head; ++h)
            for (int n = q_first, b = tile; n < q_last; n += one_pass_queries, ++b) visit(n, h, b);
    }
};

// The piece that has a number in the order in which they are taken
__device__ inline piece numbered_piece(const one_pass_plan& plan, int kv_heads, int group, int pieces, int number) {
    piece out{};
    out.kv_head = -1;
    const int all = kv_heads * plan.parts;
    if (number >= pieces * all) return out;
    const int before = number / (pieces * plan.together) * plan.together, beside = min(plan.together, all - before),
              within = number - before * pieces, at = before + within % beside;
    static_cast<key_work&>(out) = plan.work[within / beside];
    out.kv_head = at / plan.parts, out.part = at % plan.parts;
    out.first_head = out.kv_head * group + out.part * group / plan.parts;
    out.last_head = out.kv_head * group + (out.part + 1) * group / plan.parts;
    return out;
}

}  // namespace spectral::cuda::detail
