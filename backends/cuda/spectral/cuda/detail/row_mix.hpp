// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/row_mix.hpp: one kernel that reads a row once: entropy, route, filter, residual,
// norm
//
// For the widths of register_dct.hpp, computing in float. What is asked for is said by which outputs are given;
// entropy, filter, mix and route + mix are this kernel with some of them. Everything between reading x and writing y
// happens on the coefficients: the residual is the 1 in 1 + gain w, leaving out coefficient 0 subtracts the mean, and
// the variance is the sum of the squares of the others.
#pragma once
#include <spectral/cuda/detail/register_dct.hpp>
#include <spectral/cuda/partition.hpp>
#include <spectral/ops/spectral_route_mix.hpp>

#include <limits>

namespace spectral::cuda::detail {

// to 2^-22 of the result, and of 1 near 1; x is no subnormal
__device__ inline float fast_log2(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return log2f(x);
#endif
}

template <class T>
struct row_mix {
    selected rows;
    rows_of<const T> x;
    // H of every row, and its operator: written, or given
    float* entropy = nullptr;
    float first = 1, rest = 1, log_width = 1;
    row_index* op = nullptr;
    bool replay = false;
    int thresholds = 0;
    float threshold[3] = {};
    // y of the rows (of operator 0, where there are operators) with their mean and rstd at the row's number; without
    // gamma the filter alone
    rows_of<T> y{nullptr, 0};
    const T *w = nullptr, *gamma = nullptr, *beta = nullptr;
    float gain = 1, eps = 0;
    float *mean = nullptr, *rstd = nullptr;

    void take_entropy(dct_scale scale, index width, float* to) {
        entropy = to;
        first = static_cast<float>(scale.first);
        rest = static_cast<float>(scale.rest);
        log_width = static_cast<float>(std::log(static_cast<double>(width)) + entropy_epsilon);
    }
    // none: op is given
    void take_routes(std::span<const double> ascending, row_index* to) {
        op = to;
        replay = ascending.empty();
        thresholds = static_cast<int>(ascending.size());
        for (std::size_t t = 0; t < ascending.size();
             ++t) {  // h > double if and only if h > the largest float not above it
            threshold[t] = static_cast<float>(ascending[t]);
            if (threshold[t] > ascending[t])
                threshold[t] = std::nextafter(threshold[t], -std::numeric_limits<float>::infinity());
        }
    }
    void take_filter(const_vector<T> weights, double by, matrix_view<T> to) {
        w = weights.data;
        gain = static_cast<float>(by);
        y = rows_in(to);
    }
    void take_norm(const_vector<T> scale, const_vector<T> shift, double epsilon, norm_statistics<T> stats) {
        gamma = scale.data;
        beta = shift.data;
        eps = static_cast<float>(epsilon);
        mean = stats.mean.data;
        rstd = stats.rstd.data;
    }
};

template <int Width>
struct row_mix_shared {
    using shape = register_shape<Width>;
    static constexpr int threads = 256, rows = threads / shape::L, blocks = shape::R <= 16 ? 3 : shape::R <= 32 ? 2 : 1;
    static constexpr int splits = shape::pairs * shape::L;
    quad<float> split[splits];  // as in register_plan
    quad<float> weight[splits];  // of each pair's four coefficients, the last two halved
    quad<float> affine[shape::M];  // gamma, gamma, beta, beta of the two columns of v[b], at b L + lane
    complex<float> turn[shape::M];
    complex<float> exchange[rows * shape::exchange];
};

// what the coefficients of pair j of all lanes' are multiplied by: identity + gain w, the last two halved
template <int Width, class T>
__device__ inline quad<float> pair_weights(int j, const T* w, bool identity, float gain) {
    using shape = register_shape<Width>;
    const int lane = j % shape::L, i = j / shape::L % shape::L, s = j / (shape::L * shape::L);
    quad<float> out{};
    if (shape::unit(lane, s) < shape::units)
        for (int f = 0; f < 4; ++f)
            out.v[f] =
                ((identity ? 1.f : 0.f) + gain * widen(w[shape::coefficient(lane, s, i, f)])) * (f < 2 ? 1.f : 0.5f);
    return out;
}

template <int Width, class T>
__global__ void __launch_bounds__(row_mix_shared<Width>::threads, row_mix_shared<Width>::blocks)
    row_mix_kernel(row_mix<T> p, const complex<float>* turn, const quad<float>* split) {
    using shape = register_shape<Width>;
    using value = complex<float>;
    constexpr int N = shape::N, R = shape::R, L = shape::L, S = shape::slots;
    using memory = row_mix_shared<Width>;
    auto& shared = *reinterpret_cast<memory*>(shared_bytes);
    for (int j = threadIdx.x; j < shape::M; j += blockDim.x) shared.turn[j] = turn[j];
    for (int j = threadIdx.x; j < shared.splits; j += blockDim.x) shared.split[j] = split[j];
    const int place = threadIdx.x % L;  // among the row's lanes
    const bool normed = p.gamma;
    const register_lane<Width> row{place, shared.turn, shared.split,
                                   shared.exchange + threadIdx.x / L * shape::exchange};
    if (p.y.data) {
        for (int j = threadIdx.x; j < shared.splits; j += blockDim.x)
            shared.weight[j] = pair_weights<Width>(j, p.w, normed, p.gain);
        for (int j = threadIdx.x; j < shape::M; j += blockDim.x) {
            const register_lane<Width> other{j % L, nullptr, nullptr, nullptr};
            const int c = other.column(j / L, false), d = other.column(j / L, true);
            if (p.gamma)
                shared.affine[j] = {widen(p.gamma[c]), widen(p.gamma[d]), widen(p.beta[c]), widen(p.beta[d])};
            else
                shared.affine[j] = {1, 1, 0, 0};
        }
    }
    __syncthreads();

    const index count = p.rows.size();
    for (index first = index{blockIdx.x} * memory::rows; first < count; first += index{gridDim.x} * memory::rows) {
        const index mine = first + threadIdx.x / L;
        const bool here = mine < count;  // other lanes work on the last row again and write nothing
        const index n = p.rows[here ? mine : count - 1];
        __syncthreads();  // warps in step: the loop is longer than the instruction cache
        value v[R], low[S][L], high[S][L];
        row.read(p.x(n), [&](int b, value z) { v[b] = z; });
        row.forward(v, low, high);
        bool mixed = here && p.y.data;
        if (p.entropy) {
            float power = 0, half = 0, sum = 0;
#pragma unroll
            for (int s = 0; s < S; ++s)
#pragma unroll
                for (int i = 0; i < L; ++i) {
                    power += low[s][i].re * low[s][i].re + low[s][i].im * low[s][i].im;
                    half += high[s][i].re * high[s][i].re + high[s][i].im * high[s][i].im;
                }
            // −Σ P log P with P = X²/Q, log(X²/Q + ε) as log(X² + ε Q) − log Q
            const float square = p.rest * p.rest, excess = p.first * p.first / square;  // of coefficient 0
            const float zero = __shfl_sync(full_warp, low[0][0].re, threadIdx.x % 32 / L * L);
            power = row.sum(power + half / 2) + (excess - 1) * zero * zero;
            const float total = power + float(entropy_epsilon) / square, floor = total * float(entropy_epsilon);
            const auto term = [&](float squared, float weight) {
                sum += squared * fast_log2(weight * squared + floor);
            };
#pragma unroll
            for (int s = 0; s < S; ++s)
#pragma unroll
                for (int i = 0; i < L; ++i) {
                    const float x = low[s][i].re * low[s][i].re;
                    term(s == 0 && i == 0 && place == 0 ? excess * x : x, 1.f);
                    term(low[s][i].im * low[s][i].im, 1.f);
                }
            sum *= 2;  // the others count half: so no square is weighted
#pragma unroll
            for (int s = 0; s < S; ++s)
#pragma unroll
                for (int i = 0; i < L; ++i) {
                    term(high[s][i].re * high[s][i].re, 0.5f);
                    term(high[s][i].im * high[s][i].im, 0.5f);
                }
            const float h =
                (power * fast_log2(total) - row.sum(sum) / 2) / total * (0.69314718055994530942f / p.log_width);
            if (here && place == 0) p.entropy[n] = h;
            if (p.op) {
                row_index to = 0;
                for (int t = 0; t < p.thresholds; ++t) to += h > p.threshold[t];
                if (p.replay)
                    to = p.op[n];
                else if (here && place == 0)
                    p.op[n] = to;
                mixed = mixed && to == 0;
            }
        }
        if (!__any_sync(full_warp, mixed)) continue;
        float square = 0, half = 0, average = 0;
#pragma unroll
        for (int s = 0; s < S; ++s)
#pragma unroll
            for (int i = 0; i < L; ++i) {
                const auto w = shared.weight[(s * L + i) * L + place];
                low[s][i] = {low[s][i].re * w.v[0], low[s][i].im * w.v[1]};
                high[s][i] = {high[s][i].re * w.v[2], high[s][i].im * w.v[3]};
                if (s == 0 && i == 0 && place == 0 && normed) {
                    average = low[0][0].re;
                    low[0][0].re = average - average;  // 0, or the NaN that it was
                }
                square += low[s][i].re * low[s][i].re + low[s][i].im * low[s][i].im;
                half += high[s][i].re * high[s][i].re + high[s][i].im * high[s][i].im;
            }
        row.inverse(low, high, v);
        const float variance = row.sum(square + 2 * half) * (1.f / N), factor = normed ? rsqrtf(variance + p.eps) : 1.f;
#pragma unroll
        for (int b = 0; b < R; ++b) {
            const auto a = shared.affine[b * L + place];
            v[b] = {v[b].re * factor * a.v[0] + a.v[2], v[b].im * factor * a.v[1] + a.v[3]};
        }
        if (normed && mixed && place == 0) p.mean[n] = average * rsqrtf(float(N)), p.rstd[n] = factor;
        row.store(v, p.y(n), mixed);
    }
}

// Whether 4 neighbours of every row are one access
template <class T>
bool takes_quads(const rows_of<T>& v) {
    return reinterpret_cast<std::uintptr_t>(v.data) % (4 * sizeof(T)) == 0 && v.stride % 4 == 0;
}

// false: not for this width, scalar, memory or device, and nothing was done
template <class T>
bool try_row_mix(executor& ex, const char* what, const row_mix<T>& p, index width) {
    if constexpr (std::is_same_v<compute<T>, float>)
        return takes_quads(p.x) && takes_quads(p.y) && with_register_width(width, [&](auto w) {
                   using memory = row_mix_shared<w()>;
                   if (sizeof(memory) > ex.shared_limit()) return false;
                   const auto& plan = ex.keep<register_plan<w()>>(0);
                   const auto blocks = std::min<index>(divide_up(p.rows.capacity, memory::rows),
                                                       index{memory::blocks} * ex.multiprocessors());
                   launch(ex, what, static_cast<unsigned>(blocks), memory::threads, sizeof(memory),
                          row_mix_kernel<w(), T>, p, plan.turn, plan.split);
                   return true;
               });
    return false;
}

}  // namespace spectral::cuda::detail
