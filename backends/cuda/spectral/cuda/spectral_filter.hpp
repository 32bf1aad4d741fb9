// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/spectral_filter.hpp: filter in the DCT domain, alone and fused with residual and norm
//
// One block takes a row through everything: transform, factors, transform back, residual, norm. Only x and y touch
// device memory. Backward recomputes the spectra; gradients of parameters are summed by each block over its rows, in
// device memory that only this block writes, and the blocks' sums are added in order.
#pragma once
#include <spectral/cuda/dct.hpp>
#include <spectral/cuda/detail/row_mix_backward.hpp>
#include <spectral/ops/spectral_filter.hpp>

namespace spectral::cuda {

namespace detail {

// m.row = Cᵀ (gain w ⊙ C m.row)
template <class T>
__device__ inline void filter_in_block(const dct_shape<compute<T>>& p, dct_memory<compute<T>>& m, const T* w,
                                       compute<T> gain) {
    dct_in_block(p, m);
    for (int k = threadIdx.x; k < p.N; k += blockDim.x) m.row[k] *= gain * widen(w[k]);
    idct_in_block(p, m);
}

template <class T>
__global__ void filter_rows(index rows, dct_shape<compute<T>> p, rows_of<const T> x, const T* w, compute<T> gain,
                            rows_of<T> y) {
    dct_memory<compute<T>> m(p, shared_bytes);
    for (index n = blockIdx.x; n < rows; n += gridDim.x) {
        __syncthreads();
        for (int c = threadIdx.x; c < p.N; c += blockDim.x) m.row[c] = widen(x(n)[c]);
        filter_in_block(p, m, w, gain);
        for (int c = threadIdx.x; c < p.N; c += blockDim.x) y(n)[c] = narrow<T>(m.row[c]);
    }
}

// y[row] = LN(x + filter(x)), statistics at the row's number
template <class T>
__global__ void mix_rows(selected rows, dct_shape<compute<T>> p, rows_of<const T> x, const T* w, compute<T> gain,
                         const T* gamma, const T* beta, compute<T> eps, rows_of<T> y, compute<T>* mean,
                         compute<T>* rstd) {
    using A = compute<T>;
    dct_memory<A> m(p, shared_bytes);
    const index count = rows.size();
    for (index i = blockIdx.x; i < count; i += gridDim.x) {
        const index n = rows[i];
        __syncthreads();
        for (int c = threadIdx.x; c < p.N; c += blockDim.x) m.row[c] = widen(x(n)[c]);
        filter_in_block(p, m, w, gain);
        A sum = 0, square = 0;
        for (int c = threadIdx.x; c < p.N; c += blockDim.x) sum += m.row[c] += widen(x(n)[c]);
        const A average = block_reduce(sum) / static_cast<A>(p.N);
        for (int c = threadIdx.x; c < p.N; c += blockDim.x) square += (m.row[c] - average) * (m.row[c] - average);
        const A factor = 1 / sqrt(block_reduce(square) / static_cast<A>(p.N) + eps);
        for (int c = threadIdx.x; c < p.N; c += blockDim.x)
            y(n)[c] = narrow<T>((m.row[c] - average) * factor * widen(gamma[c]) + widen(beta[c]));
        if (threadIdx.x == 0) mean[n] = average, rstd[n] = factor;
    }
}

// dL_dx[row] += dL_ds + g Cᵀ (w ⊙ C dL_ds), parts of dL_dw = g (C dL_ds) ⊙ (C x).
// Mix: dL_ds is the norm's gradient and dL_dgamma, dL_dbeta follow in `parts`; otherwise dL_ds is dL_dy, without
// residual.
template <bool Mix, class T>
__global__ void filter_backward_rows(selected rows, dct_shape<compute<T>> p, rows_of<const T> dL_dy, rows_of<const T> x,
                                     const T* w, compute<T> gain, const T* gamma, const compute<T>* mean,
                                     const compute<T>* rstd, rows_of<T> dL_dx, compute<T>* parts) {
    using A = compute<T>;
    dct_memory<A> m(p, shared_bytes);
    const int N = p.N;
    A* spectrum = m.row + N;  // C x
    A* gradient = spectrum + N;  // dL_ds
    const index count = rows.size();
    A* dw = parts + index{blockIdx.x} * (Mix ? 3 : 1) * N;
    for (int c = threadIdx.x; c < (Mix ? 3 : 1) * N; c += blockDim.x) dw[c] = 0;
    for (index i = blockIdx.x; i < count; i += gridDim.x) {
        const index n = rows[i];
        __syncthreads();
        for (int c = threadIdx.x; c < N; c += blockDim.x) m.row[c] = widen(x(n)[c]);
        dct_in_block(p, m);
        for (int k = threadIdx.x; k < N; k += blockDim.x) spectrum[k] = m.row[k];
        if constexpr (Mix) {
            for (int k = threadIdx.x; k < N; k += blockDim.x) m.row[k] *= gain * widen(w[k]);
            idct_in_block(p, m);
            const A average = mean[n], factor = rstd[n];
            A sum_g = 0, sum_gs = 0;
            for (int c = threadIdx.x; c < N; c += blockDim.x) {
                const A dy = widen(dL_dy(n)[c]), hat = (m.row[c] + widen(x(n)[c]) - average) * factor,
                        g = dy * widen(gamma[c]);
                sum_g += g;
                sum_gs += g * hat;
                dw[N + c] += dy * hat;
                dw[2 * N + c] += dy;
                m.row[c] = hat;
                gradient[c] = g;
            }
            const A mean_g = block_reduce(sum_g) / static_cast<A>(N),
                    mean_gs = block_reduce(sum_gs) / static_cast<A>(N);
            for (int c = threadIdx.x; c < N; c += blockDim.x) {
                gradient[c] = factor * (gradient[c] - mean_g - m.row[c] * mean_gs);
                m.row[c] = gradient[c];
            }
        } else {
            for (int c = threadIdx.x; c < N; c += blockDim.x) m.row[c] = widen(dL_dy(n)[c]);
        }
        dct_in_block(p, m);
        for (int k = threadIdx.x; k < N; k += blockDim.x) {
            dw[k] += gain * m.row[k] * spectrum[k];
            m.row[k] *= gain * widen(w[k]);
        }
        idct_in_block(p, m);
        for (int c = threadIdx.x; c < N; c += blockDim.x)
            dL_dx(n)[c] = narrow<T>(widen(dL_dx(n)[c]) + m.row[c] + (Mix ? gradient[c] : A(0)));
    }
}

template <bool Mix, class T>
void filter_backward(executor& ex, const char* what, const_matrix<T> dL_dy, const_matrix<T> x, const selection& rows,
                     const_vector<T> w, double gain, const T* gamma, const compute<T>* mean, const compute<T>* rstd,
                     matrix_view<T> dL_dx, compute<T>* dL_dw, compute<T>* dL_dgamma, compute<T>* dL_dbeta) {
    using A = compute<T>;
    if (x.empty()) return;
    const index N = x.width(), sums = Mix ? 3 * N : N;
    arena_scope scratch(ex);
    unsigned blocks = 0;
    const A* part = nullptr;  // of every block
    if constexpr (std::is_same_v<A, float>) {
        row_mix_gradients<T> fast{rows,  rows_in(dL_dy),       rows_in(x), w.data,
                                  gamma, static_cast<A>(gain), rstd,       rows_in(dL_dx)};
        blocks = try_row_mix_backward(ex, what, fast, N);
        part = fast.parts;
    }
    if (blocks == 0) {
        if (is_composed<A>(ex, x.width()))
            return filter_backward_composed<T>(ex, what, dL_dy, x, rows, w.data, static_cast<A>(gain), gamma, mean,
                                               rstd, dL_dx, dL_dw, dL_dgamma, dL_dbeta);
        const auto& p = dct_shape_of<A>(ex, N);
        blocks = static_cast<unsigned>(std::min<index>(x.rows(), index{8} * ex.multiprocessors()));
        auto parts = ex.memory().template vector<A>(blocks * sums);
        part = parts.data;
        launch(ex, what, blocks, p.threads(), p.shared_bytes() + 2 * static_cast<std::size_t>(N) * sizeof(A),
               filter_backward_rows<Mix, T>, selected(rows), p, rows_in(dL_dy), rows_in(x), w.data,
               static_cast<A>(gain), gamma, mean, rstd, rows_in(dL_dx), parts.data);
    }
    column_totals<1, A>(ex, what, sums, blocks, part, [=] __device__(index c, const A(&total)[1]) {
        A& to = c < N ? dL_dw[c] : c < 2 * N ? dL_dgamma[c - N] : dL_dbeta[c - 2 * N];
        to += total[0];
    });
}

}  // namespace detail

template <class T>
void spectral_filter_forward_kernel(executor& ex, const_matrix<T> x, const_vector<T> w, double gain, matrix_view<T> y) {
    using A = detail::compute<T>;
    if (x.empty()) return;
    if constexpr (std::is_same_v<A, float>) {
        detail::row_mix<T> all{selection::all(x.rows()), detail::rows_in(x)};
        all.take_filter(w, gain, y);
        if (detail::try_row_mix(ex, "spectral_filter_forward", all, x.width())) return;
    }
    if (detail::is_composed<A>(ex, x.width()))
        return detail::filter_composed<T>(ex, "spectral_filter_forward", x, w.data, static_cast<A>(gain), y);
    const auto& p = detail::dct_shape_of<A>(ex, x.width());
    detail::launch(ex, "spectral_filter_forward", detail::blocks_for(ex, x.rows()), p.threads(), p.shared_bytes(),
                   detail::filter_rows<T>, x.rows(), p, detail::rows_in(x), w.data, static_cast<A>(gain),
                   detail::rows_in(y));
}

template <class T>
void spectral_filter_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> x, const_vector<T> w,
                                     double gain, matrix_view<T> dL_dx, out_vector<statistic<T>> dL_dw) {
    detail::filter_backward<false, T>(ex, "spectral_filter_backward", dL_dy, x, selection::all(x.rows()), w, gain,
                                      nullptr, nullptr, nullptr, dL_dx, dL_dw.data, nullptr, nullptr);
}

template <class T>
void spectral_mix_forward_kernel(executor& ex, const_matrix<T> x, const selection& rows, const_vector<T> w, double gain,
                                 const_vector<T> gamma, const_vector<T> beta, double eps, matrix_view<T> y,
                                 norm_statistics<T> stats) {
    using A = detail::compute<T>;
    if (x.empty()) return;
    if constexpr (std::is_same_v<A, float>) {
        detail::row_mix<T> chosen{rows, detail::rows_in(x)};
        chosen.take_filter(w, gain, y);
        chosen.take_norm(gamma, beta, eps, stats);
        if (detail::try_row_mix(ex, "spectral_mix_forward", chosen, x.width())) return;
    }
    if (detail::is_composed<A>(ex, x.width()))
        return detail::mix_composed<T>(ex, "spectral_mix_forward", x, rows, w.data, static_cast<A>(gain), gamma.data,
                                       beta.data, static_cast<A>(eps), y, stats.mean.data, stats.rstd.data);
    const auto& p = detail::dct_shape_of<A>(ex, x.width());
    detail::launch(ex, "spectral_mix_forward", detail::blocks_for(ex, x.rows()), p.threads(), p.shared_bytes(),
                   detail::mix_rows<T>, detail::selected(rows), p, detail::rows_in(x), w.data, static_cast<A>(gain),
                   gamma.data, beta.data, static_cast<A>(eps), detail::rows_in(y), stats.mean.data, stats.rstd.data);
}

template <class T>
void spectral_mix_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> x, const selection& rows,
                                  const_vector<T> w, double gain, const_vector<T> gamma, norm_statistics<T> stats,
                                  matrix_view<T> dL_dx, out_vector<statistic<T>> dL_dw,
                                  out_vector<statistic<T>> dL_dgamma, out_vector<statistic<T>> dL_dbeta) {
    detail::filter_backward<true, T>(ex, "spectral_mix_backward", dL_dy, x, rows, w, gain, gamma.data, stats.mean.data,
                                     stats.rstd.data, dL_dx, dL_dw.data, dL_dgamma.data, dL_dbeta.data);
}

}  // namespace spectral::cuda
