// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/halves_worker.hpp: what the warps of block_halves.hpp do: one asks for weights,
// eight compute
#pragma once
#include <spectral/cuda/detail/grid_barrier.hpp>

namespace spectral::cuda::detail {

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

}  // namespace spectral::cuda::detail
