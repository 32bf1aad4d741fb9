// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/row_loops.hpp: loops over the rows of a matrix and over one row, vectorised
#pragma once
#include <spectral/cpu/detail/parallel.hpp>

namespace spectral::cpu::detail {

// Rows that one thread should have at least: less work than this costs less than waking a thread.
constexpr index rows_grain(index width) { return std::max<index>(1, 16384 / std::max<index>(width, 1)); }

// f(row) for every row, on the executor's threads
template <class F>
void for_each_row(const executor& ex, index rows, index width, F&& f) {
    parallel_ranges(ex, rows, rows_grain(width), [&](index first, index last, int) {
        for (index n = first; n < last; ++n) f(n);
    });
}

// Σ term(c) for c in [0, n). Four vectors of partial sums hide the latency of the addition, and keep the rounding error
// of a float sum to that of n / 64 additions.
template <class T, class F>
T row_sum(index n, F&& term) {
    constexpr index lanes = 64 / static_cast<index>(sizeof(T));
    const index quarter = n / (4 * lanes) * lanes;
    T a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
    for (index i = 0; i < quarter; ++i) {
        a += term(i);
        b += term(i + quarter);
        c += term(i + 2 * quarter);
        d += term(i + 3 * quarter);
    }
#pragma omp simd reduction(+ : a)
    for (index i = 4 * quarter; i < n; ++i) a += term(i);
    return (a + b) + (c + d);
}

// Sums down the columns: add(first, last, sum) adds what rows [first, last) contribute to sum[0, width). Rows are taken
// 64 at a time, so that a float sum rounds against a short sum first and against the long one once in 64 rows. The
// result lies in the arena, and is the same for the same number of threads.
template <class T, class F>
vector_view<T> column_sums(executor& ex, index rows, index width, F&& add) {
    constexpr index unit = 64 / static_cast<index>(sizeof(T));
    const index stride = (width + unit - 1) / unit * unit, threads = ex.threads();   // no two threads in a cache line
    auto total = ex.memory().template matrix<T>(threads, stride), block = ex.memory().template matrix<T>(threads, stride);
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

}  // namespace spectral::cpu::detail
