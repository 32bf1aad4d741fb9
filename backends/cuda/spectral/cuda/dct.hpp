// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/dct.hpp: the transform of every row, one block to a row, or composed
#pragma once
#include <spectral/cuda/detail/dct_plan.hpp>
#include <spectral/cuda/detail/spectral_composed.hpp>
#include <spectral/ops/dct.hpp>

namespace spectral::cuda {

namespace detail {

template <bool Inverse, class T>
__global__ void dct_rows(index rows, dct_shape<compute<T>> p, rows_of<const T> x, compute<T> first, compute<T> rest,
                         rows_of<T> y) {
    using A = compute<T>;
    dct_memory<A> m(p, shared_bytes);
    for (index n = blockIdx.x; n < rows; n += gridDim.x) {
        for (int c = threadIdx.x; c < p.N; c += blockDim.x)
            m.row[c] = widen(x(n)[c]) * (!Inverse ? A(1) : c == 0 ? first : rest);
        if constexpr (Inverse)
            idct_in_block(p, m);
        else
            dct_in_block(p, m);
        for (int c = threadIdx.x; c < p.N; c += blockDim.x)
            y(n)[c] = narrow<T>(m.row[c] * (Inverse ? A(1) : c == 0 ? first : rest));
        __syncthreads();
    }
}

template <bool Inverse, class T>
void transform_rows(executor& ex, const char* what, const_matrix<T> x, dct_scale scale, matrix_view<T> y) {
    using A = compute<T>;
    if (x.empty()) return;
    if (is_composed<A>(ex, x.width())) return transform_composed<Inverse, T>(ex, what, x, scale, y);
    const auto& p = dct_shape_of<A>(ex, x.width());
    launch(ex, what, blocks_for(ex, x.rows()), p.threads(), p.shared_bytes(), dct_rows<Inverse, T>, x.rows(), p,
           rows_in(x), static_cast<A>(scale.first), static_cast<A>(scale.rest), rows_in(y));
}

}  // namespace detail

template <class T>
void dct_kernel(executor& ex, const_matrix<T> x, dct_scale scale, matrix_view<T> y) {
    detail::transform_rows<false, T>(ex, "dct", x, scale, y);
}

template <class T>
void idct_kernel(executor& ex, const_matrix<T> x, dct_scale scale, matrix_view<T> y) {
    detail::transform_rows<true, T>(ex, "idct", x, scale, y);
}

}  // namespace spectral::cuda
