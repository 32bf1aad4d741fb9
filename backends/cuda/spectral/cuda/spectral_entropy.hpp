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
    const auto& p = detail::dct_shape_of<A>(ex, x.width());
    detail::launch(ex, "spectral_entropy_backward", detail::blocks_for(ex, x.rows()), p.threads(), p.shared_bytes(),
                   detail::entropy_backward_rows<T>, x.rows(), p, dL_dentropy.data, detail::rows_in(x),
                   static_cast<A>(scale.first), static_cast<A>(scale.rest), detail::entropy_of_flat<A>(x.width()),
                   detail::rows_in(dL_dx));
}

}  // namespace spectral::cuda
