// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/grouped_attention.hpp: x + W_o attention(RMSNorm(x)): pre-norm, grouped-query, rotary, causal
//   q = W_q x̂ + b_q (H·D);  k = W_k x̂ + b_k, v = W_v x̂ + b_v (Hkv·D);  W_o without bias          (Qwen2)
#pragma once
#include <spectral/layers/linear.hpp>
#include <spectral/layers/rms_norm.hpp>
#include <spectral/ops/attention.hpp>
#include <spectral/ops/rotary.hpp>

#include <memory>

namespace spectral {

template <executor Exec, class T>
struct grouped_attention {
    rms_norm<Exec, T> norm;
    linear<Exec, T> q_proj, k_proj, v_proj, o_proj;
    index heads, kv_heads, layer;
    std::shared_ptr<tensor<Exec, statistic<T>, 2>> rotary_table;

    grouped_attention(index width, index heads_, index kv_heads_, index head_width, double eps, index layer_,
                      std::shared_ptr<tensor<Exec, statistic<T>, 2>> table)
        : norm(width, eps),
          q_proj(width, heads_ * head_width),
          k_proj(width, kv_heads_ * head_width),
          v_proj(width, kv_heads_ * head_width),
          o_proj(heads_ * head_width, width, false),
          heads(heads_),
          kv_heads(kv_heads_),
          layer(layer_),
          rotary_table(std::move(table)) {}

    // key/value room of this layer; made by the first sequence that writes
    kv_cache<T> own_cache(pass<Exec, T>& p) const {
        auto& kept = p.decode->layers[static_cast<std::size_t>(layer)];
        if (!kept.capacity) p.decode->make_cache(p.ex, layer, p.rows.sequences(), p.decode->capacity, k_proj.out());
        return kept.view();
    }
    attention_half<T> half(const pass<Exec, T>& p) {
        return {.gamma = norm.weight.vector(),
                .eps = norm.eps,
                .q = q_proj.map(),
                .k = k_proj.map(),
                .v = v_proj.map(),
                .o = o_proj.map(),
                .rotary = rotary_table->view(),
                .heads = heads,
                .kv_heads = kv_heads,
                .scale = options().scale,
                .next = p.next_weights};
    }

    struct saved {
        matrix_view<T> x_hat, q, k, v, out;  // (N, C), (N, H·D), (N, Hkv·D) twice, (N, H·D)
        matrix_view<statistic<T>> lse;  // (N, H)
        typename rms_norm<Exec, T>::saved norm;
    };

    void forward(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y, saved& s) {
        const operator_clock<Exec, T> clock(p, "attention");
        const index n = x.rows();
        if (p.decode && attention_half_forward<Exec, T>(p.ex, x, half(p), p.rows, own_cache(p), y))
            return count(p, n, own_cache(p).map());
        make_keys(p, x, s);
        s.q = p.matrix(n, q_proj.out());
        q_proj.forward(p, s.x_hat, s.q);
        rotary(p.ex, s.q, p.rows.position, rotary_table->view(), rotation::forward);
        const_matrix<T> k = s.k, v = s.v;
        row_map k_rows = p.rows;
        if (p.decode) {
            const auto cache = own_cache(p);
            kv_append<Exec, T>(p.ex, s.k, s.v, p.rows, cache);
            k = cache.k;
            v = cache.v;
            k_rows = cache.map();
        }
        s.out = p.matrix(n, q_proj.out());
        s.lse = p.statistics(n, heads);
        attention_forward(p.ex, s.q, k, v, p.rows, k_rows, options(), s.out, s.lse);
        o_proj.forward(p, s.out, y, x);
        count(p, n, k_rows);
    }

    // A closed block that still keeps the cache whole (`write-kv`): keys and values of x, nothing else.
    void write_keys(pass<Exec, T>& p, const_matrix<T> x) {
        saved s;
        make_keys(p, x, s);
        kv_append<Exec, T>(p.ex, s.k, s.v, p.rows, own_cache(p));
        if (p.trace) p.trace->counts[layer].work.key_rows += x.rows();
    }

    // adds to dL_dx, or writes it
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s,
                  write mode = write::accumulate) {
        arena_scope scratch(p.ex);
        const index n = dL_dy.rows();
        auto dL_dout = p.matrix(n, q_proj.out()), dL_dq = p.matrix(n, q_proj.out());
        auto dL_dk = p.matrix(n, k_proj.out()), dL_dv = p.matrix(n, v_proj.out()),
             dL_dx_hat = p.matrix(n, dL_dx.width());
        o_proj.backward(p, dL_dy, s.out, dL_dout);
        attention_backward(p.ex, dL_dout, s.q, s.k, s.v, s.out, s.lse, p.rows, p.rows, options(), dL_dq, dL_dk, dL_dv,
                           rotary_table->view());
        q_proj.backward(p, dL_dq, s.x_hat, dL_dx_hat);
        k_proj.backward(p, dL_dk, s.x_hat, dL_dx_hat, write::accumulate);
        v_proj.backward(p, dL_dv, s.x_hat, dL_dx_hat, write::accumulate);
        norm.backward_residual(p, dL_dx_hat, dL_dy, dL_dx, s.norm, mode);
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        norm.visit_parameters(f, prefix + "input_layernorm.");
        q_proj.visit_parameters(f, prefix + "self_attn.q_proj.");
        k_proj.visit_parameters(f, prefix + "self_attn.k_proj.");
        v_proj.visit_parameters(f, prefix + "self_attn.v_proj.");
        o_proj.visit_parameters(f, prefix + "self_attn.o_proj.");
    }

private:
    void count(pass<Exec, T>& p, index n, const row_map& k_rows) const {
        if (!p.trace) return;
        layer_work& w = p.trace->counts[layer].work;
        w.attention_rows += n;
        w.key_rows += n;
        w.attention_pairs += visible_pairs(p.ex, p.rows, k_rows, true);
    }
    attention_options options() const {
        return {heads, kv_heads, 1 / std::sqrt(static_cast<double>(q_proj.out() / heads)), true, 0, {}};
    }
    void make_keys(pass<Exec, T>& p, const_matrix<T> x, saved& s) {
        s.x_hat = p.matrix(x.rows(), x.width());
        s.k = p.matrix(x.rows(), k_proj.out());
        s.v = p.matrix(x.rows(), v_proj.out());
        norm.forward(p, x, s.x_hat, s.norm);
        k_proj.forward(p, s.x_hat, s.k);
        v_proj.forward(p, s.x_hat, s.v);
        rotary(p.ex, s.k, p.rows.position, rotary_table->view(), rotation::forward);
    }
};

}  // namespace spectral
