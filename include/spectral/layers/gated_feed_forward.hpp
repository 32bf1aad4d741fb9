// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/gated_feed_forward.hpp: x + W_down (SiLU(W_gate x̂) ⊙ W_up x̂), x̂ = RMSNorm(x)      (SwiGLU,
// Qwen2)
#pragma once
#include <spectral/layers/linear.hpp>
#include <spectral/layers/rms_norm.hpp>
#include <spectral/ops/activation.hpp>

namespace spectral {

template <executor Exec, class T>
struct gated_feed_forward {
    rms_norm<Exec, T> norm;
    linear<Exec, T> gate_proj, up_proj, down_proj;
    index layer;

    gated_feed_forward(index width, index inner, double eps, index layer_)
        : norm(width, eps),
          gate_proj(width, inner, false),
          up_proj(width, inner, false),
          down_proj(inner, width, false),
          layer(layer_) {}

    std::array<weight_view<T>, 3> weights() const {
        return {gate_proj.weight.matrix(), up_proj.weight.matrix(), down_proj.weight.matrix()};
    }

    feed_forward_half<T> half() {
        return {norm.weight.vector(), norm.eps, gate_proj.map(), up_proj.map(), down_proj.map()};
    }

    struct saved {
        matrix_view<T> x_hat, gate, up, hidden;  // (N, C), (N, F) three times; hidden only where W_down asks for it
        typename rms_norm<Exec, T>::saved norm;
    };

    void forward(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y, saved& s) {
        const operator_clock<Exec, T> clock(p, "feed_forward");
        const index n = x.rows(), F = up_proj.out();
        if (p.trace) p.trace->counts[layer].work.rows += n;
        if (!p.training() && feed_forward_half_forward<Exec, T>(p.ex, x, half(), y)) return;
        s.x_hat = p.matrix(n, x.width());
        s.gate = p.matrix(n, F);
        s.up = p.matrix(n, F);
        s.hidden = down_proj.keeps_input() ? p.matrix(n, F) : matrix_view<T>{};
        norm.forward(p, x, s.x_hat, s.norm);
        gate_proj.forward(p, s.x_hat, s.gate);
        up_proj.forward(p, s.x_hat, s.up);
        arena_scope scratch(p.ex);
        const auto hidden = s.hidden.data ? s.hidden : p.matrix(n, F);
        silu_gate_forward(p.ex, s.gate, s.up, hidden);
        down_proj.forward(p, hidden, y, x);
    }

    // adds to dL_dx, or writes it
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s,
                  write mode = write::accumulate) {
        arena_scope scratch(p.ex);
        const index n = dL_dy.rows(), F = up_proj.out();
        auto dL_dhidden = p.matrix(n, F), dL_dgate = p.matrix(n, F), dL_dup = p.matrix(n, F),
             dL_dx_hat = p.matrix(n, dL_dx.width());
        down_proj.backward(p, dL_dy, s.hidden, dL_dhidden);
        silu_gate_backward(p.ex, dL_dhidden, s.gate, s.up, dL_dgate, dL_dup);
        gate_proj.backward(p, dL_dgate, s.x_hat, dL_dx_hat);
        up_proj.backward(p, dL_dup, s.x_hat, dL_dx_hat, write::accumulate);
        norm.backward_residual(p, dL_dx_hat, dL_dy, dL_dx, s.norm, mode);
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        norm.visit_parameters(f, prefix + "post_attention_layernorm.");
        gate_proj.visit_parameters(f, prefix + "mlp.gate_proj.");
        up_proj.visit_parameters(f, prefix + "mlp.up_proj.");
        down_proj.visit_parameters(f, prefix + "mlp.down_proj.");
    }
};

}  // namespace spectral
