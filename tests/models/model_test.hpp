// SPDX-License-Identifier: Apache-2.0
// tests/models/model_test.hpp: tiny models of every kind with weights that matter, and batches for them
//
// Weights as drawn at the start of training are so small that attention is flat and gates are constant: a test on them
// would miss much. Here every parameter is random and of the size that trained ones have.
#pragma once
#include <spectral/models/chiar_variants.hpp>
#include <support/operator_test.hpp>

namespace spectral::test {

template <class Exec, class T>
using identity_or_attention = routed<Exec, T, any_router<Exec, T>, identity_mixer<Exec, T>, self_attention<Exec, T>>;
template <class Exec, class T>
using three_way = routed<Exec, T, any_router<Exec, T>, dct_mixer<Exec, T>, rbf_mixer<Exec, T>, self_attention<Exec, T>>;

// d 16, 4 layers, causal pooling; thresholds in the middle of the entropies that rows of normal values have
inline chiar_config tiny_config() {
    chiar_config c;
    c.vocab_size = 29;
    c.d_model = 16;
    c.n_heads = 2;
    c.n_layers = 4;
    c.max_seq_len = 24;
    c.dropout = 0;
    c.meta_pool = meta_pool::causal;
    c.tau_low = 0.72;
    c.tau_high = 0.80;
    c.target_share = 0.4;
    c.random_seed = 5;
    c.n_random_features = 6;
    return c;
}

inline std::string name_of(routing_mode m) {
    static const char* names[] = {"threshold", "hard", "soft", "budget", "random", "permuted", "attention", "dct"};
    return names[static_cast<int>(m)];
}
inline constexpr std::array all_modes{routing_mode::threshold, routing_mode::hard,   routing_mode::soft,
                                      routing_mode::budget,    routing_mode::random, routing_mode::permuted,
                                      routing_mode::attention, routing_mode::dct};

struct named_config {
    std::string name;
    chiar_config config;
};

// Every model that promises that no position sees a later one: all but batch and sequence pooling and the bidirectional
// RBF.
inline std::vector<named_config> causal_configs() {
    std::vector<named_config> out;
    const auto add = [&](const std::string& name, auto&& change) {
        out.push_back({name, tiny_config()});
        change(out.back().config);
    };
    for (routing_mode m : all_modes) add("v3, " + name_of(m), [&](auto& c) { c.routing_mode = m; });
    for (routing_mode m : {routing_mode::hard, routing_mode::budget})
        add("v3, " + name_of(m) + ", selected_only",
            [&](auto& c) { c.routing_mode = m, c.estimator = estimator::selected_only; });
    for (routing_mode m : {routing_mode::threshold, routing_mode::soft, routing_mode::dct})
        add("v3, " + name_of(m) + ", keys of routed rows",
            [&](auto& c) { c.routing_mode = m, c.kv_scope = kv_scope::routed; });
    add("v3, fixed gate", [](auto& c) { c.meta_pool = meta_pool::fixed, c.meta_gate_value = 0.3; });
    add("v3, no MetaRouter", [](auto& c) { c.use_meta_router = false; });
    add("v3, hard gating", [](auto& c) { c.meta_gate_threshold = 0.6; });
    add("v3, identity", [](auto& c) { c.layer_variant = layer_variant::identity_attn; });
    add("v3, identity, hard",
        [](auto& c) { c.layer_variant = layer_variant::identity_attn, c.routing_mode = routing_mode::hard; });
    add("v2", [](auto& c) { c.architecture = architecture::v2; });
    for (routing_mode m : {routing_mode::threshold, routing_mode::hard, routing_mode::soft})
        add("v1, three operators, " + name_of(m), [&](auto& c) {
            c.architecture = architecture::v1, c.layer_variant = layer_variant::dct_rbf_attn, c.routing_mode = m;
        });
    add("v3, three operators, keys of routed rows",
        [](auto& c) { c.layer_variant = layer_variant::dct_rbf_attn, c.kv_scope = kv_scope::routed; });
    add("full attention", [](auto& c) { c.model_type = "full_attention"; });
    return out;
}

template <class Model>
void randomize(Model& model, std::uint64_t seed = 0) {
    using T = typename Model::scalar;
    seed = 5000 + 100 * seed;
    for (const auto& [name, p] : model.parameters.named()) {
        const bool unit = p->init.how == initializer::kind::constant && p->init.scale == 1;
        const bool gate = name.find("gate_proj") != std::string::npos;
        auto values = normals(p->size(), seed++, name == "token_emb.weight" ? 1.0 : gate ? 0.7 : 0.25);
        for (double& v : values) v += unit;
        const std::vector<statistic<T>> host(values.begin(), values.end());
        model.parameters.assign(*p, std::span(host));
    }
}

// f(model) with the model that the configuration describes
template <class Target, class F>
void with_model(const chiar_config& c, F&& f) {
    using Exec = typename Target::executor;
    using T = typename Target::scalar;
    auto& ex = Target::instance();
    with_chiar_stack<Exec, T>(c, [&]<class Stack>(std::type_identity<Stack>) {
        task_model<Exec, T, Stack> model{ex, c};
        randomize(model);
        f(model);
    });
}

// Packed sequences of random ids, each with its next token as target.
inline batch language_batch(const std::vector<index>& lengths, index vocabulary, std::uint64_t seed) {
    batch b;
    b.lengths = lengths;
    for (index n : lengths) {
        const auto ids = random_ids(n + 1, vocabulary, seed++);
        b.ids.insert(b.ids.end(), ids.begin(), ids.end() - 1);
        b.targets.insert(b.targets.end(), ids.begin() + 1, ids.end());
    }
    return b;
}

// logits of sequences of one length, widened: (B·T, V)
template <class Model>
std::vector<double> logits_of(Model& model, const std::vector<row_index>& ids, index sequences) {
    const auto host = to_host(model.ex, model.forward(ids, sequences));
    return {host.begin(), host.end()};
}

// rows [first, last) of a matrix of this width
inline std::vector<double> rows_of(const std::vector<double>& m, index width, index first, index last) {
    return {m.begin() + first * width, m.begin() + last * width};
}

// Rounding of a whole tiny model: some 40 operations on each path, each of up to 64 terms.
template <class T>
double model_tolerance(const std::vector<double>& want) {
    return allowed<T>(40 * 64, std::max(1.0, largest(want)));
}

}  // namespace spectral::test
