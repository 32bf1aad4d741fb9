// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/spectral_entropy.hpp: normalised entropy of a row's power spectrum, a tile of rows at a
// time
#pragma once
#include <spectral/cpu/dct.hpp>
#include <spectral/ops/spectral_entropy.hpp>

namespace spectral::cpu {

template <class T>
void spectral_entropy_forward_kernel(executor& ex, view<const T, 2> x, dct_scale scale,
                                     vector_view<statistic<T>> entropy) {
    if (x.empty()) return;
    arena_scope scratch(ex);
    const auto& plan = ex.plan<detail::dct_plan<T>>(x.width());
    detail::for_each_tile_range(
        ex, plan, x.rows(), detail::spectral_workspace(plan), [&](index first, index last, T* memory, int) {
            detail::entropy_tile<T>(plan, scale.first, scale.rest, detail::rows_of<T>(x).from(first), last - first,
                                    entropy.data + first, memory);
        });
}

template <class T>
void spectral_entropy_backward_kernel(executor& ex, const_vector<statistic<T>> dL_dentropy, const_matrix<T> x,
                                      dct_scale scale, matrix_view<T> dL_dx) {
    if (x.empty()) return;
    arena_scope scratch(ex);
    const auto& plan = ex.plan<detail::dct_plan<T>>(x.width());
    detail::for_each_tile_range(
        ex, plan, x.rows(), detail::spectral_workspace(plan), [&](index first, index last, T* memory, int) {
            detail::entropy_backward_tile<T>(plan, scale.first, scale.rest, detail::rows_of<T>(x).from(first),
                                             dL_dentropy.data + first, last - first,
                                             detail::rows_of<T>(dL_dx).from(first), memory);
        });
}

}  // namespace spectral::cpu
