// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/spectral_composed.hpp: the spectral operators of composed_rows.hpp's transforms
#pragma once
#include <spectral/cuda/detail/composed_rows.hpp>
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/cuda/partition.hpp>
#include <spectral/ops/spectral_entropy.hpp>

namespace spectral::cuda::detail {

// y = diag(first, rest) C x, or Inverse: y = Cᵀ diag(first, rest) x
template <bool Inverse, class T>
void transform_composed(executor& ex, const char* what, const_matrix<T> x, dct_scale scale, matrix_view<T> y) {
    using A = compute<T>;
    arena_scope scratch(ex);
    const index N = x.width();
    composed_rows<A> s(ex, what, x.rows(), N);
    A* made = s.buffer();  // coefficients, or samples
    const A zero = static_cast<A>(scale.first), rest = static_cast<A>(scale.rest);
    const auto in = rows_in(x);
    const auto to = rows_in(y);
    const auto place = s.place;
    while (s.next()) {
        const index first = s.first;
        const auto value = [=] __device__(index i, index c) {
            return widen(in(first + i)[c]) * (!Inverse ? A(1) : c == 0 ? zero : rest);
        };
        if constexpr (Inverse)
            s.idct(made, value);
        else
            s.dct(made, value);
        for_each_element(ex, what, s.count, N, [=] __device__(index i, index c) {
            const A by = Inverse ? A(1) : c == 0 ? zero : rest;
            to(first + i)[c] = narrow<T>(made[i * N + (Inverse ? place(c) : c)] * by);
        });
    }
}

// y = gain Cᵀ (w ⊙ C x)
template <class T>
void filter_composed(executor& ex, const char* what, const_matrix<T> x, const T* w, compute<T> gain, matrix_view<T> y) {
    using A = compute<T>;
    arena_scope scratch(ex);
    const index N = x.width();
    composed_rows<A> s(ex, what, x.rows(), N);
    A* samples = s.buffer();
    const auto in = rows_in(x);
    const auto to = rows_in(y);
    while (s.next()) {
        const index first = s.first;
        s.filter(
            samples, [=] __device__(index i, index c) { return widen(in(first + i)[c]); },
            [=] __device__(index k) { return gain * widen(w[k]); });
        const auto place = s.place;
        for_each_element(ex, what, s.count, N,
                         [=] __device__(index i, index c) { to(first + i)[c] = narrow<T>(samples[i * N + place(c)]); });
    }
}

// y = LN(x + filtered), a block to a row; `first`: number of the chunk's first row among the selected ones
template <class T>
__global__ void norm_of_mixed(index first, index count, selected rows, int N, rows_of<const T> x,
                              const compute<T>* samples, sample_places place, const T* gamma, const T* beta,
                              compute<T> eps, rows_of<T> y, compute<T>* mean, compute<T>* rstd) {
    using A = compute<T>;
    const index last = min(first + count, rows.size());
    for (index i = first + blockIdx.x; i < last; i += gridDim.x) {
        const index n = rows[i];
        const A* mixed = samples + (i - first) * N;
        const auto value = [&](int c) { return widen(x(n)[c]) + mixed[place(c)]; };
        A sum = 0, square = 0;
        for (int c = threadIdx.x; c < N; c += blockDim.x) sum += value(c);
        const A average = block_reduce(sum) / static_cast<A>(N);
        for (int c = threadIdx.x; c < N; c += blockDim.x) {
            const A off = value(c) - average;
            square += off * off;
        }
        const A factor = 1 / sqrt(block_reduce(square) / static_cast<A>(N) + eps);
        for (int c = threadIdx.x; c < N; c += blockDim.x)
            y(n)[c] = narrow<T>((value(c) - average) * factor * widen(gamma[c]) + widen(beta[c]));
        if (threadIdx.x == 0) mean[n] = average, rstd[n] = factor;
    }
}

// y[row] = LN(x + filter(x)), statistics at the row's number
template <class T>
void mix_composed(executor& ex, const char* what, const_matrix<T> x, const selection& chosen, const T* w,
                  compute<T> gain, const T* gamma, const T* beta, compute<T> eps, matrix_view<T> y, compute<T>* mean,
                  compute<T>* rstd) {
    using A = compute<T>;
    arena_scope scratch(ex);
    const index N = x.width();
    const selected rows(chosen);
    composed_rows<A> s(ex, what, chosen.capacity, N);
    A* samples = s.buffer();
    const auto in = rows_in(x);
    while (s.next()) {
        const index first = s.first;
        s.filter(
            samples,
            [=] __device__(index i, index c) { return first + i < rows.size() ? widen(in(rows[first + i])[c]) : A(0); },
            [=] __device__(index k) { return gain * widen(w[k]); });
        launch(ex, what, blocks_for(ex, s.count), threads_for(N), 0, norm_of_mixed<T>, first, s.count, rows,
               static_cast<int>(N), in, static_cast<const A*>(samples), s.place, gamma, beta, eps, rows_in(y), mean,
               rstd);
    }
}

// Gradients as in filter_backward_rows: gamma null for the filter alone.
template <class T>
void filter_backward_composed(executor& ex, const char* what, const_matrix<T> dL_dy, const_matrix<T> x,
                              const selection& chosen, const T* w, compute<T> gain, const T* gamma,
                              const compute<T>* mean, const compute<T>* rstd, matrix_view<T> dL_dx, compute<T>* dL_dw,
                              compute<T>* dL_dgamma, compute<T>* dL_dbeta) {
    using A = compute<T>;
    arena_scope scratch(ex);
    const index N = x.width();
    const selected rows(chosen);
    composed_rows<A> s(ex, what, chosen.capacity, N);
    A *X = s.buffer(), *samples = s.buffer(), *D = s.buffer();  // C x; x's filtered rows; C dL_ds
    A *mean_g = ex.memory().template vector<A>(s.most).data, *mean_gs = ex.memory().template vector<A>(s.most).data;
    const auto in = rows_in(x), slope = rows_in(dL_dy);
    const auto to = rows_in(dL_dx);
    const auto place = s.place;
    while (s.next()) {
        const index first = s.first;
        const auto here = [=] __device__(index i) { return first + i < rows.size(); };
        s.dct(X, [=] __device__(index i, index c) { return here(i) ? widen(in(rows[first + i])[c]) : A(0); });
        const auto hat = [=] __device__(index i, index c) {
            const index n = rows[first + i];
            return (samples[i * N + place(c)] + widen(in(n)[c]) - mean[n]) * rstd[n];
        };
        const auto g = [=] __device__(index i, index c) {
            return widen(slope(rows[first + i])[c]) * (gamma ? widen(gamma[c]) : A(1));
        };
        if (gamma) {
            s.idct(samples, [=] __device__(index i, index k) { return X[i * N + k] * (gain * widen(w[k])); });
            row_sums<A>(
                ex, what, s.count, N, [=] __device__(index i, index c) { return here(i) ? g(i, c) : A(0); },
                [=] __device__(index i, A total) { mean_g[i] = total / static_cast<A>(N); });
            row_sums<A>(
                ex, what, s.count, N, [=] __device__(index i, index c) { return here(i) ? g(i, c) * hat(i, c) : A(0); },
                [=] __device__(index i, A total) { mean_gs[i] = total / static_cast<A>(N); });
            column_sums<2, A>(
                ex, what, s.count, N,
                [=] __device__(index i, index c, A(&sum)[2]) {
                    if (!here(i)) return;
                    const A dy = widen(slope(rows[first + i])[c]);
                    sum[0] += dy * hat(i, c);
                    sum[1] += dy;
                },
                [=] __device__(index c, const A(&total)[2]) {
                    dL_dgamma[c] += total[0];
                    dL_dbeta[c] += total[1];
                });
        }
        const auto dL_ds = [=] __device__(index i, index c) {
            if (!gamma) return g(i, c);
            return rstd[rows[first + i]] * (g(i, c) - mean_g[i] - hat(i, c) * mean_gs[i]);
        };
        s.dct(D, [=] __device__(index i, index c) { return here(i) ? dL_ds(i, c) : A(0); });
        column_sums<1, A>(
            ex, what, s.count, N,
            [=] __device__(index i, index k, A(&sum)[1]) { sum[0] += gain * D[i * N + k] * X[i * N + k]; },
            [=] __device__(index k, const A(&total)[1]) { dL_dw[k] += total[0]; });
        A* back = X;
        s.idct(back, [=] __device__(index i, index k) { return D[i * N + k] * (gain * widen(w[k])); });
        for_each_element(ex, what, s.count, N, [=] __device__(index i, index c) {
            if (!here(i)) return;
            T& at = to(rows[first + i])[c];
            at = narrow<T>(widen(at) + back[i * N + place(c)] + (gamma ? dL_ds(i, c) : A(0)));
        });
    }
}

// Q = Σ X² + ε of rows of X = diag(zero, rest) C x, by which X²/Q are the shares of the power
template <class A>
void row_powers(executor& ex, const char* what, index count, index N, const A* X, A zero, A rest, A* power) {
    row_sums<A>(
        ex, what, count, N,
        [=] __device__(index i, index k) {
            const A value = X[i * N + k] * (k == 0 ? zero : rest);
            return value * value;
        },
        [=] __device__(index i, A total) { power[i] = total + A(entropy_epsilon); });
}

template <class T>
void entropy_composed(executor& ex, const char* what, const_matrix<T> x, dct_scale scale, compute<T> log_width,
                      compute<T>* entropy) {
    using A = compute<T>;
    arena_scope scratch(ex);
    const index N = x.width();
    composed_rows<A> s(ex, what, x.rows(), N);
    A *X = s.buffer(), *power = ex.memory().template vector<A>(s.most).data;
    const A zero = static_cast<A>(scale.first), rest = static_cast<A>(scale.rest);
    const auto in = rows_in(x);
    while (s.next()) {
        const index first = s.first;
        s.dct(X, [=] __device__(index i, index c) { return widen(in(first + i)[c]); });
        row_powers<A>(ex, what, s.count, N, X, zero, rest, power);
        row_sums<A>(
            ex, what, s.count, N,
            [=] __device__(index i, index k) {
                const A value = X[i * N + k] * (k == 0 ? zero : rest), share = value * value / power[i];
                return -share * log(share + A(entropy_epsilon));
            },
            [=] __device__(index i, A total) { entropy[first + i] = total / log_width; });
    }
}

template <class T>
void entropy_backward_composed(executor& ex, const char* what, const compute<T>* dL_dentropy, const_matrix<T> x,
                               dct_scale scale, compute<T> log_width, matrix_view<T> dL_dx) {
    using A = compute<T>;
    arena_scope scratch(ex);
    const index N = x.width();
    composed_rows<A> s(ex, what, x.rows(), N);
    A *X = s.buffer(), *samples = s.buffer(), *power = ex.memory().template vector<A>(s.most).data,
      *weighted = ex.memory().template vector<A>(s.most).data;
    const A zero = static_cast<A>(scale.first), rest = static_cast<A>(scale.rest);
    const auto in = rows_in(x);
    const auto to = rows_in(dL_dx);
    const auto slope = [=] __device__(A share) {
        return -(log(share + A(entropy_epsilon)) + share / (share + A(entropy_epsilon))) / log_width;
    };
    while (s.next()) {
        const index first = s.first;
        s.dct(X, [=] __device__(index i, index c) { return widen(in(first + i)[c]); });
        row_powers<A>(ex, what, s.count, N, X, zero, rest, power);
        row_sums<A>(
            ex, what, s.count, N,
            [=] __device__(index i, index k) {
                const A value = X[i * N + k] * (k == 0 ? zero : rest), share = value * value / power[i];
                return slope(share) * share;
            },
            [=] __device__(index i, A total) { weighted[i] = total; });
        s.idct(samples, [=] __device__(index i, index k) {
            const A by = k == 0 ? zero : rest, value = X[i * N + k] * by, share = value * value / power[i];
            return dL_dentropy[first + i] * 2 * value / power[i] * (slope(share) - weighted[i]) * by;
        });
        const auto place = s.place;
        for_each_element(ex, what, s.count, N, [=] __device__(index i, index c) {
            T& at = to(first + i)[c];
            at = narrow<T>(widen(at) + samples[i * N + place(c)]);
        });
    }
}

}  // namespace spectral::cuda::detail
