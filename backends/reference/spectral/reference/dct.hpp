// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/dct.hpp: the orthonormal DCT-II by its definition
#pragma once
#include <spectral/ops/dct.hpp>
#include <spectral/reference/executor.hpp>

#include <cmath>
#include <vector>

namespace spectral::reference {

// C[k,n] = √(2/d) cos(π (2n+1) k / (2d)), row 0 divided by √2. The angle is reduced exactly in integers.
inline std::vector<double> dct_matrix(index d) {
    std::vector<double> table(static_cast<std::size_t>(4 * d)), c(static_cast<std::size_t>(d * d));
    for (index j = 0; j < 4 * d; ++j)
        table[static_cast<std::size_t>(j)] =
            std::cos(3.14159265358979323846 * static_cast<double>(j) / (2.0 * static_cast<double>(d)));
    for (index k = 0; k < d; ++k)
        for (index n = 0; n < d; ++n)
            c[static_cast<std::size_t>(k * d + n)] = std::sqrt((k == 0 ? 1.0 : 2.0) / static_cast<double>(d)) *
                                                     table[static_cast<std::size_t>((2 * n + 1) * k % (4 * d))];
    return c;
}

template <class T>
void dct_kernel(executor&, const_matrix<T> x, dct_scale scale, matrix_view<T> y) {
    const index d = x.width();
    const auto c = dct_matrix(d);
    std::vector<double> out(static_cast<std::size_t>(d));
    for (index r = 0; r < x.rows(); ++r) {
        for (index k = 0; k < d; ++k) {
            double sum = 0;
            for (index n = 0; n < d; ++n) sum += c[static_cast<std::size_t>(k * d + n)] * x(r, n);
            out[static_cast<std::size_t>(k)] = sum * (k == 0 ? scale.first : scale.rest);
        }
        for (index k = 0; k < d; ++k) y(r, k) = static_cast<T>(out[static_cast<std::size_t>(k)]);
    }
}

template <class T>
void idct_kernel(executor&, const_matrix<T> x, dct_scale scale, matrix_view<T> y) {
    const index d = x.width();
    const auto c = dct_matrix(d);
    std::vector<double> out(static_cast<std::size_t>(d));
    for (index r = 0; r < x.rows(); ++r) {
        for (index n = 0; n < d; ++n) {
            double sum = 0;
            for (index k = 0; k < d; ++k)
                sum += c[static_cast<std::size_t>(k * d + n)] * (k == 0 ? scale.first : scale.rest) * x(r, k);
            out[static_cast<std::size_t>(n)] = sum;
        }
        for (index n = 0; n < d; ++n) y(r, n) = static_cast<T>(out[static_cast<std::size_t>(n)]);
    }
}

}  // namespace spectral::reference
