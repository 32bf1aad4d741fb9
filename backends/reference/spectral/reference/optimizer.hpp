// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/optimizer.hpp: gradient norm, AdamW
#pragma once
#include <spectral/ops/optimizer.hpp>
#include <spectral/reference/executor.hpp>

#include <cmath>

namespace spectral::reference {

template <class T>
void sum_of_squares_kernel(executor&, vector_view<T> x, out_vector<double> result) {
    result[0] = 0;
    for (index i = 0; i < x.size(); ++i) result[0] += double(x[i]) * x[i];
}

template <class T>
void adamw_step_kernel(executor&, vector_view<T> w, const_vector<T> g, vector_view<T> m, vector_view<T> v,
                       const adamw_options& o, index t, const clip_by_norm& clip, out_vector<bfloat16> rounded) {
    const double correction1 = 1 - std::pow(o.beta1, static_cast<double>(t)),
                 correction2 = 1 - std::pow(o.beta2, static_cast<double>(t));
    const double factor = clip.factor();
    for (index i = 0; i < w.size(); ++i) {
        const double gradient = factor * g[i];
        m[i] = static_cast<T>(o.beta1 * m[i] + (1 - o.beta1) * gradient);
        v[i] = static_cast<T>(o.beta2 * v[i] + (1 - o.beta2) * gradient * gradient);
        const double update = (m[i] / correction1) / (std::sqrt(v[i] / correction2) + o.eps);
        w[i] = static_cast<T>(w[i] * (1 - o.learning_rate * o.weight_decay) - o.learning_rate * update);
        if (rounded.data) rounded[i] = bfloat16(static_cast<float>(w[i]));
    }
}

}  // namespace spectral::reference
