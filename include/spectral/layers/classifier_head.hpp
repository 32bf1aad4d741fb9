// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/classifier_head.hpp: hidden states of a sequence to classes
//   mean over the real tokens -> Linear d->d, GELU, dropout -> Linear d->classes
#pragma once
#include <spectral/layers/linear.hpp>
#include <spectral/ops/activation.hpp>
#include <spectral/ops/dropout.hpp>
#include <spectral/ops/pool.hpp>

namespace spectral {

template <executor Exec, class T>
struct classifier_head {
    linear<Exec, T> dense, out;  // named 0 and 3, as the reference's Sequential
    double drop;

    classifier_head(index width, index classes, double dropout)
        : dense(width, width), out(width, classes), drop(dropout) {}

    struct saved {
        matrix_view<T> pooled, before, hidden;
    };
    void forward(pass<Exec, T>& p, const_matrix<T> h, matrix_view<T> logits, saved& s) {
        const index sequences = p.rows.sequences();
        s = {p.matrix(sequences, h.width()), p.matrix(sequences, h.width()), p.matrix(sequences, h.width())};
        mean_pool_forward(p.ex, h, p.rows, pool_scope::sequence, s.pooled);
        dense.forward(p, s.pooled, s.before);
        gelu_forward(p.ex, s.before, s.hidden);
        if (p.training()) dropout(p.ex, s.hidden, drop, p.draw(-2, 0), s.hidden);
        out.forward(p, s.hidden, logits);
    }
    // adds to dL_dh
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dlogits, matrix_view<T> dL_dh, saved& s) {
        auto dL_dhidden = p.matrix(s.hidden.rows(), s.hidden.width()),
             dL_dpooled = p.matrix(s.hidden.rows(), s.hidden.width());
        out.backward(p, dL_dlogits, s.hidden, dL_dhidden);
        dropout(p.ex, dL_dhidden, drop, p.draw(-2, 0), dL_dhidden);
        gelu_backward(p.ex, dL_dhidden, s.before, dL_dhidden, dense.hand_over_bias());
        dense.backward(p, dL_dhidden, s.pooled, dL_dpooled);
        mean_pool_backward(p.ex, dL_dpooled, p.rows, pool_scope::sequence, dL_dh);
    }
    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        dense.visit_parameters(f, prefix + "0.");
        out.visit_parameters(f, prefix + "3.");
    }
};

}  // namespace spectral
