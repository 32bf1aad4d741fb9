// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/halves_worker.hpp: what the warps of block_halves.hpp do: one asks for weights,
// eight compute
//
// With few rows a phase is one chain of instructions, each of which waits some five clocks for the one before, and two
// warps of a scheduler do not fill the time. So what is here is written for few instructions: one copy of everything, no
// division, and what does not depend on results before the wait for them.
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
    for (int i = 0; i < 2 * job.count; ++i) {
        const auto& h = steps[i / 2];
        const auto mine = h.of[i % 2];
        for (int t = 0; t < mine.tiles; ++t) {
            const bfloat16* from = job.weight(h, i % 2, mine.first + t * static_cast<int>(gridDim.x), row);
            for (int c = 0; c < mine.width; c += tile_columns) {
                empty[slot].wait(parity);
                if (asked >= under_way) {
                    const bool wraps = slot < under_way;
                    full[slot - under_way + (wraps ? job.slots : 0)].wait(parity ^ 1 ^ wraps);
                }
                ++asked;
                copy_bulk_once(ring + tile_bytes * slot + tile_stride * row, from + c,
                               2 * min(tile_columns, mine.width - c), full[slot]);
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
    A *low, *sums, *scratch;
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
            pack<unsigned, V / 2> pairs;
#pragma unroll
            for (int i = 0; i < V; i += 2) {
                const unsigned both = pairs.value[i / 2] = pack_bfloat16(left[i], left[i + 1]);
                left[i] -= __uint_as_float(both << 16), left[i + 1] -= __uint_as_float(both & 0xFFFF0000u);
            }
            *reinterpret_cast<pack<unsigned, V / 2>*>(x + (p * job.rows + n) * job.x_stride(width) + 2 * c) = pairs;
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
    // packets of row n, `width` columns wide, from a column on
    static __device__ const packet* at(const packet* rows, int n, int width, int column) {
        return rows + static_cast<unsigned>(n * width + column) / packet_values<T>;
    }

    // x: what the half starts from, times gamma if it has a norm. What is left of RMSNorm is a factor of the row, for
    // its sums: warps that share a row leave the squares of their columns for norm_factor().
    __device__ void copy_scaled(const half_step<T>& h, const grid_barrier& all) {
        constexpr int V = wide<T>, ahead = 2;
        const int n = warp & ((1 << job.log_rows) - 1), own = 32 * (warp >> job.log_rows) + lane,
                  apart = stream_threads >> job.log_rows, packs = n < job.rows ? job.width / V : 0;
        words gamma[ahead] = {};
        const auto read_gamma = [&](int base) {
#pragma unroll
            for (int u = 0; u < ahead; ++u)
                if (h.gamma && base + apart * u < packs) gamma[u] = read_once(h.gamma + V * (base + apart * u));
        };
        read_gamma(own);
        all.wait();
        A square = 0;
#pragma unroll 1
        for (int base = own; base < packs; base += ahead * apart) {
            const int there = base + apart < packs ? 2 : 1;
            words got[ahead];
            if (base > own) read_gamma(base);
            if (h.from) {
#pragma unroll
                for (int u = 0; u < ahead; ++u)
                    if (u < there) got[u] = read_result(h.from + n * job.width + V * (base + apart * u));
            } else {
                read_stamped(got, all.stamp(), there,
                             [&](int u) { return at(h.from_packets, n, job.width, V * (base + apart * u)); });
            }
#pragma unroll
            for (int u = 0; u < ahead; ++u) {
                if (u >= there) break;
                A value[V], factor[V];
                unpack<T>(got[u], value);
                if (h.gamma) {
                    unpack<T>(gamma[u], factor);
#pragma unroll
                    for (int i = 0; i < V; ++i) square += value[i] * value[i], value[i] *= factor[i];
                }
                put(n, V * (base + apart * u), job.width, value);
            }
        }
        if (h.gamma) {
            square = warp_reduce(square);
            if (lane == 0) scratch[warp] = square;
        }
        stream_sync();
    }
    __device__ A norm_factor(const half_step<T>& h, int n) const {
        if (!h.gamma) return 1;
        A square = 0;
#pragma unroll
        for (int w = 0; w < stream_warps; ++w) square += (w & ((1 << job.log_rows) - 1)) == n ? scratch[w] : A(0);
        return rsqrtf(square * job.per_width + h.eps);
    }
    __device__ void copy_in(const packet* from, int width, unsigned stamp) {
        constexpr int V = wide<T>, ahead = 3;
        int n = 0, column = V * threadIdx.x;
#pragma unroll 1
        while (true) {
            int row[ahead], first[ahead], there = 0;
#pragma unroll
            for (int u = 0; u < ahead; ++u, column += V * stream_threads) {
#pragma unroll 1
                for (; column >= width; column -= width) ++n;
                row[u] = n, first[u] = column;
                if (n < job.rows) there = u + 1;
            }
            words got[ahead];
            read_stamped(got, stamp, there, [&](int u) { return at(from, row[u], width, first[u]); });
#pragma unroll
            for (int u = 0; u < ahead; ++u) {
                if (u >= there) break;
                A value[V];
                unpack<T>(got[u], value);
                put(row[u], first[u], width, value);
            }
            if (n >= job.rows) break;
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
    // what an adapter adds to an output
    __device__ A adapted(const adapter_rows<T>& a, int total, int output, int n) const {
        A sum = 0;
#pragma unroll 1
        for (int j = 0; j < a.rank; ++j) sum += widen(a.b[index{output} * a.rank + j]) * low[n * total + a.first + j];
        return sum;
    }

    // ---- products ----

    // A warp's share of a tile, every eighth of its steps of 32 columns; the columns of x lie alike.
    __device__ void read_weights(words (&to)[4], int columns) {
        const unsigned char* tile = ring + tile_bytes * slot + tile_stride * (lane / 4) + 16 * (lane % 4) + 64 * warp;
        full[slot].wait(parity);
#pragma unroll
        for (int u = 0; u < 4; ++u) {
            to[u] = {};
            if (32 * (warp + stream_warps * u) < columns)
                to[u] = *reinterpret_cast<const words*>(tile + 64 * stream_warps * u);
        }
        if (++slot == job.slots) slot = 0, parity ^= 1;
    }
    __device__ void multiply(A (&d)[4][4], const words (&weight)[4], const unsigned char* own, int plane, int columns) {
        words v[4][planes];
#pragma unroll
        for (int u = 0; u < 4; ++u)
#pragma unroll
            for (int p = 0; p < planes; ++p) {
                v[u][p] = {};
                if (32 * (warp + stream_warps * u) < columns)
                    v[u][p] = *reinterpret_cast<const words*>(own + p * plane + 64 * stream_warps * u);
            }
#pragma unroll
        for (int k = 0; k < 4; k += 2)
#pragma unroll
            for (int u = 0; u < 4; ++u) {  // four sums, so that no product waits for the one before
                const unsigned second0 = planes > 1 ? v[u][planes / 2].value[k] : 0,
                               second1 = planes > 1 ? v[u][planes / 2].value[k + 1] : 0;
                multiply_add(d[u], {v[u][0].value[k], second0, v[u][0].value[k + 1], second1}, weight[u].value[k],
                             weight[u].value[k + 1]);
            }
        if constexpr (planes > 1)
#pragma unroll
            for (int k = 0; k < 4; k += 2)
#pragma unroll
                for (int u = 0; u < 4; ++u)
                    multiply_add(d[u], {v[u][2].value[k], 0, v[u][2].value[k + 1], 0}, weight[u].value[k],
                                 weight[u].value[k + 1]);
    }
    // The tiles of this block. known(pair, n) is what an item needs besides its sums, of the thread's first item it is
    // asked for before prepare(), which makes x; finish(pair, n, known, sum, other sum, lanes that are here, whether to
    // write) comes last.
    // Every warp has its share of every tile; while it multiplies one, the next is read.
    template <class Known, class Prepare, class Finish>
    __device__ void product(const product_share& mine, Known&& known, Prepare&& prepare, Finish&& finish) {
        const int width = mine.width, row = lane / 4, quarter = lane % 4, plane = job.rows * job.x_stride(width),
                  chunks = (width + tile_columns - 1) / tile_columns;
        const unsigned char* own = x + min(row, job.rows - 1) * job.x_stride(width) + 16 * quarter + 64 * warp;
#pragma unroll 1
        for (int begin = 0;;) {
            const int tiles = min(mine.tiles - begin, most_tiles), items = tiles << (2 + job.log_rows);
            const auto row_of = [&](int i) { return i >> 2 & ((1 << job.log_rows) - 1); };
            const auto of = [&](int i, auto&& f) {  // rows that only fill up are the last one again
                return f((mine.first + (begin + (i >> (2 + job.log_rows))) * static_cast<int>(gridDim.x)) * 4 + i % 4,
                         min(row_of(i), job.rows - 1));
            };
            decltype(known(0, 0)) early{};
            if (static_cast<int>(threadIdx.x) < items) early = of(threadIdx.x, known);
            if (begin == 0) prepare();
            int left = tiles * chunks, column = 0, next = 0, done = slot;  // pieces of tiles; their first columns; slot
            A* to = sums_of(0, warp, row) + 2 * quarter;
            words ahead[4];
            A d[4][4] = {};
            const auto read_next = [&] {
                read_weights(ahead, width - next);
                if ((next += tile_columns) >= width) next = 0;
            };
            if (left) read_next();
#pragma unroll 1
            while (left > 0) {
                words now[4];
#pragma unroll
                for (int u = 0; u < 4; ++u) now[u] = ahead[u];
                if (--left) read_next();
                multiply(d, now, own + 2 * column, plane, width - column);
                empty[done].arrive();  // every lane for itself: what racecheck can follow
                if (++done == job.slots) done = 0;
                if ((column += tile_columns) < width) continue;
                column = 0;
                A sum[2] = {};
#pragma unroll
                for (int u = 0; u < 4; ++u)
#pragma unroll
                    for (int r = 0; r < 2; ++r) sum[r] += d[u][r] + d[u][2 + r], d[u][r] = d[u][2 + r] = 0;
                if (row < job.rows) store<2>(to, sum);
                to += sums_of(1, 0, 0) - sums;
            }
            stream_sync();
#pragma unroll 1
            for (int i = threadIdx.x; i < items; i += stream_threads) {
                const int here = items - (i - lane);
                if (i >= stream_threads) early = of(i, known);
                of(i, [&](int pair, int n) {
                    const A* from = sums_of(i >> (2 + job.log_rows), 0, n) + 2 * (i % 4);
                    A sum[2] = {};
#pragma unroll
                    for (int w = 0; w < stream_warps; ++w) {
                        A part[2];
                        load<2>(from + (w * tile_rows << job.log_rows), part);
                        sum[0] += part[0], sum[1] += part[1];
                    }
                    finish(pair, n, early, sum[0], sum[1], here < 32 ? (1u << here) - 1 : full_warp, row_of(i) == n);
                });
            }
            if ((begin += most_tiles) >= mine.tiles) return;
            stream_sync();  // the next sums go where these were read
        }
    }
    __device__ A* sums_of(int tile, int w, int row) const {
        return sums + ((((tile * stream_warps + w) << job.log_rows) + row) * tile_rows);
    }

    // ---- attention ----

    // Query heads against parts of their keys: a key is read by D/V lanes, a warp takes 32 V/D of them at once. Keys of
    // earlier steps are read while this step's, the last one, is still made. Result of a (row, head, part): D sums; the
    // sum of the weights, the largest score.
    __device__ void attend(const half_step<T>& h, const keys_of_row* places, const grid_barrier& all) {
        constexpr int V = wide<T>;
        const int D = job.D(), lanes = D / V, at_once = 32 * V >> job.log_D, column = V * lane & (D - 1),
                  key = V * lane >> job.log_D, heads = job.rows * job.heads, stride = job.kv_heads * D;
        A* totals = job.parts + (index{heads * most_parts} << job.log_D);
        bool early = true;
#pragma unroll 1
        for (int unit = blockIdx.x; unit < heads * most_parts; unit += gridDim.x) {
            int head = unit, z = 0, n = 0, kv_head = 0;  // unit = (z, n, head); small numbers: no division
#pragma unroll 1
            for (; head >= heads; head -= heads) ++z;
#pragma unroll 1
            for (; head >= job.heads; head -= job.heads) ++n;
#pragma unroll 1
            for (int g = head; g >= job.group; g -= job.group) ++kv_head;
            const keys_of_row part = places[n];
            if (!(h.rows >> n & 1) || z >= part.parts) continue;
            // the part's keys of earlier steps, and whether it has the newest, which is warp 0's
            const int first = part.first + z * part.each, end = min(first + part.each, part.last);
            const bool has_newest = warp == 0 && part.last < first + part.each;
            const A scale = h.scale * A(1.4426950408889634);
            A query[V], acc[V] = {}, total = 0, largest = -INFINITY;
            int base = first + at_once * part_steps * warp + key;
            bool begins = true;
#pragma unroll 1
            do {
                words k[part_steps + 1], v[part_steps + 1];  // and the newest, once
                const index from = index{base} * stride + kv_head * D + column;
#pragma unroll
                for (int u = 0; u < part_steps; ++u) {
                    k[u] = v[u] = words{};
                    if (base + at_once * u >= end) continue;
                    k[u] = read_result(h.k + from + u * at_once * stride);
                    v[u] = read_result(h.v + from + u * at_once * stride);
                }
                k[part_steps] = v[part_steps] = words{};
                if (begins) {
                    if (early) all.wait();
                    words fresh[3];  // query, key, value
                    read_stamped(fresh, all.stamp(), has_newest ? 3 : 1, [&](int which) {
                        const int of = which == 0 ? head : job.heads + (which - 1) * job.kv_heads + kv_head;
                        return at(job.fresh, n, job.fresh_width(), (of << job.log_D) + column);
                    });
                    unpack<T>(fresh[0], query);
                    if (has_newest) k[part_steps] = fresh[1], v[part_steps] = fresh[2];
                }
                A score[part_steps + 1], most = largest;
#pragma unroll
                for (int u = 0; u <= part_steps; ++u) {
                    A value[V];
                    unpack<T>(k[u], value);
                    score[u] = 0;
#pragma unroll
                    for (int i = 0; i < V; ++i) score[u] += query[i] * value[i];
                }
#pragma unroll 1
                for (int l = lanes / 2; l > 0; l /= 2)
#pragma unroll
                    for (int u = 0; u <= part_steps; ++u) score[u] += __shfl_xor_sync(full_warp, score[u], l);
#pragma unroll
                for (int u = 0; u <= part_steps; ++u) {
                    const bool there = u < part_steps ? base + at_once * u < end : begins && has_newest && key == 0;
                    score[u] = there ? score[u] * scale : A(-INFINITY);
                    most = greater{}(most, score[u]);
                }
                const A shrink = most == -INFINITY ? A(1) : exp2_approximate(largest - most);
                largest = most;
                total *= shrink;
#pragma unroll
                for (int i = 0; i < V; ++i) acc[i] *= shrink;
                if (most == -INFINITY) most = 0;  // no key so far: weights of 0
#pragma unroll
                for (int u = 0; u <= part_steps; ++u) {
                    const A weight = exp2_approximate(score[u] - most);
                    A value[V];
                    unpack<T>(v[u], value);
                    total += weight;
#pragma unroll
                    for (int i = 0; i < V; ++i) acc[i] += weight * value[i];
                }
                early = begins = false;
                base += at_once * part_steps * stream_warps;
            } while (base - key < end);
            // keys of a warp, then warps
            A most = largest;
#pragma unroll 1
            for (int l = lanes; l < 32; l *= 2) most = greater{}(most, __shfl_xor_sync(full_warp, most, l));
            const A factor = most == -INFINITY ? A(0) : exp2_approximate(largest - most);
            total *= factor;
#pragma unroll
            for (int i = 0; i < V; ++i) acc[i] *= factor;
#pragma unroll 1
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
#pragma unroll 1
            for (int d = threadIdx.x; d < D + 1; d += stream_threads) {
                A highest = -INFINITY, sum = 0, of[stream_warps];
#pragma unroll
                for (int w = 0; w < stream_warps; ++w) {
                    of[w] = scratch[w * (D + 2) + D + 1];
                    highest = greater{}(highest, of[w]);
                }
                const A from = highest == -INFINITY ? A(0) : highest;
#pragma unroll
                for (int w = 0; w < stream_warps; ++w) sum += scratch[w * (D + 2) + d] * exp2_approximate(of[w] - from);
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
#pragma unroll 1
        for (int n = 0; n < job.rows; ++n)
#pragma unroll 1
            for (int c = V * threadIdx.x; c < width; c += V * stream_threads) {
                const int i = n * job.heads + (c >> job.log_D), count = h.rows >> n & 1 ? places[n].parts : 0;
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
                put(n, c, width, value);
            }
        stream_sync();
    }
};

}  // namespace spectral::cuda::detail
