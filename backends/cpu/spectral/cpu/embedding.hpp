// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/embedding.hpp: rows of a table by id, and their gradient
//
// Backward: several rows may add to the same row of the table, so threads own columns, not rows. Each walks through all
// ids in order: no sorting, no atomics, and the same bits with any number of threads.
#pragma once
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/ops/embedding.hpp>

namespace spectral::cpu {

template <class T, class W>
void embedding_forward_kernel(executor& ex, const_vector<row_index> ids, matrix_view<const W> table, matrix_view<T> y,
                              write mode) {
    detail::for_each_row(ex, y.rows(), y.width(), [&](index n) {
        const W* from = table.row(ids[n]);
        T* to = y.row(n);
        if (mode == write::overwrite) {
#pragma omp simd
            for (index c = 0; c < y.width(); ++c) to[c] = widen<T>(from[c]);
        } else {
#pragma omp simd
            for (index c = 0; c < y.width(); ++c) to[c] += widen<T>(from[c]);
        }
    });
}

template <class T>
void embedding_backward_kernel(executor& ex, const_vector<row_index> ids, view<const T, 2> dL_dy,
                               matrix_view<statistic<T>> dL_dtable) {
    constexpr index line = 64 / static_cast<index>(sizeof(T));
    detail::parallel_ranges(ex, dL_dy.width(), line, [&](index first, index last, int) {
        for (index n = 0; n < ids.size(); ++n) {
            const T* from = dL_dy.row(n);
            T* to = dL_dtable.row(ids[n]);
#pragma omp simd
            for (index c = first; c < last; ++c) to[c] += from[c];
        }
    });
}

}  // namespace spectral::cpu
