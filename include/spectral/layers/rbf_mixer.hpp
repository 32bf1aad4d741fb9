// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/rbf_mixer.hpp: random-Fourier kernel mixing of v1
//   φ = [cos p, sin p], p = x ω/√R;  A = softmax(φ φᵀ) over the sequence;  y = LN(x + FFN(W_o (A φ) + b_o))
// That is attention with q = k = v = φ and scale 1. The reference masks nothing; causal is the default here, because
// a language model must not see the future. Throws error where one that is not causal decodes.
#pragma once
#include <spectral/layers/feed_forward.hpp>
#include <spectral/layers/layer_norm.hpp>
#include <spectral/layers/token_operator.hpp>
#include <spectral/ops/attention.hpp>
#include <spectral/ops/elementwise.hpp>
#include <spectral/ops/partition.hpp>
#include <spectral/ops/random_features.hpp>

namespace spectral {

template <executor Exec, class T>
struct rbf_mixer {
    static constexpr const char* name = "rbf_mix";
    parameter<T> omega;  // (C, R), fixed: entries of variance 2 γ
    linear<Exec, T> out_proj;  // (C, 2R)
    feed_forward<Exec, T> ffn;
    layer_norm<Exec, T> norm;
    operator_config<Exec, T> config;

    explicit rbf_mixer(const operator_config<Exec, T>& c)
        : omega({c.width, c.n_random_features}, initializer::normal(std::sqrt(2 * c.rbf_gamma))),
          out_proj(2 * c.n_random_features, c.width),
          ffn(c.width, c.dropout, c.layer, 6),
          norm(c.width),
          config(c) {
        omega.trainable = false;
    }

    struct saved {
        selection rows;
        row_map q_rows;
        matrix_view<T> phi, q, out, packed, projected;  // (N, 2R), (n, 2R), (n, 2R), (n, C), (n, C)
        matrix_view<statistic<T>> lse;  // (n, 1)
        typename feed_forward<Exec, T>::saved ffn;
        typename layer_norm<Exec, T>::saved norm;
    };

    void forward(pass<Exec, T>& p, const_matrix<T> x, const selection& rows, matrix_view<T> y, saved& s) {
        const operator_clock<Exec, T> clock(p, "rbf");
        const index n = selected_rows(p.ex, rows), C = x.width(), features = 2 * omega.shape[1];
        s.rows = rows;
        s.phi = {};
        if (n == 0 && !p.decode) return;
        s.phi = p.matrix(x.rows(), features);
        s.q = p.matrix(n, features);
        s.packed = p.matrix(n, C);
        s.q_rows = select_rows(p.ex, p.rows, rows);
        random_features_forward(p.ex, x, omega.matrix(), s.phi);
        gather_rows(p.ex, s.phi, rows, s.q);
        gather_rows(p.ex, x, rows, s.packed);

        const_matrix<T> keys = s.phi;
        row_map k_rows = p.rows;
        if (p.decode) {
            check(config.rbf_causal, "rbf_mixer", "a bidirectional RBF mixer reads later tokens: it cannot generate");
            auto cache = p.decode->features[static_cast<std::size_t>(config.layer)].view();
            kv_append<Exec, T>(p.ex, s.phi, s.phi, p.rows, cache);
            keys = cache.k;
            k_rows = cache.map();
        }
        s.out = p.matrix(n, features);
        s.lse = p.statistics(n, 1);
        attention_forward(p.ex, s.q, keys, keys, s.q_rows, k_rows, options(), s.out, s.lse);
        s.projected = p.matrix(n, C);
        auto mixed = p.matrix(n, C), result = p.matrix(n, C);
        out_proj.forward(p, s.out, s.projected);
        ffn.forward(p, s.projected, mixed, s.ffn);
        norm.forward_add(p, s.packed, mixed, result, s.norm);
        scatter_rows<Exec, T>(p.ex, result, rows, y, write::overwrite);
        if (!p.trace) return;
        layer_work& w = p.trace->counts[config.layer].work;
        w.rbf_rows += n;
        w.rbf_key_rows += x.rows();
        w.rbf_pairs += visible_pairs(p.ex, s.q_rows, k_rows, config.rbf_causal);
    }

    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s) {
        if (!s.phi.data) return;
        arena_scope scratch(p.ex);
        const index n = s.q.rows(), C = dL_dx.width(), features = s.q.width(), N = s.phi.rows();
        auto dL_dsum = p.matrix(n, C), work = p.matrix(n, C), dL_dprojected = p.matrix(n, C),
             dL_dout = p.matrix(n, features);
        gather_rows(p.ex, dL_dy, s.rows, work);
        norm.backward(p, work, dL_dsum, s.norm);
        ffn.backward(p, dL_dsum, dL_dprojected, s.ffn, write::overwrite);
        out_proj.backward(p, dL_dprojected, s.out, dL_dout);

        auto dL_dq = p.matrix(n, features), dL_dk = p.matrix(N, features), dL_dphi = p.matrix(N, features);
        attention_backward(p.ex, dL_dout, s.q, s.phi, s.phi, s.out, s.lse, s.q_rows, p.rows, options(), dL_dq, dL_dk,
                           dL_dphi);
        add(p.ex, dL_dk, dL_dphi);
        scatter_rows<Exec, T>(p.ex, dL_dq, s.rows, dL_dphi, write::accumulate);
        random_features_backward(p.ex, dL_dphi, s.phi, omega.matrix(), dL_dx);
        scatter_rows<Exec, T>(p.ex, dL_dsum, s.rows, dL_dx, write::accumulate);
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        f(prefix + "omega", omega);
        out_proj.visit_parameters(f, prefix + "out_proj.");
        ffn.visit_parameters(f, prefix + "ffn.");
        norm.visit_parameters(f, prefix + "norm.");
    }
    index cache_width() const { return 2 * omega.shape[1]; }
    static constexpr auto cache = &decode_state<Exec, T>::features;

private:
    attention_options options() const { return {1, 1, 1.0, config.rbf_causal, 0, {}}; }
};

}  // namespace spectral
