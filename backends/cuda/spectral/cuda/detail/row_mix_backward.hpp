// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/row_mix_backward.hpp: gradients of filter and mix, for the widths of
// register_dct.hpp
//
// With W = identity + gain w and s = Cᵀ W C x, ŝ = (s − mean) rstd, g = dL_dy γ, X = C x, G = C g:
//   C dL_ds = rstd (G − C ŝ mean(g ŝ)) without coefficient 0, C ŝ = rstd W X;   dL_dx += Cᵀ W C dL_ds;
//   dL_dw += gain (C dL_ds) ⊙ X
// So x goes forward and, for γ's gradient, back as ŝ; g goes forward and back as dL_dx. For the filter alone dL_ds is
// dL_dy. X waits in shared memory. Sums over rows: a block's rows put their terms there, every thread adds up its
// places in order of the rows, and the blocks' sums are added in order.
#pragma once
#include <spectral/cuda/detail/row_mix.hpp>

namespace spectral::cuda::detail {

template <class T>
struct row_mix_gradients {
    selected rows;
    rows_of<const T> dL_dy, x;
    const T *w, *gamma;  // no gamma: the filter alone
    float gain;
    const float* rstd;
    rows_of<T> dL_dx;
    float* parts = nullptr;  // (blocks, 3 N): of w, gamma, beta; (blocks, N) for the filter alone
};

template <int Width>
struct row_mix_backward_shared {
    using shape = register_shape<Width>;
    static constexpr int splits = shape::pairs * shape::L;
    static constexpr std::size_t a_row = sizeof(quad<float>) * splits + sizeof(complex<float>) * shape::exchange;
    static constexpr std::size_t tables = sizeof(quad<float>) * 2 * splits + sizeof(complex<float>) * 2 * shape::M;
    static constexpr int fitting = static_cast<int>((227 * 1024 - tables) / (a_row * shape::rows));
    static constexpr int most = shape::R <= 16 ? 16 : shape::R <= 32 ? 12 : 8;  // by registers
    static constexpr int warps = fitting < most ? fitting : most, threads = 32 * warps, rows = warps * shape::rows;
    quad<float> split[splits], weight[splits];  // as in row_mix_shared
    complex<float> turn[shape::M], gamma[shape::M];
    complex<float> exchange[rows * shape::exchange];
    quad<float> spectrum[rows * splits];
};

template <int Width, class T>
__global__ void __launch_bounds__(row_mix_backward_shared<Width>::threads, 1)
    row_mix_backward_kernel(row_mix_gradients<T> p, const complex<float>* turn, const quad<float>* split) {
    using shape = register_shape<Width>;
    using memory = row_mix_backward_shared<Width>;
    using value = complex<float>;
    constexpr int N = shape::N, R = shape::R, L = shape::L, S = shape::slots, threads = memory::threads;
    auto& shared = *reinterpret_cast<memory*>(shared_bytes);
    const bool normed = p.gamma;
    for (int j = threadIdx.x; j < shape::M; j += threads) {
        shared.turn[j] = turn[j];
        const register_lane<Width> other{j % L, nullptr, nullptr, nullptr};
        if (normed)
            shared.gamma[j] = {widen(p.gamma[other.column(j / L, false)]), widen(p.gamma[other.column(j / L, true)])};
    }
    for (int j = threadIdx.x; j < memory::splits; j += threads) {
        shared.split[j] = split[j];
        shared.weight[j] = pair_weights<Width>(j, p.w, normed, p.gain);
    }
    __syncthreads();
    const int place = threadIdx.x % L, in_block = threadIdx.x / L;
    const register_lane<Width> row{place, shared.turn, shared.split, shared.exchange + in_block * shape::exchange};
    quad<float>* const spectrum = shared.spectrum + in_block * memory::splits;

    // the places whose sums this thread keeps: places = threads × each
    constexpr int each = (shape::M + threads - 1) / threads, each_pair = (2 * memory::splits + threads - 1) / threads;
    value of_gamma[each] = {}, of_beta[each] = {}, of_w[each_pair] = {};
    const auto add_rows = [&](const value* terms, int stride, int places, value* sums, int count) {
        __syncthreads();
#pragma unroll
        for (int e = 0; e < count; ++e)
            if (const int j = threadIdx.x + e * threads; j < places)
                for (int r = 0; r < memory::rows; ++r) sums[e] = sums[e] + terms[r * stride + j];
        __syncthreads();
    };

    const index count = p.rows.size();
    for (index first = index{blockIdx.x} * memory::rows; first < count; first += index{gridDim.x} * memory::rows) {
        const bool here = first + in_block < count;  // other lanes work on the last row again, with gradient 0
        const index n = p.rows[here ? first + in_block : count - 1];
        const float factor = normed ? p.rstd[n] : 1.f;
        float slope = 0;  // mean(g ŝ)
        value v[R], low[S][L], high[S][L];
        row.read(p.x(n), [&](int b, value z) { v[b] = z; });
#pragma unroll 1
        for (int back = 0; back < 2; ++back) {
            row.forward(v, low, high);
#pragma unroll
            for (int s = 0; s < S; ++s)
#pragma unroll
                for (int i = 0; i < L; ++i) {
                    auto& x = spectrum[(s * L + i) * L + place];
                    const auto w = shared.weight[(s * L + i) * L + place];
                    value &lo = low[s][i], &hi = high[s][i];
                    if (back) {
                        const auto X = x;
                        const float f = factor * slope;
                        const float d[4] = {
                            factor * (lo.re - f * w.v[0] * X.v[0]), factor * (lo.im - f * w.v[1] * X.v[1]),
                            factor * (hi.re - 2 * f * w.v[2] * X.v[2]), factor * (hi.im - 2 * f * w.v[3] * X.v[3])};
                        lo = {d[0], d[1]};
                        hi = {d[2], d[3]};
                        if (s == 0 && i == 0 && place == 0 && normed) lo.re = 0;
                        x = {lo.re * X.v[0], lo.im * X.v[1], hi.re * X.v[2] / 2, hi.im * X.v[3] / 2};
                    } else {
                        x = {lo.re, lo.im, hi.re, hi.im};
                        if (s == 0 && i == 0 && place == 0 && normed) lo.re = 0;
                    }
                    lo = {lo.re * w.v[0], lo.im * w.v[1]};
                    hi = {hi.re * w.v[2], hi.im * w.v[3]};
                }
            if (back || normed) row.inverse(low, high, v);
            if (back) break;
            row.read(p.dL_dy(n), [&](int b, value dy) {
                if (!here) dy = {0, 0};
                if (normed) {
                    const value term{dy.re * factor * v[b].re, dy.im * factor * v[b].im},
                        g = shared.gamma[b * L + place];
                    row.exchange[b * L + place] = term;
                    slope += g.re * term.re + g.im * term.im;
                }
                v[b] = dy;
            });
            if (normed) {
                slope = row.sum(slope) / N;
                add_rows(shared.exchange, shape::exchange, shape::M, of_gamma, each);
#pragma unroll
                for (int b = 0; b < R; ++b) {
                    const value g = shared.gamma[b * L + place];
                    row.exchange[b * L + place] = v[b];
                    v[b] = {v[b].re * g.re, v[b].im * g.im};
                }
                add_rows(shared.exchange, shape::exchange, shape::M, of_beta, each);
            }
        }
        add_rows(reinterpret_cast<const value*>(shared.spectrum), 2 * memory::splits, 2 * memory::splits, of_w,
                 each_pair);
        row.read(p.dL_dx(n), [&](int b, value z) { v[b] = v[b] + z; });
        row.store(v, p.dL_dx(n), here);
    }

    float* const mine = p.parts + index{blockIdx.x} * (normed ? 3 : 1) * N;
#pragma unroll
    for (int e = 0; e < each_pair; ++e) {
        const int j = threadIdx.x + e * threads, pair = j / 2, lane = pair % L, i = pair / L % L, s = pair / (L * L);
        if (pair >= memory::splits || shape::unit(lane, s) >= shape::units) continue;
        mine[shape::coefficient(lane, s, i, 2 * (j % 2))] = p.gain * of_w[e].re;
        mine[shape::coefficient(lane, s, i, 2 * (j % 2) + 1)] = p.gain * of_w[e].im;
    }
#pragma unroll
    for (int e = 0; e < each; ++e) {
        const int j = threadIdx.x + e * threads;
        if (j >= shape::M || !normed) continue;
        const register_lane<Width> other{j % L, nullptr, nullptr, nullptr};
        const int c = other.column(j / L, false), d = other.column(j / L, true);
        mine[N + c] = of_gamma[e].re, mine[N + d] = of_gamma[e].im;
        mine[2 * N + c] = of_beta[e].re, mine[2 * N + d] = of_beta[e].im;
    }
}

// How many blocks left their sums in p.parts (in the arena); 0: not for this width, scalar, memory or device, and
// nothing was done.
template <class T>
unsigned try_row_mix_backward(executor& ex, const char* what, row_mix_gradients<T>& p, index width) {
    if constexpr (std::is_same_v<compute<T>, float>)
        if (takes_quads(p.x) && takes_quads(p.dL_dy) && takes_quads(p.dL_dx))
            return with_register_width(width, [&](auto w) -> unsigned {
                using memory = row_mix_backward_shared<w()>;
                if (sizeof(memory) > ex.shared_limit()) return 0;
                const auto& plan = ex.keep<register_plan<w()>>(0);
                const auto blocks = std::min<index>(divide_up(p.rows.capacity, memory::rows), ex.multiprocessors());
                p.parts = ex.memory().template vector<float>(blocks * (p.gamma ? 3 : 1) * width).data;
                launch(ex, what, static_cast<unsigned>(blocks), memory::threads, sizeof(memory),
                       row_mix_backward_kernel<w(), T>, p, plan.turn, plan.split);
                return static_cast<unsigned>(blocks);
            });
    return 0;
}

}  // namespace spectral::cuda::detail
