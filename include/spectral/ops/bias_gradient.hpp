// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/bias_gradient.hpp: the gradient of a bias, summed by the operator that makes dL_dy
//   y = … + b:   dL_db = Σ_n dL_dy[n]
// That operator has the rows at hand, and linear_backward_weight would read them once more.
#pragma once
#include <spectral/core/executor.hpp>
#include <spectral/core/half.hpp>

namespace spectral {

// Where such sums go. Empty: nobody asks for them.
template <class T>
struct bias_gradient {
    vector_view<statistic<T>> sums{};  // (C)
    write mode = write::accumulate;

    // by a backend: the sum of column c is there
    constexpr void put(index c, statistic<T> sum) const {
        if (sums.data) sums.data[c] = mode == write::accumulate ? sums.data[c] + sum : sum;
    }
};
// An argument of operators, never deduced.
template <class T>
using out_bias = std::type_identity_t<bias_gradient<T>>;

// Throws error for sums of another width.
template <class T>
void check_bias(const bias_gradient<T>& bias, index width, std::string_view where) {
    if (bias.sums.data) check_shape(bias.sums, {width}, where, "bias gradient");
}

}  // namespace spectral
