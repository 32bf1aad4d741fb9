// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/rotary.hpp: rotation of head halves by position
#pragma once
#include <spectral/cuda/detail/launch.hpp>
#include <spectral/ops/rotary.hpp>

namespace spectral::cuda {

template <class T>
void rotary_kernel(executor& ex, matrix_view<T> x, const_vector<row_index> position, const_matrix<statistic<T>> table, rotation direction) {
    using A = detail::compute<T>;
    const index D = table.width(), half = D / 2;
    const auto rows = detail::rows_in(x);
    const auto angles = detail::rows_in(table);
    const row_index* at = position.data;
    const A sign = direction == rotation::forward ? 1 : -1;
    detail::for_each_element(ex, "rotary", x.rows(), x.width() / 2, [=] __device__(index n, index pair) {
        const index head = pair / half, i = pair - head * half;
        const A* angle = angles(at[n]);
        T *first = rows(n) + head * D + i, *second = first + half;
        const A c = angle[i], s = sign * angle[half + i];
        const A a = detail::widen(*first), b = detail::widen(*second);
        *first = detail::narrow<T>(a * c - b * s);
        *second = detail::narrow<T>(b * c + a * s);
    });
}

}  // namespace spectral::cuda
