// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/identity_mixer.hpp: y = LN(x): the control in the DCT mixer's place
#pragma once
#include <spectral/layers/layer_norm.hpp>
#include <spectral/layers/token_operator.hpp>
#include <spectral/ops/partition.hpp>

namespace spectral {

// A width-axis filter is a linear map of one token. If a model with this operator does as well, the filter adds
// nothing.
template <executor Exec, class T>
struct identity_mixer {
    static constexpr const char* name = "identity_mix";
    layer_norm<Exec, T> norm;
    index layer;

    explicit identity_mixer(const operator_config<Exec, T>& c) : norm(c.width), layer(c.layer) {}

    struct saved {
        selection rows;
        matrix_view<T> packed;
        typename layer_norm<Exec, T>::saved norm;
    };

    void forward(pass<Exec, T>& p, const_matrix<T> x, const selection& rows, matrix_view<T> y, saved& s) {
        const operator_clock<Exec, T> clock(p, "identity");
        const index n = selected_rows(p.ex, rows);
        s.rows = rows;
        if (p.trace) p.trace->counts[layer].work.identity_rows += n;
        s.packed = p.matrix(n, x.width());
        auto out = p.matrix(n, x.width());
        gather_rows(p.ex, x, rows, s.packed);
        norm.forward(p, s.packed, out, s.norm);
        scatter_rows<Exec, T>(p.ex, out, rows, y, write::overwrite);
    }

    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s) {
        arena_scope scratch(p.ex);
        auto gradient = p.matrix(s.packed.rows(), s.packed.width()),
             dL_ds = p.matrix(s.packed.rows(), s.packed.width());
        gather_rows(p.ex, dL_dy, s.rows, gradient);
        norm.backward(p, gradient, dL_ds, s.norm);
        scatter_rows<Exec, T>(p.ex, dL_ds, s.rows, dL_dx, write::accumulate);
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        norm.visit_parameters(f, prefix + "norm.");
    }
};

}  // namespace spectral
