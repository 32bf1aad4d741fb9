// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/rotary.hpp: rotary position embedding, in place
#pragma once
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/ops/rotary.hpp>

namespace spectral::cpu {

template <class T>
void rotary_kernel(executor& ex, matrix_view<T> x, const_vector<row_index> position, const_matrix<statistic<T>> table,
                   rotation direction) {
    const index D = table.width(), half = D / 2, heads = x.width() / D;
    const T sign = direction == rotation::forward ? T(1) : T(-1);
    detail::for_each_row(ex, x.rows(), x.width(), [&](index n) {
        const T *cosine = table.row(position[n]), *sine = cosine + half;
        for (index h = 0; h < heads; ++h) {
            T *a = x.row(n) + h * D, *b = a + half;
#pragma omp simd
            for (index i = 0; i < half; ++i) {
                const T u = a[i], v = b[i], s = sign * sine[i];
                a[i] = u * cosine[i] - v * s;
                b[i] = v * cosine[i] + u * s;
            }
        }
    });
}

}  // namespace spectral::cpu
