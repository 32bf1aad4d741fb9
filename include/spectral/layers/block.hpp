// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/block.hpp: one layer of the stack: a token operator (or a routed choice), then a feed-forward
//   m = mix(x);   y = LN(m + FFN(m))
#pragma once
#include <spectral/layers/feed_forward.hpp>
#include <spectral/layers/layer_norm.hpp>
#include <spectral/layers/token_operator.hpp>
#include <spectral/ops/elementwise.hpp>

namespace spectral {

template <class Exec, class T, class Mixer>
struct block {
    Mixer mix;
    feed_forward<Exec, T> ffn;
    layer_norm<Exec, T> ffn_norm;
    index layer;

    template <class... MixerArguments>
    explicit block(const operator_config<Exec, T>& c, MixerArguments&&... arguments)
        : mix(std::forward<MixerArguments>(arguments)...),
          ffn(c.width, c.dropout, c.layer, 1),
          ffn_norm(c.width),
          layer(c.layer) {}

    struct saved {
        matrix_view<T> mixed;
        typename Mixer::saved mix;
        typename feed_forward<Exec, T>::saved ffn;
        typename layer_norm<Exec, T>::saved ffn_norm;
    };

    void forward(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y, saved& s) {
        s.mixed = p.matrix(x.rows(), x.width());
        auto inner = p.matrix(x.rows(), x.width());
        mix.forward(p, x, selection::all(x.rows()), s.mixed, s.mix);
        if (p.trace) p.trace->counts[layer].work.rows += x.rows();
        ffn.forward(p, s.mixed, inner, s.ffn);
        ffn_norm.forward_add(p, s.mixed, inner, y, s.ffn_norm);
    }

    // adds to dL_dx, or writes it
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s,
                  write mode = write::accumulate) {
        arena_scope scratch(p.ex);
        auto dL_dmixed = p.matrix(dL_dy.rows(), dL_dy.width());
        ffn_norm.backward(p, dL_dy, dL_dmixed, s.ffn_norm, write::overwrite, ffn.hand_over_bias());
        ffn.backward(p, dL_dmixed, dL_dmixed, s.ffn, write::accumulate);
        if constexpr (writes_gradient<Mixer, Exec, T>) return mix.backward(p, dL_dmixed, dL_dx, s.mix, mode);
        if (mode == write::overwrite) p.clear(dL_dx);
        mix.backward(p, dL_dmixed, dL_dx, s.mix);
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        const std::string name = Mixer::name;
        mix.visit_parameters(f, name.empty() ? prefix : prefix + name + ".");
        ffn.visit_parameters(f, prefix + "ffn.");
        ffn_norm.visit_parameters(f, prefix + "ffn_norm.");
    }
};

}  // namespace spectral
