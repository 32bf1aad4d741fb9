// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/gate.hpp: gates of learned routers and of the MetaRouter, and what a gate blends
#pragma once
#include <spectral/cuda/activation.hpp>
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/ops/gate.hpp>

namespace spectral::cuda {

namespace detail {

// One warp a row: logits of every operator, then their softmax.
template <class T>
__global__ void token_gate_rows(index rows, index width, int operators, rows_of<const T> x, const compute<T>* entropy,
                                rows_of<const T> w, const T* b, rows_of<compute<T>> s) {
    using A = compute<T>;
    const index warps = index{gridDim.x} * (blockDim.x / 32), lane = threadIdx.x % 32;
    for (index n = (index{blockIdx.x} * blockDim.x + threadIdx.x) / 32; n < rows; n += warps) {
        A z[max_gate_operators];
        A largest = 0, total = 0;
        for (int o = 0; o < operators; ++o) {
            A sum = 0;
            for (index c = lane; c < width; c += 32) sum += widen(w(o)[c]) * widen(x(n)[c]);
            z[o] = warp_reduce(sum) + widen(w(o)[width]) * entropy[n] + widen(b[o]);
            largest = o == 0 ? z[0] : greater{}(largest, z[o]);
        }
        for (int o = 0; o < operators; ++o) total += z[o] = exp(z[o] - largest);
        for (int o = 0; o < operators; ++o)
            if (lane == o) s(n)[o] = z[o] / total;
    }
}

// which pooled row a row belongs to
struct pooled_row_of {
    pool_scope scope;
    const row_index* sequence;
    __device__ index operator()(index n) const {
        return scope == pool_scope::batch ? 0 : scope == pool_scope::sequence ? index{sequence[n]} : n;
    }
};

template <int V, class T>
__global__ void blend_rows(index rows, index width, rows_of<const T> a, rows_of<const T> x, const compute<T>* gate,
                           pooled_row_of group, rows_of<T> y) {
    using A = compute<T>;
    for_my_packs<V>(rows, width, [&](index n, index c) {
        const A g = gate[group(n)];
        A left[V], right[V];
        load<V>(a(n) + c, left);
        load<V>(x(n) + c, right);
#pragma unroll
        for (int i = 0; i < V; ++i) left[i] = g * left[i] + (1 - g) * right[i];
        store<V>(y(n) + c, left);
    });
}

// One warp a row: both gradients, and what the row gives to its gate's.
template <int V, class T>
__global__ void blend_backward_rows(index rows, index width, rows_of<const T> dy, rows_of<const T> a,
                                    rows_of<const T> x, const compute<T>* gate, pooled_row_of group, rows_of<T> da,
                                    rows_of<T> dx, compute<T>* part) {
    using A = compute<T>;
    const index warps = index{gridDim.x} * (blockDim.x / 32), lane = threadIdx.x % 32;
    for (index n = (index{blockIdx.x} * blockDim.x + threadIdx.x) / 32; n < rows; n += warps) {
        const A g = gate[group(n)];
        A sum = 0;
        for (index c = V * lane; c < width; c += V * 32) {
            A gradient[V], left[V], right[V];
            load<V>(dy(n) + c, gradient);
            load<V>(a(n) + c, left);
            load<V>(x(n) + c, right);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                sum += gradient[i] * (left[i] - right[i]);
                left[i] = g * gradient[i];
                right[i] = (1 - g) * gradient[i];
            }
            store<V>(da(n) + c, left);
            store<V>(dx(n) + c, right);
        }
        sum = warp_reduce(sum);
        if (lane == 0) part[n] = sum;
    }
}

}  // namespace detail

template <class T>
void token_gate_forward_kernel(executor& ex, view<const T, 2> x, const_vector<statistic<T>> entropy, const_matrix<T> w,
                               const_vector<T> b, matrix_view<statistic<T>> s) {
    if (x.rows() == 0) return;
    detail::launch(ex, "token_gate_forward", detail::blocks_for(ex, x.rows(), 8), 256, 0, detail::token_gate_rows<T>,
                   x.rows(), x.width(), static_cast<int>(s.width()), detail::rows_in(x), entropy.data,
                   detail::rows_in(w), b.data, detail::rows_in(s));
}

template <class T>
void token_gate_backward_kernel(executor& ex, const_matrix<statistic<T>> dL_ds, const_matrix<statistic<T>> s,
                                const_matrix<T> x, const_vector<statistic<T>> entropy, const_matrix<T> w,
                                matrix_view<T> dL_dx, out_vector<statistic<T>> dL_dentropy,
                                matrix_view<statistic<T>> dL_dw, out_vector<statistic<T>> dL_db) {
    using A = detail::compute<T>;
    const index N = x.rows(), d = x.width();
    const int K = static_cast<int>(s.width());
    arena_scope scratch(ex);
    auto slopes = ex.memory().template matrix<A>(N, K);  // dL_dz
    const auto gradient = detail::rows_in(dL_ds), share = detail::rows_in(s);
    const auto in = detail::rows_in(x), weight = detail::rows_in(w);
    const auto dx = detail::rows_in(dL_dx);
    const auto dw = detail::rows_in(dL_dw);
    A *dentropy = dL_dentropy.data, *db = dL_db.data;
    const A* H = entropy.data;
    A* dz = slopes.data;
    detail::for_each(ex, "token_gate_backward", N, [=] __device__(index n) {
        A mean = 0, dH = 0;
        for (int o = 0; o < K; ++o) mean += share(n)[o] * gradient(n)[o];
        for (int o = 0; o < K; ++o) {
            dz[n * K + o] = share(n)[o] * (gradient(n)[o] - mean);
            dH += dz[n * K + o] * detail::widen(weight(o)[d]);
        }
        dentropy[n] = dH;
    });
    detail::for_each_element(ex, "token_gate_backward", N, d, [=] __device__(index n, index c) {
        A sum = detail::widen(dx(n)[c]);
        for (int o = 0; o < K; ++o) sum += dz[n * K + o] * detail::widen(weight(o)[c]);
        dx(n)[c] = detail::narrow<T>(sum);
    });
    for (int o = 0; o < K; ++o)  // columns: d features, the entropy, the bias
        detail::column_sums<1, A>(
            ex, "token_gate_backward", N, d + 2,
            [=] __device__(index n, index c, A(&sum)[1]) {
                sum[0] += dz[n * K + o] * (c < d ? detail::widen(in(n)[c]) : c == d ? H[n] : A(1));
            },
            [=] __device__(index c, const A(&total)[1]) { (c <= d ? dw(o)[c] : db[o]) += total[0]; });
}

template <class T>
void sigmoid_gate_forward_kernel(executor& ex, view<const T, 2> pooled, const_matrix<T> u, const_vector<T> b,
                                 vector_view<statistic<T>> gate) {
    using A = detail::compute<T>;
    const auto in = detail::rows_in(pooled);
    const T *weight = u.data, *bias = b.data;
    A* out = gate.data;
    detail::row_sums<A>(
        ex, "sigmoid_gate_forward", gate.size(), pooled.width(),
        [=] __device__(index g, index c) { return detail::widen(in(g)[c]) * detail::widen(weight[c]); },
        [=] __device__(index g, A sum) { out[g] = detail::sigmoid(sum + detail::widen(bias[0])); });
}

template <class T>
void sigmoid_gate_backward_kernel(executor& ex, const_vector<statistic<T>> dL_dgate, const_vector<statistic<T>> gate,
                                  const_matrix<T> pooled, const_matrix<T> u, matrix_view<T> dL_dpooled,
                                  matrix_view<statistic<T>> dL_du, out_vector<statistic<T>> dL_db) {
    using A = detail::compute<T>;
    const index d = pooled.width();
    const auto in = detail::rows_in(pooled);
    const auto out = detail::rows_in(dL_dpooled);
    const A *dg = dL_dgate.data, *value = gate.data;
    const T* weight = u.data;
    A *du = dL_du.data, *db = dL_db.data;
    const auto slope = [=] __device__(index g) -> A { return dg[g] * value[g] * (1 - value[g]); };
    detail::column_sums<1, A>(
        ex, "sigmoid_gate_backward", gate.size(), d + 1,
        [=] __device__(index g, index c, A(&sum)[1]) { sum[0] += slope(g) * (c < d ? detail::widen(in(g)[c]) : A(1)); },
        [=] __device__(index c, const A(&total)[1]) { (c < d ? du[c] : db[0]) += total[0]; });
    detail::for_each_element(ex, "sigmoid_gate_backward", gate.size(), d, [=] __device__(index g, index c) {
        out(g)[c] = detail::narrow<T>(slope(g) * detail::widen(weight[c]));
    });
}

template <class A>
void hard_gate_forward_kernel(executor& ex, const_vector<A> soft, const hard_gate& how, vector_view<A> gate,
                              out_vector<double> slope) {
    const A* in = soft.data;
    A* out = gate.data;
    double* derivative = slope.data;
    detail::for_each(ex, "hard_gate_forward", gate.size(), [=] __device__(index g) {
        const auto value = how(in[g], g);
        out[g] = static_cast<A>(value.gate);
        derivative[g] = value.slope;
    });
}

template <class A>
void hard_gate_backward_kernel(executor& ex, const_vector<A> dL_dgate, const_vector<double> slope,
                               const_vector<double> wanted, vector_view<A> dL_dsoft) {
    const A* gradient = dL_dgate.data;
    const double *derivative = slope.data, *asked = wanted.data;
    A* out = dL_dsoft.data;
    detail::for_each(ex, "hard_gate_backward", dL_dsoft.size(), [=] __device__(index g) {
        out[g] = static_cast<A>(gradient[g] * derivative[g] + (asked ? asked[g] : 0.0));
    });
}

template <class T>
void blend_forward_kernel(executor& ex, const_matrix<T> a, const_matrix<T> x, const_vector<statistic<T>> gate,
                          const row_map& map, pool_scope scope, matrix_view<T> y) {
    if (x.empty()) return;
    detail::with_packs<T>(detail::takes_packs(a, x, y), [&](auto v) {
        const auto grid = detail::grid_over(ex, x.rows(), x.width(), v());
        detail::launch(ex, "blend_forward", grid.blocks, grid.threads, 0, detail::blend_rows<v(), T>, x.rows(),
                       x.width(), detail::rows_in(a), detail::rows_in(x), gate.data,
                       detail::pooled_row_of{scope, map.sequence.data}, detail::rows_in(y));
    });
}

// One number a row first; then a gate's rows are added by one block, in double.
template <class T>
void blend_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> a, const_matrix<T> x,
                           const_vector<statistic<T>> gate, const row_map& map, pool_scope scope, matrix_view<T> dL_da,
                           matrix_view<T> dL_dx, out_vector<statistic<T>> dL_dgate) {
    using A = detail::compute<T>;
    const index N = x.rows();
    arena_scope scratch(ex);
    auto per_row = ex.memory().template vector<A>(N);
    A* dgate = dL_dgate.data;
    A* part = per_row.data;
    if (N > 0)
        detail::with_packs<T>(detail::takes_packs(dL_dy, a, x, dL_da, dL_dx), [&](auto v) {
            detail::launch(
                ex, "blend_backward", detail::blocks_for(ex, N, 8), 256, 0, detail::blend_backward_rows<v(), T>, N,
                x.width(), detail::rows_in(dL_dy), detail::rows_in(a), detail::rows_in(x), gate.data,
                detail::pooled_row_of{scope, map.sequence.data}, detail::rows_in(dL_da), detail::rows_in(dL_dx), part);
        });
    const row_index *begin = map.begin.data, *end = map.end.data;
    detail::row_sums<double>(
        ex, "blend_backward", gate.size(), 32,  // a warp a gate: lane c takes every 32nd row
        [=] __device__(index g, index lane) {
            const index first = scope == pool_scope::batch ? 0 : scope == pool_scope::sequence ? index{begin[g]} : g;
            const index last = scope == pool_scope::batch ? N : scope == pool_scope::sequence ? index{end[g]} : g + 1;
            double sum = 0;
            for (index n = first + lane; n < last; n += 32) sum += part[n];
            return sum;
        },
        [=] __device__(index g, double sum) { dgate[g] = static_cast<A>(sum); });
}

}  // namespace spectral::cuda
