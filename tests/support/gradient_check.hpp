// SPDX-License-Identifier: Apache-2.0
// tests/support/gradient_check.hpp: spectral::check_gradient as a test assertion
#pragma once
#include <spectral/train/gradient_check.hpp>
#include <support/catch.hpp>

#include <vector>

namespace spectral::test {

// Σ a ⊙ b over host values: the scalar whose gradient with respect to b is a.
inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

// Fails unless finite differences of loss() agree with dL_dx; `about` names operator and input.
template <class Exec, std::size_t Rank, class Loss>
void require_gradient(Exec& ex, view<double, Rank> x, std::type_identity_t<view<const double, Rank>> dL_dx, Loss&& loss,
                      const std::string& about, double bound = 1e-7) {
    const auto r = check_gradient(ex, x, dL_dx, loss);
    INFO(about << ": element (" << r.row << ", " << r.column << "): analytic " << r.analytic << ", numeric "
               << r.numeric << ", relative error " << r.error << " of " << r.checked << " elements checked");
    CHECK(r.error < bound);
}

}  // namespace spectral::test
