// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/linear.hpp: y = x Wᵀ + b
#pragma once
#include <spectral/ops/linear.hpp>
#include <spectral/reference/executor.hpp>

namespace spectral::reference {

template <class T, class W>
void linear_forward_kernel(executor&, const_matrix<T> x, matrix_view<const W> w, const_vector<T> b, matrix_view<T> y,
                           const_matrix<T> addend, double scale) {
    for (index n = 0; n < y.rows(); ++n)
        for (index o = 0; o < y.width(); ++o) {
            double sum = 0;
            for (index i = 0; i < x.width(); ++i) sum += double(x(n, i)) * widen<T>(w(o, i));
            y(n, o) = static_cast<T>(scale * sum + (b.data ? b[o] : T(0)) + (addend.data ? addend(n, o) : T(0)));
        }
}

template <class T, class W>
void linear_backward_input_kernel(executor&, const_matrix<T> dL_dy, matrix_view<const W> w, matrix_view<T> dL_dx,
                                  write mode, double scale) {
    for (index n = 0; n < dL_dx.rows(); ++n)
        for (index i = 0; i < dL_dx.width(); ++i) {
            double sum = 0;
            for (index o = 0; o < dL_dy.width(); ++o) sum += double(dL_dy(n, o)) * widen<T>(w(o, i));
            dL_dx(n, i) = static_cast<T>(scale * sum + (mode == write::accumulate ? dL_dx(n, i) : T(0)));
        }
}

template <class T>
void linear_backward_weight_kernel(executor&, view<const T, 2> dL_dy, const_matrix<T> x,
                                   matrix_view<statistic<T>> dL_dw, out_vector<statistic<T>> dL_db, write mode) {
    const bool adds = mode == write::accumulate;
    for (index o = 0; o < dL_dw.rows(); ++o) {
        for (index i = 0; i < dL_dw.width(); ++i) {
            double sum = adds ? dL_dw(o, i) : T(0);
            for (index n = 0; n < x.rows(); ++n) sum += double(dL_dy(n, o)) * x(n, i);
            dL_dw(o, i) = static_cast<T>(sum);
        }
        if (!dL_db.data) continue;
        double sum = adds ? dL_db[o] : T(0);
        for (index n = 0; n < x.rows(); ++n) sum += dL_dy(n, o);
        dL_db[o] = static_cast<T>(sum);
    }
}

}  // namespace spectral::reference
