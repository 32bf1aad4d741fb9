// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/embedding.hpp: rows of a table by id
//   y[n] = table[ids[n]]        (or y[n] += table[ids[n]])
// Shapes: ids (N), table (V, C), y (N, C). Ids must lie in [0, V): checked where text enters (models), not per call.
// Throws error for other shapes.
#pragma once
#include <spectral/core/executor.hpp>
#include <spectral/core/weight_view.hpp>

namespace spectral {

template <executor Exec, class T>
void embedding_forward(Exec& ex, const_vector<row_index> ids, const_weight<T> table, matrix_view<T> y,
                       write mode = write::overwrite) {
    check_shape(y, {ids.size(), table.width()}, "embedding_forward", "y");
    table.visit([&](auto rows) { SPECTRAL_CALL_KERNEL(embedding_forward_kernel, ex, ids, rows, y, mode); });
}

// dL_dtable[ids[n]] += dL_dy[n], in ascending n (deterministic)
template <executor Exec, class T>
void embedding_backward(Exec& ex, const_vector<row_index> ids, deduced_matrix<T> dL_dy,
                        matrix_view<statistic<T>> dL_dtable) {
    check_shape(dL_dy, {ids.size(), dL_dtable.width()}, "embedding_backward", "dL_dy");
    SPECTRAL_CALL_KERNEL(embedding_backward_kernel, ex, ids, view<const T, 2>(dL_dy), dL_dtable);
}

}  // namespace spectral
