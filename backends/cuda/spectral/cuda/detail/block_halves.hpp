// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/block_halves.hpp: halves of blocks one after another, for a row each of at most 8
// sequences, in one kernel
//
// One block of threads on every multiprocessor stays for the whole chain. Weights depend on nothing, so they never
// wait: a warp that does nothing else asks for them in the order in which they will be used, row after row into rings
// of shared memory, far beyond the barriers that the results wait at. Each of the other eight warps takes whole tasks
// (an output, or two that belong together) and adds up alone what lies in its ring.
//
//   attention half      norm, q/k/v, rotation, append | attention in parts | merge, output projection, residual |
//   feed-forward half   norm, gate and up, SiLU | down, residual |                  | a barrier of all blocks
//
// A row's sums are added in one order, whatever the number of rows, and attention's parts follow from a sequence's own
// length: a row has the same bits in every batch.
#pragma once
#include <spectral/cuda/detail/few_rows.hpp>
#include <spectral/cuda/detail/tensor_core.hpp>

namespace spectral::cuda::detail {

inline constexpr int stream_warps = 8, stream_threads = 32 * stream_warps;
inline constexpr int asking_warps = 4;  // one would be too slow: its lanes, each at another place, take turns
inline constexpr int stream_chunk = 2048;  // bytes of a weight's row that travel together
inline constexpr int most_slots = 16;  // chunks on their way to a warp
inline constexpr int most_halves = 64;  // of one launch: what its parameters hold
inline constexpr int most_parts = 16, part_steps = 8;  // of a row's keys; loads that a lane has under way

template <class T, class W>
struct half_step {
    const T* from;  // (N, C)
    T* to;
    const T* gamma;
    const W *first[3], *second;  // q, k, v or gate, up; then o or down
    const T *bias[3], *second_bias;
    adapter_list<T, 3> low;
    adapter_list<T, 1> second_low;
    T *k, *v;
    row_index *begin, *end, *position;
    compute<T> eps, scale;
    unsigned rows, keys;  // bit n: row n takes part; row n appends its key
    bool attention;
};

template <class T, class W>
struct halves_job {
    int count, rows, width, inner, heads, kv_heads, group, log_D, slots, low;
    const row_index *row_position, *row_sequence;
    rows_of<const statistic<T>> rotary;
    T *q, *hidden;
    compute<T>* parts;  // (N, heads, most_parts, D), then (N, heads, most_parts, 2)
    unsigned long long* arrivals;
    half_step<T, W> step[most_halves];

    __host__ __device__ int D() const { return 1 << log_D; }
    __host__ __device__ int widest() const { return max(max(width, inner), heads << log_D); }
    __device__ int width_of(const half_step<T, W>& h, int product) const {
        return product == 0 ? width : h.attention ? heads << log_D : inner;
    }
    __device__ int tasks(const half_step<T, W>& h, int product) const {
        if (product) return h.rows ? width : 0;
        return h.attention ? (heads + 2 * kv_heads) << (log_D - 1) : inner;
    }
    // a half that only appends keys leaves queries out
    __device__ int first_task(const half_step<T, W>& h, int product) const {
        return !product && h.attention && !h.rows ? heads << (log_D - 1) : 0;
    }
    // of outputs 0 and 1 of a pair that rotates together: row of (q, k, v)
    __device__ int rotated(int task, int r) const {
        const int half = 1 << (log_D - 1);
        return (task >> (log_D - 1) << log_D) + (task & (half - 1)) + r * half;
    }
    __device__ int matrix_of(int row) const {
        return row < heads << log_D ? 0 : row < (heads + kv_heads) << log_D ? 1 : 2;
    }
    __device__ int column_of(int row) const {
        const int which = matrix_of(row);
        return row - (which == 0 ? 0 : which == 1 ? heads << log_D : (heads + kv_heads) << log_D);
    }
    __device__ const W* weight(const half_step<T, W>& h, int product, int task, int r) const {
        if (product) return h.second + index{task} * width_of(h, 1);
        if (!h.attention) return h.first[r] + index{task} * width;
        const int row = rotated(task, r);
        return h.first[matrix_of(row)] + index{column_of(row)} * width;
    }
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
template <class T, class W>
struct halves_layout {
    using A = compute<T>;
    std::size_t barriers, steps, places, rotary, low, scratch, x, ring, bytes;
    __host__ __device__ halves_layout(const halves_job<T, W>& job, int n) {
        std::size_t at = 0;
        const auto take = [&](std::size_t size) {
            const std::size_t here = at;
            at += (size + 127) / 128 * 128;
            return here;
        };
        ring = take(std::size_t{stream_chunk} * stream_warps * job.slots);
        barriers = take(sizeof(shared_barrier) * 2 * stream_warps * job.slots);
        steps = take(sizeof(half_step<T, W>) * job.count);
        places = take(sizeof(keys_of_row) * job.count * n);
        rotary = take(sizeof(statistic<T>) * (n << job.log_D));
        low = take(sizeof(A) * n * job.low);
        scratch = take(sizeof(A) * stream_warps * (job.D() + 2));
        x = take((n == 1 ? sizeof(A) : sizeof(T)) * n * job.widest());
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
        if (threadIdx.x == 0)
            asm volatile("red.release.gpu.global.add.u64 [%0], 1;" ::"l"(arrivals) : "memory");
#endif
    }
    __device__ void wait() const {
#if defined(__CUDA_ARCH__)
        if (threadIdx.x == 0) {
            unsigned long long now;
            do asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(now) : "l"(arrivals) : "memory");
            while (now < target);
        }
#endif
        stream_sync();
    }
};

// ---- the warp that asks for weights ---------------------------------------------------------------------------------

// A lane fills the ring of one warp. No lane waits for another: it looks, asks if there is room, and looks again.
template <class T, class W>
__device__ void ask_for_weights(const halves_job<T, W>& job, const half_step<T, W>* steps, unsigned char* ring,
                                shared_barrier* barriers) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 - stream_warps + asking_warps * lane;
    if (warp >= stream_warps) return;
    shared_barrier *full = barriers + 2 * warp * job.slots, *empty = full + job.slots;
    ring += std::size_t{stream_chunk} * warp * job.slots;
    const int first = static_cast<int>(blockIdx.x + gridDim.x * warp);
    int half = 0, product = 0, task = first + job.first_task(steps[0], 0), r = 0, at = 0, slot = 0;
    unsigned parity = 1;
    const unsigned char *row = nullptr, *next_row = nullptr;
    int row_bytes = 0;
    bool known = false;  // where the task's weights lie
    while (true) {
        if (!known) {
            while (task >= job.tasks(steps[half], product)) {
                half += product, product ^= 1;
                if (half == job.count) return;
                task = first + job.first_task(steps[half], product);
            }
            row_bytes = job.width_of(steps[half], product) * static_cast<int>(sizeof(W));
            row = reinterpret_cast<const unsigned char*>(job.weight(steps[half], product, task, 0));
            next_row = reinterpret_cast<const unsigned char*>(job.weight(steps[half], product, task, 1 - product));
            known = true;
        }
        if (!empty[slot].is_over(parity)) {
            __nanosleep(50);
            continue;
        }
        copy_bulk_once(ring + stream_chunk * slot, (r ? next_row : row) + at, min(stream_chunk, row_bytes - at),
                       full[slot]);
        if (++slot == job.slots) slot = 0, parity ^= 1;
        if (++r == 2 - product) r = 0, at += stream_chunk;
        if (at >= row_bytes) at = 0, known = false, task += static_cast<int>(gridDim.x) * stream_warps;
    }
}

// ---- the warps that compute -----------------------------------------------------------------------------------------

template <int N, class T, class W>
struct halves_worker {
    using A = compute<T>;
    using X = std::conditional_t<N == 1, A, T>;  // one row: widened once
    const halves_job<T, W>& job;
    X* x;  // (N, width of the product)
    A* low;
    unsigned char* ring;
    shared_barrier *full, *empty;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, slot = 0;
    unsigned parity = 0;

    // V values of x, from column c of row n. A widened row lies in planes of 4 values of each pack of weights, so that
    // neighbouring lanes find theirs in different banks.
    template <int V>
    __device__ void put(int n, int c, int width, const A (&value)[V]) {
        if constexpr (N == 1) {
            constexpr int planes = wide<W> / 4;
#pragma unroll
            for (int i = 0; i < V; i += 4) {
                const A some[4] = {widen(narrow<T>(value[i])), widen(narrow<T>(value[i + 1])),
                                   widen(narrow<T>(value[i + 2])), widen(narrow<T>(value[i + 3]))};
                store<4>(x + (c + i) / 4 % planes * (width / planes) + (c + i) / wide<W> * 4, some);
            }
        } else {
            store<V>(x + n * width + c, value);
        }
    }
    template <int V>
    __device__ void get(int n, int c, int width, A (&value)[V]) const {
        if constexpr (N == 1) {
            constexpr int planes = wide<W> / 4;
#pragma unroll
            for (int i = 0; i < V; i += 4) {
                A some[4];
                load<4>(x + (c + i) / 4 % planes * (width / planes) + (c + i) / wide<W> * 4, some);
#pragma unroll
                for (int k = 0; k < 4; ++k) value[i + k] = some[k];
            }
        } else if constexpr (std::is_same_v<T, bfloat16> && V == wide<T>) {
            unpack<T>(*reinterpret_cast<const words*>(x + n * width + c), value);
        } else {
            load_values<V>(x + n * width + c, value);
        }
    }

    // x of shared memory: RMSNorm of what the half starts from, or that itself
    __device__ void normalise(const half_step<T, W>& h) {
        constexpr int V = wide<T>, sharers = stream_warps / N, ahead = 4;
        const int n = warp % N, share = warp / N, packs = job.width / V;
        const T* row = h.from + index{n} * job.width;
        if (n < job.rows) {
            words gamma{};
            const int own = 32 * share + lane;
            if (h.gamma && own < packs) gamma = *reinterpret_cast<const words*>(h.gamma + V * own);
            A square = 0;
            for (int base = 0; base < packs; base += 32 * ahead) {
                words got[ahead];
#pragma unroll
                for (int u = 0; u < ahead; ++u)
                    if (base + 32 * u + lane < packs) got[u] = read_result(row + V * (base + 32 * u + lane));
#pragma unroll
                for (int u = 0; u < ahead; ++u)
                    if (base + 32 * u + lane < packs) {
                        A value[V];
                        unpack<T>(got[u], value);
#pragma unroll
                        for (int i = 0; i < V; ++i) square += value[i] * value[i];
                        if ((base / 32 + u) % sharers == share)
                            put(n, V * (base + 32 * u + lane), job.width, value);
                    }
            }
            if (h.gamma) {
                const A factor = 1 / sqrt(warp_reduce(square) / static_cast<A>(job.width) + h.eps);
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
        const int packs = job.rows * width / V;
        for (int base = threadIdx.x; base < packs; base += ahead * stream_threads) {
            words got[ahead];
#pragma unroll
            for (int u = 0; u < ahead; ++u)
                if (base + u * stream_threads < packs) got[u] = read_result(from + V * (base + u * stream_threads));
#pragma unroll
            for (int u = 0; u < ahead; ++u)
                if (base + u * stream_threads < packs) {
                    if constexpr (N == 1) {
                        A value[V];
                        unpack<T>(got[u], value);
                        put(0, V * (base + u * stream_threads), width, value);
                    } else {
                        *reinterpret_cast<words*>(x + V * (base + u * stream_threads)) = got[u];
                    }
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
    static __device__ __noinline__ void low_ranks_of(halves_worker w, const adapter_list<T, Count>& adapters, int width) {
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

    // The tasks of this warp: R outputs each, whose weights come through the ring. known(task, n, r) is asked for
    // early, finish(task, n, r, known, sum, sum of the other output) comes last.
    template <int R, int Count, class Adapter, class Known, class Finish>
    __device__ void product(int width, int first_task, int tasks, const adapter_list<T, Count>& adapters,
                            Adapter&& adapter, Known&& known, Finish&& finish) {
        constexpr int V = wide<W>, K = N * R, lanes = 32 / K, P = stream_chunk / (16 * 32);
        const int n = lane / lanes / R, r = lane / lanes % R, packs = width / V;
        for (int task = first_task + static_cast<int>(blockIdx.x + gridDim.x * warp); task < tasks;
             task += static_cast<int>(gridDim.x) * stream_warps) {
            const auto early = known(task, min(n, job.rows - 1), r);
            A sum[K] = {};
#pragma unroll 1
            for (int base = 0; base < packs; base += 32 * P) {
                words weight[P][R];
#pragma unroll
                for (int q = 0; q < R; ++q) {
                    full[slot].wait(parity);
#pragma unroll
                    for (int p = 0; p < P; ++p)
                        weight[p][q] = base + 32 * p + lane < packs
                                           ? *reinterpret_cast<const words*>(ring + stream_chunk * slot + 16 * (32 * p + lane))
                                           : words{};
                    __syncwarp();
                    if (lane == 0) empty[slot].arrive();
                    if (++slot == job.slots) slot = 0, parity ^= 1;
                }
#pragma unroll
                for (int p = 0; p < P; ++p) {
                    const int at = min(base + 32 * p + lane, packs - 1);
                    A w[R][V];
#pragma unroll
                    for (int q = 0; q < R; ++q) unpack<W>(weight[p][q], w[q]);
#pragma unroll
                    for (int m = 0; m < N; ++m) {
                        A value[V];
                        get(m, V * at, width, value);
#pragma unroll
                        for (int q = 0; q < R; ++q)
#pragma unroll
                            for (int v = 0; v < V; ++v) sum[m * R + q] += value[v] * w[q][v];
                    }
                }
            }
            if (adapters.total) {
#pragma unroll
                for (int q = 0; q < R; ++q) {
                    const auto [which, output] = adapter(task, q);
                    const auto& a = adapters.of[which];
                    for (int j = lane; j < a.rank; j += 32) {
                        const A factor = widen(a.b[index{output} * a.rank + j]);
#pragma unroll
                        for (int m = 0; m < N; ++m)
                            sum[m * R + q] += factor * low[m * adapters.total + a.first + j];
                    }
                }
            }
            const A value = reduce_many(sum), other = __shfl_xor_sync(full_warp, value, lanes % 32);
            if (lane % lanes == 0 && n < job.rows) finish(task, n, r, early, value, other);
        }
    }

    // ---- attention ----

    // Query heads against parts of their keys: a key is read by D/V lanes, a warp takes 32 V/D of them at once. Keys
    // of earlier steps are read while this step's are still made. Result of a (row, head, part): D sums; the sum of the
    // weights, the largest score.
    __device__ void attend(const half_step<T, W>& h, const keys_of_row* places, A* scratch, const grid_barrier& all) {
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
                    k[u] = read_result(h.k + index{m} * stride + from), v[u] = read_result(h.v + index{m} * stride + from);
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
                    score[u] = base + at_once * u + key < end ? score[u] * (h.scale * A(1.4426950408889634)) : A(-INFINITY);
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
                    sum += highest == -INFINITY ? A(0)
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
    __device__ void merge(const half_step<T, W>& h, const keys_of_row* places) {
        constexpr int V = wide<A>, ahead = 4;
        const int width = job.heads << job.log_D;
        const A* totals = job.parts + (index{job.rows * job.heads * most_parts} << job.log_D);
        for (int c = V * threadIdx.x; c < job.rows * width; c += V * stream_threads) {
            const int i = c >> job.log_D, n = N == 1 ? 0 : i / job.heads, count = h.rows >> n & 1 ? places[n].parts : 0;
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

template <int N, class T, class W>
__global__ void __launch_bounds__(stream_threads + 32 * asking_warps, 1)
    block_halves_chain(const __grid_constant__ halves_job<T, W> job) {
    using A = compute<T>;
    using step_type = half_step<T, W>;
    const halves_layout<T, W> at(job, N);
    auto* barriers = reinterpret_cast<shared_barrier*>(shared_bytes + at.barriers);
    auto* steps = reinterpret_cast<step_type*>(shared_bytes + at.steps);
    auto* places = reinterpret_cast<keys_of_row*>(shared_bytes + at.places);
    auto* angles = reinterpret_cast<statistic<T>*>(shared_bytes + at.rotary);
    auto* scratch = reinterpret_cast<A*>(shared_bytes + at.scratch);
    const int D = job.D(), half_D = D / 2, rows = job.rows, width = job.width;

    // the list of halves, where a read takes no detour
    for (unsigned i = threadIdx.x; i < job.count * sizeof(step_type) / 4; i += blockDim.x)
        reinterpret_cast<unsigned*>(steps)[i] = reinterpret_cast<const unsigned*>(job.step)[i];
    for (int i = threadIdx.x; i < 2 * stream_warps * job.slots; i += blockDim.x) barriers[i].init(1);
    copies_see_barriers();
    __syncthreads();
    if (threadIdx.x >= stream_threads) return ask_for_weights(job, steps, shared_bytes + at.ring, barriers);

    // what is small and comes later
    for (int i = threadIdx.x; i < job.count * rows; i += stream_threads) {
        const auto& h = steps[i / rows];
        const row_index s = job.row_sequence[i % rows];
        if (h.attention)
            places[i / rows * N + i % rows] = {h.begin[s], h.end[s], stream_warps * part_steps * (32 * wide<T> >> job.log_D)};
    }
    if (job.rotary.data)
        for (int i = threadIdx.x; i < rows * D; i += stream_threads)
            angles[i] = job.rotary(job.row_position[i / D])[i % D];
    for (int i = blockIdx.x; i < job.count; i += gridDim.x) {
        const auto nearer = [&](const T* from, int count) {
            for (int c = 128 / sizeof(T) * threadIdx.x; from && c < count; c += 128 / sizeof(T) * stream_threads)
                keep_near(from + c);
        };
        const auto& h = steps[i];
        nearer(h.gamma, width), nearer(h.second_bias, width);
        for (int m = 0; m < 3; ++m) nearer(h.bias[m], (m ? job.kv_heads : job.heads) * D);
    }
    const int warp = threadIdx.x / 32;
    shared_barrier* full = barriers + 2 * warp * job.slots;
    halves_worker<N, T, W> worker{job,
                                  reinterpret_cast<typename halves_worker<N, T, W>::X*>(shared_bytes + at.x),
                                  reinterpret_cast<A*>(shared_bytes + at.low),
                                  shared_bytes + at.ring + std::size_t{stream_chunk} * warp * job.slots,
                                  full,
                                  full + job.slots};
    grid_barrier all(job.arrivals);
    stream_sync();

#pragma unroll 1
    for (int i = 0; i < job.count; ++i) {
        const step_type& h = steps[i];
        const keys_of_row* place = places + i * N;
        worker.normalise(h);
        worker.low_ranks(h.low, width);
        if (h.attention) {
            struct known_type {
                A own, other;
            };
            worker.template product<2>(
                width, job.first_task(h, 0), job.tasks(h, 0), h.low,
                [&](int task, int r) {
                    const int row = job.rotated(task, r);
                    return int2{job.matrix_of(row), job.column_of(row)};
                },
                [&](int task, int, int r) -> known_type {
                    const int row = job.rotated(task, r), which = job.matrix_of(row), column = job.column_of(row);
                    if (!h.bias[which]) return {0, 0};
                    return {widen(h.bias[which][column]), widen(h.bias[which][column + (r ? -half_D : half_D)])};
                },
                // (a, b) -> (a cos − b sin, b cos + a sin)
                [&](int task, int n, int r, const known_type& bias, A value, A other) {
                    const int row = job.rotated(task, r), which = job.matrix_of(row), column = job.column_of(row);
                    value += bias.own, other += bias.other;
                    if (which != 2 && job.rotary.data) {
                        const int c = column & (half_D - 1);
                        const A cos = angles[n * D + c], sin = angles[n * D + half_D + c];
                        value = value * cos + other * (r ? sin : -sin);
                    }
                    if (which == 0)
                        job.q[((index{n} * job.heads) << job.log_D) + column] = narrow<T>(value);
                    else if (h.keys >> n & 1)
                        (which == 1 ? h.k : h.v)[index{place[n].last} * (job.kv_heads * D) + column] = narrow<T>(value);
                });
            if (!h.rows) {  // keys alone
                stream_sync();
                continue;
            }
            all.arrive();
            worker.attend(h, place, scratch, all);
            all.arrive(), all.wait();
            worker.merge(h, place);
        } else {
            worker.template product<2>(
                width, 0, job.tasks(h, 0), h.low, [&](int task, int r) { return int2{r, task}; },
                [&](int, int, int) { return nothing{}; },
                [&](int task, int n, int r, nothing, A value, A other) {
                    if (r == 0)
                        job.hidden[index{n} * job.inner + task] = narrow<T>(value / (1 + exp(-value)) * other);
                });
            all.arrive(), all.wait();
            worker.copy_in(job.hidden, job.inner);
        }
        const int inside = job.width_of(h, 1);
        worker.low_ranks(h.second_low, inside);
        worker.template product<1>(
            inside, 0, job.tasks(h, 1), h.second_low, [&](int task, int) { return int2{0, task}; },
            [&](int task, int n, int) {
                const A before = widen(read_one(h.from + index{n} * width + task));
                return pair_of<A>{before, h.second_bias ? widen(h.second_bias[task]) : A(0)};
            },
            [&](int task, int n, int, const pair_of<A>& known, A value, A) {
                h.to[index{n} * width + task] = narrow<T>(h.rows >> n & 1 ? known.a + value + known.b : known.a);
            });
        all.arrive(), all.wait();
    }
    // every block has read where the sequences ended
    if (blockIdx.x == 0)
        for (int i = threadIdx.x; i < job.count * rows; i += stream_threads) {
            const auto& h = steps[i / rows];
            const int n = i % rows, slot = places[i / rows * N + n].last;
            if (!(h.keys >> n & 1)) continue;
            h.position[slot] = job.row_position[n];
            h.end[job.row_sequence[n]] = slot + 1;
        }
}

// What the barriers of a device count in.
struct grid_arrivals : kept {
    executor& ex;
    unsigned long long* count;
    explicit grid_arrivals(executor& ex_) : ex(ex_), count(static_cast<unsigned long long*>(ex.allocate(sizeof *count))) {
        ex.fill_bytes(count, 0, sizeof *count);
    }
    ~grid_arrivals() override { ex.deallocate(count, sizeof *count); }
};

template <class T, class W>
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
    if (!attention) return false;
    halves_job<T, W> job{};
    job.rows = static_cast<int>(N), job.width = static_cast<int>(C);
    job.inner = feed_forward ? static_cast<int>(feed_forward->up.weight.rows()) : 0;
    job.heads = static_cast<int>(attention->heads), job.kv_heads = static_cast<int>(attention->kv_heads);
    job.group = job.heads / job.kv_heads;
    const index D = attention->q.weight.rows() / attention->heads, lanes = D / wide<T>;
    if (D % wide<T> || (lanes != 4 && lanes != 8 && lanes != 16 && lanes != 32)) return false;
    while ((1 << job.log_D) < D) ++job.log_D;
    job.row_position = rows.position.data, job.row_sequence = rows.sequence.data;
    job.rotary = rows_in(attention->rotary);

    // scratch memory, and which half reads and writes what: two buffers in turn, and y at last
    arena_scope scratch(ex);
    const auto q = ex.memory().template matrix<T>(N, job.heads * D), hidden = ex.memory().template matrix<T>(N, job.inner),
               a = ex.memory().template matrix<T>(N, C), b = ex.memory().template matrix<T>(N, C);
    const auto parts = ex.memory().template vector<compute<T>>(N * job.heads * most_parts * (D + 2));
    job.q = q.data, job.hidden = hidden.data, job.parts = parts.data;
    std::vector<half_step<T, W>> steps;
    const T* from = x.data;
    std::size_t last = halves.size();
    while (last > 0 && !halves[last - 1].rows) --last;
    if (last == 0) return false;
    const auto fits = [](const projection<T>& p, index out, index in) {
        return p.weight.rows() == out && p.weight.width() == in && takes_projection<T, W>(p);
    };
    for (std::size_t i = 0; i < halves.size(); ++i) {
        const auto& half = halves[i];
        half_step<T, W> s{};
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
                s.first[m] = weight_data<W>(maps[m]->weight), s.bias[m] = maps[m]->bias.data;
                s.low.of[m] = take_adapter(*maps[m], s.low.total);
            }
            s.second = weight_data<W>(h->o.weight), s.second_bias = h->o.bias.data;
            s.second_low.of[0] = take_adapter(h->o, s.second_low.total);
            s.k = c.k.data, s.v = c.v.data, s.begin = c.begin.data, s.end = c.end.data, s.position = c.position.data;
        } else {
            const auto& f = std::get<feed_forward_half<T>>(half.half);
            if (!half.rows) continue;
            if (!fits(f.gate, job.inner, C) || !fits(f.up, job.inner, C) || !fits(f.down, C, job.inner) ||
                !takes_norm<T>(f.gamma) || f.gate.bias.data || f.up.bias.data)
                return false;
            s.gamma = f.gamma.data, s.eps = static_cast<compute<T>>(f.eps);
            s.first[0] = weight_data<W>(f.gate.weight), s.first[1] = weight_data<W>(f.up.weight);
            s.low.of[0] = take_adapter(f.gate, s.low.total), s.low.of[1] = take_adapter(f.up, s.low.total);
            s.second = weight_data<W>(f.down.weight), s.second_bias = f.down.bias.data;
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
    bool runs = false;
    with_few_rows(N, [&](auto compiled) {
        constexpr int n = compiled();
        for (job.slots = most_slots; job.slots > 0; --job.slots)
            if (halves_layout<T, W>(job, n).bytes <= ex.shared_limit()) break;
        if (job.slots < 4) return;
        runs = true;
        launch_everywhere(ex, what, stream_threads + 32 * asking_warps, halves_layout<T, W>(job, n).bytes, block_halves_chain<n, T, W>,
                          job);
    });
    return runs;
}

}  // namespace spectral::cuda::detail
