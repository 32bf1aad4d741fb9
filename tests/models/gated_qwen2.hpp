// SPDX-License-Identifier: Apache-2.0
// tests/models/gated_qwen2.hpp: a Qwen2 of three blocks, with gates and adapters or without, whose weights matter
#pragma once
#include <spectral/io/peft.hpp>
#include <spectral/models/qwen2.hpp>
#include "model_test.hpp"

namespace spectral::test::gated_qwen2 {

inline constexpr index vocabulary = 29, blocks = 3;
inline constexpr std::array scopes{gate_scope::block, gate_scope::attention, gate_scope::feed_forward};
inline const char* name_of(gate_scope s) {
    static const char* names[] = {"block", "attention", "feed-forward"};
    return names[static_cast<int>(s)];
}

inline layer_route_model tiny(index layers = blocks) {
    layer_route_model m;
    m.backbone = {.vocab_size = vocabulary,
                  .hidden_size = 16,
                  .intermediate_size = 24,
                  .num_hidden_layers = layers,
                  .num_attention_heads = 4,
                  .num_key_value_heads = 2,
                  .max_position_embeddings = 24};
    return m;
}
inline layer_route_model gated(gate_scope scope = gate_scope::block) {
    auto m = tiny();
    m.route.gates = skip_gate_options{.scope = scope};
    return m;
}
inline layer_route_model adapted() {
    auto m = tiny();
    m.route.lora = lora_options{.rank = 3, .alpha = 5, .dropout = 0.1};
    m.route.lora_targets = {"q_proj", "v_proj", "down_proj"};
    return m;
}

// Values that follow from a parameter's name: models of other parts share those that they have in common.
template <class Model>
void fill(Model& model) {
    using T = typename Model::scalar;
    for (const auto& [name, p] : model.parameters.named()) {
        const random_stream draw{77, stream_of(name)};
        const bool unit = p->init.how == initializer::kind::constant && p->init.scale == 1 && !is_router(name);
        std::vector<T> host;
        for (index i = 0; i < p->size(); ++i)
            host.push_back(static_cast<T>((unit ? 1 : 0) + 0.25 * draw.normal(static_cast<std::uint64_t>(i))));
        model.ex.copy_from_host(p->value.data, host.data(), host.size() * sizeof(T));
    }
}

template <class Target>
struct made {
    using Exec = typename Target::executor;
    qwen2<Exec, typename Target::scalar> model;
    explicit made(const layer_route_model& m) : model(Target::instance(), m) { fill(model); }
    auto& stack() { return model.stack; }
    std::vector<double> logits() { return logits_of(model, random_ids(14, vocabulary, 4), 2); }
};

}  // namespace spectral::test::gated_qwen2
