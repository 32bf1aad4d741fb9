// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/embedding.hpp: rows of a table by id
#pragma once
#include <spectral/ops/embedding.hpp>
#include <spectral/reference/executor.hpp>

namespace spectral::reference {

template <class T, class W>
void embedding_forward_kernel(executor&, const_vector<row_index> ids, matrix_view<const W> table, matrix_view<T> y,
                              write mode) {
    for (index n = 0; n < ids.size(); ++n)
        for (index c = 0; c < y.width(); ++c)
            y(n, c) = (mode == write::accumulate ? y(n, c) : T(0)) + widen<T>(table(ids[n], c));
}

template <class T>
void embedding_backward_kernel(executor&, const_vector<row_index> ids, view<const T, 2> dL_dy,
                               matrix_view<statistic<T>> dL_dtable) {
    for (index n = 0; n < ids.size(); ++n)
        for (index c = 0; c < dL_dy.width(); ++c) dL_dtable(ids[n], c) += dL_dy(n, c);
}

}  // namespace spectral::reference
