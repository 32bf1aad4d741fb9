// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/halves_job.hpp: what the kernel of block_halves.hpp is given, and where it lies in
// shared memory
#pragma once
#include <spectral/cuda/detail/few_rows.hpp>
#include <spectral/cuda/detail/warpgroup.hpp>

namespace spectral::cuda::detail {

inline constexpr int stream_warps = 8, stream_threads = 32 * stream_warps;
// and four warps, of which one asks for weights: registers are shared out by fours
inline constexpr int halves_threads = stream_threads + 128;
inline constexpr int tile_rows = 8, tile_columns = 1024;  // of a weight, on their way together
inline constexpr int tile_stride = 2 * tile_columns + 64;  // bytes; neighbouring rows in different banks
inline constexpr int tile_bytes = tile_rows * tile_stride;
inline constexpr int most_tiles = 12;  // of a product, whose sums wait in shared memory
inline constexpr int most_slots = 12;  // tiles of the ring
// Tiles asked for and not there yet. More fill the queues of the memory, and the small reads that results wait for
// stand in them: 3 made a step 3 %, no bound 7 % longer.
inline constexpr int under_way = 1;
inline constexpr int most_halves = 64;  // of one launch: what its parameters hold
inline constexpr int most_parts = 16, part_steps = 8;  // of a row's keys; loads that a lane has under way

// four bytes of a result, and the barrier before which they were made: grid_barrier.hpp
struct alignas(8) packet {
    unsigned data, stamp;
};
template <class T>
inline constexpr int packet_values = 4 / sizeof(T);

// A half's products: columns of x; the first tile of eight outputs, or of four pairs that belong together; how many.
// The host gives the first that is wanted and the number of all; a block makes of that its own.
struct product_share {
    int width, first, tiles;
    // Who has one more of the first product's tiles has one less of the second's.
    __device__ void take(bool second) {
        const int all = tiles, blocks = static_cast<int>(gridDim.x);
        first = second ? blocks - 1 - static_cast<int>(blockIdx.x) : first + static_cast<int>(blockIdx.x);
        tiles = max(0, (all - first + blocks - 1) / blocks);
    }
};

template <class T>
struct half_step {
    product_share of[2];
    const T* from;  // (N, C): of halves until one has rows, else packets
    T* to;  // of the last, besides packets: keys alone may follow
    const packet* from_packets;
    packet* to_packets;
    const T* gamma;
    const bfloat16 *first[3], *second;  // q, k, v or gate, up; then o or down
    const T *bias[3], *second_bias;
    adapter_list<T, 3> low;
    adapter_list<T, 1> second_low;
    T *k, *v;
    row_index *begin, *end, *position;
    compute<T> eps, scale;
    unsigned rows, keys;  // bit n: row n takes part; row n appends its key
    bool attention;
};

template <class T>
struct halves_job {
    int count, rows, log_rows, width, inner, heads, kv_heads, group, log_D, slots, low;
    float per_width;  // 1 / width
    const row_index *row_position, *row_sequence;
    rows_of<const statistic<T>> rotary;
    packet *fresh, *hidden;  // (N, q | k | v) of this step, (N, inner)
    compute<T>* parts;  // (N, heads, most_parts, D), then (N, heads, most_parts, 2)
    unsigned long long* arrivals;
    half_step<T> step[most_halves];

    __host__ __device__ int D() const { return 1 << log_D; }
    __host__ __device__ int widest() const { return max(max(width, inner), heads << log_D); }
    __host__ __device__ int fresh_width() const { return (heads + 2 * kv_heads) << log_D; }
    // The first column of a pair of (q | k | v) that rotates together, the other is D/2 further; and where it belongs
    __device__ int fresh_column(int pair) const {
        return (pair >> (log_D - 1) << log_D) + (pair & ((1 << (log_D - 1)) - 1));
    }
    struct place {
        int which, column;  // 0 q, 1 k, 2 v
    };
    __device__ place of_fresh(int column) const {
        const int q = heads << log_D, k = kv_heads << log_D;
        return column < q ? place{0, column} : column < q + k ? place{1, column - q} : place{2, column - q - k};
    }
    // row r of a tile
    __device__ const bfloat16* weight(const half_step<T>& h, int product, int tile, int r) const {
        if (product) return h.second + index{tile * tile_rows + r} * h.of[1].width;
        const int p = (tile * tile_rows + r) / 2;
        if (!h.attention) return h.first[r % 2] + index{p} * width;
        const place at = of_fresh(fresh_column(p));
        return h.first[at.which] + index{at.column + (r % 2 << (log_D - 1))} * width;
    }
    // bytes between rows of x in shared memory
    __host__ __device__ static int x_stride(int columns) { return (2 * columns + 127) / 128 * 128 + 64; }
};

// Where a row's keys lie, and how they are shared out, which follows from the sequence's own length.
struct keys_of_row {
    int first, last, each, parts;
    __device__ keys_of_row(int first_, int last_, int at_once) : first(first_), last(last_) {
        each = at_once * ((last + 1 - first + at_once * most_parts - 1) / (at_once * most_parts));
        parts = (last + 1 - first + each - 1) / each;
    }
};

// Where things lie in a block's shared memory.
template <class T>
struct halves_layout {
    static constexpr int planes = std::is_same_v<T, float> ? 3 : 1;  // of x: the bfloat16 that add up to a value
    std::size_t ring, barriers, steps, places, rotary, low, scratch, sums, x, bytes;
    __host__ __device__ explicit halves_layout(const halves_job<T>& job) {
        std::size_t at = 0;
        const auto take = [&](std::size_t size) {
            const std::size_t here = at;
            at += (size + 127) / 128 * 128;
            return here;
        };
        ring = take(std::size_t{tile_bytes} * job.slots);
        barriers = take(sizeof(shared_barrier) * 2 * job.slots);
        steps = take(sizeof(half_step<T>) * job.count);
        places = take(sizeof(keys_of_row) * job.count * job.rows);
        rotary = take(sizeof(float) * (job.rows << job.log_D));
        low = take(sizeof(float) * job.rows * job.low);
        scratch = take(sizeof(float) * stream_warps * (job.D() + 2));
        sums = take(sizeof(float) * most_tiles * stream_warps * (tile_rows << job.log_rows));
        x = take(std::size_t{planes} * job.rows * job.x_stride(job.widest()));
        bytes = at;
    }
};

}  // namespace spectral::cuda::detail
