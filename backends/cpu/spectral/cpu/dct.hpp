// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/dct.hpp: scaled DCT and its transpose by fast transforms, a tile of rows at a time
#pragma once
#include <spectral/cpu/detail/parallel.hpp>
#include <spectral/cpu/detail/spectral_tile.hpp>
#include <spectral/ops/dct.hpp>

namespace spectral::cpu {

namespace detail {

// f(first, last, workspace) on ranges of rows, whole tiles to a thread, with scratch of its own for each thread
template <class T, class F>
void for_each_tile_range(executor& ex, const dct_plan<T>& plan, index rows, index workspace, F&& f) {
    const index stride = align_up<T>(workspace);
    auto memory = ex.memory().template matrix<T>(ex.threads(), stride);
    parallel_ranges(ex, rows, plan.lanes * std::max<index>(1, 4096 / std::max<index>(plan.width(), 1)),
                    [&](index first, index last, int thread) { f(first, last, memory.row(thread), thread); });
}

template <class T>
listed_rows<const T> rows_of(view<const T, 2> x) {
    return {x.data, x.row_stride};
}
template <class T>
listed_rows<T> rows_of(matrix_view<T> x) {
    return {x.data, x.row_stride};
}

}  // namespace detail

template <class T>
void dct_kernel(executor& ex, const_matrix<T> x, dct_scale scale, matrix_view<T> y) {
    if (x.empty()) return;
    arena_scope scratch(ex);
    const auto& plan = ex.plan<detail::dct_plan<T>>(x.width());
    detail::for_each_tile_range(
        ex, plan, x.rows(), detail::spectral_workspace(plan), [&](index first, index last, T* memory, int) {
            detail::dct_tile<T>(plan, scale.first, scale.rest, detail::rows_of<T>(x).from(first), last - first,
                                detail::rows_of<T>(y).from(first), memory);
        });
}

template <class T>
void idct_kernel(executor& ex, const_matrix<T> x, dct_scale scale, matrix_view<T> y) {
    if (x.empty()) return;
    arena_scope scratch(ex);
    const auto& plan = ex.plan<detail::dct_plan<T>>(x.width());
    detail::for_each_tile_range(
        ex, plan, x.rows(), detail::spectral_workspace(plan), [&](index first, index last, T* memory, int) {
            detail::idct_tile<T>(plan, scale.first, scale.rest, detail::rows_of<T>(x).from(first), last - first,
                                 detail::rows_of<T>(y).from(first), memory);
        });
}

}  // namespace spectral::cpu
