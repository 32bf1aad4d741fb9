// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/block_halves.hpp: halves of blocks one after another, for a row each of at most 8
// sequences, in one kernel
//
// One block of threads on every multiprocessor stays for the whole chain. Weights depend on nothing, so they never
// wait: a warp that does nothing else asks for them in the order in which they will be used, eight rows at a time into
// a ring in shared memory, far beyond the barriers that results wait at. The other eight warps share the columns of
// such a tile, multiply it with up to eight rows of x on tensor cores, and add up their shares.
//
//   attention half      norm, q/k/v, rotation, append | attention in parts | merge, output projection, residual |
//   feed-forward half   norm, gate and up, SiLU | down, residual |                  | a barrier of all blocks
//
// Weights are bfloat16. A float x is the sum of three bfloat16, whose products are exact: same tiles, no rounding but
// that of the sums. Rows do not meet, attention's parts follow from a sequence's own length, and sums are added in an
// order that depends on shapes and on the tiles that the ring holds, which is the number of rows' doing: what
// neighbours hold does not reach a row.
#pragma once
#include <spectral/cuda/detail/few_rows.hpp>
#include <spectral/cuda/detail/tensor_core.hpp>

namespace spectral::cuda::detail {

inline constexpr int stream_warps = 8, stream_threads = 32 * stream_warps;
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

template <class T>
struct half_step {
    const T* from;  // (N, C)
    T* to;
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
    int count, rows, width, inner, heads, kv_heads, group, log_D, slots, low;
    float per_width;  // 1 / width
    const row_index *row_position, *row_sequence;
    rows_of<const statistic<T>> rotary;
    T *q, *hidden;
    compute<T>* parts;  // (N, heads, most_parts, D), then (N, heads, most_parts, 2)
    unsigned long long* arrivals;
    half_step<T> step[most_halves];

    __host__ __device__ int D() const { return 1 << log_D; }
    __host__ __device__ int widest() const { return max(max(width, inner), heads << log_D); }
    __device__ int width_of(const half_step<T>& h, int product) const {
        return product == 0 ? width : h.attention ? heads << log_D : inner;
    }
    // tiles: four pairs of outputs that belong together, or eight outputs
    __device__ int tiles(const half_step<T>& h, int product) const {
        if (product) return h.rows ? width / tile_rows : 0;
        return (h.attention ? (heads + 2 * kv_heads) << (log_D - 1) : inner) / (tile_rows / 2);
    }
    // of this block; a half that only appends keys leaves queries out. Who has one more of the first product's tiles has
    // one less of the second's.
    __device__ int first_tile(const half_step<T>& h, int product) const {
        if (product) return static_cast<int>(gridDim.x - 1 - blockIdx.x);
        return static_cast<int>(blockIdx.x) + (h.attention && !h.rows ? heads << log_D : 0) / tile_rows;
    }
    // a pair of columns of (q, k, v) that rotates together
    struct rotated {
        int which, column;
    };  // 0 q, 1 k, 2 v; the first of the two, the other is D/2 further
    __device__ rotated pair(int p) const {
        const int half = 1 << (log_D - 1), q = heads << log_D, k = kv_heads << log_D;
        const int row = (p >> (log_D - 1) << log_D) + (p & (half - 1));
        return row < q ? rotated{0, row} : row < q + k ? rotated{1, row - q} : rotated{2, row - q - k};
    }
    // row r of a tile
    __device__ const bfloat16* weight(const half_step<T>& h, int product, int tile, int r) const {
        if (product) return h.second + index{tile * tile_rows + r} * width_of(h, 1);
        const int p = (tile * tile_rows + r) / 2;
        if (!h.attention) return h.first[r % 2] + index{p} * width;
        const rotated at = pair(p);
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
        sums = take(sizeof(float) * most_tiles * stream_warps * job.rows * tile_rows);
        x = take(std::size_t{planes} * job.rows * job.x_stride(job.widest()));
        bytes = at;
    }
};

// ---- waiting --------------------------------------------------------------------------------------------------------

__device__ inline void stream_sync() { asm volatile("bar.sync 1, %0;" ::"n"(stream_threads) : "memory"); }

// 16 bytes that another multiprocessor wrote in this launch
__device__ inline words read_result(const void* from) {
    words out;
#if defined(__CUDA_ARCH__)
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out.value[0]), "=r"(out.value[1]), "=r"(out.value[2]), "=r"(out.value[3])
                 : "l"(from)
                 : "memory");
#else
    out = *static_cast<const words*>(from);
#endif
    return out;
}
// asks for 128 bytes, which stay in the second level cache when others leave
__device__ inline void keep_near(const void* from) {
#if defined(__CUDA_ARCH__)
    asm volatile("prefetch.global.L2::evict_last [%0];" ::"l"(from));
#endif
}
template <class T>
__device__ inline T read_one(const T* from) {
    if constexpr (sizeof(T) == 2) {
        const unsigned short bits = __ldcg(reinterpret_cast<const unsigned short*>(from));
        return reinterpret_cast<const T&>(bits);
    } else {
        return __ldcg(from);
    }
}

// All blocks of the grid have arrived; what they wrote before is there.
struct grid_barrier {
    unsigned long long *arrivals, target = 0;
    __device__ explicit grid_barrier(unsigned long long* a) : arrivals(a) {
#if defined(__CUDA_ARCH__)
        unsigned long long now;  // between two multiples of the grid: the others cannot be further than this block
        asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(now) : "l"(arrivals) : "memory");
        target = now - now % gridDim.x;
#endif
    }
    __device__ void arrive() {
        stream_sync();
        target += gridDim.x;
#if defined(__CUDA_ARCH__)
        if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u64 [%0], 1;" ::"l"(arrivals) : "memory");
#endif
    }
    __device__ void wait() const {
#if defined(__CUDA_ARCH__)
        if (threadIdx.x == 0) {
            unsigned long long now;
            do asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(now) : "l"(arrivals) : "memory");
            while (now < target);
        }
#endif
        stream_sync();
    }
};

// ---- the warp that asks for weights ---------------------------------------------------------------------------------

template <class T>
__device__ void ask_for_weights(const halves_job<T>& job, const half_step<T>* steps, unsigned char* ring,
                                shared_barrier* full, shared_barrier* empty) {
    const int row = threadIdx.x % 32;
    if (row >= tile_rows) return;
    int slot = 0, asked = 0;
    unsigned parity = 1;
    for (int i = 0; i < job.count; ++i)
        for (int product = 0; product < 2; ++product) {
            const auto& h = steps[i];
            const int width = job.width_of(h, product), tiles = job.tiles(h, product);
            for (int tile = job.first_tile(h, product); tile < tiles; tile += static_cast<int>(gridDim.x)) {
                const bfloat16* from = job.weight(h, product, tile, row);
                for (int c = 0; c < width; c += tile_columns) {
                    empty[slot].wait(parity);
                    if (asked >= under_way) {
                        const bool wraps = slot < under_way;
                        full[slot - under_way + (wraps ? job.slots : 0)].wait(parity ^ 1 ^ wraps);
                    }
                    ++asked;
                    copy_bulk_once(ring + tile_bytes * slot + tile_stride * row, from + c,
                                   2 * min(tile_columns, width - c), full[slot]);
                    if (++slot == job.slots) slot = 0, parity ^= 1;
                }
            }
        }
}

// ---- the warps that compute -----------------------------------------------------------------------------------------

template <class T>
struct halves_worker {
    using A = float;
    static constexpr int planes = halves_layout<T>::planes;
    const halves_job<T>& job;
    unsigned char *x, *ring;  // x: (planes, N, width of the product)
    A *low, *sums;
    shared_barrier *full, *empty;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, slot = 0;
    unsigned parity = 0;

    // V values of x, from column c of row n
    template <int V>
    __device__ void put(int n, int c, int width, const A (&value)[V]) {
        A left[V];
#pragma unroll
        for (int i = 0; i < V; ++i) left[i] = value[i];
#pragma unroll
        for (int p = 0; p < planes; ++p) {
            store<V>(reinterpret_cast<bfloat16*>(x + (p * job.rows + n) * job.x_stride(width)) + c, left);
#pragma unroll
            for (int i = 0; i < V; ++i) left[i] -= widen(narrow<bfloat16>(left[i]));
        }
    }
    template <int V>
    __device__ void get(int n, int c, int width, A (&value)[V]) const {
#pragma unroll
        for (int p = planes; p-- > 0;) {
            A part[V];
            load<V>(reinterpret_cast<const bfloat16*>(x + (p * job.rows + n) * job.x_stride(width)) + c, part);
#pragma unroll
            for (int i = 0; i < V; ++i) value[i] = p == planes - 1 ? part[i] : value[i] + part[i];
        }
    }

    // x: RMSNorm of what the half starts from, or that itself. A warp adds up its row's squares, so do the others of
    // that row, and each scales its share.
    __device__ void normalise(const half_step<T>& h) {
        constexpr int V = wide<T>, ahead = 4;
        const int log_rows = job.rows > 4   ? 3
                             : job.rows > 2 ? 2
                                            : job.rows - 1,
                  n = warp & ((1 << log_rows) - 1), share = warp >> log_rows, sharers = stream_warps >> log_rows,
                  packs = job.width / V, own = 32 * share + lane;
        const T* row = h.from + index{n} * job.width;
        if (n < job.rows) {
            words gamma{};
            if (h.gamma && own < packs) gamma = *reinterpret_cast<const words*>(h.gamma + V * own);
            A square = 0;
#pragma unroll 1
            for (int base = 0; base < packs; base += 32 * ahead) {
                words got[ahead];
#pragma unroll
                for (int u = 0; u < ahead; ++u) {
                    got[u] = words{};
                    if (base + 32 * u + lane < packs) got[u] = read_result(row + V * (base + 32 * u + lane));
                }
#pragma unroll
                for (int u = 0; u < ahead; ++u) {
                    A value[V];
                    unpack<T>(got[u], value);
#pragma unroll
                    for (int i = 0; i < V; ++i) square += value[i] * value[i];
                    if (((base / 32 + u) & (sharers - 1)) == share && base + 32 * u + lane < packs)
                        put(n, V * (base + 32 * u + lane), job.width, value);
                }
            }
            if (h.gamma) {
                const A factor = rsqrtf(warp_reduce(square) * job.per_width + h.eps);
#pragma unroll 1
                for (int at = own; at < packs; at += 32 * sharers) {
                    A value[V], g[V];
                    get(n, V * at, job.width, value);
                    if (at > own) gamma = *reinterpret_cast<const words*>(h.gamma + V * at);
                    unpack<T>(gamma, g);
#pragma unroll
                    for (int i = 0; i < V; ++i) value[i] *= factor * g[i];
                    put(n, V * at, job.width, value);
                }
            }
        }
        stream_sync();
    }
    __device__ void copy_in(const T* from, int width) {
        constexpr int V = wide<T>, ahead = 4;
#pragma unroll 1
        for (int n = 0; n < job.rows; ++n)
#pragma unroll 1
            for (int base = V * threadIdx.x; base < width; base += ahead * V * stream_threads) {
                words got[ahead];
#pragma unroll
                for (int u = 0; u < ahead; ++u)
                    if (base + u * V * stream_threads < width)
                        got[u] = read_result(from + index{n} * width + base + u * V * stream_threads);
#pragma unroll
                for (int u = 0; u < ahead; ++u)
                    if (base + u * V * stream_threads < width) {
                        A value[V];
                        unpack<T>(got[u], value);
                        put(n, base + u * V * stream_threads, width, value);
                    }
            }
        stream_sync();
    }

    // scale · A x of every adapter that takes this x; rarely asked for, so out of the way of what is
    template <int Count>
    __device__ void low_ranks(const adapter_list<T, Count>& adapters, int width) const {
        if (adapters.total) low_ranks_of(*this, adapters, width);
    }
    template <int Count>
    static __device__ __noinline__ void low_ranks_of(halves_worker w, const adapter_list<T, Count>& adapters,
                                                     int width) {
        for (const auto& a : adapters.of)
            for (int i = w.warp; i < a.rank * w.job.rows; i += stream_warps) {
                const int j = i / w.job.rows, m = i % w.job.rows;
                A sum = 0;
                for (int c = w.lane * wide<T>; c < width; c += 32 * wide<T>) {
                    A value[wide<T>], factor[wide<T>];
                    w.get(m, c, width, value);
                    load_values<wide<T>>(a.a + index{j} * width + c, factor);
#pragma unroll
                    for (int v = 0; v < wide<T>; ++v) sum += value[v] * factor[v];
                }
                sum = warp_reduce(sum);
                if (w.lane == 0) w.low[m * adapters.total + a.first + j] = a.scale * sum;
            }
        stream_sync();
    }
    template <int Count>
    __device__ A adapted(const adapter_list<T, Count>& adapters, int which, int output, int n) const {
        const auto& a = adapters.of[which];
        A sum = 0;
#pragma unroll 4
        for (int j = 0; j < a.rank; ++j)
            sum += widen(a.b[index{output} * a.rank + j]) * low[n * adapters.total + a.first + j];
        return sum;
    }

    // The tiles of this block: known(pair, n) is what an item needs besides its sums, of the thread's first item it is
    // asked for early; finish(pair, n, known, sum, other sum) comes last.
    struct tiles_of_block {
        int first, tiles, stride, count = 0;  // count: whose sums are made at once
        __device__ void take() { count = min((tiles - first + stride - 1) / stride, most_tiles); }
        __device__ int pair(int item, int rows) const { return (first + item / 4 / rows * stride) * 4 + item % 4; }
    };
    __device__ tiles_of_block tiles_of(const half_step<T>& h, int which) const {
        tiles_of_block out{job.first_tile(h, which), job.tiles(h, which), static_cast<int>(gridDim.x)};
        out.take();
        return out;
    }
    template <class Known>
    __device__ auto early(const half_step<T>& h, int which, Known&& known) const {
        const auto tiles = tiles_of(h, which);
        const int i = threadIdx.x;
        decltype(known(0, 0)) out{};
        if (i < tiles.count * job.rows * 4) out = known(tiles.pair(i, job.rows), i / 4 % job.rows);
        return out;
    }
    // d += x of steps `at`, `at` + `by`, ... below `steps` times a tile; a step is 32 columns
    __device__ void multiply(A (&d)[4][4], const unsigned char* own, int plane, const unsigned char* tile, int at,
                             int by, int steps) const {
#pragma unroll 1
        for (; at < steps; at += 4 * by) {
            words w[4], v[4][planes];
#pragma unroll
            for (int u = 0; u < 4; ++u) {
                const bool there = at + by * u < steps;
                w[u] = there ? *reinterpret_cast<const words*>(tile + 64 * (at + by * u)) : words{};
#pragma unroll
                for (int p = 0; p < planes; ++p)
                    v[u][p] = there ? *reinterpret_cast<const words*>(own + p * plane + 64 * (at + by * u)) : words{};
            }
#pragma unroll
            for (int k = 0; k < 4; k += 2)
#pragma unroll
                for (int u = 0; u < 4; ++u) {  // four sums, so that no product waits for the one before
                    const unsigned second0 = planes > 1 ? v[u][planes / 2].value[k] : 0,
                                   second1 = planes > 1 ? v[u][planes / 2].value[k + 1] : 0;
                    multiply_add(d[u], {v[u][0].value[k], second0, v[u][0].value[k + 1], second1}, w[u].value[k],
                                 w[u].value[k + 1]);
                }
            if constexpr (planes > 1)
#pragma unroll
                for (int k = 0; k < 4; k += 2)
#pragma unroll
                    for (int u = 0; u < 4; ++u)
                        multiply_add(d[u], {v[u][2].value[k], 0, v[u][2].value[k + 1], 0}, w[u].value[k],
                                     w[u].value[k + 1]);
        }
    }
    __device__ void skip(int tiles_gone) {
        for (slot += tiles_gone; slot >= job.slots; slot -= job.slots) parity ^= 1;
    }
    // Eight tiles go one to a warp, where the ring holds them and what is under way: a warp may be a round of tiles ahead
    // of another, and a barrier tells a phase from the next only. What is left over is shared, a step to each in turn.
    template <class Early, class Known, class Finish>
    __device__ void product(const half_step<T>& h, int which, Early early, Known&& known, Finish&& finish) {
        const int width = job.width_of(h, which), row = lane / 4, quarter = lane % 4,
                  plane = job.rows * job.x_stride(width), chunks = (width + tile_columns - 1) / tile_columns;
        const unsigned char* own = x + min(row, job.rows - 1) * job.x_stride(width) + 16 * quarter;
        auto tiles = tiles_of(h, which);
#pragma unroll 1
        for (; tiles.first < tiles.tiles; tiles.first += tiles.stride * most_tiles) {
            tiles.take();
            const int items = tiles.count * job.rows * 4, alone = stream_warps * chunks + under_way - 1 <= job.slots
                                                                      ? tiles.count / stream_warps * stream_warps
                                                                      : 0;
#pragma unroll 1
            for (int t = alone ? warp : 0; t < tiles.count;) {
                const bool shared = t >= alone;
                A d[4][4] = {};
                if (!shared) skip(warp * chunks);
#pragma unroll 1
                for (int c = 0; c < width; c += tile_columns) {
                    full[slot].wait(parity);
                    multiply(d, own + 2 * c, plane, ring + tile_bytes * slot + tile_stride * row + 16 * quarter,
                             shared ? warp : 0, shared ? stream_warps : 1, min(tile_columns, width - c) / 32);
                    __syncwarp();
                    if (lane < (shared ? 1 : stream_warps)) empty[slot].arrive();
                    skip(1);
                }
                if (!shared) skip((stream_warps - 1 - warp) * chunks);
                if (row < job.rows) {
                    A sum[2] = {};
#pragma unroll
                    for (int u = 0; u < 4; ++u)
#pragma unroll
                        for (int r = 0; r < 2; ++r) sum[r] += d[u][r] + d[u][2 + r];
                    store<2>(
                        sums + ((t * stream_warps + (shared ? warp : 0)) * job.rows + row) * tile_rows + 2 * quarter,
                        sum);
                }
                t = shared ? t + 1 : t + stream_warps < alone ? t + stream_warps : alone;
            }
            stream_sync();
#pragma unroll 1
            for (int i = threadIdx.x; i < items; i += stream_threads) {
                const int t = i / 4 / job.rows, n = i / 4 % job.rows;
                A sum[2] = {};
                for (int w = 0; w < (t < alone ? 1 : stream_warps); ++w) {
                    A part[2];
                    load<2>(sums + ((t * stream_warps + w) * job.rows + n) * tile_rows + 2 * (i % 4), part);
                    sum[0] += part[0], sum[1] += part[1];
                }
                if (i >= stream_threads) early = known(tiles.pair(i, job.rows), n);
                finish(tiles.pair(i, job.rows), n, early, sum[0], sum[1]);
            }
            if (tiles.first + tiles.stride * most_tiles < tiles.tiles) {  // the next sums go where these were read
                stream_sync();
                auto next = tiles;
                next.first += tiles.stride * most_tiles, next.take();
                if (static_cast<int>(threadIdx.x) < next.count * job.rows * 4)
                    early = known(next.pair(threadIdx.x, job.rows), static_cast<int>(threadIdx.x) / 4 % job.rows);
            }
        }
    }

    // ---- attention ----

    // Query heads against parts of their keys: a key is read by D/V lanes, a warp takes 32 V/D of them at once. Keys
    // of earlier steps are read while this step's are still made. Result of a (row, head, part): D sums; the sum of the
    // weights, the largest score.
    __device__ void attend(const half_step<T>& h, const keys_of_row* places, A* scratch, const grid_barrier& all) {
        constexpr int V = wide<T>;
        const int D = job.D(), lanes = D / V, at_once = 32 * V >> job.log_D, column = V * lane & (D - 1),
                  key = V * lane >> job.log_D, heads = job.rows * job.heads, stride = job.kv_heads * D;
        A* totals = job.parts + (index{job.rows * job.heads * most_parts} << job.log_D);
        words k[part_steps], v[part_steps];
        bool early = true;
#pragma unroll 1
        for (int unit = blockIdx.x; unit < heads * most_parts; unit += gridDim.x) {
            int head = unit, z = 0, n = 0, kv_head = 0;  // unit = (z, n, head); small numbers: no division
            for (; head >= heads; head -= heads) ++z;
            for (; head >= job.heads; head -= job.heads) ++n;
            for (int g = head; g >= job.group; g -= job.group) ++kv_head;
            const keys_of_row part = places[n];
            if (!(h.rows >> n & 1) || z >= part.parts) continue;
            const int begin = part.first + z * part.each, end = min(begin + part.each, part.last + 1);
            const index from = index{kv_head} * D + column;
            const auto read = [&](int base, int least, int most, bool first) {  // those of [least, most)
#pragma unroll
                for (int u = 0; u < part_steps; ++u) {
                    const int m = base + at_once * u + key;
                    if (first) k[u] = v[u] = words{};
                    if (m < least || m >= most) continue;
                    k[u] = read_result(h.k + index{m} * stride + from),
                    v[u] = read_result(h.v + index{m} * stride + from);
                }
            };
            int base = begin + at_once * part_steps * warp;
            if (early) {
                read(base, begin, min(end, part.last), true);
                all.wait();
                read(base, max(begin, part.last), end, false);
            }
            A query[V], acc[V] = {}, total = 0, largest = -INFINITY;
            unpack<T>(read_result(job.q + ((index{n} * job.heads + head) << job.log_D) + column), query);
#pragma unroll 1
            for (; base < end; base += at_once * part_steps * stream_warps) {
                if (!early) read(base, begin, end, true);
                early = false;
                A score[part_steps], most = largest;
#pragma unroll
                for (int u = 0; u < part_steps; ++u) {
                    A value[V];
                    unpack<T>(k[u], value);
                    score[u] = 0;
#pragma unroll
                    for (int i = 0; i < V; ++i) score[u] += query[i] * value[i];
                }
                for (int l = lanes / 2; l > 0; l /= 2)
#pragma unroll
                    for (int u = 0; u < part_steps; ++u) score[u] += __shfl_xor_sync(full_warp, score[u], l);
#pragma unroll
                for (int u = 0; u < part_steps; ++u) {
                    score[u] =
                        base + at_once * u + key < end ? score[u] * (h.scale * A(1.4426950408889634)) : A(-INFINITY);
                    most = greater{}(most, score[u]);
                }
                const A shrink = most == -INFINITY ? A(1) : exp2_approximate(largest - most);
                largest = most;
                total *= shrink;
#pragma unroll
                for (int i = 0; i < V; ++i) acc[i] *= shrink;
#pragma unroll
                for (int u = 0; u < part_steps; ++u) {
                    const A weight = most == -INFINITY ? A(0) : exp2_approximate(score[u] - most);
                    A value[V];
                    unpack<T>(v[u], value);
                    total += weight;
#pragma unroll
                    for (int i = 0; i < V; ++i) acc[i] += weight * value[i];
                }
            }
            early = false;
            // keys of a warp, then warps
            A most = largest;
            for (int l = lanes; l < 32; l *= 2) most = greater{}(most, __shfl_xor_sync(full_warp, most, l));
            const A factor = most == -INFINITY ? A(0) : exp2_approximate(largest - most);
            total *= factor;
#pragma unroll
            for (int i = 0; i < V; ++i) acc[i] *= factor;
            for (int l = lanes; l < 32; l *= 2) {
                total += __shfl_xor_sync(full_warp, total, l);
#pragma unroll
                for (int i = 0; i < V; ++i) acc[i] += __shfl_xor_sync(full_warp, acc[i], l);
            }
            A* own = scratch + warp * (D + 2);
            if (key == 0)
#pragma unroll
                for (int i = 0; i < V; ++i) own[column + i] = acc[i];
            if (lane == 0) own[D] = total, own[D + 1] = most;
            stream_sync();
            for (int d = threadIdx.x; d < D + 1; d += stream_threads) {
                A highest = -INFINITY, sum = 0;
#pragma unroll
                for (int w = 0; w < stream_warps; ++w) highest = greater{}(highest, scratch[w * (D + 2) + D + 1]);
#pragma unroll
                for (int w = 0; w < stream_warps; ++w)
                    sum += highest == -INFINITY
                               ? A(0)
                               : scratch[w * (D + 2) + d] * exp2_approximate(scratch[w * (D + 2) + D + 1] - highest);
                const index at = index{n * job.heads + head} * most_parts + z;
                if (d < D)
                    job.parts[(at << job.log_D) + d] = sum;
                else
                    totals[2 * at] = sum, totals[2 * at + 1] = highest;
            }
            stream_sync();
        }
        if (early) all.wait();
    }
    // x of shared memory: the parts of every (row, head) put together
    __device__ void merge(const half_step<T>& h, const keys_of_row* places) {
        constexpr int V = wide<A>, ahead = 4;
        const int width = job.heads << job.log_D;
        const A* totals = job.parts + (index{job.rows * job.heads * most_parts} << job.log_D);
        for (int c = V * threadIdx.x; c < job.rows * width; c += V * stream_threads) {
            const int i = c >> job.log_D, n = c / width, count = h.rows >> n & 1 ? places[n].parts : 0;
            A value[V] = {}, sum = 0, largest = -INFINITY;
            for (int base = 0; base < count; base += ahead) {
                words part[ahead];
                float2 total[ahead];
#pragma unroll
                for (int z = 0; z < ahead; ++z)
                    if (base + z < count) {
                        const index at = index{i} * most_parts + base + z;
                        part[z] = read_result(job.parts + (at << job.log_D) + (c & (job.D() - 1)));
                        total[z] = __ldcg(reinterpret_cast<const float2*>(totals + 2 * at));
                    }
#pragma unroll
                for (int z = 0; z < ahead; ++z)
                    if (base + z < count) {
                        const A most = greater{}(largest, total[z].y);
                        const A shrink = most == -INFINITY ? A(1) : exp2_approximate(largest - most),
                                weight = most == -INFINITY ? A(0) : exp2_approximate(total[z].y - most);
                        A some[V];
                        unpack<A>(part[z], some);
                        largest = most;
                        sum = sum * shrink + weight * total[z].x;
#pragma unroll
                        for (int k = 0; k < V; ++k) value[k] = value[k] * shrink + weight * some[k];
                    }
            }
            const A share = sum == 0 ? A(0) : 1 / sum;
#pragma unroll
            for (int k = 0; k < V; ++k) value[k] *= share;
            put(n, c - n * width, width, value);
        }
        stream_sync();
    }
};

template <class T>
__global__ void __launch_bounds__(stream_threads + 32, 1)
    block_halves_chain(const __grid_constant__ halves_job<T> job) {
    using A = float;
    const halves_layout<T> at(job);
    auto* full = reinterpret_cast<shared_barrier*>(shared_bytes + at.barriers);
    auto* empty = full + job.slots;
    auto* steps = reinterpret_cast<half_step<T>*>(shared_bytes + at.steps);
    auto* places = reinterpret_cast<keys_of_row*>(shared_bytes + at.places);
    auto* angles = reinterpret_cast<A*>(shared_bytes + at.rotary);
    auto* scratch = reinterpret_cast<A*>(shared_bytes + at.scratch);
    const int D = job.D(), half_D = D / 2, rows = job.rows, width = job.width;

    // the list of halves, where a read takes no detour
    for (unsigned i = threadIdx.x; i < job.count * sizeof(half_step<T>) / 4; i += blockDim.x)
        reinterpret_cast<unsigned*>(steps)[i] = reinterpret_cast<const unsigned*>(job.step)[i];
    for (int i = threadIdx.x; i < job.slots; i += blockDim.x) full[i].init(tile_rows), empty[i].init(stream_warps);
    copies_see_barriers();
    __syncthreads();
    if (threadIdx.x >= stream_threads) return ask_for_weights(job, steps, shared_bytes + at.ring, full, empty);

    // what is small and comes later
    for (int i = threadIdx.x; i < job.count * rows; i += stream_threads) {
        const auto& h = steps[i / rows];
        const row_index s = job.row_sequence[i % rows];
        if (h.attention) places[i] = {h.begin[s], h.end[s], stream_warps * part_steps * (32 * wide<T> >> job.log_D)};
    }
    if (job.rotary.data)
        for (int i = threadIdx.x; i < rows * D; i += stream_threads)
            angles[i] = job.rotary(job.row_position[i >> job.log_D])[i & (D - 1)];
    for (int i = blockIdx.x; i < job.count; i += gridDim.x) {
        const auto nearer = [&](const T* from, int count) {
            for (int c = 128 / sizeof(T) * threadIdx.x; from && c < count; c += 128 / sizeof(T) * stream_threads)
                keep_near(from + c);
        };
        const auto& h = steps[i];
        nearer(h.gamma, width), nearer(h.second_bias, width);
        for (int m = 0; m < 3; ++m) nearer(h.bias[m], (m ? job.kv_heads : job.heads) * D);
    }
    halves_worker<T> worker{job,
                            shared_bytes + at.x,
                            shared_bytes + at.ring,
                            reinterpret_cast<A*>(shared_bytes + at.low),
                            reinterpret_cast<A*>(shared_bytes + at.sums),
                            full,
                            empty};
    grid_barrier all(job.arrivals);
    stream_sync();

#pragma unroll 1
    for (int i = 0; i < job.count; ++i) {
        const half_step<T>& h = steps[i];
        const keys_of_row* place = places + i * rows;
        const auto bias = [&](int p, int) -> pair_of<A> {
            if (!h.attention) return {0, 0};
            const auto at = job.pair(p);
            const T* of = h.bias[at.which];
            return of ? pair_of<A>{widen(of[at.column]), widen(of[at.column + half_D])} : pair_of<A>{0, 0};
        };
        const auto residual = [&](int p, int n) -> pair_of<A> {
            const T* from = h.from + index{n} * width + 2 * p;
            return {widen(read_one(from)), widen(read_one(from + 1))};
        };
        const auto biases = worker.early(h, 0, bias);
        worker.normalise(h);
        worker.low_ranks(h.low, width);
        worker.product(h, 0, biases, bias, [&](int p, int n, const pair_of<A>& known, A a, A b) {
            if (!h.attention) {
                if (h.low.total) a += worker.adapted(h.low, 0, p, n), b += worker.adapted(h.low, 1, p, n);
                job.hidden[index{n} * job.inner + p] = narrow<T>(a / (1 + exp(-a)) * b);
                return;
            }
            // (a, b) -> (a cos − b sin, b cos + a sin)
            const auto at = job.pair(p);
            if (h.low.total) {
                a += worker.adapted(h.low, at.which, at.column, n);
                b += worker.adapted(h.low, at.which, at.column + half_D, n);
            }
            a += known.a, b += known.b;
            if (at.which != 2 && job.rotary.data) {
                const int c = at.column & (half_D - 1);
                const A cos = angles[n * D + c], sin = angles[n * D + half_D + c], before = a;
                a = a * cos - b * sin, b = b * cos + before * sin;
            }
            T* to = job.q + ((index{n} * job.heads) << job.log_D);
            if (at.which) {
                if (!(h.keys >> n & 1)) return;
                to = (at.which == 1 ? h.k : h.v) + index{place[n].last} * (job.kv_heads * D);
            }
            to[at.column] = narrow<T>(a), to[at.column + half_D] = narrow<T>(b);
        });
        if (!h.rows) {  // keys alone
            stream_sync();
            continue;
        }
        all.arrive();
        if (h.attention) {
            worker.attend(h, place, scratch, all);
            all.arrive();
        }
        const auto before = worker.early(h, 1, residual);
        all.wait();
        if (h.attention)
            worker.merge(h, place);
        else
            worker.copy_in(job.hidden, job.inner);
        worker.low_ranks(h.second_low, job.width_of(h, 1));
        worker.product(h, 1, before, residual, [&](int p, int n, const pair_of<A>& old, A a, A b) {
            if (h.second_low.total)
                a += worker.adapted(h.second_low, 0, 2 * p, n), b += worker.adapted(h.second_low, 0, 2 * p + 1, n);
            if (h.second_bias) a += widen(h.second_bias[2 * p]), b += widen(h.second_bias[2 * p + 1]);
            if (!(h.rows >> n & 1)) a = b = 0;
            const A sum[2] = {old.a + a, old.b + b};
            store<2>(h.to + index{n} * width + 2 * p, sum);
        });
        all.arrive(), all.wait();
    }
    // every block has read where the sequences ended
    if (blockIdx.x == 0)
        for (int i = threadIdx.x; i < job.count * rows; i += stream_threads) {
            const auto& h = steps[i / rows];
            const int n = i % rows, slot = places[i].last;
            if (!(h.keys >> n & 1)) continue;
            h.position[slot] = job.row_position[n];
            h.end[job.row_sequence[n]] = slot + 1;
        }
}

// A kernel of one block on every multiprocessor, all at once, so that they may wait for each other.
template <class Job>
void launch_everywhere(executor& ex, const char* what, unsigned threads, std::size_t shared, void (*kernel)(Job),
                       const Job& job) {
    checked(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)), what);
    cudaLaunchConfig_t config{};
    config.gridDim = static_cast<unsigned>(ex.multiprocessors());
    config.blockDim = threads;
    config.dynamicSmemBytes = shared;
    config.stream = ex.stream();
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
    ex.queue(what, [&] { checked(cudaLaunchKernelEx(&config, kernel, job), what); });
}

// What the barriers of a device count in.
struct grid_arrivals : kept {
    executor& ex;
    unsigned long long* count;
    explicit grid_arrivals(executor& ex_)
        : ex(ex_), count(static_cast<unsigned long long*>(ex.allocate(sizeof *count))) {
        ex.fill_bytes(count, 0, sizeof *count);
    }
    ~grid_arrivals() override { ex.deallocate(count, sizeof *count); }
};

template <class T>
bool run_block_halves(executor& ex, const_matrix<T> x, std::span<const block_half<T>> halves, const row_map& rows,
                      matrix_view<T> y) {
    const char* what = "block_halves_forward";
    const attention_half<T>* attention = nullptr;
    const feed_forward_half<T>* feed_forward = nullptr;
    for (const auto& h : halves) {
        if (!attention) attention = std::get_if<attention_half<T>>(&h.half);
        if (!feed_forward) feed_forward = std::get_if<feed_forward_half<T>>(&h.half);
    }
    const index N = x.rows(), C = x.width();
    if (!attention || N == 0 || N > most_few_rows || ex.architecture() < 90 || !takes_packs(x, y) || !x.contiguous() ||
        !y.contiguous())
        return false;
    halves_job<T> job{};
    job.rows = static_cast<int>(N), job.width = static_cast<int>(C);
    job.inner = feed_forward ? static_cast<int>(feed_forward->up.weight.rows()) : 0;
    job.heads = static_cast<int>(attention->heads), job.kv_heads = static_cast<int>(attention->kv_heads);
    if (C % 32 || job.inner % 32) return false;
    job.per_width = 1 / static_cast<float>(C);
    job.group = job.heads / job.kv_heads;
    const index D = attention->q.weight.rows() / attention->heads, lanes = D / wide<T>;
    if (D % 32 || (lanes != 4 && lanes != 8 && lanes != 16 && lanes != 32)) return false;
    while ((1 << job.log_D) < D) ++job.log_D;
    job.row_position = rows.position.data, job.row_sequence = rows.sequence.data;
    job.rotary = rows_in(attention->rotary);

    // scratch memory, and which half reads and writes what: two buffers in turn, and y at last
    arena_scope scratch(ex);
    const auto q = ex.memory().template matrix<T>(N, job.heads * D),
               hidden = ex.memory().template matrix<T>(N, job.inner), a = ex.memory().template matrix<T>(N, C),
               b = ex.memory().template matrix<T>(N, C);
    const auto parts = ex.memory().template vector<compute<T>>(N * job.heads * most_parts * (D + 2));
    job.q = q.data, job.hidden = hidden.data, job.parts = parts.data;
    std::vector<half_step<T>> steps;
    const T* from = x.data;
    std::size_t last = halves.size();
    while (last > 0 && !halves[last - 1].rows) --last;
    if (last == 0) return false;
    const auto fits = [](const projection<T>& p, index out, index in) {
        return p.weight.rows() == out && p.weight.width() == in && takes_projection<T, bfloat16>(p);
    };
    for (std::size_t i = 0; i < halves.size(); ++i) {
        const auto& half = halves[i];
        half_step<T> s{};
        s.rows = half.rows, s.from = from;
        if (const auto* h = std::get_if<attention_half<T>>(&half.half)) {
            const auto& c = half.cache;
            if (h->heads != job.heads || h->kv_heads != job.kv_heads || h->rotary.data != attention->rotary.data ||
                !fits(h->q, job.heads * D, C) || !fits(h->k, job.kv_heads * D, C) || !fits(h->v, job.kv_heads * D, C) ||
                !fits(h->o, C, job.heads * D) || !takes_norm<T>(h->gamma) || !takes_packs(c.k, c.v) ||
                !c.k.contiguous() || !c.v.contiguous())
                return false;
            s.attention = true, s.keys = half.keys, s.gamma = h->gamma.data;
            s.eps = static_cast<compute<T>>(h->eps), s.scale = static_cast<compute<T>>(h->scale);
            const projection<T>* maps[] = {&h->q, &h->k, &h->v};
            for (int m = 0; m < 3; ++m) {
                s.first[m] = weight_data<bfloat16>(maps[m]->weight), s.bias[m] = maps[m]->bias.data;
                s.low.of[m] = take_adapter(*maps[m], s.low.total);
            }
            s.second = weight_data<bfloat16>(h->o.weight), s.second_bias = h->o.bias.data;
            s.second_low.of[0] = take_adapter(h->o, s.second_low.total);
            s.k = c.k.data, s.v = c.v.data, s.begin = c.begin.data, s.end = c.end.data, s.position = c.position.data;
        } else {
            const auto& f = std::get<feed_forward_half<T>>(half.half);
            if (!half.rows) continue;
            if (!fits(f.gate, job.inner, C) || !fits(f.up, job.inner, C) || !fits(f.down, C, job.inner) ||
                !takes_norm<T>(f.gamma) || f.gate.bias.data || f.up.bias.data)
                return false;
            s.gamma = f.gamma.data, s.eps = static_cast<compute<T>>(f.eps);
            s.first[0] = weight_data<bfloat16>(f.gate.weight), s.first[1] = weight_data<bfloat16>(f.up.weight);
            s.low.of[0] = take_adapter(f.gate, s.low.total), s.low.of[1] = take_adapter(f.up, s.low.total);
            s.second = weight_data<bfloat16>(f.down.weight), s.second_bias = f.down.bias.data;
            s.second_low.of[0] = take_adapter(f.down, s.second_low.total);
        }
        if (!s.rows && !s.keys) continue;
        if (half.rows) from = s.to = i + 1 == last ? y.data : from == a.data ? b.data : a.data;
        job.low = std::max({job.low, s.low.total, s.second_low.total});
        steps.push_back(s);
    }
    if (steps.size() > most_halves) return false;
    job.count = static_cast<int>(steps.size());
    std::copy(steps.begin(), steps.end(), job.step);
    job.arrivals = ex.keep<grid_arrivals>(0).count;
    const auto bytes = [&] { return halves_layout<T>(job).bytes; };
    for (job.slots = most_slots; job.slots > 2 && bytes() > ex.shared_limit();) --job.slots;
    if (bytes() > ex.shared_limit()) return false;
    launch_everywhere(ex, what, stream_threads + 32, bytes(), block_halves_chain<T>, job);
    return true;
}

}  // namespace spectral::cuda::detail
