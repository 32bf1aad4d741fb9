// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/dropout.hpp: zero with probability p, scale the rest
#pragma once
#include <spectral/ops/dropout.hpp>
#include <spectral/reference/executor.hpp>

namespace spectral::reference {

template <class T>
void dropout_kernel(executor&, const_matrix<T> x, double p, random_stream draw, matrix_view<T> y) {
    const std::uint32_t threshold = probability_threshold(p);
    for (index n = 0; n < x.rows(); ++n)
        for (index c = 0; c < x.width(); ++c) {
            const bool keep = draw.bits(static_cast<std::uint64_t>(n * x.width() + c)) >= threshold;
            y(n, c) = keep ? static_cast<T>(x(n, c) / (1 - p)) : T(0);
        }
}

}  // namespace spectral::reference
