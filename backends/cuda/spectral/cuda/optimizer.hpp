// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/optimizer.hpp: gradient norm and AdamW over one block, bound by memory
#pragma once
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/ops/optimizer.hpp>

#include <cmath>

namespace spectral::cuda {

namespace detail {

inline constexpr index squares_each = 16384;  // values to a block: the norm is the same bits on every device

template <class T>
__global__ void square_parts(index count, const T* x, double* parts) {
    const index first = index{blockIdx.x} * squares_each, last = min(first + squares_each, count);
    double sum = 0;
    for (index i = first + threadIdx.x; i < last; i += blockDim.x) {
        const double value = widen(x[i]);
        sum += value * value;
    }
    sum = block_reduce(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

template <int>
__global__ void sum_parts(index count, const double* parts, double* result) {
    double sum = 0;
    for (index i = threadIdx.x; i < count; i += blockDim.x) sum += parts[i];
    sum = block_reduce(sum);
    if (threadIdx.x == 0) *result = sum;
}

template <class T>
struct adamw_constants {
    T beta1, beta2, fresh1, fresh2, keep, rate, spread, eps;
};

template <int V, class T>
__global__ void adamw_values(index count, T* w, const T* g, T* m, T* v, bfloat16* rounded, adamw_constants<T> c,
                             clip_by_norm clip) {
    const T factor = static_cast<T>(clip.factor());
    for (index i = index{V} * (index{blockIdx.x} * blockDim.x + threadIdx.x); i < count;
         i += index{V} * gridDim.x * blockDim.x) {
        T weight[V], gradient[V], mean[V], variance[V];
        load<V>(w + i, weight);
        load<V>(g + i, gradient);
        load<V>(m + i, mean);
        load<V>(v + i, variance);
#pragma unroll
        for (int k = 0; k < V; ++k) {
            const T d = factor * gradient[k];
            mean[k] = c.beta1 * mean[k] + c.fresh1 * d;
            variance[k] = c.beta2 * variance[k] + c.fresh2 * (d * d);
            weight[k] = weight[k] * c.keep - c.rate * mean[k] / (sqrt(variance[k]) * c.spread + c.eps);
        }
        store<V>(w + i, weight);
        store<V>(m + i, mean);
        store<V>(v + i, variance);
        if (rounded) {
            float low[V];
#pragma unroll
            for (int k = 0; k < V; ++k) low[k] = static_cast<float>(weight[k]);
            store<V>(rounded + i, low);
        }
    }
}

}  // namespace detail

template <class T>
void sum_of_squares_kernel(executor& ex, vector_view<T> x, out_vector<double> result) {
    const index parts = detail::divide_up(x.size(), detail::squares_each);
    arena_scope scratch(ex);
    auto sums = ex.memory().template vector<double>(parts);
    detail::launch(ex, "sum_of_squares", static_cast<unsigned>(parts), 256, 0, detail::square_parts<T>, x.size(),
                   static_cast<const T*>(x.data), sums.data);
    detail::launch(ex, "sum_of_squares", 1, 256, 0, detail::sum_parts<0>, parts, static_cast<const double*>(sums.data),
                   result.data);
}

// The constants are rounded once from double; the clip factor is computed where the norm lies.
template <class T>
void adamw_step_kernel(executor& ex, vector_view<T> w, const_vector<T> g, vector_view<T> m, vector_view<T> v,
                       const adamw_options& o, index t, const clip_by_norm& clip, out_vector<bfloat16> rounded) {
    const index n = w.size();
    if (n == 0) return;
    const double correction1 = 1 - std::pow(o.beta1, static_cast<double>(t)),
                 correction2 = 1 - std::pow(o.beta2, static_cast<double>(t));
    const detail::adamw_constants<T> c{static_cast<T>(o.beta1),
                                       static_cast<T>(o.beta2),
                                       static_cast<T>(1 - o.beta1),
                                       static_cast<T>(1 - o.beta2),
                                       static_cast<T>(1 - o.learning_rate * o.weight_decay),
                                       static_cast<T>(o.learning_rate / correction1),
                                       static_cast<T>(1 / std::sqrt(correction2)),
                                       static_cast<T>(o.eps)};
    const bool packs = detail::takes_packs(w, g, m, v) && reinterpret_cast<std::uintptr_t>(rounded.data) % 16 == 0;
    detail::with_packs<T>(packs, [&](auto width) {
        detail::launch(ex, "adamw_step", detail::blocks_for(ex, n, 256 * width()), 256, 0,
                       detail::adamw_values<width(), T>, n, w.data, g.data, m.data, v.data, rounded.data, c, clip);
    });
}

}  // namespace spectral::cuda
