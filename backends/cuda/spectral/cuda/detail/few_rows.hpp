// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/few_rows.hpp: products of at most 8 rows with a weight, at the speed of reading it
//
// A task is R outputs of every row. S warps share a task's weight rows, each lane reads 16 bytes at a time, P packs of
// every row at once; the rows of x lie in shared memory. A block takes tasks in turn and asks for the next task's
// weights before it adds up the last one's sums. Rows do not meet: the sums of a row are added in one order, however
// many rows there are.
//
// What surrounds a product is fused: `In` fills shared memory with x (copied, normalised, or merged from attention's
// parts), `Out` says where the weights of a task lie and what becomes of its sums.
//
// Kernels overlap (programmatic dependent launch): a kernel starts when the one before it has its inputs, reads its
// first weights, and then waits for that one's results. So before wait_for_previous() a kernel reads parameters and
// nothing that the kernel before it writes; everything older is complete by then.
#pragma once
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/ops/few_rows.hpp>

#include <cstring>

namespace spectral::cuda::detail {

inline constexpr index most_few_rows = 8;
inline constexpr int few_rows_warps = 8, few_rows_threads = 32 * few_rows_warps;

// Memory that later kernels will read, brought into the second level cache: each block asks for its share.
struct memory_ahead {
    const unsigned char* from[3] = {};
    unsigned pieces[3] = {};
    static constexpr unsigned piece = 4096;  // bytes
    __device__ void ask() const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#pragma unroll
        for (int i = 0; i < 3; ++i)
            for (unsigned p = blockIdx.x + gridDim.x * threadIdx.x; p < pieces[i]; p += gridDim.x * blockDim.x)
                asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from[i] + std::size_t{piece} * p),
                             "r"(piece)
                             : "memory");
#endif
    }
};

struct alignas(16) words {
    unsigned value[4];
};
// 16 bytes that no other thread will ask for
__device__ inline words read_once(const void* from) {
    words out;
#if defined(__CUDA_ARCH__)  // volatile: stays before the wait
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out.value[0]), "=r"(out.value[1]), "=r"(out.value[2]), "=r"(out.value[3])
                 : "l"(from));
#else
    out = *static_cast<const words*>(from);
#endif
    return out;
}
// 16 bytes to shared memory without passing through registers; wait_for_copies(), then a barrier
__device__ inline void copy_to_shared(void* to, const void* from) {
#if defined(__CUDA_ARCH__)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))),
                 "l"(from)
                 : "memory");
#else
    *static_cast<words*>(to) = *static_cast<const words*>(from);
#endif
}
__device__ inline void wait_for_copies() {
#if defined(__CUDA_ARCH__)
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
template <class W, class A>
__device__ inline void unpack(const words& from, A (&to)[wide<W>]) {
    if constexpr (std::is_same_v<W, bfloat16>) {  // one instruction a value
#pragma unroll
        for (int i = 0; i < 4; ++i)
            to[2 * i] = __uint_as_float(from.value[i] << 16),
                   to[2 * i + 1] = __uint_as_float(from.value[i] & 0xFFFF0000u);
    } else {
        pack<W, wide<W>> p;
        memcpy(&p, &from, sizeof p);
#pragma unroll
        for (int i = 0; i < wide<W>; ++i) to[i] = static_cast<A>(widen(p.value[i]));
    }
}
// V values from an address of 16 bytes' alignment
template <int V, class T>
__device__ inline void load_values(const T* from, compute<T> (&to)[V]) {
    static_assert(V % wide<T> == 0 || V < wide<T>);
    constexpr int each = V < wide<T> ? V : wide<T>;
#pragma unroll
    for (int i = 0; i < V; i += each) {
        const auto p = *reinterpret_cast<const pack<T, each>*>(from + i);
#pragma unroll
        for (int j = 0; j < each; ++j) to[i + j] = widen(p.value[j]);
    }
}

// The sums of K values over a warp: lane l gets that of value l / (32/K). Each is added in the order of warp_reduce.
template <int K, class A>
__device__ inline A reduce_many(A (&value)[K]) {
    static_assert(32 % K == 0);
    const int lane = threadIdx.x % 32;
    int mask = 16;
#pragma unroll
    for (int half = K / 2; half > 0; half /= 2, mask /= 2)
#pragma unroll
        for (int i = 0; i < half; ++i) {
            const bool upper = lane & mask;
            const A sent = upper ? value[i] : value[i + half], kept = upper ? value[i + half] : value[i];
            value[i] = kept + __shfl_xor_sync(full_warp, sent, mask);
        }
    A sum = value[0];
#pragma unroll
    for (int m = 16 / K; m > 0; m /= 2) sum += __shfl_xor_sync(full_warp, sum, m);
    return sum;
}

// ---- adapters: scale · B A x of some outputs ------------------------------------------------------------------------

template <class T>
struct adapter_rows {
    const T *a = nullptr, *b = nullptr;
    int rank = 0, first = 0;  // its share of the low-rank values of a row
    compute<T> scale = 0;
};
template <class T, int Count>
struct adapter_list {
    adapter_rows<T> of[Count];
    int total = 0;  // low-rank values of a row
};

// ---- the kernel -----------------------------------------------------------------------------------------------------

// Packs of a weight row that a lane asks for at once: what 128 registers leave room for, so that two kernels fit on a
// multiprocessor side by side.
template <int N, int S>
inline constexpr int packs_ahead = N > 1    ? 2
                                   : S == 8 ? 3
                                            : 4;

template <int N, int R, int S, class T, class W, class In, class Out>
__global__ void __launch_bounds__(few_rows_threads, sizeof(compute<T>) == 4 ? 2 : 1)
    few_rows_kernel(In in, Out out, int width, index tasks) {
    using A = compute<T>;
    constexpr int V = wide<W>, P = packs_ahead<N, S>, K = N * R, lanes = 32 / K, groups = few_rows_warps / S;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, slice = warp % S, group = warp / S;
    const int n = lane / lanes / R, r = lane / lanes % R;  // whose sum this lane finishes
    const int packs = width / V, each = (packs + S - 1) / S, from = slice * each, to = min(from + each, packs);
    T* x = reinterpret_cast<T*>(shared_bytes);
    A* parts = reinterpret_cast<A*>(shared_bytes + in.shared(N));  // (warps, K) if S > 1
    A* low = parts + (S > 1 ? few_rows_warps * K : 0);  // (N, low-rank values)
    const index step = index{gridDim.x} * groups;

    words weight[P][R];
    const auto read = [&](index first, int base) {
        const index task = min(first + group, tasks - 1);
#pragma unroll
        for (int q = 0; q < R; ++q) {
            const W* row = out.weight(task, q);
#pragma unroll
            for (int p = 0; p < P; ++p)
                if (base + 32 * p + lane < to) weight[p][q] = read_once(row + index{V} * (base + 32 * p + lane));
        }
    };

    index first = index{blockIdx.x} * groups;
    read(first, from);
    auto known = out.known(min(first + group, tasks - 1), n, r);
    in.prepare(N, x);
    wait_for_previous();
    let_next_start();
    if constexpr (requires { out.ahead; }) out.ahead.ask();
    auto early = out.early(min(first + group, tasks - 1), n, r);
    in.fill(std::integral_constant<int, N>{}, x);
    __syncthreads();
    if (out.adapters.total) {
        for (const auto& a : out.adapters.of)
            for (int i = warp; i < a.rank * N; i += few_rows_warps) {
                const int j = i / N, m = i % N;
                A sum = 0;
                for (int c = lane * wide<T>; c < width; c += 32 * wide<T>) {
                    A value[wide<T>], factor[wide<T>];
                    load_values<wide<T>>(x + m * width + c, value);
                    load_values<wide<T>>(a.a + index{j} * width + c, factor);
#pragma unroll
                    for (int v = 0; v < wide<T>; ++v) sum += value[v] * factor[v];
                }
                sum = warp_reduce(sum);
                if (lane == 0) low[m * out.adapters.total + a.first + j] = a.scale * sum;
            }
        __syncthreads();
    }
    for (; first < tasks; first += step) {
        const index task = min(first + group, tasks - 1);
        const bool more = first + step < tasks;
        A sum[K] = {};
        for (int base = from; base < to; base += 32 * P) {
#pragma unroll
            for (int p = 0; p < P; ++p) {
                const int at = base + 32 * p + lane;
                if (at < to) {
                    A w[R][V];
#pragma unroll
                    for (int q = 0; q < R; ++q) unpack<W>(weight[p][q], w[q]);
#pragma unroll
                    for (int m = 0; m < N; ++m) {
                        A value[V];
                        load_values<V>(x + m * width + V * at, value);
#pragma unroll
                        for (int q = 0; q < R; ++q)
#pragma unroll
                            for (int v = 0; v < V; ++v) sum[m * R + q] += value[v] * w[q][v];
                    }
                }
            }
            if (base + 32 * P < to)
                read(first, base + 32 * P);
            else if (more)
                read(first + step, from);
        }
        if (out.adapters.total && slice == 0) {
#pragma unroll
            for (int q = 0; q < R; ++q) {
                const auto& a = out.adapter(task, q);
                for (int j = lane; j < a.rank; j += 32) {
                    const A factor = widen(a.b[out.output(task, q) * a.rank + j]);
#pragma unroll
                    for (int m = 0; m < N; ++m) sum[m * R + q] += factor * low[m * out.adapters.total + a.first + j];
                }
            }
        }
        A value = reduce_many(sum);
        if constexpr (S > 1) {
            if (lane % lanes == 0) parts[warp * K + lane / lanes] = value;
            __syncthreads();
            value = 0;
#pragma unroll
            for (int s = 0; s < S; ++s) value += parts[(group * S + s) * K + lane / lanes];
        }
        const A other = __shfl_xor_sync(full_warp, value, lanes % 32);  // of the task's other output, if R is 2
        if (first + group < tasks && slice == 0 && lane % lanes == 0 && n < in.rows)
            out.finish(task, n, r, known, early, value, other);
        if (more) {
            known = out.known(min(first + step + group, tasks - 1), n, r);
            early = out.early(min(first + step + group, tasks - 1), n, r);
            if constexpr (S > 1) __syncthreads();  // the next sums go where these were read
        }
    }
}

// f(integral_constant<int, N>) with the smallest compiled number of rows that holds n
template <class F>
void with_few_rows(index n, F&& f) {
    if (n <= 1)
        f(std::integral_constant<int, 1>{});
    else if (n <= 4)
        f(std::integral_constant<int, 4>{});
    else
        f(std::integral_constant<int, 8>{});
}

// Runs the product of `tasks` tasks of R outputs, S warps to a task: many where tasks are few, so that every
// multiprocessor reads. `overlap`: parameters may be read while the kernel before still runs.
template <int R, int S, class T, class W, class In, class Out>
void few_rows_product(executor& ex, const char* what, const In& in, const Out& out, index tasks, bool overlap) {
    with_few_rows(in.rows, [&](auto rows) {
        constexpr int N = rows();
        const index blocks =
            std::min<index>(divide_up(tasks, few_rows_warps / S), (S == 1 ? 1 : 2) * ex.multiprocessors());
        const std::size_t sums = (S > 1 ? few_rows_warps * N * R : 0) + N * out.adapters.total;
        launch_overlapping(ex, what, static_cast<unsigned>(blocks), few_rows_threads,
                           in.shared(N) + sizeof(compute<T>) * sums, overlap, few_rows_kernel<N, R, S, T, W, In, Out>,
                           in, out, in.width, tasks);
    });
}

// ---- inputs ---------------------------------------------------------------------------------------------------------

__host__ __device__ inline std::size_t to_16(std::size_t bytes) { return (bytes + 15) / 16 * 16; }

// Rows as they are, or with γ their RMSNorm: a warp adds up its row's squares, so do the others of that row, and each
// scales its share.
template <class T>
struct row_inputs {
    rows_of<const T> x;
    int rows, width;
    const T* gamma;
    compute<T> eps;
    __host__ __device__ std::size_t shared(int n) const { return to_16(sizeof(T) * (n + (gamma ? 1 : 0)) * width); }
    __device__ void prepare(int n, T* to) const {  // γ: a parameter
        if (!gamma) return;
        for (int c = wide<T> * threadIdx.x; c < width; c += wide<T> * few_rows_threads)
            copy_to_shared(to + n * width + c, gamma + c);
    }
    template <int N>
    __device__ void fill(std::integral_constant<int, N>, T* to) const {
        using A = compute<T>;
        constexpr int V = wide<T>, sharers = few_rows_warps / N;
        for (int c = V * threadIdx.x; c < width; c += V * few_rows_threads)
#pragma unroll
            for (int n = 0; n < N; ++n)
                if (n < rows)
                    copy_to_shared(to + n * width + c, x(n) + c);
                else
                    *reinterpret_cast<words*>(to + n * width + c) = {};
        wait_for_copies();
        if (!gamma) return;
        __syncthreads();
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n = warp % N, share = warp / N;
        A square = 0;
        for (int c = V * lane; c < width; c += 32 * V) {
            A value[V];
            load<V>(to + n * width + c, value);
#pragma unroll
            for (int i = 0; i < V; ++i) square += value[i] * value[i];
        }
        const A factor = 1 / sqrt(warp_reduce(square) / static_cast<A>(width) + eps);
        if constexpr (sharers > 1) __syncthreads();  // the row is read: it may be written
        for (int c = V * (32 * share + lane); c < width; c += 32 * V * sharers) {
            A value[V], g[V];
            load<V>(to + n * width + c, value);
            load<V>(to + N * width + c, g);
#pragma unroll
            for (int i = 0; i < V; ++i) value[i] *= factor * g[i];
            store<V>(to + n * width + c, value);
        }
    }
};

struct nothing {};

// ---- which shapes are taken, and how kernels see them ---------------------------------------------------------------

template <class T>
adapter_rows<T> take_adapter(const projection<T>& p, int& total) {
    if (!p.a.data) return {};
    const int rank = static_cast<int>(p.a.rows()), first = total;
    total += rank;
    return {p.a.data, p.b.data, rank, first, static_cast<compute<T>>(p.scale)};
}
template <class W, class T>
const W* weight_data(const weight_view<T>& w) {
    if constexpr (std::is_same_v<W, T>)
        return w.wide.data;
    else
        return w.narrow.data;
}

// Whole packs of weights and of x, contiguous weights.
template <class T, class W>
bool takes_projection(const projection<T>& p) {
    const bool stored = std::is_same_v<W, T> ? p.weight.wide.data != nullptr : p.weight.is_narrow();
    if (!stored || p.weight.width() % std::max(wide<T>, wide<W>)) return false;
    const auto weight = [&] {
        if constexpr (std::is_same_v<W, T>)
            return p.weight.wide;
        else
            return p.weight.narrow;
    }();
    return weight.contiguous() && takes_packs(weight) &&
           (!p.a.data || (p.a.contiguous() && p.b.contiguous() && takes_packs(p.a)));
}
// f(a value of the weights' type): all in the model's scalar, or all kept as bfloat16; false for a mixture or other
// shapes
template <class T, class F>
bool with_stored(std::initializer_list<projection<T>> all, F&& f) {
    if constexpr (!std::is_same_v<T, bfloat16>)
        if (std::all_of(all.begin(), all.end(), [](const auto& p) { return takes_projection<T, bfloat16>(p); }))
            return f(bfloat16{}), true;
    if (std::all_of(all.begin(), all.end(), [](const auto& p) { return takes_projection<T, T>(p); }))
        return f(T{}), true;
    return false;
}
template <class T>
bool takes_norm(const view<const T, 1>& gamma) {
    return !gamma.data || takes_packs(gamma);
}

}  // namespace spectral::cuda::detail
