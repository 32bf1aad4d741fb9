// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/cross_entropy.hpp: softmax cross-entropy, alone and fused with the output projection
//
// The fused form takes blocks of rows through all steps: logits in float, their loss, their gradient in place, both
// products. One block of logits exists at a time, of at most 1 GB.
#pragma once
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/cuda/linear.hpp>
#include <spectral/ops/cross_entropy.hpp>

namespace spectral::cuda {

namespace detail {

// Z: type of the logits, T: of the gradient; V values of Z to an access. One block a row; the largest logit and the sum
// of exponentials are kept together, so that the row is read once before it is written. Then it is read backwards: its
// end may still be in the second level cache.
template <int V, class Z, class T>
__global__ void cross_entropy_rows(index rows, index width, rows_of<const Z> logits, const row_index* target,
                                   compute<T>* loss, compute<T> dL_dloss, rows_of<T> dL_dlogits) {
    using A = compute<T>;
    for (index n = blockIdx.x; n < rows; n += gridDim.x) {
        const Z* z = logits(n);
        const row_index t = target[n];
        if (t < 0) {
            if (threadIdx.x == 0) loss[n] = 0;
            if (dL_dlogits.data)
                for (index v = threadIdx.x; v < width; v += blockDim.x) dL_dlogits(n)[v] = narrow<T>(0);
            continue;
        }
        A largest = widen(z[0]), total = 0;
        const index step = index{V} * blockDim.x;
        index v = index{V} * threadIdx.x;
        for (; v < width; v += step) {
            A value[V];
            load<V>(z + v, value);
#pragma unroll
            for (int i = 1; i < V; ++i)
                value[i] = v + i < width ? value[i] : -INFINITY;  // behind the last column, see below
            A most = value[0];
#pragma unroll
            for (int i = 1; i < V; ++i) most = greater{}(most, value[i]);
            if (!(most <= largest)) total *= exp(largest - most), largest = most;  // also where it is NaN
#pragma unroll
            for (int i = 0; i < V; ++i)
                total += value[i] == -INFINITY ? A(0) : exp(value[i] - largest);  // -inf − -inf would be NaN
        }
        const A most = block_reduce(largest, greater{});
        total = block_reduce(total == 0 ? A(0) : total * exp(largest - most));
        const A chosen = widen(z[t]);
        __syncthreads();  // everyone has read the chosen logit before its place is written
        if (threadIdx.x == 0) loss[n] = most + log(total) - chosen;
        if (!dL_dlogits.data) continue;
        const A scale = dL_dloss / total;
        while ((v -= step) >= 0) {
            A value[V];
            load_once<V>(z + v, value);
#pragma unroll
            for (int i = 0; i < V; ++i) value[i] = exp(value[i] - most) * scale - (v + i == t ? dL_dloss : A(0));
            store_once<V>(dL_dlogits(n) + v, value);
        }
    }
}

template <class Z, class T>
void cross_entropy_of(executor& ex, view<const Z, 2> logits, const_vector<row_index> target,
                      vector_view<statistic<T>> loss, double dL_dloss, matrix_view<T> dL_dlogits, bool padded = false) {
    if (logits.empty()) return;
    // padded: rows go on to a multiple of 16 values, so packs may reach behind the last column
    const auto whole = [&](auto m) {
        if (padded && m.data) m.shape[1] = divide_up(m.width(), 16) * 16;
        return m;
    };
    with_packs<Z>(takes_packs(whole(logits)) && takes_packs(whole(dL_dlogits)), [&](auto v) {
        launch(ex, "cross_entropy", blocks_for(ex, logits.rows()),
               logits.width() > 4096 ? 512 : threads_for(divide_up(logits.width(), v())), 0,
               cross_entropy_rows<v(), Z, T>, logits.rows(), logits.width(), rows_in(logits), target.data, loss.data,
               static_cast<compute<T>>(dL_dloss), rows_in(dL_dlogits));
    });
}

}  // namespace detail

template <class T>
void cross_entropy_kernel(executor& ex, view<const T, 2> logits, const_vector<row_index> target,
                          vector_view<statistic<T>> loss, double dL_dloss, out_matrix<T> dL_dlogits) {
    detail::cross_entropy_of<T, T>(ex, logits, target, loss, dL_dloss, dL_dlogits);
}

template <class T>
void linear_cross_entropy_kernel(executor& ex, view<const T, 2> x, const_matrix<T> w, const_vector<row_index> target,
                                 vector_view<statistic<T>> loss, double dL_dloss, out_matrix<T> dL_dx,
                                 out_matrix<statistic<T>> dL_dw) {
    using A = detail::compute<T>;
    const index V = w.rows(), N = x.rows(),
                stride = detail::divide_up(V, 16) * 16;  // aligned rows: an unaligned head is 8 times slower
    const index block = detail::rows_of_logits(N, stride * static_cast<index>(sizeof(A)));
    const bool backward = dL_dx.data || dL_dw.data;
    arena_scope scratch(ex);
    const auto padded = [&](auto matrix) { return matrix.columns(0, V); };
    auto logits = padded(ex.memory().template matrix<A>(block, stride));
    matrix_view<T> gradient;
    if constexpr (std::is_same_v<A, T>)
        gradient = logits;  // in place
    else if (backward)
        gradient = padded(ex.memory().template matrix<T>(block, stride));
    for (index first = 0; first < N; first += block) {
        const index count = std::min(block, N - first);
        const auto rows = x.slice(first, count);
        const auto z = logits.slice(0, count);
        const auto dz = backward ? gradient.slice(0, count) : matrix_view<T>{};
        detail::for_head_parts(V, [&](index v, index part) {
            detail::gemm<T, A>(ex, "linear_cross_entropy", {rows}, {w.slice(v, part), true}, 1, {}, z.columns(v, part));
        });
        detail::cross_entropy_of<A, T>(ex, z, target.slice(first, count), loss.slice(first, count), dL_dloss, dz, true);
        detail::for_head_parts(V, [&](index v, index part) {
            if (dL_dx.data) {
                const auto dx = dL_dx.slice(first, count);
                detail::gemm<T>(ex, "linear_cross_entropy", {dz.columns(v, part)}, {w.slice(v, part)}, 1,
                                v > 0 ? dx : matrix_view<T>{}, dx);
            }
            if (dL_dw.data) {
                const auto dw = dL_dw.slice(v, part);
                detail::gemm<T, A>(ex, "linear_cross_entropy", {dz.columns(v, part), true}, {rows}, 1, dw, dw);
            }
        });
    }
}

// a weight kept as bfloat16 while the model computes in another type: the same blocks, each product widening it
template <class T>
    requires(!std::is_same_v<T, bfloat16>)
void linear_cross_entropy_kernel(executor& ex, view<const T, 2> x, view<const bfloat16, 2> w,
                                 const_vector<row_index> target, vector_view<statistic<T>> loss, double dL_dloss,
                                 out_matrix<T> dL_dx, out_matrix<statistic<T>> dL_dw) {
    const index V = w.rows(), N = x.rows(), stride = detail::divide_up(V, 16) * 16;
    const index block = detail::rows_of_logits(N, stride * static_cast<index>(sizeof(T)));
    arena_scope scratch(ex);
    const auto logits = ex.memory().template matrix<T>(block, stride).columns(0, V);
    for (index first = 0; first < N; first += block) {
        const index count = std::min(block, N - first);
        const auto rows = x.slice(first, count);
        const auto z = logits.slice(0, count);
        linear_forward_kernel<T>(ex, rows, w, {}, z, {}, 1);
        detail::cross_entropy_of<T, T>(ex, z, target.slice(first, count), loss.slice(first, count), dL_dloss,
                                       dL_dx.data || dL_dw.data ? z : matrix_view<T>{}, true);
        if (dL_dx.data) linear_backward_input_kernel<T>(ex, z, w, dL_dx.slice(first, count), write::overwrite, 1);
        if (dL_dw.data) linear_backward_weight_kernel<T>(ex, z, rows, dL_dw, {}, write::accumulate);
    }
}

}  // namespace spectral::cuda
