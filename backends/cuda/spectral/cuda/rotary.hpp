// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/rotary.hpp: rotation of head halves by position
#pragma once
#include <spectral/cuda/detail/launch.hpp>
#include <spectral/ops/rotary.hpp>

namespace spectral::cuda {

namespace detail {

// V pairs at a time: x_i and x_{i+D/2} of one head, whose angles lie side by side too
template <int V, class T>
__global__ void rotate_rows(index rows, int units, int units_each, int half, rows_of<T> x, const row_index* position,
                            rows_of<const compute<T>> table, compute<T> sign) {
    using A = compute<T>;
    for (index n = index{blockIdx.x} * blockDim.y + threadIdx.y; n < rows; n += index{gridDim.x} * blockDim.y) {
        const A* angle = table(position[n]);
        for (int u = threadIdx.x; u < units; u += blockDim.x) {
            const int head = u / units_each, i = V * (u - head * units_each);
            T *first = x(n) + head * 2 * half + i, *second = first + half;
            A a[V], b[V], c[V], s[V], turned[V];
            load<V>(first, a);
            load<V>(second, b);
            load<V>(angle + i, c);
            load<V>(angle + half + i, s);
#pragma unroll
            for (int k = 0; k < V; ++k) {
                turned[k] = a[k] * c[k] - sign * b[k] * s[k];
                b[k] = b[k] * c[k] + sign * a[k] * s[k];
            }
            store<V>(first, turned);
            store<V>(second, b);
        }
    }
}

}  // namespace detail

template <class T>
void rotary_kernel(executor& ex, matrix_view<T> x, const_vector<row_index> position, const_matrix<statistic<T>> table,
                   rotation direction) {
    using A = detail::compute<T>;
    if (x.empty()) return;
    const index half = table.width() / 2;
    // packs of both halves: each half, not only each head, is a whole number of them
    const bool packs = detail::takes_packs(x.columns(0, half), x.columns(half, half), table.columns(0, half),
                                           table.columns(half, half));
    detail::with_packs<T>(packs, [&](auto v) {
        const index units = x.width() / 2 / v();
        const unsigned threads = detail::threads_covering(units, 32, 256), lines = 256 / threads;
        detail::launch(ex, "rotary", detail::blocks_for(ex, x.rows(), lines), dim3(threads, lines), 0,
                       detail::rotate_rows<v(), T>, x.rows(), static_cast<int>(units), static_cast<int>(half / v()),
                       static_cast<int>(half), detail::rows_in(x), position.data, detail::rows_in(table),
                       static_cast<A>(direction == rotation::forward ? 1 : -1));
    });
}

}  // namespace spectral::cuda
