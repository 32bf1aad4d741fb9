// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/cross_entropy.hpp: softmax cross-entropy, alone and with the projection
#pragma once
#include <spectral/ops/cross_entropy.hpp>
#include <spectral/reference/linear.hpp>

#include <algorithm>
#include <cmath>

namespace spectral::reference {

template <class T>
void cross_entropy_kernel(executor&, view<const T, 2> logits, const_vector<row_index> target,
                          vector_view<statistic<T>> loss, double dL_dloss, out_matrix<T> dL_dlogits) {
    for (index n = 0; n < logits.rows(); ++n) {
        double largest = logits(n, 0), total = 0;
        for (index v = 1; v < logits.width(); ++v) largest = std::max<double>(largest, logits(n, v));
        for (index v = 0; v < logits.width(); ++v) total += std::exp(logits(n, v) - largest);
        const bool counted = target[n] >= 0;
        loss[n] = static_cast<T>(counted ? largest + std::log(total) - logits(n, target[n]) : 0);
        if (!dL_dlogits.data) continue;
        for (index v = 0; v < logits.width(); ++v) {
            const double p = std::exp(logits(n, v) - largest) / total;
            dL_dlogits(n, v) = static_cast<T>(counted ? dL_dloss * (p - (v == target[n] ? 1 : 0)) : 0);
        }
    }
}

// One row of logits at a time.
template <class T, class W>
void linear_cross_entropy_kernel(executor& ex, view<const T, 2> x, matrix_view<const W> w,
                                 const_vector<row_index> target, vector_view<statistic<T>> loss, double dL_dloss,
                                 out_matrix<T> dL_dx, out_matrix<statistic<T>> dL_dw) {
    arena_scope scratch(ex);
    auto logits = ex.memory().template matrix<T>(1, w.rows());
    for (index n = 0; n < x.rows(); ++n) {
        linear_forward_kernel<T>(ex, x.slice(n, 1), w, {}, logits, {}, 1);
        cross_entropy_kernel<T>(ex, logits, target.slice(n, 1), loss.slice(n, 1), dL_dloss,
                                dL_dx.data || dL_dw.data ? logits : matrix_view<T>{});
        if (dL_dx.data) linear_backward_input_kernel<T>(ex, logits, w, dL_dx.slice(n, 1), write::overwrite, 1);
        if (dL_dw.data) linear_backward_weight_kernel<T>(ex, logits, x.slice(n, 1), dL_dw, {}, write::accumulate);
    }
}

}  // namespace spectral::reference
