// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/activation.hpp: GELU, SiLU gate
#pragma once
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/ops/activation.hpp>

namespace spectral::cuda {

namespace detail {

// Φ, the normal density and the logistic function, in the precision of the argument
__device__ inline float normal_cdf(float x) { return normcdff(x); }
__device__ inline double normal_cdf(double x) { return normcdf(x); }
__device__ inline float normal_density(float x) { return 0.39894228040143267794f * expf(-0.5f * x * x); }
__device__ inline double normal_density(double x) { return 0.39894228040143267794 * exp(-0.5 * x * x); }
__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ inline double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

// Φ(x) and φ(x). Where the result is rounded to bfloat16 both come from one fast exponential: Abramowitz and Stegun,
// 7.1.26, 1.5e-7 off at most.
template <class T>
__device__ inline pair_of<compute<T>> normal_cdf_and_density(compute<T> x) {
    if constexpr (std::is_same_v<T, bfloat16>) {
        const float e = __expf(-0.5f * x * x), t = __frcp_rn(1.0f + 0.3275911f * 0.70710678f * fabsf(x));
        const float tail =
            0.5f * e * t *
            (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
        return {x < 0 ? tail : 1.0f - tail, 0.39894228040143267794f * e};
    } else {
        return {normal_cdf(x), normal_density(x)};
    }
}

}  // namespace detail

template <class T>
void gelu_forward_kernel(executor& ex, const_matrix<T> x, matrix_view<T> y) {
    using A = detail::compute<T>;
    detail::map_elements<T>(ex, "gelu_forward", {x}, {y}, [=] __device__(const A* in, A* out) {
        out[0] = in[0] * detail::normal_cdf_and_density<T>(in[0]).a;
    });
}

template <class T>
void gelu_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> x, matrix_view<T> dL_dx) {
    using A = detail::compute<T>;
    detail::map_elements<T>(ex, "gelu_backward", {dL_dy, x}, {dL_dx}, [=] __device__(const A* in, A* out) {
        const auto [cdf, density] = detail::normal_cdf_and_density<T>(in[1]);
        out[0] = in[0] * (cdf + in[1] * density);
    });
}

template <class T>
void silu_gate_forward_kernel(executor& ex, const_matrix<T> gate, const_matrix<T> up, matrix_view<T> y) {
    using A = detail::compute<T>;
    detail::map_elements<T>(ex, "silu_gate_forward", {gate, up}, {y},
                            [=] __device__(const A* in, A* out) { out[0] = in[0] * detail::sigmoid(in[0]) * in[1]; });
}

template <class T>
void silu_gate_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> gate, const_matrix<T> up,
                               matrix_view<T> dL_dgate, matrix_view<T> dL_dup) {
    using A = detail::compute<T>;
    detail::map_elements<T>(ex, "silu_gate_backward", {dL_dy, gate, up}, {dL_dgate, dL_dup},
                            [=] __device__(const A* in, A* out) {
                                const A dy = in[0], g = in[1], u = in[2], s = detail::sigmoid(g);
                                out[0] = dy * u * s * (1 + g * (1 - s));
                                out[1] = dy * g * s;
                            });
}

}  // namespace spectral::cuda
