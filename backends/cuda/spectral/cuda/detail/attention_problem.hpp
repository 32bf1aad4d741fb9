// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/attention_problem.hpp: what attention kernels are given, finding rows
#pragma once
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/cuda/partition.hpp>
#include <spectral/ops/attention.hpp>

namespace spectral::cuda::detail {

struct attention_rows {
    const row_index *begin, *end, *position, *sequence;
    index sequences;
    attention_rows(const row_map& m)
        : begin(m.begin.data),
          end(m.end.data),
          position(m.position.data),
          sequence(m.sequence.data),
          sequences(m.sequences()) {}
};

template <class T>
struct attention_problem {
    rows_of<const T> q, k, v;
    attention_rows q_rows, k_rows;
    int heads, group, width;  // query heads, query heads of one key/value head, D
    index query_rows, key_rows;  // Nq; Nk, which numbers the elements of the dropout mask
    bool causal;
    compute<T> scale;
    std::uint32_t drop_below;  // bits below this: dropped; 0: no dropout
    compute<T> kept;  // 1/(1−p)
    random_stream draw;

    // the factor of weight (query row n, head h, key row m)
    __device__ compute<T> dropout(index n, index h, index m) const {
        if (drop_below == 0) return 1;
        return draw.bits(static_cast<std::uint64_t>((n * heads + h) * key_rows + m)) < drop_below ? compute<T>(0)
                                                                                                  : kept;
    }
    __device__ bool sees(row_index query, row_index key) const { return !causal || key <= query; }
};

// Tile number `tile` of all sequences' rows cut into tiles of `size`: which sequence, and the tile's first row. Past the
// last tile: sequence -1, and how far past.
struct sequence_tile {
    index sequence, first;
};
__device__ inline sequence_tile find_tile(const attention_rows& rows, int size, index tile) {
    const int lane = threadIdx.x % 32;
    for (index base = 0; base < rows.sequences; base += 32) {
        const index s = base + lane;
        const int tiles = s < rows.sequences ? (rows.end[s] - rows.begin[s] + size - 1) / size : 0;
        int before = tiles;  // inclusive sum
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const int other = __shfl_up_sync(full_warp, before, step);
            if (lane >= step) before += other;
        }
        const int total = __shfl_sync(full_warp, before, 31);
        if (tile < total) {
            const int found = __ffs(__ballot_sync(full_warp, before > tile)) - 1;
            const int skipped = __shfl_sync(full_warp, before - tiles, found);
            return {base + found, rows.begin[base + found] + (tile - skipped) * size};
        }
        tile -= total;
    }
    return {-1, tile};
}

// clear(row), by a warp, for rows of no sequence, which no tile reaches: those between the sequences, which follow each
// other. By all blocks that found no tile: block `number` of `blocks`, `past` of which lie past the last tile before it.
template <class Clear>
__device__ inline void clear_outside(const attention_rows& map, index rows, index past, index number, index blocks,
                                     Clear clear, const attention_rows* keys = nullptr) {
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const index mine = past * warps + threadIdx.x / 32, all = (blocks - (number - past)) * warps;
    for (index base = 0; base <= map.sequences; base += 32) {
        const index s = base + lane;
        int first = 0, last = 0;
        if (s <= map.sequences) {
            first = s == 0 ? 0 : map.end[s - 1];
            last = s == map.sequences                       ? static_cast<int>(rows)
                   : keys && keys->begin[s] == keys->end[s] ? map.end[s]
                                                            : map.begin[s];
        }
        for (unsigned gaps = __ballot_sync(full_warp, first < last); gaps; gaps &= gaps - 1) {
            const int gap = __ffs(gaps) - 1, end = __shfl_sync(full_warp, last, gap);
            for (index n = __shfl_sync(full_warp, first, gap) + mine; n < end; n += all) clear(n);
        }
    }
}
template <class T>
__device__ inline void clear_columns(T* to, int count) {  // by a warp
    for (int c = threadIdx.x % 32; c < count; c += 32) to[c] = T{};
}

// How many keys of a sequence a query sees: the first ones, since positions ascend.
struct visible_keys {
    const row_index* position;  // of the sequence's keys
    int keys, start = 0;
    bool all, consecutive = true;

    template <class T>
    __device__ visible_keys(const attention_problem<T>& a, index sequence)
        : position(a.k_rows.position + a.k_rows.begin[sequence]),
          keys(a.k_rows.end[sequence] - a.k_rows.begin[sequence]),
          all(!a.causal) {
        if (all || keys == 0) return;
        start = position[0];
        consecutive = position[keys - 1] - start == keys - 1;  // all rows of a sequence: nothing to search
    }
    __device__ int operator()(row_index query) const {
        if (all) return keys;
        if (consecutive) return min(max(query - start + 1, 0), keys);
        return static_cast<int>(lower_bound(position, keys, index{query} + 1));
    }
};

template <class T>
attention_problem<T> make_problem(const_matrix<T> q, const_matrix<T> k, const_matrix<T> v, const row_map& q_rows,
                                  const row_map& k_rows, const attention_options& o) {
    using A = compute<T>;
    const bool all = o.dropout >= 1;
    return {rows_in(q),
            rows_in(k),
            rows_in(v),
            q_rows,
            k_rows,
            static_cast<int>(o.heads),
            static_cast<int>(o.heads / o.kv_heads),
            static_cast<int>(q.width() / o.heads),
            q.rows(),
            k.rows(),
            o.causal,
            static_cast<A>(o.scale),
            all             ? 0xFFFFFFFFu
            : o.dropout > 0 ? probability_threshold(o.dropout)
                            : 0u,
            static_cast<A>(all ? 0 : 1 / (1 - std::max(o.dropout, 0.0))),
            o.draw};
}

// f(true_type) or f(false_type)
template <class F>
void with_dropout(bool dropout, F&& f) {
    if (dropout)
        f(std::true_type{});
    else
        f(std::false_type{});
}

// Blocks for all tiles there can be, and at least one that finds none and clears what lies outside the sequences.
inline unsigned sequence_tiles(index rows, index sequences, index size) {
    return static_cast<unsigned>(rows / size + sequences + 1);
}

}  // namespace spectral::cuda::detail
