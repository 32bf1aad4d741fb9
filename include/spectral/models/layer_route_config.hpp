// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/layer_route_config.hpp: what LayerRoute adds to a Qwen2 backbone: adapters and skip gates
#pragma once
#include <spectral/layers/lora.hpp>
#include <spectral/layers/skip_gate.hpp>
#include <spectral/models/qwen2_config.hpp>

#include <algorithm>
#include <map>
#include <optional>

namespace spectral {

// Adapters are given per module, or as one set of options for a list of modules.
struct layer_route_config {
    std::optional<lora_options> lora;
    std::vector<std::string> lora_targets{"q_proj", "k_proj", "v_proj", "o_proj"};  // of q, k, v, o, gate, up, down
    std::map<std::string, lora_options> lora_by_module;  // by full module path; overrides `lora`
    std::optional<skip_gate_options> gates;
    std::vector<double> gate_bias;  // per block at the start; empty: gates->bias
    bool train_backbone = false;
    bool train_adapters = true, train_gates = true;
    double gate_rate = 1;  // learning rate of the gates as a multiple of the adapters'
    std::string base_model;  // where the backbone came from, noted in adapter_config.json
    double gate_reg_weight = 0;  // of the authors' objective, noted in router_config.json

    bool adapted() const { return lora || !lora_by_module.empty(); }
    bool plain() const { return !adapted() && !gates; }

    // options of the adapter at model.layers.N.self_attn.q_proj and the like, if it has one
    std::optional<lora_options> adapter_of(const std::string& path) const {
        if (const auto own = lora_by_module.find(path); own != lora_by_module.end()) return own->second;
        const std::string name = path.substr(path.rfind('.') + 1);
        const bool targeted = std::find(lora_targets.begin(), lora_targets.end(), name) != lora_targets.end();
        return lora && targeted ? lora : std::nullopt;
    }

    // the authors' start: open everywhere but in blocks 8 to 16
    static std::vector<double> published_bias(index layers) {
        std::vector<double> b(static_cast<std::size_t>(layers), 1.0);
        for (index l = 8; l <= 16 && l < layers; ++l) b[static_cast<std::size_t>(l)] = -1;
        return b;
    }
};

// A backbone, what LayerRoute adds, and how the backbone is kept.
struct layer_route_model {
    qwen2_config backbone;
    layer_route_config route;
    // of the backbone's matrices; bf16 freezes it. Norms, biases, adapters and gates stay in the model's scalar
    weight_storage storage = weight_storage::as_computed;
};

}  // namespace spectral
