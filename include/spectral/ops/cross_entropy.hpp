// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/cross_entropy.hpp: softmax cross-entropy, alone and fused with the output projection
//   loss[n] = log Σ_v exp(z[n,v]) − z[n, target[n]];   z = logits, or x Wᵀ;   target < 0: row ignored, loss 0
// The fused form works through blocks of rows: no more than one block of logits exists at a time. Given gradient
// views it computes them in the same pass, with weight dL_dloss on every counted row.
// Shapes: logits (N, V) or x (N, C), W (V, C), which may be kept as bfloat16; target (N); loss (N).
// Throws error for other shapes. Targets must be below V: checked where text enters (models), not per call.
#pragma once
#include <spectral/ops/embedding.hpp>

namespace spectral {

// dL_dlogits = dL_dloss (softmax(z) − onehot(target)), if not empty; may be the memory of the logits.
template <executor Exec, class T>
void cross_entropy(Exec& ex, deduced_matrix<T> logits, const_vector<row_index> target, vector_view<statistic<T>> loss,
                   double dL_dloss = 0, out_matrix<std::remove_const_t<T>> dL_dlogits = {}) {
    check_shape(target, {logits.rows()}, "cross_entropy", "target");
    check_shape(loss, {logits.rows()}, "cross_entropy", "loss");
    if (dL_dlogits.data) check_shape(dL_dlogits, {logits.rows(), logits.width()}, "cross_entropy", "dL_dlogits");
    SPECTRAL_CALL_KERNEL(cross_entropy_kernel, ex, view<const T, 2>(logits), target, loss, dL_dloss, dL_dlogits);
}

// dL_dx is overwritten, dL_dw accumulates; both empty: loss only.
template <executor Exec, class T>
void linear_cross_entropy(Exec& ex, deduced_matrix<T> x, const_weight<std::remove_const_t<T>> w,
                          const_vector<row_index> target, vector_view<statistic<T>> loss, double dL_dloss = 0,
                          out_matrix<std::remove_const_t<T>> dL_dx = {}, out_matrix<statistic<T>> dL_dw = {}) {
    check_equal(w.width(), x.width(), "linear_cross_entropy", "width of the weight against the width of x");
    check_shape(target, {x.rows()}, "linear_cross_entropy", "target");
    check_shape(loss, {x.rows()}, "linear_cross_entropy", "loss");
    if (dL_dx.data) check_shape(dL_dx, {x.rows(), x.width()}, "linear_cross_entropy", "dL_dx");
    if (dL_dw.data) check_shape(dL_dw, {w.rows(), w.width()}, "linear_cross_entropy", "dL_dw");
    w.visit([&](auto weight) {
        SPECTRAL_CALL_KERNEL(linear_cross_entropy_kernel, ex, view<const T, 2>(x), weight, target, loss, dL_dloss,
                             dL_dx, dL_dw);
    });
}

}  // namespace spectral
