// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/dropout.hpp: zero with probability p, scale the rest by 1/(1 − p)
//   y[n,c] = keep(n,c) x[n,c] / (1 − p),   keep(n,c) = draw.bits(n C + c) ≥ 2³² p
// Linear in x with a mask that is a function of the draw: the backward pass is the same call on the gradient.
// (Srivastava et al. 2014, scaled while training) Shapes: x, y (N, C); may run in place.
// Throws error for p outside [0, 1) and where y has another shape than x.
#pragma once
#include <spectral/core/executor.hpp>
#include <spectral/core/random.hpp>

namespace spectral {

template <executor Exec, class T>
void dropout(Exec& ex, const_matrix<T> x, double p, random_stream draw, matrix_view<T> y) {
    check(p >= 0 && p < 1, "dropout", "probability must be in [0, 1), found ", p);
    check_shape(y, {x.rows(), x.width()}, "dropout", "y");
    if (p == 0 && x.data == y.data) return;
    SPECTRAL_CALL_KERNEL(dropout_kernel, ex, x, p, draw, y);
}

}  // namespace spectral
