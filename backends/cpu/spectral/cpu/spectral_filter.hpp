// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/spectral_filter.hpp: filter in the DCT domain, alone and fused with residual and norm
//
// The fused forms read x and write y once: transform, filter, inverse, residual, statistics and norm happen on tiles of
// a few rows in the first- and second-level caches. The backward pass recomputes the spectrum of x and the normalised
// sum from it (four transforms), which costs less than reading them back.
#pragma once
#include <spectral/cpu/dct.hpp>
#include <spectral/cpu/detail/row_loops.hpp>
#include <spectral/ops/spectral_filter.hpp>

namespace spectral::cpu {

namespace detail {

// Sums of `width` numbers per thread, in the arena, zeroed; add_to adds their total to `out`, in the order of threads.
template <class T>
struct thread_sums {
    matrix_view<T> part;

    thread_sums(executor& ex, index width) : part(ex.memory().template matrix<T>(ex.threads(), align_up<T>(width))) {
        std::fill_n(part.data, part.size(), T(0));
    }
    void add_to(vector_view<T> out, index first, T factor) const {
        for (index t = 0; t < part.rows(); ++t)
            for (index k = 0; k < out.size(); ++k) out[k] += factor * part(t, first + k);
    }
};

// identity + gain w, the filter's factor on each frequency with the residual's 1 or without
template <class T>
vector_view<T> frequency_weights(executor& ex, const_vector<T> w, double gain, double identity) {
    auto weight = ex.memory().template vector<T>(w.size());
    for (index k = 0; k < w.size(); ++k) weight[k] = static_cast<T>(identity + gain * w[k]);
    return weight;
}

template <class T>
listed_rows<const T> selected(view<const T, 2> x, const selection& rows, index first) {
    return listed_rows<const T>{x.data, x.row_stride, rows.rows}.from(first);
}
template <class T>
listed_rows<T> selected(matrix_view<T> x, const selection& rows, index first) {
    return listed_rows<T>{x.data, x.row_stride, rows.rows}.from(first);
}

}  // namespace detail

template <class T>
void spectral_filter_forward_kernel(executor& ex, const_matrix<T> x, const_vector<T> w, double gain, matrix_view<T> y) {
    if (x.empty()) return;
    arena_scope scratch(ex);
    const auto& plan = ex.plan<detail::dct_plan<T>>(x.width());
    auto table = ex.memory().template vector<T>(plan.filter_size());
    plan.filter_table(w.data, gain, 0, false, table.data);
    detail::for_each_tile_range(ex, plan, x.rows(), detail::spectral_workspace(plan),
                                [&](index first, index last, T* memory, int) {
                                    detail::filter_tile<T>(plan, table.data, detail::rows_of<T>(x).from(first),
                                                           last - first, detail::rows_of<T>(y).from(first), memory);
                                });
}

template <class T>
void spectral_filter_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> x, const_vector<T> w,
                                     double gain, matrix_view<T> dL_dx, out_vector<statistic<T>> dL_dw) {
    if (x.empty()) return;
    arena_scope scratch(ex);
    const auto& plan = ex.plan<detail::dct_plan<T>>(x.width());
    const auto weight = detail::frequency_weights<T>(ex, w, gain, 0);
    const detail::thread_sums<T> sums(ex, x.width());
    detail::for_each_tile_range(ex, plan, x.rows(), detail::filter_backward_workspace(plan),
                                [&](index first, index last, T* memory, int thread) {
                                    detail::filter_backward_tile<T>(
                                        plan, weight.data, detail::rows_of<T>(dL_dy).from(first),
                                        detail::rows_of<T>(x).from(first), last - first,
                                        detail::rows_of<T>(dL_dx).from(first), sums.part.row(thread), memory);
                                });
    sums.add_to(dL_dw, 0, static_cast<T>(gain));
}

template <class T>
void spectral_mix_forward_kernel(executor& ex, const_matrix<T> x, const selection& rows, const_vector<T> w, double gain,
                                 const_vector<T> gamma, const_vector<T> beta, double eps, matrix_view<T> y,
                                 norm_statistics<T> stats) {
    const index n = selected_rows(ex, rows);
    if (n == 0) return;
    arena_scope scratch(ex);
    const auto& plan = ex.plan<detail::dct_plan<T>>(x.width());
    auto table = ex.memory().template vector<T>(plan.filter_size());
    plan.filter_table(w.data, gain, 1, true, table.data);
    const detail::listed_rows<T> mean{stats.mean.data, 1, rows.rows}, rstd{stats.rstd.data, 1, rows.rows};
    detail::for_each_tile_range(
        ex, plan, n, detail::spectral_workspace(plan), [&](index first, index last, T* memory, int) {
            detail::filter_norm_tile<T>(plan, table.data, detail::selected<T>(x, rows, first), last - first, gamma.data,
                                        beta.data, eps, detail::selected<T>(y, rows, first), mean.from(first),
                                        rstd.from(first), memory);
        });
}

template <class T>
void spectral_mix_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> x, const selection& rows,
                                  const_vector<T> w, double gain, const_vector<T> gamma, norm_statistics<T> stats,
                                  matrix_view<T> dL_dx, out_vector<statistic<T>> dL_dw,
                                  out_vector<statistic<T>> dL_dgamma, out_vector<statistic<T>> dL_dbeta) {
    const index n = selected_rows(ex, rows), C = x.width();
    if (n == 0) return;
    arena_scope scratch(ex);
    const auto& plan = ex.plan<detail::dct_plan<T>>(C);
    const auto weight = detail::frequency_weights<T>(ex, w, gain, 1);
    const detail::listed_rows<const T> mean{stats.mean.data, 1, rows.rows}, rstd{stats.rstd.data, 1, rows.rows};
    const index stride = detail::align_up<T>(C);
    const detail::thread_sums<T> sums(ex, 3 * stride);  // of w, gamma, beta
    detail::for_each_tile_range(
        ex, plan, n, detail::filter_norm_backward_workspace(plan), [&](index first, index last, T* memory, int thread) {
            T* sum = sums.part.row(thread);
            detail::filter_norm_backward_tile<T>(
                plan, weight.data, detail::selected<T>(dL_dy, rows, first), detail::selected<T>(x, rows, first),
                last - first, gamma.data, mean.from(first), rstd.from(first), detail::selected<T>(dL_dx, rows, first),
                sum, sum + stride, sum + 2 * stride, memory);
        });
    sums.add_to(dL_dw, 0, static_cast<T>(gain));
    sums.add_to(dL_dgamma, stride, T(1));
    sums.add_to(dL_dbeta, 2 * stride, T(1));
}

}  // namespace spectral::cpu
