// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/spectral_route_mix.hpp: entropy, choice of operator, and the mix of the rows that stay, in one
// step
//   H = entropy(x);  op[n] = number of thresholds that H[n] exceeds;  rows[o] = {n : op[n] = o};
//   y[n] = mix(x)[n] on rows[0]
// Without thresholds op is given (recorded routes are replayed). It is the composition of spectral_entropy.hpp,
// decision.hpp, partition.hpp and spectral_filter.hpp. A backend may provide a kernel that reads x once for all of it;
// the kernel returns false for widths or memory that it does not take, which are composed all the same.
// Shapes: x, y (N, d); w, γ, β (d); H, op, mean, rstd (N).
// Throws error for other shapes and for thresholds that are neither none nor one fewer than operators.
#pragma once
#include <spectral/ops/decision.hpp>
#include <spectral/ops/partition.hpp>
#include <spectral/ops/spectral_entropy.hpp>
#include <spectral/ops/spectral_filter.hpp>

namespace spectral {

// The selections' memory comes from the arena.
template <executor Exec, class T>
void spectral_route_mix_forward(Exec& ex, const_matrix<T> x, dct_norm norm, std::span<const double> thresholds,
                                vector_view<statistic<T>> entropy, vector_view<row_index> op, std::span<selection> rows,
                                const_vector<T> w, const_vector<T> gamma, const_vector<T> beta, double eps,
                                matrix_view<T> y, norm_statistics<T> stats) {
    constexpr const char* where = "spectral_route_mix_forward";
    check(thresholds.empty() || thresholds.size() + 1 == rows.size(), where, "number of thresholds: expected ",
          rows.size() - 1, ", or none with the operators given, found ", thresholds.size());
    check_shape(entropy, {x.rows()}, where, "entropy");
    check_shape(op, {x.rows()}, where, "op");
    check_shape(w, {x.width()}, where, "w");
    check_shape(gamma, {x.width()}, where, "gamma");
    check_shape(beta, {x.width()}, where, "beta");
    check_shape(y, {x.rows(), x.width()}, where, "y");
    check_shape(stats.mean, {x.rows()}, where, "mean");
    check_shape(stats.rstd, {x.rows()}, where, "rstd");
    const auto in_one = [&](const auto&... given) {
        if constexpr (requires { spectral_route_mix_forward_kernel(ex, given...); })
            return spectral_route_mix_forward_kernel(ex, given...);
        else
            return false;
    };
    if (in_one(x, forward_scale(norm), thresholds, entropy, op, w, filter_gain(norm), gamma, beta, eps, y, stats))
        return partition(ex, op, rows);
    spectral_entropy_forward(ex, x, norm, entropy);
    if (!thresholds.empty()) threshold_rows(ex, entropy, thresholds, op);
    partition(ex, op, rows);
    spectral_mix_forward(ex, x, rows[0], w, norm, gamma, beta, eps, y, stats);
}

}  // namespace spectral
