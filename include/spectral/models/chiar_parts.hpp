// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/chiar_parts.hpp: what chiar_former and full_attention make of a chiar_config
#pragma once
#include <spectral/layers/linear.hpp>
#include <spectral/layers/token_operator.hpp>
#include <spectral/models/chiar_config.hpp>

#include <set>

namespace spectral {

// The table of rotations, or null where positions are learned.
template <executor Exec, class T>
std::shared_ptr<tensor<Exec, statistic<T>, 2>> make_rotary(Exec& ex, const chiar_config& c) {
    if (c.has_positions()) return nullptr;
    const index head_width = c.d_model / c.n_heads;
    return std::make_shared<tensor<Exec, statistic<T>, 2>>(
        ex, std::array<index, 2>{c.max_seq_len, head_width},
        rotary_table<statistic<T>>(c.max_seq_len, head_width, c.rope_base));
}

// What the configuration says to the operators of one layer.
template <executor Exec, class T>
operator_config<Exec, T> make_operator_config(const chiar_config& c,
                                              std::shared_ptr<tensor<Exec, statistic<T>, 2>> rotary, index layer) {
    return {.width = c.d_model,
            .heads = c.n_heads,
            .layer = layer,
            .dropout = c.dropout,
            .dct_norm = c.dct_norm,
            .kv_scope = c.kv_scope,
            .rotary = std::move(rotary),
            .own_feed_forward = c.architecture == architecture::v1,
            .causal = true,
            .rbf_causal = c.rbf_causal,
            .rbf_gamma = c.rbf_gamma,
            .n_random_features = c.n_random_features};
}

// The adapters of the configuration, on a stack that they freeze.
template <class Stack>
void adapt_stack(Stack& stack, const std::map<std::string, lora_options>& adapters) {
    if (adapters.empty()) return;
    stack.visit_parameters([](const std::string&, auto& p) { p.trainable = false; }, std::string{});
    std::set<std::string> known;
    for_each_linear(stack, [&](const std::string& path, auto& map) {
        known.insert(path);
        if (const auto own = adapters.find(path); own != adapters.end()) map.adapt(own->second, path);
    });
    for (const auto& [path, options] : adapters)
        check(known.count(path) != 0, "adapters", "expected linear maps of the model, found \"", path, "\"");
}

// heads of a classifier (one, without a name) and of mixed training (one a task): (task, classes)
inline std::vector<std::pair<std::string, index>> classes_of(const chiar_config& c) {
    auto out = c.task_classes;
    if (c.model_type == "chiar_classifier") out.insert(out.begin(), {"", c.num_classes});
    return out;
}

}  // namespace spectral
