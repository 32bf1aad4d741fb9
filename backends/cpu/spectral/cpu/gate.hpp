// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/gate.hpp: gates of learned routers and of the MetaRouter, and what a gate blends
#pragma once
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/ops/gate.hpp>

#include <cmath>

namespace spectral::cpu {

template <class T>
void token_gate_forward_kernel(executor& ex, view<const T, 2> x, const_vector<statistic<T>> entropy, const_matrix<T> w,
                               const_vector<T> b, matrix_view<statistic<T>> s) {
    const index d = x.width(), K = s.width();
    detail::for_each_row(ex, x.rows(), d * K, [&](index n) {
        const T* in = x.row(n);
        T* out = s.row(n);
        for (index o = 0; o < K; ++o) {
            const T* weight = w.row(o);
            out[o] = detail::row_sum<T>(d, [=](index i) { return weight[i] * in[i]; }) + weight[d] * entropy[n] + b[o];
        }
        const T largest = *std::max_element(out, out + K);
        T total = 0;
        for (index o = 0; o < K; ++o) total += out[o] = std::exp(out[o] - largest);
        for (index o = 0; o < K; ++o) out[o] /= total;
    });
}

template <class T>
void token_gate_backward_kernel(executor& ex, const_matrix<statistic<T>> dL_ds, const_matrix<statistic<T>> s,
                                const_matrix<T> x, const_vector<statistic<T>> entropy, const_matrix<T> w,
                                matrix_view<T> dL_dx, out_vector<statistic<T>> dL_dentropy,
                                matrix_view<statistic<T>> dL_dw, out_vector<statistic<T>> dL_db) {
    const index d = x.width(), K = s.width(), stride = d + 2;  // per operator: d weights, entropy's weight, bias
    arena_scope scratch(ex);
    const auto sums = detail::column_sums<T>(ex, x.rows(), K * stride, [&](index first, index last, T* part) {
        for (index n = first; n < last; ++n) {
            const T* in = x.row(n);
            T* dx = dL_dx.row(n);
            T mean = 0, dentropy = 0;
            for (index o = 0; o < K; ++o) mean += s(n, o) * dL_ds(n, o);
            for (index o = 0; o < K; ++o) {
                const T dz = s(n, o) * (dL_ds(n, o) - mean);
                const T* weight = w.row(o);
                T* sum = part + o * stride;
#pragma omp simd
                for (index i = 0; i < d; ++i) {
                    dx[i] += dz * weight[i];
                    sum[i] += dz * in[i];
                }
                dentropy += dz * weight[d];
                sum[d] += dz * entropy[n];
                sum[d + 1] += dz;
            }
            dL_dentropy[n] = dentropy;
        }
    });
    for (index o = 0; o < K; ++o) {
        for (index i = 0; i <= d; ++i) dL_dw(o, i) += sums[o * stride + i];
        dL_db[o] += sums[o * stride + d + 1];
    }
}

template <class T>
void sigmoid_gate_forward_kernel(executor& ex, view<const T, 2> pooled, const_matrix<T> u, const_vector<T> b,
                                 vector_view<statistic<T>> gate) {
    detail::for_each_row(ex, gate.size(), pooled.width(), [&](index g) {
        const T *in = pooled.row(g), *weight = u.data;
        const T z = detail::row_sum<T>(pooled.width(), [=](index c) { return in[c] * weight[c]; }) + b[0];
        gate[g] = 1 / (1 + std::exp(-z));
    });
}

template <class T>
void sigmoid_gate_backward_kernel(executor& ex, const_vector<statistic<T>> dL_dgate, const_vector<statistic<T>> gate,
                                  const_matrix<T> pooled, const_matrix<T> u, matrix_view<T> dL_dpooled,
                                  matrix_view<statistic<T>> dL_du, out_vector<statistic<T>> dL_db) {
    const index d = pooled.width();
    arena_scope scratch(ex);
    const auto sums = detail::column_sums<T>(ex, gate.size(), d + 1, [&](index first, index last, T* part) {
        for (index g = first; g < last; ++g) {
            const T dz = dL_dgate[g] * gate[g] * (1 - gate[g]), *in = pooled.row(g), *weight = u.data;
            T* out = dL_dpooled.row(g);
#pragma omp simd
            for (index c = 0; c < d; ++c) {
                part[c] += dz * in[c];
                out[c] = dz * weight[c];
            }
            part[d] += dz;
        }
    });
    for (index c = 0; c < d; ++c) dL_du(0, c) += sums[c];
    dL_db[0] += sums[d];
}

namespace detail {
// which pooled row a row belongs to
inline index pooled_row(const row_map& map, pool_scope scope, index n) {
    return scope == pool_scope::batch ? 0 : scope == pool_scope::sequence ? static_cast<index>(map.sequence[n]) : n;
}
}  // namespace detail

template <class A>
void hard_gate_forward_kernel(executor&, const_vector<A> soft, const hard_gate& how, vector_view<A> gate,
                              out_vector<double> slope) {
    for (index g = 0; g < gate.size(); ++g) {
        const auto value = how(soft[g], g);
        gate[g] = static_cast<A>(value.gate);
        slope[g] = value.slope;
    }
}

template <class A>
void hard_gate_backward_kernel(executor&, const_vector<A> dL_dgate, const_vector<double> slope,
                               const_vector<double> wanted, vector_view<A> dL_dsoft) {
    for (index g = 0; g < dL_dsoft.size(); ++g)
        dL_dsoft[g] = static_cast<A>(dL_dgate[g] * slope[g] + (wanted.data ? wanted[g] : 0.0));
}

template <class T>
void blend_forward_kernel(executor& ex, const_matrix<T> a, const_matrix<T> x, const_vector<statistic<T>> gate,
                          const row_map& map, pool_scope scope, matrix_view<T> y) {
    detail::for_each_row(ex, x.rows(), x.width(), [&](index n) {
        const T g = gate[detail::pooled_row(map, scope, n)], *left = a.row(n), *right = x.row(n);
        T* out = y.row(n);
#pragma omp simd
        for (index c = 0; c < x.width(); ++c) out[c] = g * left[c] + (1 - g) * right[c];
    });
}

// A gate's gradient sums over its rows in row order, in double, after the threads have made one number a row.
template <class T>
void blend_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> a, const_matrix<T> x,
                           const_vector<statistic<T>> gate, const row_map& map, pool_scope scope, matrix_view<T> dL_da,
                           matrix_view<T> dL_dx, out_vector<statistic<T>> dL_dgate) {
    arena_scope scratch(ex);
    auto per_row = ex.memory().template vector<T>(x.rows());
    detail::for_each_row(ex, x.rows(), x.width(), [&](index n) {
        const T g = gate[detail::pooled_row(map, scope, n)], *dy = dL_dy.row(n), *left = a.row(n), *right = x.row(n);
        T *da = dL_da.row(n), *dx = dL_dx.row(n);
        per_row[n] = detail::row_sum<T>(x.width(), [=](index c) { return dy[c] * (left[c] - right[c]); });
#pragma omp simd
        for (index c = 0; c < x.width(); ++c) {
            const T d = dy[c];
            da[c] = g * d;
            dx[c] = (1 - g) * d;
        }
    });
    auto sum = ex.memory().template vector<double>(gate.size());
    std::fill_n(sum.data, sum.size(), 0.0);
    for (index n = 0; n < x.rows(); ++n) sum[detail::pooled_row(map, scope, n)] += per_row[n];
    for (index i = 0; i < gate.size(); ++i) dL_dgate[i] = static_cast<T>(sum[i]);
}

}  // namespace spectral::cpu
