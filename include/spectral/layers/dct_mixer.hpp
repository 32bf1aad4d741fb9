// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/dct_mixer.hpp: y = LN(x + idct(w ⊙ dct(x))): cheap mixing of one token's features
// With a feed-forward of its own (v1): y = LN(x + FFN(idct(w ⊙ dct(x)))).
#pragma once
#include <spectral/layers/feed_forward.hpp>
#include <spectral/layers/layer_norm.hpp>
#include <spectral/layers/token_operator.hpp>
#include <spectral/ops/elementwise.hpp>
#include <spectral/ops/partition.hpp>
#include <spectral/ops/spectral_route_mix.hpp>

namespace spectral {

template <executor Exec, class T>
struct dct_mixer {
    static constexpr const char* name = "dct_mix";
    parameter<T> w;  // (C) one factor per frequency
    feed_forward<Exec, T> ffn;  // v1 only
    layer_norm<Exec, T> norm;
    spectral::dct_norm dct_norm;
    index layer;

    explicit dct_mixer(const operator_config<Exec, T>& c)
        : w({c.width}, initializer::ones()), norm(c.width), dct_norm(c.dct_norm), layer(c.layer) {
        if (c.own_feed_forward) ffn = feed_forward<Exec, T>(c.width, c.dropout, c.layer, 4);
    }

    struct saved {
        const_matrix<T> x;
        selection rows;
        norm_statistics<T> stats;  // of the fused form
        matrix_view<T> packed, filtered;  // v1: (n, C) selected rows of x and of filter(x)
        typename feed_forward<Exec, T>::saved ffn;
        typename layer_norm<Exec, T>::saved norm;
    };

    void forward(pass<Exec, T>& p, const_matrix<T> x, const selection& rows, matrix_view<T> y, saved& s) {
        const operator_clock<Exec, T> clock(p, "dct");
        s.x = x;
        s.rows = rows;
        if (p.trace) p.trace->counts[layer].work.dct_rows += selected_rows(p.ex, rows);
        if (ffn.used()) return forward_with_feed_forward(p, x, rows, y, s);
        s.stats = {p.statistics(x.rows()), p.statistics(x.rows())};
        spectral_mix_forward(p.ex, x, rows, w.vector(), dct_norm, norm.weight.vector(), norm.bias.vector(),
                             layer_norm_eps, y, s.stats);
    }

    // With the choice made on the way: op by thresholds, or given where there are none; rows by operator, of which
    // rows[0] are mixed. Not with a feed-forward of its own.
    bool routes() const { return !ffn.used(); }
    void route_forward(pass<Exec, T>& p, const_matrix<T> x, std::span<const double> thresholds,
                       vector_view<statistic<T>> entropy, vector_view<row_index> op, std::span<selection> rows,
                       matrix_view<T> y, saved& s) {
        s.x = x;
        s.stats = {p.statistics(x.rows()), p.statistics(x.rows())};
        spectral_route_mix_forward(p.ex, x, dct_norm, thresholds, entropy, op, rows, w.vector(), norm.weight.vector(),
                                   norm.bias.vector(), layer_norm_eps, y, s.stats);
        s.rows = rows[0];
        if (p.trace) p.trace->counts[layer].work.dct_rows += selected_rows(p.ex, s.rows);
    }

    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s) {
        if (ffn.used()) return backward_with_feed_forward(p, dL_dy, dL_dx, s);
        spectral_mix_backward(p.ex, dL_dy, s.x, s.rows, w.vector(), dct_norm, norm.weight.vector(), s.stats, dL_dx,
                              p.gradient_vector_of(w), p.gradient_vector_of(norm.weight),
                              p.gradient_vector_of(norm.bias));
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        f(prefix + "w", w);
        ffn.visit_parameters(f, prefix + "ffn.");
        norm.visit_parameters(f, prefix + "norm.");
    }

private:
    void forward_with_feed_forward(pass<Exec, T>& p, const_matrix<T> x, const selection& rows, matrix_view<T> y,
                                   saved& s) {
        const index n = selected_rows(p.ex, rows), C = x.width();
        s.packed = p.matrix(n, C);
        s.filtered = p.matrix(n, C);
        auto mixed = p.matrix(n, C), out = p.matrix(n, C);
        gather_rows(p.ex, x, rows, s.packed);
        spectral_filter_forward(p.ex, s.packed, w.vector(), dct_norm, s.filtered);
        ffn.forward(p, s.filtered, mixed, s.ffn);
        norm.forward_add(p, s.packed, mixed, out, s.norm);
        scatter_rows<Exec, T>(p.ex, out, rows, y, write::overwrite);
    }
    void backward_with_feed_forward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s) {
        arena_scope scratch(p.ex);
        const index n = s.packed.rows(), C = s.packed.width();
        auto dL_dpacked = p.matrix(n, C), dL_ds = p.matrix(n, C), dL_dfiltered = p.matrix(n, C);
        gather_rows(p.ex, dL_dy, s.rows, dL_ds);
        norm.backward(p, dL_ds, dL_dpacked, s.norm);
        ffn.backward(p, dL_dpacked, dL_dfiltered, s.ffn, write::overwrite);
        spectral_filter_backward(p.ex, dL_dfiltered, s.packed, w.vector(), dct_norm, dL_dpacked,
                                 p.gradient_vector_of(w));
        scatter_rows<Exec, T>(p.ex, dL_dpacked, s.rows, dL_dx, write::accumulate);
    }
};

}  // namespace spectral
