// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/spectral_route_mix.hpp: entropy, route and mix of a row that is read once
#pragma once
#include <spectral/cuda/detail/row_mix.hpp>
#include <spectral/ops/spectral_route_mix.hpp>

namespace spectral::cuda {

template <class T>
bool spectral_route_mix_forward_kernel(executor& ex, const_matrix<T> x, dct_scale scale,
                                       std::span<const double> thresholds, vector_view<statistic<T>> entropy,
                                       vector_view<row_index> op, const_vector<T> w, double gain, const_vector<T> gamma,
                                       const_vector<T> beta, double eps, matrix_view<T> y, norm_statistics<T> stats) {
    if constexpr (std::is_same_v<detail::compute<T>, float>) {
        if (x.empty() || thresholds.size() > 3) return false;
        detail::row_mix<T> all{selection::all(x.rows()), detail::rows_in(x)};
        all.take_entropy(scale, x.width(), entropy.data);
        all.take_routes(thresholds, op.data);
        all.take_filter(w, gain, y);
        all.take_norm(gamma, beta, eps, stats);
        return detail::try_row_mix(ex, "spectral_route_mix_forward", all, x.width());
    }
    return false;
}

}  // namespace spectral::cuda
