// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/feed_forward.hpp: W2 dropout(GELU(W1 x + b1)) + b2, then dropout; width 4 C inside
#pragma once
#include <spectral/layers/linear.hpp>
#include <spectral/ops/activation.hpp>
#include <spectral/ops/dropout.hpp>

namespace spectral {

template <executor Exec, class T>
struct feed_forward {
    linear<Exec, T> up, down;  // named 0 and 3: 1 and 2 are GELU and dropout in the reference's Sequential
    double drop = 0;
    index layer = 0, site = 0;  // which random numbers its dropout draws

    feed_forward() = default;
    feed_forward(index width, double dropout, index layer_, index site_)
        : up(width, 4 * width), down(4 * width, width), drop(dropout), layer(layer_), site(site_) {}

    struct saved {
        const_matrix<T> x;  // (N, C)
        matrix_view<T> before;  // (N, 4C) before GELU
        matrix_view<T> hidden;  // (N, 4C) after GELU and dropout
    };

    // overwrites y (N, C)
    void forward(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y, saved& s) {
        const operator_clock<Exec, T> clock(p, "feed_forward");
        s = {x, p.matrix(x.rows(), up.out()), p.matrix(x.rows(), up.out())};
        up.forward(p, x, s.before);
        gelu_forward(p.ex, s.before, s.hidden);
        if (p.training()) dropout(p.ex, s.hidden, drop, p.draw(layer, site), s.hidden);
        down.forward(p, s.hidden, y);
        if (p.training()) dropout(p.ex, y, drop, p.draw(layer, site + 1), y);
    }

    // linear's, of the bias that is added last; with dropout behind it nobody else can sum its gradient
    bias_gradient<T> hand_over_bias() { return drop > 0 ? bias_gradient<T>{} : down.hand_over_bias(); }

    // dL_dx (= or +=) may be the memory of dL_dy
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s, write mode) {
        arena_scope scratch(p.ex);
        auto dL_dhidden = p.matrix(s.hidden.rows(), s.hidden.width());
        if (drop > 0) {
            auto kept = p.matrix(dL_dy.rows(), dL_dy.width());
            dropout(p.ex, dL_dy, drop, p.draw(layer, site + 1), kept);
            down.backward(p, kept, s.hidden, dL_dhidden);
        } else {
            down.backward(p, dL_dy, s.hidden, dL_dhidden);
        }
        dropout(p.ex, dL_dhidden, drop, p.draw(layer, site), dL_dhidden);
        gelu_backward(p.ex, dL_dhidden, s.before, dL_dhidden, up.hand_over_bias());
        up.backward(p, dL_dhidden, s.x, dL_dx, mode);
    }

    bool used() const { return up.weight.used(); }
    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        up.visit_parameters(f, prefix + "0.");
        down.visit_parameters(f, prefix + "3.");
    }
};

}  // namespace spectral
