// SPDX-License-Identifier: Apache-2.0
// include/spectral/io/model_files.hpp: what the directory of a model holds, by kind of model
//
//   CHIAR-Former, baseline, classifier, Qwen2    config.json            model.safetensors
//   adapters on a frozen CHIAR-Former            adapter_config.json    adapter_model.safetensors     (PEFT's)
//   LayerRoute on a frozen backbone              adapter_config.json    adapter_model.safetensors     (PEFT's)
//                                                router_config.json     router.safetensors
#pragma once
#include <spectral/io/chiar_config_json.hpp>
#include <spectral/io/hugging_face.hpp>
#include <spectral/io/peft.hpp>
#include <spectral/io/weights.hpp>

namespace spectral {

// A safetensors file and which parameters it holds.
struct model_part {
    std::string file;
    weight_selection which;
};
// Everything that a model's directory holds.
struct model_files {
    std::vector<std::pair<std::string, std::string>> texts;  // (file, content)
    std::vector<model_part> parts;
};

// The parts of a LayerRoute model.
inline const weight_selection backbone_weights{.holds = is_backbone};
inline const model_part adapter_part{"adapter_model.safetensors", {.holds = is_adapter, .stored_as = peft_name}};
inline const model_part router_part{"router.safetensors", {.holds = is_router}};

// What the directory of this model holds.
inline model_files files_of(const chiar_config& c) {
    if (!c.adapters.empty()) return {{{"adapter_config.json", write_peft_config(c.adapters, {}, "")}}, {adapter_part}};
    return {{{"config.json", write_chiar_config(c)}}, {{"model.safetensors", {}}}};
}
// The same for Qwen2 and LayerRoute: a frozen backbone is not among the files.
inline model_files files_of(const layer_route_model& m) {
    const layer_route_config& r = m.route;
    model_files out;
    if (r.plain() || r.train_backbone) {
        out.texts.emplace_back("config.json", write_qwen2_config(m.backbone));
        out.parts.push_back({"model.safetensors", backbone_weights});
    }
    if (r.adapted()) {
        out.texts.emplace_back("adapter_config.json", write_peft_config(r, m.backbone));
        out.parts.push_back(adapter_part);
    }
    if (r.gates) {
        out.texts.emplace_back("router_config.json",
                               write_router_config(*r.gates, r.gate_reg_weight, m.backbone.num_hidden_layers));
        out.parts.push_back(router_part);
    }
    return out;
}

}  // namespace spectral
