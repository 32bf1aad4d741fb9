// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/rms_norm.hpp: root-mean-square norm with its parameter
#pragma once
#include <spectral/layers/pass.hpp>
#include <spectral/ops/elementwise.hpp>
#include <spectral/ops/norm.hpp>

namespace spectral {

template <executor Exec, class T>
struct rms_norm {
    parameter<T> weight;  // (C)
    double eps = 1e-6;

    rms_norm(index width, double eps_) : weight({width}, initializer::ones()), eps(eps_) {}

    struct saved {
        const_matrix<T> x;
        vector_view<statistic<T>> rstd;
    };
    void forward(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y, saved& s) {
        s = {x, p.statistics(x.rows())};
        rms_norm_forward(p.ex, x, weight.vector(), eps, y, s.rstd);
    }
    // dL_dx = what the norm lets through + addend, the gradient that reaches x beside it (dL_dx itself, to add to it)
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s,
                  const_matrix<T> addend = {}) {
        rms_norm_backward(p.ex, dL_dy, s.x, weight.vector(), s.rstd, dL_dx, weight.grad_vector(), addend);
    }
    // of y = x + f(norm(x)), whose f asks for dL_dx_hat: dL_dx (= or +=) dL_dy + what the norm lets through
    void backward_residual(pass<Exec, T>& p, const_matrix<T> dL_dx_hat, const_matrix<T> dL_dy, matrix_view<T> dL_dx,
                           saved& s, write mode) {
        if (mode == write::overwrite) return backward(p, dL_dx_hat, dL_dx, s, dL_dy);
        backward(p, dL_dx_hat, dL_dx, s, dL_dx);
        add<Exec, T>(p.ex, dL_dy, dL_dx);
    }
    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        f(prefix + "weight", weight);
    }
};

}  // namespace spectral
