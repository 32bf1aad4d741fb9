// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/reduce.hpp: sums and maxima of a warp, a block, and down the columns of a matrix
//
// Always in one order, which shapes and the number of multiprocessors decide: two runs give the same bits. No atomics.
#pragma once
#include <spectral/cuda/detail/launch.hpp>
#include <spectral/ops/bias_gradient.hpp>

namespace spectral::cuda::detail {

inline constexpr unsigned full_warp = 0xFFFFFFFFu;

struct plus {
    template <class A>
    __device__ A operator()(A a, A b) const {
        return a + b;
    }
};
struct greater {  // a NaN wins, so that it is not lost
    template <class A>
    __device__ A operator()(A a, A b) const {
        return a > b || a != a ? a : b;
    }
};

template <class A>
struct pair_of {  // two sums in one reduction
    A a, b;
    __device__ friend pair_of operator+(pair_of x, pair_of y) { return {x.a + y.a, x.b + y.b}; }
};
template <class A>
__device__ inline A from_lane_xor(A value, int lane) {
    return __shfl_xor_sync(full_warp, value, lane);
}
template <class A>
__device__ inline pair_of<A> from_lane_xor(pair_of<A> value, int lane) {
    return {from_lane_xor(value.a, lane), from_lane_xor(value.b, lane)};
}

// Over groups of `Lanes` consecutive lanes; every lane gets the result.
template <int Lanes = 32, class A, class Op = plus>
__device__ inline A warp_reduce(A value, Op op = {}) {
#pragma unroll
    for (int lane = Lanes / 2; lane > 0; lane /= 2) value = op(value, from_lane_xor(value, lane));
    return value;
}

// Over all threads of a one-dimensional block of whole warps; every thread gets the result. Two barriers.
template <class A, class Op = plus>
__device__ inline A block_reduce(A value, Op op = {}) {
    value = warp_reduce(value, op);
    const unsigned warps = blockDim.x / 32;
    if (warps == 1) return value;
    __shared__ A part[32];
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = value;
    __syncthreads();
    value = part[0];
    for (unsigned w = 1; w < warps; ++w) value = op(value, part[w]);
    __syncthreads();  // the next reduction writes `part` again
    return value;
}

// ---- column sums ----------------------------------------------------------------------------------------------------

template <int K, class A, class F>
__global__ void column_parts_kernel(index rows, index width, index rows_each, A* parts, F f) {
    constexpr int lines = 8;
    __shared__ A shared[K][lines][33];
    const index c = index{blockIdx.x} * 32 + threadIdx.x;
    const index first = index{blockIdx.y} * rows_each, last = min(first + rows_each, rows);
    A sum[K] = {};
    if (c < width)
        for (index n = first + threadIdx.y; n < last; n += lines) f(n, c, sum);
#pragma unroll
    for (int k = 0; k < K; ++k) shared[k][threadIdx.y][threadIdx.x] = sum[k];
    __syncthreads();
    if (threadIdx.y < K && c < width) {
        A total = 0;
        for (int l = 0; l < lines; ++l) total += shared[threadIdx.y][l][threadIdx.x];
        parts[(index{blockIdx.y} * K + threadIdx.y) * width + c] = total;
    }
}

inline constexpr int total_lines = 16;

// finish(c, K totals of the chunks): 16 lines of threads share a column's chunks, then are added in order
template <int K, class A, class F>
__global__ void column_totals_kernel(index width, index chunks, const A* parts, F finish) {
    __shared__ A shared[K][total_lines][33];
    for (index base = index{32} * blockIdx.x; base < width; base += index{32} * gridDim.x) {
        const index c = base + threadIdx.x;
        A total[K] = {};
        if (c < width)
            for (index i = threadIdx.y; i < chunks; i += total_lines)
#pragma unroll
                for (int k = 0; k < K; ++k) total[k] += parts[(i * K + k) * width + c];
#pragma unroll
        for (int k = 0; k < K; ++k) shared[k][threadIdx.y][threadIdx.x] = total[k];
        __syncthreads();
        if (threadIdx.y == 0 && c < width) {
#pragma unroll
            for (int k = 0; k < K; ++k)
                for (int l = 1; l < total_lines; ++l) total[k] += shared[k][l][threadIdx.x];
            finish(c, total);
        }
        __syncthreads();
    }
}

// parts (chunks, K, width)
template <int K, class A, class F>
void column_totals(executor& ex, const char* what, index width, index chunks, const A* parts, F finish) {
    launch(ex, what, blocks_for(ex, width, 32), dim3(32, total_lines), 0, column_totals_kernel<K, A, F>, width, chunks,
           parts, finish);
}

// K sums for every column: f(n, c, A (&sum)[K]) adds what row n gives, finish(c, total) takes the results.
template <int K, class A, class F, class Finish>
void column_sums(executor& ex, const char* what, index rows, index width, F f, Finish finish) {
    static_assert(K <= 8);
    if (width == 0) return;
    // short chunks for parallelism, no more than 256 of them for the second pass
    const index rows_each = std::max<index>(64, divide_up(rows, 256)), chunks = divide_up(rows, rows_each);
    arena_scope scratch(ex);
    auto parts = ex.memory().template vector<A>(std::max<index>(chunks * K * width, 1));
    if (chunks > 0)
        launch(ex, what, dim3(static_cast<unsigned>(divide_up(width, 32)), static_cast<unsigned>(chunks)), dim3(32, 8),
               0, column_parts_kernel<K, A, F>, rows, width, rows_each, parts.data, f);
    column_totals<K, A>(ex, what, width, chunks, static_cast<const A*>(parts.data), finish);
}

// Sums of columns that are read in packs. f.read(n, c): what lies at row n from column c on; f.make(n, c, operands,
// value): the V values of it that are added up (and perhaps written). A thread has the same columns in every row of its
// own, `at_once` of them on their way; all threads walk through the rows together, so that what is read at a time lies
// together in memory.
inline constexpr int sum_threads = 512;
template <int V, class A, class F>
__global__ void __launch_bounds__(sum_threads, 2) pack_column_parts(index rows, index width, A* parts, F f) {
    __shared__ A shared[sum_threads * V];
    const index c = index{V} * (index{blockIdx.x} * blockDim.x + threadIdx.x), step = index{gridDim.y} * blockDim.y;
    A sum[V] = {};
    const auto add = [&](index n, const auto& operands) {
        A value[V];
        f.make(n, c, operands, value);
#pragma unroll
        for (int i = 0; i < V; ++i) sum[i] += value[i];
    };
    if (c < width) {
        index n = index{blockIdx.y} * blockDim.y + threadIdx.y;
        for (; n + (F::at_once - 1) * step < rows; n += F::at_once * step) {
            decltype(f.read(n, c)) operands[F::at_once];
#pragma unroll
            for (int u = 0; u < F::at_once; ++u) operands[u] = f.read(n + u * step, c);
#pragma unroll
            for (int u = 0; u < F::at_once; ++u) add(n + u * step, operands[u]);
        }
        for (; n < rows; n += step) add(n, f.read(n, c));
    }
    const auto place = [&](unsigned line, int i) -> A& {  // lanes side by side: no bank twice
        return shared[(line * V + i) * blockDim.x + threadIdx.x];
    };
#pragma unroll
    for (int i = 0; i < V; ++i) place(threadIdx.y, i) = sum[i];
    __syncthreads();
    if (threadIdx.y == 0 && c < width)
#pragma unroll
        for (int i = 0; i < V; ++i) {
            for (unsigned line = 1; line < blockDim.y; ++line) sum[i] += place(line, i);
            parts[index{blockIdx.y} * width + c + i] = sum[i];
        }
}

// finish(c, total) for every column
template <int V, class A, class F, class Finish>
void pack_column_sums(executor& ex, const char* what, index rows, index width, F f, Finish finish) {
    if (width == 0) return;
    const unsigned x = threads_covering(divide_up(width, V), 32, 128), lines = sum_threads / x;
    const index columns = divide_up(width, index{x} * V);
    const index wanted = 2 * ex.multiprocessors() / columns;  // to fill the device once
    const index chunks = std::max<index>(1, std::min(wanted, divide_up(rows, 2 * lines)));
    arena_scope scratch(ex);
    A* parts = ex.memory().template vector<A>(chunks * width).data;
    launch(ex, what, dim3(static_cast<unsigned>(columns), static_cast<unsigned>(chunks)), dim3(x, lines), 0,
           pack_column_parts<V, A, F>, rows, width, parts, f);
    column_totals<1, A>(ex, what, width, chunks, static_cast<const A*>(parts), finish);
}

template <int V, class T>
struct plain_values {
    static constexpr int at_once = 4;
    rows_of<const T> x;
    __device__ pack<T, V> read(index n, index c) const { return *reinterpret_cast<const pack<T, V>*>(x(n) + c); }
    __device__ void make(index, index, const pack<T, V>& x, compute<T> (&value)[V]) const {
#pragma unroll
        for (int i = 0; i < V; ++i) value[i] = widen(x.value[i]);
    }
};

template <class T>
struct put_bias {  // a struct: nvcc takes no __device__ lambda inside a generic one
    bias_gradient<T> to;
    __device__ void operator()(index c, const compute<T> (&total)[1]) const { to.put(c, total[0]); }
};

// The sums of x's columns, to a bias's gradient
template <class T>
void put_column_sums(executor& ex, const char* what, view<const T, 2> x, const bias_gradient<T>& bias) {
    with_packs<T>(takes_packs(x), [&](auto v) {
        pack_column_sums<v(), compute<T>>(ex, what, x.rows(), x.width(), plain_values<v(), T>{rows_in(x)},
                                          put_bias<T>{bias});
    });
}

// f's sum over the columns of row n, a warp to a row, or a block where rows are wide: f(n, c), finish(n, sum) on one thread
template <class A, class F, class Finish>
__global__ void row_sum_kernel(index rows, index width, F f, Finish finish) {
    const index warps = index{gridDim.x} * (blockDim.x / 32), lane = threadIdx.x % 32;
    for (index n = (index{blockIdx.x} * blockDim.x + threadIdx.x) / 32; n < rows; n += warps) {
        A sum = 0;
        for (index c = lane; c < width; c += 32) sum += f(n, c);
        sum = warp_reduce(sum);
        if (lane == 0) finish(n, sum);
    }
}
template <class A, class F, class Finish>
__global__ void wide_row_sum_kernel(index rows, index width, F f, Finish finish) {
    for (index n = blockIdx.x; n < rows; n += gridDim.x) {
        A sum = 0;
        for (index c = threadIdx.x; c < width; c += blockDim.x) sum += f(n, c);
        sum = block_reduce(sum);
        if (threadIdx.x == 0) finish(n, sum);
    }
}

template <class A, class F, class Finish>
void row_sums(executor& ex, const char* what, index rows, index width, F f, Finish finish) {
    if (rows == 0) return;
    if (width >= 2048)
        launch(ex, what, blocks_for(ex, rows), 256, 0, wide_row_sum_kernel<A, F, Finish>, rows, width, f, finish);
    else
        launch(ex, what, blocks_for(ex, rows, 8), 256, 0, row_sum_kernel<A, F, Finish>, rows, width, f, finish);
}

}  // namespace spectral::cuda::detail
