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

// Φ(x) and φ(x). Where the result is rounded to bfloat16 both come from one fast exponential and one fast reciprocal:
// Abramowitz and Stegun, 7.1.26, 1.5e-7 off at most.
template <class T>
__device__ inline pair_of<compute<T>> normal_cdf_and_density(compute<T> x) {
    if constexpr (std::is_same_v<T, bfloat16>) {
        const float e = __expf(-0.5f * x * x), t = __fdividef(1.0f, 1.0f + 0.3275911f * 0.70710678f * fabsf(x));
        const float tail =
            0.5f * e * t *
            (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
        return {x < 0 ? tail : 1.0f - tail, 0.39894228040143267794f * e};
    } else {
        return {normal_cdf(x), normal_density(x)};
    }
}
// d gelu / dx
template <class T>
__device__ inline compute<T> gelu_slope(compute<T> x) {
    const auto [cdf, density] = normal_cdf_and_density<T>(x);
    return cdf + x * density;
}

// Makes dL_dx while its columns are summed (pack_column_sums).
template <int V, class T>
struct gelu_gradients {
    static constexpr int at_once = 2;
    rows_of<const T> dL_dy, x;
    rows_of<T> dL_dx;
    struct operands {
        pack<T, V> dy, x;
    };
    __device__ operands read(index n, index c) const {
        return {*reinterpret_cast<const pack<T, V>*>(dL_dy(n) + c), *reinterpret_cast<const pack<T, V>*>(x(n) + c)};
    }
    __device__ void make(index n, index c, const operands& at, compute<T> (&value)[V]) const {
#pragma unroll
        for (int i = 0; i < V; ++i) value[i] = widen(at.dy.value[i]) * gelu_slope<T>(widen(at.x.value[i]));
        store<V>(dL_dx(n) + c, value);
    }
};

}  // namespace detail

template <class T>
void gelu_forward_kernel(executor& ex, const_matrix<T> x, matrix_view<T> y) {
    using A = detail::compute<T>;
    detail::map_elements<T>(ex, "gelu_forward", {x}, {y}, [=] __device__(const A* in, A* out) {
        out[0] = in[0] * detail::normal_cdf_and_density<T>(in[0]).a;
    });
}

template <class T>
void gelu_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> x, matrix_view<T> dL_dx,
                          bias_gradient<T> bias) {
    using A = detail::compute<T>;
    if (bias.sums.data)
        return detail::with_packs<T>(detail::takes_packs(dL_dy, x, dL_dx), [&](auto v) {
            detail::pack_column_sums<v(), A>(
                ex, "gelu_backward", x.rows(), x.width(),
                detail::gelu_gradients<v(), T>{detail::rows_in(dL_dy), detail::rows_in(x), detail::rows_in(dL_dx)},
                detail::put_bias<T>{bias});
        });
    detail::map_elements<T>(ex, "gelu_backward", {dL_dy, x}, {dL_dx},
                            [=] __device__(const A* in, A* out) { out[0] = in[0] * detail::gelu_slope<T>(in[1]); });
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
