// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/partition.hpp: rows by operator, gather, scatter, and the row map of a selection
//
// Making the lists is one pass over N small numbers: it stays on one thread.
#pragma once
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/ops/partition.hpp>

namespace spectral::cpu {

namespace detail {
inline index selected_row(const selection& s, index i) { return s.is_all() ? i : static_cast<index>(s.rows[i]); }
}  // namespace detail

inline void partition_kernel(executor&, const_vector<row_index> op, matrix_view<row_index> rows,
                             vector_view<row_index> counts) {
    std::fill_n(counts.data, counts.size(), row_index{0});
    for (index n = 0; n < op.size(); ++n) rows(op[n], counts[op[n]]++) = static_cast<row_index>(n);
}

template <class T>
void gather_rows_kernel(executor& ex, const_matrix<T> x, const selection& rows, matrix_view<T> packed) {
    detail::for_each_row(ex, packed.rows(), packed.width(), [&](index i) {
        std::copy_n(x.row(detail::selected_row(rows, i)), packed.width(), packed.row(i));
    });
}

template <class T>
void scatter_rows_kernel(executor& ex, const_matrix<T> packed, const selection& rows, matrix_view<T> y, write mode) {
    detail::for_each_row(ex, packed.rows(), packed.width(), [&](index i) {
        const T* from = packed.row(i);
        T* to = y.row(detail::selected_row(rows, i));
        if (mode == write::overwrite) {
            std::copy_n(from, packed.width(), to);
        } else {
#pragma omp simd
            for (index c = 0; c < packed.width(); ++c) to[c] += from[c];
        }
    });
}

template <class T>
void copy_rows_kernel(executor& ex, const_matrix<T> x, const selection& rows, matrix_view<T> y) {
    detail::for_each_row(ex, selected_rows(ex, rows), y.width(), [&](index i) {
        const index n = detail::selected_row(rows, i);
        std::copy_n(x.row(n), y.width(), y.row(n));
    });
}

inline void select_rows_kernel(executor&, const row_map& map, const selection& rows, vector_view<row_index> offsets,
                               vector_view<row_index> position, vector_view<row_index> sequence) {
    std::fill_n(offsets.data, offsets.size(), row_index{0});
    for (index i = 0; i < position.size(); ++i) {
        const index n = detail::selected_row(rows, i);
        position[i] = map.position[n];
        sequence[i] = map.sequence[n];
        ++offsets[map.sequence[n] + 1];
    }
    for (index s = 1; s < offsets.size(); ++s) offsets[s] += offsets[s - 1];
}

}  // namespace spectral::cpu
