// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/norm.hpp: layer norm, root-mean-square norm, layer norm of a residual sum
//
// One block a row. A thread meets the same columns in every pass, so the second and third pass find the row in the first
// level cache, and what a thread wrote (the residual sum) it may read back.
#pragma once
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/ops/norm.hpp>

namespace spectral::cuda {

namespace detail {

// f(c, values of the packs at c) over a row
template <int V, class F>
__device__ inline void each_pack(index width, F&& f) {
    for (index c = index{V} * threadIdx.x; c < width; c += index{V} * blockDim.x) f(c);
}

enum class norm_kind { layer, rms };

// s = x (+ r, kept in s);  y = (s − mean) rstd γ + β, or s rstd γ
template <norm_kind Kind, bool Residual, int V, class T>
__global__ void norm_forward_rows(index rows, index width, rows_of<const T> x, rows_of<const T> r, const T* gamma, const T* beta,
                                  compute<T> eps, rows_of<T> s, rows_of<T> y, compute<T>* mean, compute<T>* rstd) {
    using A = compute<T>;
    for (index n = blockIdx.x; n < rows; n += gridDim.x) {
        const T* in = Residual ? s(n) : x(n);
        A sum = 0;
        each_pack<V>(width, [&](index c) {
            A a[V], b[V];
            load<V>(x(n) + c, a);
            if constexpr (Residual) {
                load<V>(r(n) + c, b);
#pragma unroll
                for (int i = 0; i < V; ++i) a[i] += b[i];
                store<V>(s(n) + c, a);
            }
#pragma unroll
            for (int i = 0; i < V; ++i) sum += Kind == norm_kind::layer ? a[i] : a[i] * a[i];
        });
        const A m = Kind == norm_kind::layer ? block_reduce(sum) / static_cast<A>(width) : A(0);
        A square = 0;
        if constexpr (Kind == norm_kind::layer) {
            each_pack<V>(width, [&](index c) {
                A a[V];
                load<V>(in + c, a);
#pragma unroll
                for (int i = 0; i < V; ++i) square += (a[i] - m) * (a[i] - m);
            });
        } else {
            square = sum;
        }
        const A factor = 1 / sqrt(block_reduce(square) / static_cast<A>(width) + eps);
        each_pack<V>(width, [&](index c) {
            A a[V], g[V], b[V] = {};
            load<V>(in + c, a);
            load<V>(gamma + c, g);
            if constexpr (Kind == norm_kind::layer) load<V>(beta + c, b);
#pragma unroll
            for (int i = 0; i < V; ++i) a[i] = (a[i] - m) * factor * g[i] + b[i];
            store<V>(y(n) + c, a);
        });
        if (threadIdx.x == 0) {
            if constexpr (Kind == norm_kind::layer) mean[n] = m;
            rstd[n] = factor;
        }
    }
}

// dL_ds (= or +=) rstd (g − mean(g) − ŝ mean(g ŝ)); without mean(g) for rms
template <norm_kind Kind, int V, class T>
__global__ void norm_backward_rows(index rows, index width, rows_of<const T> dL_dy, rows_of<const T> s, const T* gamma,
                                   const compute<T>* mean, const compute<T>* rstd, rows_of<T> dL_ds, bool accumulate) {
    using A = compute<T>;
    for (index n = blockIdx.x; n < rows; n += gridDim.x) {
        const A m = Kind == norm_kind::layer ? mean[n] : A(0), factor = rstd[n];
        A sum_g = 0, sum_gs = 0;
        each_pack<V>(width, [&](index c) {
            A dy[V], a[V], g[V];
            load<V>(dL_dy(n) + c, dy);
            load<V>(s(n) + c, a);
            load<V>(gamma + c, g);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                sum_g += dy[i] * g[i];
                sum_gs += dy[i] * g[i] * (a[i] - m) * factor;
            }
        });
        const A mean_g = Kind == norm_kind::layer ? block_reduce(sum_g) / static_cast<A>(width) : A(0);
        const A mean_gs = block_reduce(sum_gs) / static_cast<A>(width);
        each_pack<V>(width, [&](index c) {
            A dy[V], a[V], g[V], before[V] = {};
            load<V>(dL_dy(n) + c, dy);
            load<V>(s(n) + c, a);
            load<V>(gamma + c, g);
            if (accumulate) load<V>(dL_ds(n) + c, before);
#pragma unroll
            for (int i = 0; i < V; ++i) a[i] = factor * (dy[i] * g[i] - mean_g - (a[i] - m) * factor * mean_gs) + before[i];
            store<V>(dL_ds(n) + c, a);
        });
    }
}

template <class T>
bool vectors_take_packs(index width, const T* a, const T* b) {
    return takes_packs(view<const T, 1>{a, {width}}, view<const T, 1>{b, {width}});
}

template <norm_kind Kind, bool Residual, class T>
void norm_forward(executor& ex, const char* what, const_matrix<T> x, const_matrix<T> r, const T* gamma, const T* beta, double eps,
                  matrix_view<T> s, matrix_view<T> y, compute<T>* mean, compute<T>* rstd) {
    if (x.rows() == 0) return;
    with_packs<T>(takes_packs(x, r, s, y) && vectors_take_packs(x.width(), gamma, beta), [&](auto v) {
        launch(ex, what, blocks_for(ex, x.rows()), threads_for(divide_up(x.width(), v())), 0, norm_forward_rows<Kind, Residual, v(), T>,
               x.rows(), x.width(), rows_in(x), rows_in(r), gamma, beta, static_cast<compute<T>>(eps), rows_in(s), rows_in(y), mean, rstd);
    });
}

template <norm_kind Kind, class T>
void norm_backward(executor& ex, const char* what, const_matrix<T> dL_dy, const_matrix<T> s, const T* gamma,
                   const compute<T>* mean, const compute<T>* rstd, matrix_view<T> dL_ds, compute<T>* dL_dgamma, compute<T>* dL_dbeta,
                   write mode) {
    using A = compute<T>;
    if (s.rows() == 0) return;
    const auto dy = rows_in(dL_dy), in = rows_in(s);
    if (dL_dgamma)   // before dL_ds is written, which may be the memory of dL_dy
        column_sums<2, A>(
            ex, what, s.rows(), s.width(),
            [=] __device__(index n, index c, A(&sum)[2]) {
                const A g = widen(dy(n)[c]);
                sum[0] += g * (widen(in(n)[c]) - (mean ? mean[n] : A(0))) * rstd[n];
                sum[1] += g;
            },
            [=] __device__(index c, const A(&total)[2]) {
                dL_dgamma[c] += total[0];
                if (dL_dbeta) dL_dbeta[c] += total[1];
            });
    with_packs<T>(takes_packs(dL_dy, s, dL_ds) && vectors_take_packs(s.width(), gamma, gamma), [&](auto v) {
        launch(ex, what, blocks_for(ex, s.rows()), threads_for(divide_up(s.width(), v())), 0, norm_backward_rows<Kind, v(), T>, s.rows(),
               s.width(), dy, in, gamma, mean, rstd, rows_in(dL_ds), mode == write::accumulate);
    });
}

}  // namespace detail

template <class T>
void layer_norm_forward_kernel(executor& ex, const_matrix<T> s, const_vector<T> gamma, const_vector<T> beta, double eps,
                               matrix_view<T> y, out_vector<statistic<T>> mean, out_vector<statistic<T>> rstd) {
    detail::norm_forward<detail::norm_kind::layer, false, T>(ex, "layer_norm_forward", s, {}, gamma.data, beta.data, eps, {}, y, mean.data,
                                                             rstd.data);
}

template <class T>
void layer_norm_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> s, const_vector<T> gamma,
                                const_vector<statistic<T>> mean, const_vector<statistic<T>> rstd, matrix_view<T> dL_ds, out_vector<statistic<T>> dL_dgamma,
                                out_vector<statistic<T>> dL_dbeta, write mode) {
    detail::norm_backward<detail::norm_kind::layer, T>(ex, "layer_norm_backward", dL_dy, s, gamma.data, mean.data, rstd.data, dL_ds,
                                                       dL_dgamma.data, dL_dbeta.data, mode);
}

template <class T>
void add_layer_norm_forward_kernel(executor& ex, const_matrix<T> x, const_matrix<T> r, const_vector<T> gamma,
                                   const_vector<T> beta, double eps, matrix_view<T> s, matrix_view<T> y,
                                   out_vector<statistic<T>> mean, out_vector<statistic<T>> rstd) {
    detail::norm_forward<detail::norm_kind::layer, true, T>(ex, "add_layer_norm_forward", x, r, gamma.data, beta.data, eps, s, y, mean.data,
                                                            rstd.data);
}

template <class T>
void rms_norm_forward_kernel(executor& ex, const_matrix<T> s, const_vector<T> gamma, double eps, matrix_view<T> y, out_vector<statistic<T>> rstd) {
    detail::norm_forward<detail::norm_kind::rms, false, T>(ex, "rms_norm_forward", s, {}, gamma.data, nullptr, eps, {}, y, nullptr, rstd.data);
}

template <class T>
void rms_norm_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> s, const_vector<T> gamma,
                              const_vector<statistic<T>> rstd, matrix_view<T> dL_ds, out_vector<statistic<T>> dL_dgamma, write mode) {
    detail::norm_backward<detail::norm_kind::rms, T>(ex, "rms_norm_backward", dL_dy, s, gamma.data, nullptr, rstd.data, dL_ds,
                                                     dL_dgamma.data, nullptr, mode);
}

}  // namespace spectral::cuda
