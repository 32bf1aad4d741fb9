// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/self_attention.hpp: y = LN(x + W_o attention(x)): multi-head, rotary, causal
//
// Queries and the output projection run on the selected rows only. Keys and values come from every row
// (kv_scope::all, as the reference: a token that was routed elsewhere still informs later ones) or from the selected
// rows. So the work that a share s of the rows leaves is s·(q, out, scores) + (k, v).
// Throws error for a width that is no multiple of the heads.
#pragma once
#include <spectral/layers/layer_norm.hpp>
#include <spectral/layers/linear.hpp>
#include <spectral/layers/token_operator.hpp>
#include <spectral/ops/attention.hpp>
#include <spectral/ops/elementwise.hpp>
#include <spectral/ops/partition.hpp>

namespace spectral {

template <executor Exec, class T>
struct self_attention {
    static constexpr const char* name = "attn";
    linear<Exec, T> qkv, out_proj;  // qkv: rows of q, then k, then v
    layer_norm<Exec, T> norm;
    operator_config<Exec, T> config;

    explicit self_attention(const operator_config<Exec, T>& c)
        : qkv(c.width, 3 * c.width), out_proj(c.width, c.width), norm(c.width), config(c) {
        check(c.heads > 0 && c.width % c.heads == 0, "self_attention", "width ", c.width,
              " must be a multiple of heads ", c.heads);
    }

    struct saved {
        selection rows;  // queries
        row_map q_rows, k_rows;
        const_matrix<T> x_q, x_kv;  // (n, C) rows that give queries, (m, C) rows that give keys and values
        matrix_view<T> q, kv, out;  // (n, C), (m, 2C), (n, C)
        matrix_view<statistic<T>> lse;  // (n, H)
        typename layer_norm<Exec, T>::saved norm;
    };

    void forward(pass<Exec, T>& p, const_matrix<T> x, const selection& rows, matrix_view<T> y, saved& s) {
        const operator_clock<Exec, T> clock(p, "attention");
        const index C = x.width();
        const bool routed_keys = config.kv_scope == kv_scope::routed;
        s = {};  // of an earlier pass: backward must not take its rows for this one's
        s.rows = rows;
        // where the number of rows is still on its way from a device, the keys of all rows come first
        const bool keys_first = sends_counts<Exec> && !rows.is_all() && !routed_keys;
        if (keys_first) make_keys(p, x, p.rows, s);
        const index n = selected_rows(p.ex, rows);
        // nobody asks, and nobody will: no keys either
        if (n == 0 && (!p.decode || routed_keys)) return count(p, 0, s);

        s.q_rows = select_rows(p.ex, p.rows, rows);
        s.x_q = packed(p, x, rows, n);
        if (!keys_first) make_keys(p, routed_keys ? s.x_q : x, routed_keys ? s.q_rows : p.rows, s);
        s.q = p.matrix(n, C);
        qkv.forward_part(p, 0, C, s.x_q, s.q);
        if (config.rotary) rotary(p.ex, s.q, s.q_rows.position, config.rotary->view(), rotation::forward);
        auto k = s.kv.columns(0, C), v = s.kv.columns(C, C);
        if (p.decode) {  // keys of this call join those of earlier ones
            auto cache = p.decode->layers[static_cast<std::size_t>(config.layer)].view();
            kv_append(p.ex, k, v, s.k_rows, cache);
            k = cache.k;
            v = cache.v;
            s.k_rows = cache.map();
        }
        s.out = p.matrix(n, C);
        s.lse = p.statistics(n, config.heads);
        attention_forward(p.ex, s.q, k, v, s.q_rows, s.k_rows, options(p), s.out, s.lse);

        auto sum = p.matrix(n, C);
        out_proj.forward(p, s.out, sum);
        auto result = rows.is_all() ? y : p.matrix(n, C);
        norm.forward_add(p, s.x_q, sum, result, s.norm);
        if (!rows.is_all()) scatter_rows<Exec, T>(p.ex, result, rows, y, write::overwrite);
        count(p, n, s);
    }

    // adds to dL_dx, or writes it
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s,
                  write mode = write::accumulate) {
        const index n = s.q.rows(), m = s.kv.rows(), C = dL_dx.width();
        const bool direct = mode == write::overwrite && s.rows.is_all() && n > 0;  // dL_dx begins as the residual's
        const bool keys_write = mode == write::overwrite && !direct && n > 0 && config.kv_scope == kv_scope::all;
        if (mode == write::overwrite && !direct && !keys_write) p.clear(dL_dx);
        if (n == 0) return;
        arena_scope scratch(p.ex);
        auto dL_dsum = direct ? dL_dx : p.matrix(n, C), dL_dout = p.matrix(n, C), dL_dq = p.matrix(n, C),
             dL_dkv = p.matrix(m, 2 * C);
        norm.backward(p, packed(p, dL_dy, s.rows, n), dL_dsum, s.norm, write::overwrite, out_proj.hand_over_bias());
        out_proj.backward(p, dL_dsum, s.out, dL_dout);

        auto dL_dk = dL_dkv.columns(0, C), dL_dv = dL_dkv.columns(C, C);
        attention_backward<Exec, T>(p.ex, dL_dout, s.q, s.kv.columns(0, C), s.kv.columns(C, C), s.out, s.lse, s.q_rows,
                                    s.k_rows, options(p), dL_dq, dL_dk, dL_dv,
                                    config.rotary ? config.rotary->view() : const_matrix<statistic<T>>{});
        // dL_dx gets three parts: the residual and the queries' from the selected rows, the keys' from theirs
        qkv.backward_part(p, 0, C, dL_dq, s.x_q, dL_dsum, write::accumulate);
        const bool keys_from_all = config.kv_scope == kv_scope::all;
        qkv.backward_part(p, C, 2 * C, dL_dkv, s.x_kv, keys_from_all ? dL_dx : dL_dsum,
                          keys_write ? write::overwrite : write::accumulate);
        if (!direct) scatter_rows<Exec, T>(p.ex, dL_dsum, s.rows, dL_dx, write::accumulate);
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        qkv.visit_parameters(f, prefix + "qkv.");
        out_proj.visit_parameters(f, prefix + "out_proj.");
        norm.visit_parameters(f, prefix + "norm.");
    }
    index cache_width() const { return config.width; }
    static constexpr auto cache = &decode_state<Exec, T>::layers;

private:
    void make_keys(pass<Exec, T>& p, const_matrix<T> x, const row_map& rows, saved& s) {
        const index C = x.width();
        s.x_kv = x;
        s.k_rows = rows;
        s.kv = p.matrix(x.rows(), 2 * C);
        qkv.forward_part(p, C, 2 * C, x, s.kv);
        if (config.rotary) rotary(p.ex, s.kv.columns(0, C), rows.position, config.rotary->view(), rotation::forward);
    }
    attention_options options(const pass<Exec, T>& p) const {
        return {config.heads,
                config.heads,
                1 / std::sqrt(static_cast<double>(config.width / config.heads)),
                config.causal,
                p.training() ? config.dropout : 0,
                p.draw(config.layer, 0)};
    }
    // the selected rows of x in memory of their own; x itself if that is all of them
    static const_matrix<T> packed(pass<Exec, T>& p, const_matrix<T> x, const selection& rows, index n) {
        if (rows.is_all()) return x;
        auto out = p.matrix(n, x.width());
        gather_rows(p.ex, x, rows, out);
        return out;
    }
    void count(pass<Exec, T>& p, index n, const saved& s) const {
        if (!p.trace) return;
        layer_work& w = p.trace->counts[config.layer].work;
        w.attention_rows += n;
        if (n == 0 && !p.decode) return;
        w.key_rows += s.kv.rows();
        w.attention_pairs += visible_pairs(p.ex, s.q_rows, s.k_rows, config.causal);
    }
};

}  // namespace spectral
