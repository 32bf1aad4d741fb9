// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/pool.hpp: means over rows, running means, and their gradients
//
// A thread owns a column of one run of rows and walks down it; sums are kept in double: a causal mean of thousands of rows
// is a small difference of large sums. The batch mean is a column sum.
#pragma once
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/ops/pool.hpp>

namespace spectral::cuda {

template <class T>
void mean_pool_forward_kernel(executor& ex, const_matrix<T> x, const row_map& map, pool_scope scope, matrix_view<T> pooled,
                              out_matrix<T> history) {
    using A = detail::compute<T>;
    const auto in = detail::rows_in(x);
    const auto out = detail::rows_in(pooled), before = detail::rows_in(history);
    const index N = x.rows();
    if (scope == pool_scope::batch) {
        const double share = N > 0 ? 1 / static_cast<double>(N) : 0;
        return detail::column_sums<1, double>(
            ex, "mean_pool_forward", N, x.width(),
            [=] __device__(index n, index c, double(&sum)[1]) { sum[0] += detail::widen(in(n)[c]); },
            [=] __device__(index c, const double(&total)[1]) { out(0)[c] = detail::narrow<T>(static_cast<A>(total[0] * share)); });
    }
    const row_index *begin = map.begin.data, *end = map.end.data, *position = map.position.data;
    const bool causal = scope == pool_scope::causal;
    detail::for_each_element(ex, "mean_pool_forward", map.sequences(), x.width(), [=] __device__(index s, index c) {
        double sum = before.data ? static_cast<double>(detail::widen(before(s)[c])) : 0;
        const index first = begin[s], last = end[s];
        for (index n = first; n < last; ++n) {
            sum += detail::widen(in(n)[c]);
            if (causal) out(n)[c] = detail::narrow<T>(static_cast<A>(sum / (static_cast<double>(position[n]) + 1)));
        }
        if (before.data) before(s)[c] = detail::narrow<T>(static_cast<A>(sum));
        if (!causal) out(s)[c] = detail::narrow<T>(static_cast<A>(last > first ? sum / static_cast<double>(last - first) : 0));
    });
}

template <class T>
void mean_pool_backward_kernel(executor& ex, const_matrix<T> dL_dpooled, const row_map& map, pool_scope scope, matrix_view<T> dL_dx) {
    using A = detail::compute<T>;
    const auto in = detail::rows_in(dL_dpooled);
    const auto out = detail::rows_in(dL_dx);
    const index N = dL_dx.rows();
    const row_index *begin = map.begin.data, *end = map.end.data, *sequence = map.sequence.data;
    if (scope != pool_scope::causal) {
        const bool batch = scope == pool_scope::batch;
        return detail::for_each_element(ex, "mean_pool_backward", N, dL_dx.width(), [=] __device__(index n, index c) {
            const index s = batch ? 0 : sequence[n], rows = batch ? N : end[s] - begin[s];
            out(n)[c] = detail::narrow<T>(static_cast<A>(detail::widen(out(n)[c]) + detail::widen(in(s)[c]) / static_cast<double>(rows)));
        });
    }
    detail::for_each_element(ex, "mean_pool_backward", map.sequences(), dL_dx.width(), [=] __device__(index s, index c) {
        double sum = 0;   // what a row receives: gathered from the end of the sequence
        const index first = begin[s];
        for (index n = end[s]; n-- > first;) {
            sum += detail::widen(in(n)[c]) / static_cast<double>(n - first + 1);
            out(n)[c] = detail::narrow<T>(static_cast<A>(detail::widen(out(n)[c]) + sum));
        }
    });
}

}  // namespace spectral::cuda
