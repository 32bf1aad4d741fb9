// SPDX-License-Identifier: Apache-2.0
// tests/backend_stub/spectral/stub/linear.hpp: y = scale · x Wᵀ + b + addend; shapes were checked by ops/linear.hpp
#pragma once
#include <spectral/ops/linear.hpp>
#include <spectral/stub/executor.hpp>

namespace spectral::stub {

template <class T, class W>
void linear_forward_kernel(executor&, const_matrix<T> x, matrix_view<const W> w, const_vector<T> b, matrix_view<T> y,
                           const_matrix<T> addend, double scale) {
    for (index n = 0; n < y.rows(); ++n)
        for (index o = 0; o < y.width(); ++o) {
            T sum = 0;
            for (index i = 0; i < x.width(); ++i) sum += x(n, i) * widen<T>(w(o, i));
            y(n, o) = static_cast<T>(scale) * sum + (b.data ? b[o] : T(0)) + (addend.data ? addend(n, o) : T(0));
        }
}

template <class T, class W>
void linear_backward_input_kernel(executor&, const_matrix<T> dL_dy, matrix_view<const W> w, matrix_view<T> dL_dx,
                                  write mode, double scale) {
    for (index n = 0; n < dL_dx.rows(); ++n)
        for (index i = 0; i < dL_dx.width(); ++i) {
            T sum = 0;
            for (index o = 0; o < dL_dy.width(); ++o) sum += dL_dy(n, o) * widen<T>(w(o, i));
            sum *= static_cast<T>(scale);
            dL_dx(n, i) = mode == write::accumulate ? dL_dx(n, i) + sum : sum;
        }
}

template <class T>
void linear_backward_weight_kernel(executor&, view<const T, 2> dL_dy, const_matrix<T> x,
                                   matrix_view<statistic<T>> dL_dw, out_vector<statistic<T>> dL_db, write mode) {
    for (index o = 0; o < dL_dw.rows(); ++o) {
        if (mode == write::overwrite) {
            for (index i = 0; i < dL_dw.width(); ++i) dL_dw(o, i) = 0;
            if (dL_db.data) dL_db[o] = 0;
        }
        for (index n = 0; n < x.rows(); ++n) {
            for (index i = 0; i < dL_dw.width(); ++i) dL_dw(o, i) += dL_dy(n, o) * x(n, i);
            if (dL_db.data) dL_db[o] += dL_dy(n, o);
        }
    }
}

}  // namespace spectral::stub
