// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/partition.hpp: rows by operator, gather, scatter, sub-maps
#pragma once
#include <spectral/ops/partition.hpp>
#include <spectral/reference/executor.hpp>

namespace spectral::reference {

// The i-th selected row.
inline index row_of(const selection& s, index i) { return s.is_all() ? i : s.rows[i]; }

inline void partition_kernel(executor&, const_vector<row_index> op, matrix_view<row_index> rows,
                             vector_view<row_index> counts) {
    for (index o = 0; o < counts.size(); ++o) counts[o] = 0;
    for (index n = 0; n < op.size(); ++n) rows(op[n], counts[op[n]]++) = static_cast<row_index>(n);
}

template <class T>
void gather_rows_kernel(executor&, const_matrix<T> x, const selection& rows, matrix_view<T> packed) {
    for (index i = 0; i < packed.rows(); ++i)
        for (index c = 0; c < x.width(); ++c) packed(i, c) = x(row_of(rows, i), c);
}

template <class T>
void scatter_rows_kernel(executor&, const_matrix<T> packed, const selection& rows, matrix_view<T> y, write mode) {
    for (index i = 0; i < packed.rows(); ++i)
        for (index c = 0; c < y.width(); ++c) {
            T& out = y(row_of(rows, i), c);
            out = (mode == write::accumulate ? out : T(0)) + packed(i, c);
        }
}

template <class T>
void copy_rows_kernel(executor& ex, const_matrix<T> x, const selection& rows, matrix_view<T> y) {
    for (index i = 0; i < selected_rows(ex, rows); ++i)
        for (index c = 0; c < y.width(); ++c) y(row_of(rows, i), c) = x(row_of(rows, i), c);
}

inline void select_rows_kernel(executor&, const row_map& map, const selection& rows, vector_view<row_index> offsets,
                               vector_view<row_index> position, vector_view<row_index> sequence) {
    for (index s = 0; s < offsets.size(); ++s) offsets[s] = 0;
    for (index i = 0; i < position.size(); ++i) {
        const index n = row_of(rows, i);
        position[i] = map.position[n];
        sequence[i] = map.sequence[n];
        ++offsets[map.sequence[n] + 1];
    }
    for (index s = 1; s < offsets.size(); ++s) offsets[s] += offsets[s - 1];
}

}  // namespace spectral::reference
