// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/row_loops.hpp: loops over the rows of a matrix and over one row, vectorised
#pragma once
#include <spectral/cpu/detail/parallel.hpp>
#include <spectral/ops/bias_gradient.hpp>

namespace spectral::cpu::detail {

// Whether exp, square_root and their like are code without calls for T (float), so that a loop around them can be asked
// to be vectorised. In double they are the library's; clang would warn at every such loop.
template <class T>
inline constexpr bool straight_line = sizeof(T) == 4;

// Rows that one thread should have at least: less work than this costs less than waking a thread.
constexpr index rows_grain(index width) { return std::max<index>(1, 16384 / std::max<index>(width, 1)); }

// f(row) for every row, on the executor's threads
template <class F>
void for_each_row(const executor& ex, index rows, index width, F&& f) {
    parallel_ranges(ex, rows, rows_grain(width), [&](index first, index last, int) {
        for (index n = first; n < last; ++n) f(n);
    });
}

// Σ term(c) for c in [0, n), in four vectors of partial sums: that hides the latency of the addition and keeps the
// rounding error of a float sum to that of n / 64 additions. Not an `omp simd reduction`: g++ 12 gathers the loads of a
// lambda inside one.
template <class T, class F>
T row_sum(index n, F&& term) {
    constexpr index lanes = 256 / static_cast<index>(sizeof(T));
    T part[lanes] = {};
    index c = 0;
    for (; c + lanes <= n; c += lanes)
        for (index i = 0; i < lanes; ++i) part[i] += term(c + i);
    for (index i = 0; c + i < n; ++i) part[i] += term(c + i);
    for (index width = lanes / 2; width > 0; width /= 2)
        for (index i = 0; i < width; ++i) part[i] += part[i + width];
    return part[0];
}

// Sums down the columns: add(first, last, sum) adds what rows [first, last) contribute to sum[0, width). Rows are taken
// 64 at a time, so that a float sum rounds against a short sum first and against the long one once in 64 rows. The
// result lies in the arena, and is the same for the same number of threads.
template <class T, class F>
vector_view<T> column_sums(executor& ex, index rows, index width, F&& add) {
    constexpr index unit = 64 / static_cast<index>(sizeof(T));
    const index stride = (width + unit - 1) / unit * unit, threads = ex.threads();  // no two threads in a cache line
    auto total = ex.memory().template matrix<T>(threads, stride),
         block = ex.memory().template matrix<T>(threads, stride);
    std::fill_n(total.data, total.size(), T(0));
    parallel_ranges(ex, rows, std::max<index>(rows_grain(width), 64), [&](index first, index last, int thread) {
        T *sum = total.row(thread), *part = block.row(thread);
        for (index n = first; n < last; n += 64) {
            std::fill_n(part, width, T(0));
            add(n, std::min(n + 64, last), part);
#pragma omp simd
            for (index c = 0; c < width; ++c) sum[c] += part[c];
        }
    });
    for (index t = 1; t < threads; ++t)
        for (index c = 0; c < width; ++c) total.data[c] += total(t, c);
    return {total.data, {width}};
}

// add(n, sum) adds row n to sum[0, width): to the bias's gradient
template <class T, class F>
void put_column_sums(executor& ex, index rows, const bias_gradient<T>& bias, F&& add) {
    const auto total = column_sums<T>(ex, rows, bias.sums.size(), [&](index first, index last, T* sum) {
        for (index n = first; n < last; ++n) add(n, sum);
    });
    for (index c = 0; c < total.size(); ++c) bias.put(c, total[c]);
}

}  // namespace spectral::cpu::detail
