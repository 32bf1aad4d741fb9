// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/partition.hpp: rows by operator (stable), gather and scatter of selected rows, sub-maps
// Shapes: op (N) with values in [0, K); a selection's rows ascend. packed (n, C) holds the selected rows in order.
// Throws error for other shapes, no operators, and selections of another capacity than N.
#pragma once
#include <spectral/core/rows.hpp>
#include <spectral/ops/embedding.hpp>

#include <span>

namespace spectral {

// selections[o] = the rows n with op[n] == o, ascending. Their memory comes from the arena.
template <executor Exec>
void partition(Exec& ex, const_vector<row_index> op, std::span<selection> selections) {
    const auto operators = static_cast<index>(selections.size());
    check(operators > 0, "partition", "number of operators must be positive, found ", operators);
    auto rows = ex.memory().template matrix<row_index>(operators, op.size());
    auto counts = ex.memory().template vector<row_index>(operators);
    SPECTRAL_CALL_KERNEL(partition_kernel, ex, op, rows, counts);
    count_ticket sent;
    if constexpr (sends_counts<Exec>) sent = ex.send_counts(counts.data, static_cast<int>(operators));
    for (index o = 0; o < operators; ++o) {
        sent.which = static_cast<int>(o);
        selections[static_cast<std::size_t>(o)] = {rows.row(o), counts.data + o, op.size(), sent};
    }
}

// packed[i] = x[rows[i]]
template <executor Exec, class T>
void gather_rows(Exec& ex, const_matrix<T> x, const selection& rows, matrix_view<T> packed) {
    check_equal(packed.width(), x.width(), "gather_rows", "width");
    check_equal(rows.capacity, x.rows(), "gather_rows", "capacity of the selection");
    SPECTRAL_CALL_KERNEL(gather_rows_kernel, ex, x, rows, packed);
}

// y[rows[i]] = packed[i], or += with accumulate; the other rows of y are untouched
template <executor Exec, class T>
void scatter_rows(Exec& ex, const_matrix<T> packed, const selection& rows, matrix_view<T> y, write mode) {
    check_equal(packed.width(), y.width(), "scatter_rows", "width");
    check_equal(rows.capacity, y.rows(), "scatter_rows", "capacity of the selection");
    SPECTRAL_CALL_KERNEL(scatter_rows_kernel, ex, packed, rows, y, mode);
}

// y[rows[i]] = x[rows[i]]; the other rows of y are untouched. The count is read where it lies.
template <executor Exec, class T>
void copy_rows(Exec& ex, const_matrix<T> x, const selection& rows, matrix_view<T> y) {
    check_shape(y, {x.rows(), x.width()}, "copy_rows", "y");
    check_equal(rows.capacity, x.rows(), "copy_rows", "capacity of the selection");
    SPECTRAL_CALL_KERNEL(copy_rows_kernel, ex, x, rows, y);
}

// The row map of the selected rows: the same sequences, each with its selected rows at their own positions.
template <executor Exec>
row_map select_rows(Exec& ex, const row_map& map, const selection& rows) {
    check_equal(rows.capacity, map.rows(), "select_rows", "capacity of the selection");
    if (rows.is_all()) return map;
    const index n = selected_rows(ex, rows), s = map.sequences();
    auto memory = ex.memory().template vector<row_index>(s + 1 + 2 * n);
    auto offsets = memory.slice(0, s + 1), position = memory.slice(s + 1, n), sequence = memory.slice(s + 1 + n, n);
    SPECTRAL_CALL_KERNEL(select_rows_kernel, ex, map, rows, offsets, position, sequence);
    view<const row_index, 1> ends = offsets;
    return {ends.slice(0, s), ends.slice(1, s), position, sequence};
}

}  // namespace spectral
