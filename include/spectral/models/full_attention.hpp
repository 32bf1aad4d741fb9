// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/full_attention.hpp: the baseline: the same stack with attention in every layer
//   token embedding -> n × [ LN(x + attention(x)), LN(x + FFN(x)) ] -> LayerNorm; head tied; no MetaRouter
#pragma once
#include <spectral/layers/block.hpp>
#include <spectral/layers/router.hpp>
#include <spectral/layers/self_attention.hpp>
#include <spectral/layers/token_embedding.hpp>
#include <spectral/models/chiar_parts.hpp>
#include <spectral/models/task_model.hpp>

namespace spectral {

// The baseline: attention in every layer, no MetaRouter, no blend.
template <executor Exec, class T>
struct attention_stack {
    using config_type = chiar_config;
    using block_type = block<Exec, T, self_attention<Exec, T>>;

    chiar_config config;
    std::shared_ptr<tensor<Exec, statistic<T>, 2>> rotary;
    token_embedding<Exec, T> embedding;
    std::vector<block_type> blocks;
    layer_norm<Exec, T> norm;

    attention_stack(Exec& ex, const chiar_config& c)
        : config((c.validate(), c)),
          rotary(make_rotary<Exec, T>(ex, c)),
          embedding(c.vocab_size, c.d_model, 0, c.dropout),
          norm(c.d_model) {
        for (index l = 0; l < c.n_layers; ++l) {
            const auto at = make_operator_config<Exec, T>(c, rotary, l);
            blocks.emplace_back(at, at);
        }
        adapt_stack(*this, c.adapters);
    }

    struct saved {
        const_vector<row_index> ids;
        layer_inputs<T> inputs;
        std::vector<typename block_type::saved> blocks;
        typename layer_norm<Exec, T>::saved norm;
    };

    void forward(pass<Exec, T>& p, const_vector<row_index> ids, matrix_view<T> h, saved& s) {
        s.ids = ids;
        s.blocks.resize(blocks.size());
        activation_chain<Exec, T> x(p, ids.size(), config.d_model, s.inputs);
        x.start([&](auto y) { embedding.forward(p, ids, y); });
        for (std::size_t i = 0; i < blocks.size(); ++i)
            x.apply([&](auto in, auto y) {
                if (p.trace &&
                    p.trace->how == route_trace::mode::record)  // what a router would read here: for calibration
                    p.trace->layers[static_cast<index>(i)] = {
                        {}, widened(to_host(p.ex, entropy_of(p, in, config.dct_norm))), {}, 0};
                blocks[i].forward(p, in, y, s.blocks[i]);
            });
        norm.forward(p, x.value(), h, s.norm);
    }

    void backward(pass<Exec, T>& p, const_matrix<T> dL_dh, saved& s) {
        gradient_chain<Exec, T> dL_dx(p, dL_dh.rows(), config.d_model, s.inputs);
        dL_dx.start([&](auto out) { norm.backward(p, dL_dh, out, s.norm); });
        for (std::size_t i = blocks.size(); i-- > 0;)
            dL_dx.apply([&](auto x, auto y) { blocks[i].forward(p, x, y, s.blocks[i]); },
                        [&](auto dy, auto out) { blocks[i].backward(p, dy, out, s.blocks[i], write::overwrite); },
                        write::overwrite);
        embedding.backward(p, s.ids, dL_dx.value());
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        embedding.visit_parameters(f, prefix);
        for (std::size_t i = 0; i < blocks.size(); ++i) {  // the reference keeps three lists
            const std::string n = std::to_string(i) + ".";
            blocks[i].mix.visit_parameters(f, prefix + "attns." + n);
            blocks[i].ffn.visit_parameters(f, prefix + "ffns." + n);
            blocks[i].ffn_norm.visit_parameters(f, prefix + "ffn_norms." + n);
        }
        norm.visit_parameters(f, prefix + "norm.");
    }
    static std::vector<double> widened(const std::vector<statistic<T>>& v) { return {v.begin(), v.end()}; }
    index width() const { return config.d_model; }
    index vocabulary() const { return config.vocab_size; }
    index longest() const { return config.max_seq_len; }
    double dropout() const { return config.dropout; }
    std::vector<std::pair<std::string, index>> classes() const { return classes_of(config); }
    parameter<T>& head() { return embedding.tokens; }

    std::vector<char> variant(const decode_state<Exec, T>&) const { return {}; }
    bool repeats() const { return true; }

    decode_state<Exec, T> make_decode_state(Exec& ex, index sequences, index capacity) {
        decode_state<Exec, T> state;
        state.length.assign(static_cast<std::size_t>(sequences), 0);
        for (index l = 0; l < config.n_layers; ++l) state.make_cache(ex, l, sequences, capacity, config.d_model);
        return state;
    }
};

// The whole model.
template <executor Exec, class T>
using full_attention = task_model<Exec, T, attention_stack<Exec, T>>;

}  // namespace spectral
