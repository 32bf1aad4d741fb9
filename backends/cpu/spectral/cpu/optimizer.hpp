// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/optimizer.hpp: gradient norm and AdamW over one block, bound by memory
#pragma once
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/ops/optimizer.hpp>

#include <bit>
#include <cmath>
#include <limits>

namespace spectral::cpu {

namespace detail {

// √x to 1 ulp for normal x ≥ 0, 0 for 0. std::sqrt may set errno, which keeps compilers from vectorising it; this is
// Newton's iteration on 1/√x from the exponent halved in the integer bits, and a last correction on √x itself.
inline float square_root(float x) {
    float y = std::bit_cast<float>(0x5f3759df - (std::bit_cast<std::int32_t>(x) >> 1));
    const float half = 0.5f * x;
    for (int i = 0; i < 3; ++i) y = y * (1.5f - half * y * y);
    const float root = x * y, better = root + 0.5f * y * (x - root * root);
    return x > std::numeric_limits<float>::max() ? x : better;
}
inline double square_root(double x) { return std::sqrt(x); }

}  // namespace detail

// Blocks of 8192, whatever the number of threads: the norm is the same bits on every machine.
template <class T>
void sum_of_squares_kernel(executor& ex, vector_view<T> x, out_vector<double> result) {
    constexpr index block = 8192;
    const index blocks = (x.size() + block - 1) / block;
    arena_scope scratch(ex);
    auto sums = ex.memory().template vector<double>(blocks);
    detail::parallel_ranges(ex, blocks, 4, [&](index first, index last, int) {
        for (index b = first; b < last; ++b) {
            const T* v = x.data + b * block;
            sums[b] = detail::row_sum<double>(std::min(block, x.size() - b * block), [=](index i) {
                const double value = v[i];
                return value * value;
            });
        }
    });
    result[0] = 0;
    for (index b = 0; b < blocks; ++b) result[0] += sums[b];
}

// The constants are rounded once from double; the loop is in T.
template <class T>
void adamw_step_kernel(executor& ex, vector_view<T> w, const_vector<T> g, vector_view<T> m, vector_view<T> v,
                       const adamw_options& o, index t, const clip_by_norm& clip, out_vector<bfloat16> rounded) {
    const double correction1 = 1 - std::pow(o.beta1, static_cast<double>(t)),
                 correction2 = 1 - std::pow(o.beta2, static_cast<double>(t));
    const T beta1 = static_cast<T>(o.beta1), beta2 = static_cast<T>(o.beta2), eps = static_cast<T>(o.eps);
    const T fresh1 = static_cast<T>(1 - o.beta1), fresh2 = static_cast<T>(1 - o.beta2),
            scale = static_cast<T>(clip.factor());
    const T keep = static_cast<T>(1 - o.learning_rate * o.weight_decay),
            rate = static_cast<T>(o.learning_rate / correction1);
    const T spread = static_cast<T>(1 / std::sqrt(correction2));
    detail::parallel_ranges(ex, w.size(), 4096, [&](index first, index last, int) {
        T *weight = w.data, *mean = m.data, *variance = v.data;
        const T* gradient = g.data;
#pragma omp simd if (simd : detail::straight_line <T>)
        for (index i = first; i < last; ++i) {
            const T d = scale * gradient[i];
            const T a = beta1 * mean[i] + fresh1 * d, b = beta2 * variance[i] + fresh2 * (d * d);
            mean[i] = a;
            variance[i] = b;
            weight[i] = weight[i] * keep - rate * a / (detail::square_root(b) * spread + eps);
        }
        for (index i = first; rounded.data && i < last; ++i) rounded[i] = bfloat16(static_cast<float>(w[i]));
    });
}

}  // namespace spectral::cpu
