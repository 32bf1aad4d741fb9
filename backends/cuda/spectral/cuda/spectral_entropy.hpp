// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/spectral_entropy.hpp: normalised entropy of a row's power spectrum
//
// The spectrum stays in shared memory, in float for bfloat16 rows: entropies differ by thousandths.
#pragma once
#include <spectral/cuda/dct.hpp>
#include <spectral/cuda/detail/row_mix.hpp>
#include <spectral/ops/spectral_entropy.hpp>

namespace spectral::cuda {

namespace detail {

// m.row = diag(first, rest) C x[n]; returns Σ X² + ε
template <class T>
__device__ inline compute<T> spectrum_of_row(const dct_shape<compute<T>>& p, dct_memory<compute<T>>& m, const T* x,
                                             compute<T> first, compute<T> rest) {
    using A = compute<T>;
    __syncthreads();  // the row before may still be read
    for (int c = threadIdx.x; c < p.N; c += blockDim.x) m.row[c] = widen(x[c]);
    dct_in_block(p, m);
    A power = 0;
    for (int k = threadIdx.x; k < p.N; k += blockDim.x) {
        m.row[k] *= k == 0 ? first : rest;
        power += m.row[k] * m.row[k];
    }
    return block_reduce(power) + A(entropy_epsilon);
}

template <class T>
__global__ void entropy_rows(index rows, dct_shape<compute<T>> p, rows_of<const T> x, compute<T> first, compute<T> rest,
                             compute<T> log_width, compute<T>* entropy) {
    using A = compute<T>;
    dct_memory<A> m(p, shared_bytes);
    for (index n = blockIdx.x; n < rows; n += gridDim.x) {
        const A power = spectrum_of_row<T>(p, m, x(n), first, rest);
        A sum = 0;
        for (int k = threadIdx.x; k < p.N; k += blockDim.x) {
            const A share = m.row[k] * m.row[k] / power;
            sum -= share * log(share + A(entropy_epsilon));
        }
        sum = block_reduce(sum);
        if (threadIdx.x == 0) entropy[n] = sum / log_width;
    }
}

template <class T>
__global__ void entropy_backward_rows(index rows, dct_shape<compute<T>> p, const compute<T>* dL_dentropy,
                                      rows_of<const T> x, compute<T> first, compute<T> rest, compute<T> log_width,
                                      rows_of<T> dL_dx) {
    using A = compute<T>;
    dct_memory<A> m(p, shared_bytes);
    const auto slope = [=](A share) {
        return -(log(share + A(entropy_epsilon)) + share / (share + A(entropy_epsilon))) / log_width;
    };
    for (index n = blockIdx.x; n < rows; n += gridDim.x) {
        const A power = spectrum_of_row<T>(p, m, x(n), first, rest);
        A weighted = 0;
        for (int k = threadIdx.x; k < p.N; k += blockDim.x) {
            const A share = m.row[k] * m.row[k] / power;
            weighted += slope(share) * share;
        }
        weighted = block_reduce(weighted);
        for (int k = threadIdx.x; k < p.N; k += blockDim.x) {
            const A share = m.row[k] * m.row[k] / power;
            m.row[k] = dL_dentropy[n] * 2 * m.row[k] / power * (slope(share) - weighted) * (k == 0 ? first : rest);
        }
        idct_in_block(p, m);
        for (int c = threadIdx.x; c < p.N; c += blockDim.x) dL_dx(n)[c] = narrow<T>(widen(dL_dx(n)[c]) + m.row[c]);
    }
}

template <int Width>
struct entropy_backward_shared {
    using shape = register_shape<Width>;
    static constexpr int threads = 256, rows = threads / shape::L;
    quad<float> split[shape::pairs * shape::L];
    complex<float> turn[shape::M];
    complex<float> exchange[rows * shape::exchange];
};

// The same for the widths of register_dct.hpp. With P_k = c_k X_k²/Q, c_k = 1 but for coefficient 0, a_k = dH/dP_k:
//   dL_dx += Cᵀ (2 dL_dH c_k/Q (a_k − Σ a P) X_k)
template <int Width, class T>
__global__ void __launch_bounds__(256, row_mix_shared<Width>::blocks)
    entropy_backward_in_registers(index count, rows_of<const T> x, const float* dL_dentropy, float first, float rest,
                                  float log_width, rows_of<T> dL_dx, const complex<float>* turn,
                                  const quad<float>* split) {
    using memory = entropy_backward_shared<Width>;
    using value = complex<float>;
    constexpr int R = register_shape<Width>::R, L = register_shape<Width>::L, S = register_shape<Width>::slots;
    auto& shared = *reinterpret_cast<memory*>(shared_bytes);
    for (int j = threadIdx.x; j < register_shape<Width>::M; j += memory::threads) shared.turn[j] = turn[j];
    for (int j = threadIdx.x; j < register_shape<Width>::pairs * L; j += memory::threads) shared.split[j] = split[j];
    const int place = threadIdx.x % L;
    const register_lane<Width> row{place, shared.turn, shared.split,
                                   shared.exchange + threadIdx.x / L * register_shape<Width>::exchange};
    const float square = rest * rest, excess = first * first / square;
    __syncthreads();
    for (index at = index{blockIdx.x} * memory::rows; at < count; at += index{gridDim.x} * memory::rows) {
        const bool here = at + threadIdx.x / L < count;
        const index n = here ? at + threadIdx.x / L : count - 1;
        __syncthreads();  // warps in step, as in row_mix.hpp
        value v[R], low[S][L], high[S][L];
        row.read(x(n), [&](int b, value z) { v[b] = z; });
        row.forward(v, low, high);
        // f(X_k or √2 X_k, c_k or c_k/2), which it may change
        const auto each = [&](auto f) {
#pragma unroll
            for (int s = 0; s < S; ++s)
#pragma unroll
                for (int i = 0; i < L; ++i) {
                    f(low[s][i].re, s == 0 && i == 0 && place == 0 ? excess : 1.f);
                    f(low[s][i].im, 1.f);
                    f(high[s][i].re, 0.5f);
                    f(high[s][i].im, 0.5f);
                }
        };
        float power = 0, weighted = 0;
        each([&](float& X, float c) { power += c * X * X; });
        const float total = row.sum(power) + float(entropy_epsilon) / square, floor = total * float(entropy_epsilon),
                    log_total = fast_log2(total);
        const auto slope = [&](float part) {  // times −ln(d)
            return 0.69314718055994530942f * (fast_log2(part + floor) - log_total) + __fdividef(part, part + floor);
        };
        each([&](float& X, float c) { weighted += slope(c * X * X) * (c * X * X); });
        weighted = row.sum(weighted) / total;
        const float scale = -2 * dL_dentropy[n] / (total * log_width);
        each([&](float& X, float c) { X *= scale * c * (slope(c * X * X) - weighted); });
        row.inverse(low, high, v);
        row.read(dL_dx(n), [&](int b, value z) { v[b] = v[b] + z; });
        row.store(v, dL_dx(n), here);
    }
}

// false: not for this width, scalar, memory or device, and nothing was done
template <class T>
bool try_entropy_backward(executor& ex, const_matrix<T> x, const float* dL_dentropy, dct_scale scale, float log_width,
                          matrix_view<T> dL_dx) {
    const auto from = rows_in(x);
    const auto to = rows_in(dL_dx);
    return takes_quads(from) && takes_quads(to) && with_register_width(x.width(), [&](auto w) {
               using memory = entropy_backward_shared<w()>;
               if (sizeof(memory) > ex.shared_limit()) return false;
               const auto& plan = ex.keep<register_plan<w()>>(0);
               const auto blocks = std::min<index>(divide_up(x.rows(), memory::rows),
                                                   index{row_mix_shared<w()>::blocks} * ex.multiprocessors());
               launch(ex, "spectral_entropy_backward", static_cast<unsigned>(blocks), memory::threads, sizeof(memory),
                      entropy_backward_in_registers<w(), T>, x.rows(), from, dL_dentropy,
                      static_cast<float>(scale.first), static_cast<float>(scale.rest), log_width, to, plan.turn,
                      plan.split);
               return true;
           });
}

template <class A>
A entropy_of_flat(index width) {
    return static_cast<A>(std::log(static_cast<double>(width)) + entropy_epsilon);
}

}  // namespace detail

template <class T>
void spectral_entropy_forward_kernel(executor& ex, view<const T, 2> x, dct_scale scale,
                                     vector_view<statistic<T>> entropy) {
    using A = detail::compute<T>;
    if (x.empty()) return;
    if constexpr (std::is_same_v<A, float>) {
        detail::row_mix<T> all{selection::all(x.rows()), detail::rows_in(x)};
        all.take_entropy(scale, x.width(), entropy.data);
        if (detail::try_row_mix(ex, "spectral_entropy_forward", all, x.width())) return;
    }
    if (detail::is_composed<A>(ex, x.width()))
        return detail::entropy_composed<T>(ex, "spectral_entropy_forward", x, scale,
                                           detail::entropy_of_flat<A>(x.width()), entropy.data);
    const auto& p = detail::dct_shape_of<A>(ex, x.width());
    detail::launch(ex, "spectral_entropy_forward", detail::blocks_for(ex, x.rows()), p.threads(), p.shared_bytes(),
                   detail::entropy_rows<T>, x.rows(), p, detail::rows_in(x), static_cast<A>(scale.first),
                   static_cast<A>(scale.rest), detail::entropy_of_flat<A>(x.width()), entropy.data);
}

template <class T>
void spectral_entropy_backward_kernel(executor& ex, const_vector<statistic<T>> dL_dentropy, const_matrix<T> x,
                                      dct_scale scale, matrix_view<T> dL_dx) {
    using A = detail::compute<T>;
    if (x.empty()) return;
    if constexpr (std::is_same_v<A, float>)
        if (detail::try_entropy_backward<T>(ex, x, dL_dentropy.data, scale, detail::entropy_of_flat<float>(x.width()),
                                            dL_dx))
            return;
    if (detail::is_composed<A>(ex, x.width()))
        return detail::entropy_backward_composed<T>(ex, "spectral_entropy_backward", dL_dentropy.data, x, scale,
                                                    detail::entropy_of_flat<A>(x.width()), dL_dx);
    const auto& p = detail::dct_shape_of<A>(ex, x.width());
    detail::launch(ex, "spectral_entropy_backward", detail::blocks_for(ex, x.rows()), p.threads(), p.shared_bytes(),
                   detail::entropy_backward_rows<T>, x.rows(), p, dL_dentropy.data, detail::rows_in(x),
                   static_cast<A>(scale.first), static_cast<A>(scale.rest), detail::entropy_of_flat<A>(x.width()),
                   detail::rows_in(dL_dx));
}

}  // namespace spectral::cuda
