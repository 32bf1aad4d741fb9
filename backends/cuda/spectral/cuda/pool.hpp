// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/pool.hpp: means over rows, running means, and their gradients
//
// Sums are kept in double: a causal mean of thousands of rows is a small difference of large sums. The batch mean is a
// column sum, a sequence's the sum of a block; running sums go through chunks of rows, so that one long sequence keeps
// the device busy too.
#pragma once
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/ops/pool.hpp>

namespace spectral::cuda {

namespace detail {

inline constexpr index running_chunk = 64;

// Running sums down (Backward: up) the rows of a matrix, restarted where a sequence begins (ends):
//   sum(n) = value(n, c) + (starts(n) ? start(n, c) : sum of the row before);   emit(n, c, sum)
// First the sum of every chunk, then what enters each, then the rows.
template <bool Backward, class Starts, class Start, class Value, class Emit>
void running_sums(executor& ex, const char* what, index rows, index width, Starts starts, Start start, Value value,
                  Emit emit) {
    const index chunks = divide_up(rows, running_chunk);
    if (rows == 0 || width == 0) return;
    arena_scope scratch(ex);
    double* part = ex.memory().template vector<double>(chunks * width).data;
    double* entering = ex.memory().template vector<double>(chunks * width).data;
    row_index* restarts = ex.memory().template vector<row_index>(chunks).data;
    for_each_element(ex, what, chunks, width, [=] __device__(index j, index c) {
        double sum = 0;
        bool restarted = false;
        const index last = min((j + 1) * running_chunk, rows);
        for (index i = j * running_chunk; i < last; ++i) {
            const index n = Backward ? rows - 1 - i : i;
            if (starts(n)) sum = start(n, c), restarted = true;
            sum += value(n, c);
        }
        part[j * width + c] = sum;
        if (c == 0) restarts[j] = restarted;
    });
    for_each(ex, what, width, [=] __device__(index c) {
        double carry = 0;
        for (index j = 0; j < chunks; ++j) {
            entering[j * width + c] = carry;
            carry = (restarts[j] ? 0 : carry) + part[j * width + c];
        }
    });
    for_each_element(ex, what, chunks, width, [=] __device__(index j, index c) {
        double sum = entering[j * width + c];
        const index last = min((j + 1) * running_chunk, rows);
        for (index i = j * running_chunk; i < last; ++i) {
            const index n = Backward ? rows - 1 - i : i;
            if (starts(n)) sum = start(n, c);
            sum += value(n, c);
            emit(n, c, sum);
        }
    });
}

// A block takes 32 columns of a sequence, its 32 lines of threads share the rows.
inline constexpr int mean_lines = 32;
template <class T>
__global__ void __launch_bounds__(32 * mean_lines)
    mean_of_sequences(index width, rows_of<const T> x, const row_index* begin, const row_index* end, rows_of<T> mean) {
    __shared__ double part[mean_lines][33];
    const index c = index{blockIdx.y} * 32 + threadIdx.x, first = begin[blockIdx.x], last = end[blockIdx.x];
    double sum = 0;
    if (c < width)
#pragma unroll 8
        for (index n = first + threadIdx.y; n < last; n += mean_lines) sum += widen(x(n)[c]);
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || c >= width) return;
    for (int line = 1; line < mean_lines; ++line) sum += part[line][threadIdx.x];
    mean(blockIdx.x)[c] =
        narrow<T>(static_cast<compute<T>>(last > first ? sum / static_cast<double>(last - first) : 0));
}

// Rows += their share of their mean's gradient: of all rows' mean, or of their sequence's, where it was over them
template <int V, class T>
__global__ void add_shares(index rows, index width, rows_of<const T> gradient, const row_index* sequence,
                           const row_index* begin, const row_index* end, rows_of<T> to) {
    using A = compute<T>;
    for_my_packs<V>(rows, width, [&](index n, index c) {
        const index s = sequence ? sequence[n] : 0, first = sequence ? begin[s] : 0, last = sequence ? end[s] : rows;
        if (n < first || n >= last) return;  // a mean over a prompt leaves its answer out
        const double share = 1 / static_cast<double>(last - first);
        A mean[V], sum[V];
        load<V>(gradient(s) + c, mean);
        load<V>(to(n) + c, sum);
#pragma unroll
        for (int i = 0; i < V; ++i) sum[i] = static_cast<A>(sum[i] + mean[i] * share);
        store<V>(to(n) + c, sum);
    });
}

}  // namespace detail

template <class T>
void mean_pool_forward_kernel(executor& ex, const_matrix<T> x, const row_map& map, pool_scope scope,
                              matrix_view<T> pooled, out_matrix<statistic<T>> history) {
    using A = detail::compute<T>;
    const auto in = detail::rows_in(x);
    const auto out = detail::rows_in(pooled);
    const auto before = detail::rows_in(history);
    const index N = x.rows();
    if (scope == pool_scope::batch) {
        const double share = N > 0 ? 1 / static_cast<double>(N) : 0;
        return detail::column_sums<1, double>(
            ex, "mean_pool_forward", N, x.width(),
            [=] __device__(index n, index c, double(&sum)[1]) { sum[0] += detail::widen(in(n)[c]); },
            [=] __device__(index c, const double(&total)[1]) {
                out(0)[c] = detail::narrow<T>(static_cast<A>(total[0] * share));
            });
    }
    const row_index *begin = map.begin.data, *end = map.end.data, *position = map.position.data,
                    *sequence = map.sequence.data;
    if (scope == pool_scope::causal) {
        // the row that ends a sequence writes its history, while the row that begins it may not have read it yet: a
        // copy
        arena_scope scratch(ex);
        const index C = x.width(), S = before.data ? map.sequences() : 0;
        double* known = ex.memory().template vector<double>(S * C).data;
        detail::for_each_element(ex, "mean_pool_forward", S, C,
                                 [=] __device__(index s, index c) { known[s * C + c] = before(s)[c]; });
        return detail::running_sums<false>(
            ex, "mean_pool_forward", N, C, [=] __device__(index n) { return n == begin[sequence[n]]; },
            [=] __device__(index n, index c) { return before.data ? known[sequence[n] * C + c] : 0.0; },
            [=] __device__(index n, index c) { return static_cast<double>(detail::widen(in(n)[c])); },
            [=] __device__(index n, index c, double sum) {
                out(n)[c] = detail::narrow<T>(static_cast<A>(sum / (static_cast<double>(position[n]) + 1)));
                if (before.data && n == end[sequence[n]] - 1) before(sequence[n])[c] = static_cast<A>(sum);
            });
    }
    detail::launch(
        ex, "mean_pool_forward",
        dim3(static_cast<unsigned>(map.sequences()), static_cast<unsigned>(detail::divide_up(x.width(), 32))),
        dim3(32, detail::mean_lines), 0, detail::mean_of_sequences<T>, x.width(), in, begin, end, out);
}

template <class T>
void mean_pool_backward_kernel(executor& ex, const_matrix<T> dL_dpooled, const row_map& map, pool_scope scope,
                               matrix_view<T> dL_dx) {
    using A = detail::compute<T>;
    const auto in = detail::rows_in(dL_dpooled);
    const auto out = detail::rows_in(dL_dx);
    const index N = dL_dx.rows();
    const row_index *begin = map.begin.data, *end = map.end.data, *sequence = map.sequence.data;
    if (scope != pool_scope::causal) {
        if (N == 0 || dL_dx.width() == 0) return;
        return detail::with_packs<T>(detail::takes_packs(dL_dpooled, dL_dx), [&](auto v) {
            const auto grid = detail::grid_over(ex, N, dL_dx.width(), v());
            detail::launch(ex, "mean_pool_backward", grid.blocks, grid.threads, 0, detail::add_shares<v(), T>, N,
                           dL_dx.width(), in, scope == pool_scope::batch ? nullptr : sequence, begin, end, out);
        });
    }
    detail::running_sums<true>(  // what a row receives: gathered from the end of the sequence
        ex, "mean_pool_backward", N, dL_dx.width(), [=] __device__(index n) { return n == end[sequence[n]] - 1; },
        [=] __device__(index, index) { return 0.0; },
        [=] __device__(index n, index c) {
            return detail::widen(in(n)[c]) / static_cast<double>(n - begin[sequence[n]] + 1);
        },
        [=] __device__(index n, index c, double sum) {
            out(n)[c] = detail::narrow<T>(static_cast<A>(detail::widen(out(n)[c]) + sum));
        });
}

}  // namespace spectral::cuda
