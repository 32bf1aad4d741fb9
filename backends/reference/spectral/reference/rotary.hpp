// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/rotary.hpp: rotation of head halves by position
#pragma once
#include <spectral/ops/rotary.hpp>
#include <spectral/reference/executor.hpp>

namespace spectral::reference {

template <class T>
void rotary_kernel(executor&, matrix_view<T> x, const_vector<row_index> position, const_matrix<statistic<T>> table,
                   rotation direction) {
    const index D = table.width(), half = D / 2;
    for (index n = 0; n < x.rows(); ++n)
        for (index head = 0; head < x.width(); head += D)
            for (index i = 0; i < half; ++i) {
                const double c = table(position[n], i),
                             s = (direction == rotation::forward ? 1 : -1) * double(table(position[n], half + i));
                const double a = x(n, head + i), b = x(n, head + half + i);
                x(n, head + i) = static_cast<T>(a * c - b * s);
                x(n, head + half + i) = static_cast<T>(b * c + a * s);
            }
}

}  // namespace spectral::reference
