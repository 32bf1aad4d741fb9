// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/layer_norm.hpp: layer norm with its parameters, alone and after a residual sum
#pragma once
#include <spectral/layers/pass.hpp>
#include <spectral/ops/norm.hpp>

namespace spectral {

// The published models' ε.
inline constexpr double layer_norm_eps = 1e-5;

template <executor Exec, class T>
struct layer_norm {
    parameter<T> weight, bias;  // (C)

    layer_norm() = default;
    explicit layer_norm(index width) : weight({width}, initializer::ones()), bias({width}, initializer::zeros()) {}

    struct saved {
        const_matrix<T> s;  // (N, C) what was normalised
        vector_view<statistic<T>> mean, rstd;  // (N)
    };

    // y = LN(x)
    void forward(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y, saved& s) {
        s = {x, p.statistics(x.rows()), p.statistics(x.rows())};
        layer_norm_forward(p.ex, x, weight.vector(), bias.vector(), layer_norm_eps, y, s.mean, s.rstd);
    }
    // y = LN(x + r); r becomes the sum, which backward reads
    void forward_add(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> r, matrix_view<T> y, saved& s) {
        s = {r, p.statistics(x.rows()), p.statistics(x.rows())};
        add_layer_norm_forward(p.ex, x, r, weight.vector(), bias.vector(), layer_norm_eps, r, y, s.mean, s.rstd);
    }
    // dL_ds: gradient of what was normalised, so of x and of r alike; of_bias: that of the bias of the map that made r
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_ds, saved& s,
                  write mode = write::overwrite, const bias_gradient<T>& of_bias = {}) {
        layer_norm_backward(p.ex, dL_dy, s.s, weight.vector(), s.mean, s.rstd, dL_ds, p.gradient_vector_of(weight),
                            p.gradient_vector_of(bias), mode, of_bias);
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        f(prefix + "weight", weight);
        f(prefix + "bias", bias);
    }
};

}  // namespace spectral
