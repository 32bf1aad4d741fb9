// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/partition.hpp: rows by operator, gather, scatter, sub-maps
#pragma once
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/ops/partition.hpp>

#include <cub/block/block_scan.cuh>

namespace spectral::cuda {

namespace detail {

// The rows of a selection where a kernel can read them.
struct selected {
    const row_index *rows, *count;
    index capacity;

    selected(const selection& s) : rows(s.rows), count(s.count), capacity(s.capacity) {}
    __device__ index size() const { return count ? index{*count} : capacity; }
    __device__ index operator[](index i) const { return rows ? index{rows[i]} : i; }
};

// Block (o, part) lists the rows of operator o among `tiles` tiles of a row a thread: a stable compaction, one scan a
// tile. How many come before its part, it counts itself, from the second level cache: that takes less time than a
// second kernel, and no temporary memory. Parts are at most `partition_parts`: what they read grows with the rows, not
// with their square.
inline constexpr int partition_tile = 1024, partition_parts = 64;
template <int>
__global__ void __launch_bounds__(partition_tile)
    partition_rows(index count, index tiles, const row_index* op, rows_of<row_index> rows, row_index* counts) {
    using both = unsigned long long;  // found before this part, and in this tile: one scan adds up the two
    using scan = cub::BlockScan<both, partition_tile, cub::BLOCK_SCAN_WARP_SCANS>;
    __shared__ typename scan::TempStorage memory;
    constexpr int at_once = 16;  // so that one wait is for many
    const auto mine = static_cast<row_index>(blockIdx.x);
    const index first = index{blockIdx.y} * tiles * partition_tile;
    const auto of = [&](index n, index end) { return n < end ? op[n] : row_index{-1}; };
    wait_for_previous();
    unsigned earlier = 0;
    for (index n = threadIdx.x; n < first; n += at_once * partition_tile) {
        row_index got[at_once];
#pragma unroll
        for (int i = 0; i < at_once; ++i) got[i] = of(n + index{i} * partition_tile, first);
#pragma unroll
        for (int i = 0; i < at_once; ++i) earlier += got[i] == mine;
    }
    row_index* to = rows(blockIdx.x);
    index found = 0;
    for (index tile = 0; tile < tiles; ++tile) {
        const index n = first + tile * partition_tile + threadIdx.x;
        const bool chosen = of(n, count) == mine;
        both before, total;
        scan(memory).ExclusiveSum(both{earlier} << 32 | both{chosen}, before, total);
        found += static_cast<index>(total >> 32);
        if (chosen) to[found + static_cast<unsigned>(before)] = static_cast<row_index>(n);
        found += static_cast<unsigned>(total);
        earlier = 0;
        __syncthreads();  // the next scan uses the same memory
    }
    if (threadIdx.x == 0 && blockIdx.y == gridDim.y - 1) counts[blockIdx.x] = static_cast<row_index>(found);
}

// to[to_rows[i]] (= or +=) from[from_rows[i]], one row to a line of threads; of the first *counted, where that is given
template <int V, class T>
__global__ void move_rows(index count, const row_index* counted, index width, rows_of<const T> from,
                          const row_index* from_rows, rows_of<T> to, const row_index* to_rows, bool accumulate) {
    using A = compute<T>;
    if (counted) count = *counted;
    for (index i = index{blockIdx.x} * blockDim.y + threadIdx.y; i < count; i += index{gridDim.x} * blockDim.y) {
        const T* in = from(from_rows ? index{from_rows[i]} : i);
        T* out = to(to_rows ? index{to_rows[i]} : i);
        for (index c = index{V} * threadIdx.x; c < width; c += index{V} * blockDim.x) {
            A value[V], before[V];
            load<V>(in + c, value);
            if (accumulate) {
                load<V>(out + c, before);
#pragma unroll
                for (int k = 0; k < V; ++k) value[k] += before[k];
            }
            store<V>(out + c, value);
        }
    }
}

template <class T>
void move(executor& ex, const char* what, index count, const_matrix<T> from, const row_index* from_rows,
          matrix_view<T> to, const row_index* to_rows, bool accumulate, const row_index* counted = nullptr) {
    if (count == 0 || from.width() == 0) return;
    with_packs<T>(takes_packs(from, to), [&](auto v) {
        const unsigned x = threads_covering(divide_up(from.width(), v()), 1, 128), lines = 128 / x;
        launch(ex, what, blocks_for(ex, count, lines), dim3(x, lines), 0, move_rows<v(), T>, count, counted,
               from.width(), rows_in(from), from_rows, rows_in(to), to_rows, accumulate);
    });
}

// how many of count ascending values are below `limit`
__device__ inline index lower_bound(const row_index* values, index count, index limit) {
    index first = 0;
    while (count > 0) {
        const index half = count / 2;
        if (values[first + half] < limit)
            first += half + 1, count -= half + 1;
        else
            count = half;
    }
    return first;
}

}  // namespace detail

inline void partition_kernel(executor& ex, const_vector<row_index> op, matrix_view<row_index> rows,
                             vector_view<row_index> counts) {
    constexpr index tile = detail::partition_tile;
    const index tiles = std::max<index>(detail::divide_up(op.size(), tile * detail::partition_parts), 1),
                parts = std::max<index>(detail::divide_up(op.size(), tile * tiles), 1);
    detail::launch_overlapping(ex, "partition",
                               dim3(static_cast<unsigned>(counts.size()), static_cast<unsigned>(parts)),
                               detail::partition_tile, 0, true, detail::partition_rows<0>, op.size(), tiles, op.data,
                               detail::rows_in(rows), counts.data);
}

template <class T>
void gather_rows_kernel(executor& ex, const_matrix<T> x, const selection& rows, matrix_view<T> packed) {
    detail::move<T>(ex, "gather_rows", packed.rows(), x, rows.rows, packed, nullptr, false);
}

template <class T>
void scatter_rows_kernel(executor& ex, const_matrix<T> packed, const selection& rows, matrix_view<T> y, write mode) {
    detail::move<T>(ex, "scatter_rows", packed.rows(), packed, nullptr, y, rows.rows, mode == write::accumulate);
}

template <class T>
void copy_rows_kernel(executor& ex, const_matrix<T> x, const selection& rows, matrix_view<T> y) {
    detail::move<T>(ex, "copy_rows", rows.capacity, x, rows.rows, y, rows.rows, false, rows.count);
}

// Selected rows ascend and sequences are packed in order: a sequence's rows begin where its first row would be put.
inline void select_rows_kernel(executor& ex, const row_map& map, const selection& rows, vector_view<row_index> offsets,
                               vector_view<row_index> position, vector_view<row_index> sequence) {
    const index n = position.size(), S = map.sequences();
    const row_index *chosen = rows.rows, *begin = map.begin.data, *from_position = map.position.data,
                    *from_sequence = map.sequence.data;
    row_index *offset = offsets.data, *to_position = position.data, *to_sequence = sequence.data;
    detail::for_each(ex, "select_rows", S + 1, [=] __device__(index s) {
        offset[s] = static_cast<row_index>(s == S ? n : detail::lower_bound(chosen, n, begin[s]));
    });
    detail::for_each(ex, "select_rows", n, [=] __device__(index i) {
        to_position[i] = from_position[chosen[i]];
        to_sequence[i] = from_sequence[chosen[i]];
    });
}

}  // namespace spectral::cuda
