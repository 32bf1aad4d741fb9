// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/decision.hpp: which operator a row goes to: one small number a row
#pragma once
#include <spectral/ops/decision.hpp>
#include <spectral/reference/executor.hpp>

namespace spectral::reference {

template <class T>
void argmax_rows_kernel(executor&, matrix_view<T> s, vector_view<row_index> op) {
    for (index n = 0; n < s.rows(); ++n) {
        op[n] = 0;
        for (index o = 1; o < s.width(); ++o)
            if (s(n, o) > s(n, op[n])) op[n] = static_cast<row_index>(o);
    }
}

template <class T>
void pick_columns_forward_kernel(executor&, const_matrix<T> s, const_vector<row_index> op, matrix_view<T> picked) {
    for (index n = 0; n < s.rows(); ++n) picked(n, 0) = s(n, op[n]);
}

template <class T>
void pick_columns_backward_kernel(executor&, const_matrix<T> dL_dpicked, const_vector<row_index> op,
                                  matrix_view<T> dL_ds) {
    for (index n = 0; n < dL_ds.rows(); ++n)
        for (index o = 0; o < dL_ds.width(); ++o) dL_ds(n, o) = o == op[n] ? dL_dpicked(n, 0) : T(0);
}

template <class T>
void one_hot_rows_kernel(executor&, const_vector<row_index> op, matrix_view<T> y) {
    for (index n = 0; n < y.rows(); ++n)
        for (index o = 0; o < y.width(); ++o) y(n, o) = o == op[n] ? T(1) : T(0);
}

inline void random_rows_kernel(executor&, const_vector<row_index> position, random_stream draw, double share,
                               vector_view<row_index> op) {
    for (index n = 0; n < op.size(); ++n)
        op[n] = share >= 1 || draw.bits(static_cast<std::uint64_t>(position[n])) < probability_threshold(share);
}

template <class T>
void threshold_rows_kernel(executor&, vector_view<T> value, std::span<const double> ascending,
                           vector_view<row_index> op) {
    for (index n = 0; n < value.size(); ++n) {
        op[n] = 0;
        for (double t : ascending) op[n] += value[n] > t;
    }
}

}  // namespace spectral::reference
