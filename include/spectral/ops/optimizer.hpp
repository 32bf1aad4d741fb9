// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/optimizer.hpp: global gradient norm and AdamW over one contiguous block
//   norm² = Σ g²  (double);  clip = min(1, max_norm / (norm + 1e-6))
//   m ← β₁ m + (1−β₁) c g;  v ← β₂ v + (1−β₂) (c g)²;  w ← w (1 − lr·wd) − lr m̂ / (√v̂ + eps)
// with m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ), c the clip factor   (Loshchilov and Hutter, arXiv:1711.05101).
// Everything is kept in `statistic<T>` of the model's scalar: a bfloat16 model's weights are `rounded` copies of float
// ones.
// Throws error for blocks of different lengths and for a step below 1.
#pragma once
#include <spectral/core/executor.hpp>
#include <spectral/core/random.hpp>

#include <cmath>

namespace spectral {

// The letters of the formula above; the defaults are CHIAR-Former's but for the learning rate.
struct adamw_options {
    double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.01;
};

// Writes Σ x² to `result` (one double in the executor's memory).
template <executor Exec, class T>
void sum_of_squares(Exec& ex, vector_view<T> x, out_vector<double> result) {
    check_shape(result, {1}, "sum_of_squares", "result");
    SPECTRAL_CALL_KERNEL(sum_of_squares_kernel, ex, x, result);
}

// Which factor the gradients get: computed where Σ g² lies, so that a step does not wait for its norm. max_norm 0: 1.
struct clip_by_norm {
    const double* sum_of_squares = nullptr;  // in the executor's memory
    double max_norm = 0;

    SPECTRAL_HOST_DEVICE double factor() const {
        if (max_norm <= 0) return 1;
        const double limit = max_norm / (std::sqrt(*sum_of_squares) + 1e-6);
        return limit < 1 ? limit : 1;
    }
};

// One step t ≥ 1. `rounded` (w's size, or empty) gets the new w in bfloat16.
template <executor Exec, class T>
void adamw_step(Exec& ex, vector_view<T> w, const_vector<T> g, vector_view<T> m, vector_view<T> v,
                const adamw_options& options, index t, const clip_by_norm& clip, out_vector<bfloat16> rounded = {}) {
    check(t >= 1, "adamw_step", "step must be at least 1, found ", t);
    check_shape(g, {w.size()}, "adamw_step", "gradients");
    check_shape(m, {w.size()}, "adamw_step", "first moments");
    check_shape(v, {w.size()}, "adamw_step", "second moments");
    if (rounded.data) check_shape(rounded, {w.size()}, "adamw_step", "rounded");
    SPECTRAL_CALL_KERNEL(adamw_step_kernel, ex, w, g, m, v, options, t, clip, rounded);
}

}  // namespace spectral
