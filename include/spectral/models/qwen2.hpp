// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/qwen2.hpp: Qwen2, and LayerRoute on it: low-rank adapters and a skip gate before every block
//
//   token embedding -> n × [ gate( x + attention(RMSNorm x), x + SwiGLU(RMSNorm x) ) ] -> RMSNorm; head tied or its own
//
// Without `layer_route` it is the plain backbone. With it the backbone is frozen: no gradients, no moments; adapters
// and gates train. The gates' objective is a policy (models/gate_objective.hpp).
#pragma once
#include <spectral/core/host_copy.hpp>
#include <spectral/layers/gated_feed_forward.hpp>
#include <spectral/layers/grouped_attention.hpp>
#include <spectral/layers/skip_gate.hpp>
#include <spectral/models/gate_objective.hpp>
#include <spectral/models/layer_route_config.hpp>
#include <spectral/models/task_model.hpp>

namespace spectral {

// x + attention(norm(x)), then the same with the gated feed-forward.
template <executor Exec, class T>
struct qwen2_block {
    grouped_attention<Exec, T> attention;
    gated_feed_forward<Exec, T> mlp;

    struct saved {
        matrix_view<T> middle;
        typename grouped_attention<Exec, T>::saved attention;
        typename gated_feed_forward<Exec, T>::saved mlp;
        typename skip_gate<Exec, T>::saved gate;
    };

    void forward(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y, saved& s) {
        s.middle = p.matrix(x.rows(), x.width());
        p.next_weights = mlp.weights();
        attention.forward(p, x, s.middle, s.attention);
        p.next_weights = {};
        mlp.forward(p, s.middle, y, s.mlp);
    }
    // adds to dL_dx, or writes it
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s, write mode) {
        arena_scope scratch(p.ex);
        auto dL_dmiddle = p.matrix(dL_dy.rows(), dL_dy.width());
        mlp.backward(p, dL_dy, dL_dmiddle, s.mlp, write::overwrite);
        attention.backward(p, dL_dmiddle, dL_dx, s.attention, mode);
    }
    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        attention.visit_parameters(f, prefix);
        mlp.visit_parameters(f, prefix);
    }
};

// Embedding, blocks with their gates, final norm: ids (N) to features (N, C).
template <executor Exec, class T>
struct qwen2_stack {
    using config_type = layer_route_model;
    layer_route_model config;
    std::shared_ptr<tensor<Exec, statistic<T>, 2>> rotary;
    parameter<T> embedding, lm_head;  // (V, C); lm_head only where it is not tied
    std::vector<qwen2_block<Exec, T>> blocks;
    std::vector<skip_gate<Exec, T>> gates;  // one per block, or none
    rms_norm<Exec, T> norm;
    gate_objective objective;  // what training asks of the gates
    std::vector<char> forced_open;  // evaluation: by block, whatever the gates say; empty: they decide

    qwen2_stack(Exec& ex, const config_type& c)
        : config((c.backbone.validate(), c)),
          rotary(make_table(ex, c.backbone)),
          embedding({c.backbone.vocab_size, c.backbone.hidden_size}, initializer::normal(c.backbone.initializer_range)),
          norm(c.backbone.hidden_size, c.backbone.rms_norm_eps) {
        const qwen2_config& b = c.backbone;
        if (!b.tie_word_embeddings)
            lm_head = parameter<T>({b.vocab_size, b.hidden_size}, initializer::normal(b.initializer_range));
        for (index l = 0; l < b.num_hidden_layers; ++l) {
            blocks.push_back({grouped_attention<Exec, T>(b.hidden_size, b.num_attention_heads, b.num_key_value_heads,
                                                         b.head_width(), b.rms_norm_eps, l, rotary),
                              gated_feed_forward<Exec, T>(b.hidden_size, b.intermediate_size, b.rms_norm_eps, l)});
            if (!c.route.gates) continue;
            skip_gate_options o = *c.route.gates;
            if (!c.route.gate_bias.empty()) o.bias = c.route.gate_bias.at(static_cast<std::size_t>(l));
            gates.emplace_back(ex, b.hidden_size, l, o);
        }
        freeze_and_adapt();
    }

    struct saved {
        const_vector<row_index> ids;
        layer_inputs<T> inputs;
        row_map gate_rows;
        std::vector<typename qwen2_block<Exec, T>::saved> blocks;
        typename rms_norm<Exec, T>::saved norm;
        gate_values gates;  // of the pass: soft and hard by (layer, sequence)
        matrix_view<statistic<T>> gate_memory;  // training: (2 layer, sequence) soft gates, (2 layer + 1, …) hard ones
        host_copy<Exec, statistic<T>> gates_on_their_way;
        matrix_view<double> wanted;  // (layer, sequence): dL/dsoft, from the objective
    };

    index width() const { return config.backbone.hidden_size; }
    index vocabulary() const { return config.backbone.vocab_size; }
    index longest() const { return config.backbone.max_position_embeddings; }
    double dropout() const { return 0; }
    std::vector<std::pair<std::string, index>> classes() const { return {}; }

    void forward(pass<Exec, T>& p, const_vector<row_index> ids, matrix_view<T> h, saved& s) {
        s.ids = ids;
        s.blocks.resize(blocks.size());
        start_gates(p, s);
        activation_chain<Exec, T> x(p, ids.size(), width(), s.inputs);
        x.start([&](auto y) { embedding_forward<Exec, T>(p.ex, ids, embedding.matrix(), y); });
        const bool done = x.attempt([&](auto in, auto y) { return whole_step(p, in, y); });
        for (std::size_t l = 0; l < blocks.size() && !done; ++l)
            x.apply([&](auto in, auto y) { forward_block(p, l, in, y, s); });
        norm.forward(p, x.value(), h, s.norm);
        if (p.training() && !gates.empty()) s.gates_on_their_way.start(p.ex, s.gate_memory);
    }

    void backward(pass<Exec, T>& p, const_matrix<T> dL_dh, saved& s) {
        gradient_chain<Exec, T> dL_dx(p, dL_dh.rows(), width(), s.inputs);
        dL_dx.start([&](auto out) { norm.backward(p, dL_dh, out, s.norm); });
        if (!gates.empty()) ask_of_gates(p, s);
        for (std::size_t l = blocks.size(); l-- > 0;)
            dL_dx.apply([&](auto x, auto y) { forward_block(p, l, x, y, s); },
                        [&](auto dy, auto out) {
                            gates.empty() ? blocks[l].backward(p, dy, out, s.blocks[l], write::overwrite)
                                          : gated_backward(p, l, dy, out, s);
                        },
                        write::overwrite);
        if (embedding.grad.data) embedding_backward(p.ex, s.ids, dL_dx.value(), embedding.grad);
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        f(prefix + "model.embed_tokens.weight", embedding);
        for (std::size_t l = 0; l < blocks.size(); ++l)
            blocks[l].visit_parameters(f, prefix + "model.layers." + std::to_string(l) + ".");
        norm.visit_parameters(f, prefix + "model.norm.");
        f(prefix + "lm_head.weight", lm_head);
        for (std::size_t l = 0; l < gates.size(); ++l)
            gates[l].visit_parameters(f, prefix + "router." + std::to_string(l) + ".");
    }
    parameter<T>& head() { return lm_head.used() ? lm_head : embedding; }

    // Key/value room of a block is made for the sequences that have it open: one that skips it keeps no keys of it.
    decode_state<Exec, T> make_decode_state(Exec&, index sequences, index capacity) {
        decode_state<Exec, T> state;
        state.length.assign(static_cast<std::size_t>(sequences), 0);
        state.capacity = capacity;
        state.open.assign(blocks.size(), {});
        state.layers.resize(blocks.size());
        return state;
    }

    // What the work of a decoding step depends on besides memory: the blocks that are open, the adapters that count.
    std::vector<char> variant(const decode_state<Exec, T>& state) {
        std::vector<char> out = forced_open;
        for (const auto& marks : state.open) out.insert(out.end(), marks.begin(), marks.end());
        spectral::for_each_linear(
            *this, [&](const std::string&, linear<Exec, T>& l) { out.push_back(l.adapter && l.adapter_on); });
        return out;
    }
    // whether a step of decoding never asks the executor for values
    bool repeats() const { return true; }

private:
    static std::shared_ptr<tensor<Exec, statistic<T>, 2>> make_table(Exec& ex, const qwen2_config& c) {
        return std::make_shared<tensor<Exec, statistic<T>, 2>>(
            ex, std::array<index, 2>{c.max_position_embeddings, c.head_width()},
            rotary_table<statistic<T>>(c.max_position_embeddings, c.head_width(), c.rope_theta));
    }

    void freeze_and_adapt() {
        const layer_route_config& r = config.route;
        const bool narrow = config.storage == weight_storage::bf16;
        check(!(narrow && r.train_backbone), "qwen2", "a backbone kept as bfloat16 cannot be trained");
        const bool frozen = narrow || (!r.plain() && !r.train_backbone);
        visit_parameters(
            [&](const std::string& name, parameter<T>& p) {
                const bool gate = name.starts_with("router.");
                p.trainable = gate ? r.train_gates : !frozen;
                if (gate) p.rate = r.gate_rate;
                p.narrow = narrow && !gate && p.shape.size() == 2;
            },
            "");
        spectral::for_each_linear(*this, [&](const std::string& path, linear<Exec, T>& target) {
            const auto options = r.adapter_of(path);
            if (!options) return;
            target.adapt(*options, path);
            target.adapter->a.trainable = target.adapter->b.trainable = r.train_adapters;
        });
    }
    bool forced_shut(const pass<Exec, T>& p, std::size_t l) const {
        return !p.training() && !forced_open.empty() && !forced_open.at(l);
    }

    void start_gates(pass<Exec, T>& p, saved& s) {
        if (gates.empty()) return;
        const auto layers = static_cast<index>(gates.size());
        s.gates = {layers, p.rows.sequences()};
        if (p.training()) s.gate_memory = p.statistics(2 * layers, p.rows.sequences());
        if (p.decode && p.decode->prefilled()) return;  // they are frozen
        s.gate_rows = gate_rows(p.ex, p.rows, p.lengths_of_sequences(), p.prompt_lengths, gates.front().options);
    }

    // Training: the host reads all gates at once, when the loss is queued too, and says what it asks of each.
    void ask_of_gates(pass<Exec, T>& p, saved& s) {
        const auto values = s.gates_on_their_way.finish();
        const auto sequences = static_cast<std::size_t>(s.gates.sequences);
        for (index l = 0; l < s.gates.layers; ++l) {
            const std::span both(values.data() + 2 * static_cast<std::size_t>(l) * sequences, 2 * sequences);
            s.gates.record(l, both.first(sequences), both.last(sequences));
        }
        std::vector<double> dL_dsoft;
        p.auxiliary_loss += p.loss_weight * objective(s.gates, p.step_types, dL_dsoft);
        for (double& v : dL_dsoft) v *= p.loss_weight;
        s.wanted = p.ex.memory().template matrix<double>(s.gates.layers, s.gates.sequences);
        if (!dL_dsoft.empty())
            p.ex.copy_from_host(s.wanted.data, dL_dsoft.data(), dL_dsoft.size() * sizeof dL_dsoft[0]);
    }

    void forward_block(pass<Exec, T>& p, std::size_t l, const_matrix<T> x, matrix_view<T> y, saved& s) {
        if (!gates.empty())
            gated_forward(p, l, x, y, s);
        else if (forced_shut(p, l))
            copy<Exec, T>(p.ex, x, y);
        else
            blocks[l].forward(p, x, y, s.blocks[l]);
    }
    // All blocks of a step of decoding as one operator, where the executor has it: gates are frozen, so the host knows
    // which rows each half takes.
    bool whole_step(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y) {
        if (!p.repeats() || x.rows() > 32) return false;
        std::vector<block_half<T>> halves;
        for (std::size_t l = 0; l < blocks.size(); ++l) {
            std::uint32_t all = 0, open = 0, bit = 1;
            for (std::size_t s = 0; s < p.lengths.size(); ++s) {
                if (!p.lengths[s]) continue;
                all |= bit;
                if (gates.empty() ? !forced_shut(p, l) : p.decode->open[l].at(s) != 0) open |= bit;
                bit <<= 1;
            }
            const auto* gate = gates.empty() ? nullptr : &gates[l].options;
            const bool gates_attention = !gate || gate->scope != gate_scope::feed_forward,
                       gates_feed_forward = !gate || gate->scope != gate_scope::attention;
            const std::uint32_t attends = gates_attention ? open : all, keys = gate && gate->write_kv ? all : attends,
                                feeds = gates_feed_forward ? open : all;
            auto& b = blocks[l];
            if (keys) halves.push_back({b.attention.half(p), attends, keys, b.attention.own_cache(p)});
            if (feeds) halves.push_back({b.mlp.half(), feeds});
        }
        return block_halves_forward<Exec, T>(p.ex, x, halves, p.rows, y);
    }

    // the part of a block that its gate may leave out: (pass, x, y) -> y
    auto inner(std::size_t l, typename qwen2_block<Exec, T>::saved& s) {
        return [this, l, &s](pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y) {
            switch (gates[l].options.scope) {
                case gate_scope::attention: return blocks[l].attention.forward(p, x, y, s.attention);
                case gate_scope::feed_forward: return blocks[l].mlp.forward(p, x, y, s.mlp);
                default: return blocks[l].forward(p, x, y, s);
            }
        };
    }

    void gated_forward(pass<Exec, T>& p, std::size_t l, const_matrix<T> x, matrix_view<T> y, saved& s) {
        auto& gate = gates[l];
        auto& b = s.blocks[l];
        const gate_scope scope = gate.options.scope;
        auto gate_in = x;
        matrix_view<T> gate_out = y;
        if (scope == gate_scope::feed_forward) {  // attention runs always, then the gated feed-forward
            b.middle = p.matrix(x.rows(), x.width());
            blocks[l].attention.forward(p, x, b.middle, b.attention);
            gate_in = b.middle;
        } else if (scope == gate_scope::attention) {
            b.middle = p.matrix(x.rows(), x.width());
            gate_out = b.middle;
        }
        if (p.training()) {
            gate.decide(p, gate_in, s.gate_rows, s.gate_memory.slice(2 * static_cast<index>(l), 2), b.gate);
            gate.blend(p, inner(l, b), gate_in, gate_out, b.gate);
        } else {
            const std::vector<char>& open = open_sequences(p, l, gate_in, s);
            if (p.decode && !gate.options.write_kv && scope != gate_scope::feed_forward) keep_room(p, l, open);
            gate.run_open(
                p, open, inner(l, b),
                [&](pass<Exec, T>& part, const_matrix<T> rows) {
                    if (part.decode && gate.options.write_kv && scope != gate_scope::feed_forward)
                        blocks[l].attention.write_keys(part, rows);
                },
                gate_in, gate_out);
        }
        if (scope == gate_scope::attention) blocks[l].mlp.forward(p, b.middle, y, b.mlp);
    }

    // cache for the open sequences alone, as decided at prefill
    void keep_room(pass<Exec, T>& p, std::size_t l, const std::vector<char>& open) {
        if (!p.decode->prefilled())
            return p.decode->make_room(p.ex, static_cast<index>(l), open, blocks[l].attention.k_proj.out());
        const auto& room = p.decode->layers[l].room;
        for (std::size_t s = 0; s < room.size(); ++s)
            check(room[s] || !open[s], "qwen2", "block ", l, ", sequence ", s,
                  ": it was closed at prefill, and opens later with write_kv alone");
    }

    // writes dL_dx
    void gated_backward(pass<Exec, T>& p, std::size_t l, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s) {
        auto& gate = gates[l];
        auto& b = s.blocks[l];
        const vector_view<double> wanted(s.wanted.row(static_cast<index>(l)), {s.wanted.width()});
        arena_scope scratch(p.ex);
        if (gate.options.scope == gate_scope::block)
            return gate.backward(
                p, [&](auto dy, auto out) { blocks[l].backward(p, dy, out, b, write::accumulate); }, s.gate_rows,
                wanted, dL_dy, dL_dx, b.gate, write::overwrite);
        auto dL_dmiddle = p.matrix(dL_dy.rows(), dL_dy.width());
        if (gate.options.scope == gate_scope::feed_forward) {
            gate.backward(
                p, [&](auto dy, auto out) { blocks[l].mlp.backward(p, dy, out, b.mlp); }, s.gate_rows, wanted, dL_dy,
                dL_dmiddle, b.gate, write::overwrite);
            blocks[l].attention.backward(p, dL_dmiddle, dL_dx, b.attention, write::overwrite);
        } else {
            blocks[l].mlp.backward(p, dL_dy, dL_dmiddle, b.mlp, write::overwrite);
            gate.backward(
                p, [&](auto dy, auto out) { blocks[l].attention.backward(p, dy, out, b.attention); }, s.gate_rows,
                wanted, dL_dmiddle, dL_dx, b.gate, write::overwrite);
        }
    }

    // decided once per sequence: in a generation at prefill, then frozen
    const std::vector<char>& open_sequences(pass<Exec, T>& p, std::size_t l, const_matrix<T> x, saved& s) {
        const operator_clock<Exec, T> clock(p, "router");
        std::vector<char>& open = p.decode ? p.decode->open[l] : s.gates.open;
        if (p.decode && !open.empty() && p.decode->prefilled()) return open;
        if (!forced_open.empty()) {
            open.assign(static_cast<std::size_t>(p.rows.sequences()), forced_open.at(l));
            return open;
        }
        auto& kept = s.blocks[l].gate;
        gates[l].decide(p, x, s.gate_rows, p.statistics(2, p.rows.sequences()), kept);
        const auto hard = to_host(p.ex, kept.gate);
        s.gates.record(static_cast<index>(l), to_host(p.ex, kept.soft), hard);
        open.assign(hard.size(), 0);
        for (std::size_t i = 0; i < hard.size(); ++i) open[i] = hard[i] > statistic<T>(0.5);
        return open;
    }
};

// Qwen2, with adapters and gates where the configuration has them.
template <executor Exec, class T>
using qwen2 = task_model<Exec, T, qwen2_stack<Exec, T>>;

}  // namespace spectral
