// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/pool.hpp: means over a batch, a sequence, or the rows so far
#pragma once
#include <spectral/ops/pool.hpp>
#include <spectral/reference/executor.hpp>

namespace spectral::reference {

// The rows averaged into pooled row g: [first, last).
inline std::pair<index, index> pool_range(const row_map& map, pool_scope scope, index g) {
    if (scope == pool_scope::batch) return {0, map.rows()};
    if (scope == pool_scope::sequence) return {map.begin[g], map.end[g]};
    return {map.begin[map.sequence[g]], g + 1};
}

template <class T>
void mean_pool_forward_kernel(executor&, const_matrix<T> x, const row_map& map, pool_scope scope, matrix_view<T> pooled,
                              out_matrix<statistic<T>> history) {
    for (index g = 0; g < pooled.rows(); ++g) {
        const auto [first, last] = pool_range(map, scope, g);
        const index count = scope == pool_scope::causal ? map.position[g] + 1 : last - first;
        for (index c = 0; c < x.width(); ++c) {
            double sum = history.data ? history(map.sequence[g], c) : T(0);
            for (index n = first; n < last; ++n) sum += x(n, c);
            pooled(g, c) = static_cast<T>(count > 0 ? sum / static_cast<double>(count) : 0);
        }
    }
    if (history.data)
        for (index n = 0; n < x.rows(); ++n)
            for (index c = 0; c < x.width(); ++c) history(map.sequence[n], c) += x(n, c);
}

template <class T>
void mean_pool_backward_kernel(executor&, const_matrix<T> dL_dpooled, const row_map& map, pool_scope scope,
                               matrix_view<T> dL_dx) {
    for (index g = 0; g < dL_dpooled.rows(); ++g) {
        const auto [first, last] = pool_range(map, scope, g);
        for (index n = first; n < last; ++n)
            for (index c = 0; c < dL_dx.width(); ++c)
                dL_dx(n, c) += static_cast<T>(dL_dpooled(g, c) / static_cast<double>(last - first));
    }
}

}  // namespace spectral::reference
