// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/reduce.hpp: sums and maxima of a warp, a block, and down the columns of a matrix
//
// Always in one order that depends on shapes alone: two runs give the same bits. No atomics.
#pragma once
#include <spectral/cuda/detail/launch.hpp>

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

// Sums of a matrix's columns, read in packs: finish(c, total).
template <int V, class T>
__global__ void matrix_column_parts(index rows, index width, index rows_each, rows_of<const T> x, compute<T>* parts) {
    using A = compute<T>;
    constexpr int lines = 8;
    __shared__ A shared[lines][32 * V];
    const index c = index{V} * (index{blockIdx.x} * 32 + threadIdx.x);
    const index first = index{blockIdx.y} * rows_each, last = min(first + rows_each, rows);
    A sum[V] = {};
    if (c < width)
        for (index n = first + threadIdx.y; n < last; n += lines) {
            A value[V];
            load<V>(x(n) + c, value);
#pragma unroll
            for (int i = 0; i < V; ++i) sum[i] += value[i];
        }
#pragma unroll
    for (int i = 0; i < V; ++i)
        shared[threadIdx.y][threadIdx.x + 32 * i] = sum[i];  // lanes side by side: no bank twice
    __syncthreads();
    if (threadIdx.y == 0 && c < width)
#pragma unroll
        for (int i = 0; i < V; ++i) {
            for (int l = 1; l < lines; ++l) sum[i] += shared[l][threadIdx.x + 32 * i];
            parts[index{blockIdx.y} * width + c + i] = sum[i];
        }
}

template <class T, class Finish>
void matrix_column_sums(executor& ex, const char* what, view<const T, 2> x, Finish finish) {
    using A = compute<T>;
    if (x.width() == 0) return;
    with_packs<T>(takes_packs(x), [&](auto v) {
        const index columns = divide_up(x.width(), 32 * v());
        const index wanted = std::max<index>(1, 4 * ex.multiprocessors() / columns);  // chunks that fill the device
        const index rows_each = std::max<index>(32, divide_up(x.rows(), wanted)),
                    chunks = divide_up(x.rows(), rows_each);
        arena_scope scratch(ex);
        A* parts = ex.memory().template vector<A>(std::max<index>(chunks * x.width(), 1)).data;
        if (chunks > 0)
            launch(ex, what, dim3(static_cast<unsigned>(columns), static_cast<unsigned>(chunks)), dim3(32, 8), 0,
                   matrix_column_parts<v(), T>, x.rows(), x.width(), rows_each, rows_in(x), parts);
        column_totals<1, A>(ex, what, x.width(), chunks, static_cast<const A*>(parts), finish);
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
