// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/optimizer.hpp: gradient norm and AdamW over one block, bound by memory
#pragma once
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/ops/optimizer.hpp>

#include <cmath>

namespace spectral::cuda {

namespace detail {

inline constexpr index squares_each = 16384;   // values to a block: the norm is the same bits on every device

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

}  // namespace detail

template <class T>
void sum_of_squares_kernel(executor& ex, vector_view<T> x, out_vector<double> result) {
    const index parts = detail::divide_up(x.size(), detail::squares_each);
    arena_scope scratch(ex);
    auto sums = ex.memory().template vector<double>(parts);
    detail::launch(ex, "sum_of_squares", static_cast<unsigned>(parts), 256, 0, detail::square_parts<T>, x.size(),
                   static_cast<const T*>(x.data), sums.data);
    detail::launch(ex, "sum_of_squares", 1, 256, 0, detail::sum_parts<0>, parts, static_cast<const double*>(sums.data), result.data);
}

// The constants are rounded once from double.
template <class T>
void adamw_step_kernel(executor& ex, vector_view<T> w, const_vector<T> g, vector_view<T> m, vector_view<T> v,
                       const adamw_options& o, index t, double gradient_scale) {
    using A = detail::compute<T>;
    const double correction1 = 1 - std::pow(o.beta1, static_cast<double>(t)), correction2 = 1 - std::pow(o.beta2, static_cast<double>(t));
    const A beta1 = static_cast<A>(o.beta1), beta2 = static_cast<A>(o.beta2), eps = static_cast<A>(o.eps);
    const A fresh1 = static_cast<A>(1 - o.beta1), fresh2 = static_cast<A>(1 - o.beta2), scale = static_cast<A>(gradient_scale);
    const A keep = static_cast<A>(1 - o.learning_rate * o.weight_decay), rate = static_cast<A>(o.learning_rate / correction1);
    const A spread = static_cast<A>(1 / std::sqrt(correction2));
    const auto row = [](const auto& x) { return x.matrix(); };
    detail::map_elements<T>(ex, "adamw_step", {row(w), row(g), row(m), row(v)}, {row(w), row(m), row(v)},
                            [=] __device__(const A* in, A* out) {
                                const A d = scale * in[1];
                                const A a = beta1 * in[2] + fresh1 * d, b = beta2 * in[3] + fresh2 * (d * d);
                                out[0] = in[0] * keep - rate * a / (sqrt(b) * spread + eps);
                                out[1] = a;
                                out[2] = b;
                            });
}

}  // namespace spectral::cuda
