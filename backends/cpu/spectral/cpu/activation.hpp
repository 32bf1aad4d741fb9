// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/activation.hpp: GELU and SiLU gate, vectorised (detail/vector_math.hpp)
#pragma once
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/cpu/detail/vector_math.hpp>
#include <spectral/ops/activation.hpp>

namespace spectral::cpu {

namespace detail {
constexpr index exp_cost = 8;  // an exponential against an addition, for the size of work worth a thread
}

template <class T>
void gelu_forward_kernel(executor& ex, const_matrix<T> x, matrix_view<T> y) {
    detail::for_each_row(ex, y.rows(), detail::exp_cost * y.width(), [&](index n) {
        const T* in = x.row(n);
        T* out = y.row(n);
#pragma omp simd if (simd : detail::straight_line <T>)
        for (index c = 0; c < y.width(); ++c) out[c] = detail::gelu(in[c]);
    });
}

template <class T>
void gelu_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> x, matrix_view<T> dL_dx,
                          bias_gradient<T> bias) {
    const auto make_row = [&](index n) {
        const T *in = x.row(n), *dy = dL_dy.row(n);
        T* out = dL_dx.row(n);
#pragma omp simd if (simd : detail::straight_line <T>)
        for (index c = 0; c < x.width(); ++c) out[c] = dy[c] * detail::gelu_derivative(in[c]);
    };
    if (!bias.sums.data) return detail::for_each_row(ex, x.rows(), detail::exp_cost * x.width(), make_row);
    arena_scope scratch(ex);
    detail::put_column_sums<T>(ex, x.rows(), bias, [&](index n, T* sum) {
        make_row(n);
        const T* row = dL_dx.row(n);
#pragma omp simd
        for (index c = 0; c < x.width(); ++c) sum[c] += row[c];
    });
}

template <class T>
void silu_gate_forward_kernel(executor& ex, const_matrix<T> gate, const_matrix<T> up, matrix_view<T> y) {
    detail::for_each_row(ex, y.rows(), detail::exp_cost * y.width(), [&](index n) {
        const T *g = gate.row(n), *u = up.row(n);
        T* out = y.row(n);
#pragma omp simd if (simd : detail::straight_line <T>)
        for (index c = 0; c < y.width(); ++c) out[c] = detail::silu(g[c]) * u[c];
    });
}

template <class T>
void silu_gate_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> gate, const_matrix<T> up,
                               matrix_view<T> dL_dgate, matrix_view<T> dL_dup) {
    detail::for_each_row(ex, gate.rows(), detail::exp_cost * gate.width(), [&](index n) {
        const T *g = gate.row(n), *u = up.row(n), *dy = dL_dy.row(n);
        T *dg = dL_dgate.row(n), *du = dL_dup.row(n);
#pragma omp simd if (simd : detail::straight_line <T>)
        for (index c = 0; c < gate.width(); ++c) {
            const T x = g[c], d = dy[c], through = d * u[c] * detail::silu_derivative(x);
            du[c] = d * detail::silu(x);
            dg[c] = through;
        }
    });
}

}  // namespace spectral::cpu
