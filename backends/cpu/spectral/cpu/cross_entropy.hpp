// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/cross_entropy.hpp: softmax cross-entropy, and fused with the output projection
//
// The fused form takes a block of rows through all its steps while the block's logits are in the last-level cache:
//   Z = X Wᵀ;   rows of Z: loss, then Z becomes dL_dZ in place;   dL_dX = dL_dZ W;   dL_dW += dL_dZᵀ X
// All threads share every product of a block, so that dL_dW is summed block by block, with no copy of it per thread.
#pragma once
#include <spectral/cpu/activation.hpp>
#include <spectral/cpu/linear.hpp>
#include <spectral/ops/cross_entropy.hpp>

namespace spectral::cpu {

namespace detail {

// The loss of one row; its gradient goes to `gradient` if that is not null, and may overwrite z.
template <class T>
T cross_entropy_row(const T* z, index V, row_index target, T dL_dloss, T* gradient) {
    if (target < 0) {
        if (gradient) std::fill_n(gradient, V, T(0));
        return 0;
    }
    const T largest = row_max(z, V), chosen = z[target];
    if (!gradient) return largest + std::log(row_sum<T>(V, [=](index v) { return exp(z[v] - largest); })) - chosen;
    // 4096 at a time: exponentials are stored by one loop and summed by the next, from the first-level cache
    constexpr index chunk = 4096;
    T total = 0;
    for (index first = 0; first < V; first += chunk) {
        const index count = std::min(chunk, V - first);
        const T* in = z + first;
        T* e = gradient + first;
#pragma omp simd if (simd : straight_line <T>)
        for (index v = 0; v < count; ++v) e[v] = exp(in[v] - largest);
        total += row_sum<T>(count, [=](index v) { return e[v]; });
    }
    const T scale = dL_dloss / total;
#pragma omp simd
    for (index v = 0; v < V; ++v) gradient[v] *= scale;
    gradient[target] -= dL_dloss;
    return largest + std::log(total) - chosen;
}

}  // namespace detail

template <class T>
void cross_entropy_kernel(executor& ex, view<const T, 2> logits, const_vector<row_index> target,
                          vector_view<statistic<T>> loss, double dL_dloss, out_matrix<T> dL_dlogits) {
    detail::for_each_row(ex, logits.rows(), detail::exp_cost * logits.width(), [&](index n) {
        loss[n] = detail::cross_entropy_row<T>(logits.row(n), logits.width(), target[n], static_cast<T>(dL_dloss),
                                               dL_dlogits.data ? dL_dlogits.row(n) : nullptr);
    });
}

template <class T, class W>
void linear_cross_entropy_kernel(executor& ex, view<const T, 2> x, matrix_view<const W> w,
                                 const_vector<row_index> target, vector_view<statistic<T>> loss, double dL_dloss,
                                 out_matrix<T> dL_dx, out_matrix<statistic<T>> dL_dw) {
    const index V = w.rows(), bytes = V * static_cast<index>(sizeof(T));
    const index block = std::clamp<index>((8 << 20) / bytes / 16 * 16, 64, 512);  // 8 MB of logits
    const bool backward = dL_dx.data || dL_dw.data;
    arena_scope scratch(ex);
    auto memory = ex.memory().template matrix<T>(std::min(block, x.rows()), V);
    for (index first = 0; first < x.rows(); first += block) {
        const index count = std::min(block, x.rows() - first);
        const auto rows = x.slice(first, count);
        const auto z = memory.slice(0, count);
        linear_forward_kernel<T>(ex, rows, w, {}, z, {}, 1);
        cross_entropy_kernel<T>(ex, z, target.slice(first, count), loss.slice(first, count), dL_dloss,
                                backward ? z : matrix_view<T>{});
        if (dL_dx.data) linear_backward_input_kernel<T>(ex, z, w, dL_dx.slice(first, count), write::overwrite, 1);
        if (dL_dw.data) linear_backward_weight_kernel<T>(ex, z, rows, dL_dw, {}, write::accumulate);
    }
}

}  // namespace spectral::cpu
