// SPDX-License-Identifier: Apache-2.0
// examples/cli/routed_text.cpp: a text through a model with its routes recorded
#include "routed_text.hpp"

#include <spectral/train/evaluate.hpp>

namespace spectral::cli {

routed_text route(runner& r, const tokenizer& tok, const std::string& text) {
    routed_text out;
    out.ids = tok.encode(text);
    for (row_index id : out.ids) out.pieces.push_back(tok.decode(std::span(&id, 1)));
    const auto longest = static_cast<std::size_t>(r.facts().longest);
    for (std::size_t at = 0; at < out.ids.size(); at += longest) {
        const auto window = std::span(out.ids).subspan(at, std::min(longest, out.ids.size() - at));
        route_trace trace;
        r.set_trace(&trace);
        r.logits(window, 1);
        r.set_trace(nullptr);
        for (auto& [layer, routes] : trace.layers) {
            if (routes.op.empty()) continue;  // a baseline records entropies alone
            layer_routes& all = out.layers[layer];
            all.operators = routes.operators;
            all.op.insert(all.op.end(), routes.op.begin(), routes.op.end());
            all.entropy.insert(all.entropy.end(), routes.entropy.begin(), routes.entropy.end());
        }
        out.meta_gate.insert(out.meta_gate.end(), trace.meta_gate.begin(), trace.meta_gate.end());
    }
    return out;
}

std::vector<std::string> operator_names(const chiar_config& c) {
    const auto& names = c.variant().operators;
    return {names.begin(), names.begin() + c.operators()};
}

double attention_share(const layer_routes& l) {
    double n = 0;
    for (row_index op : l.op) n += op == l.operators - 1;
    return l.op.empty() ? 0 : n / static_cast<double>(l.op.size());
}

nlohmann::ordered_json to_json(const routed_text& t, const chiar_config& c) {
    nlohmann::ordered_json json{{"ids", t.ids}, {"tokens", t.pieces}, {"operators", operator_names(c)}};
    for (const auto& [layer, l] : t.layers)
        json["layers"][std::to_string(layer)] = {
            {"attention_share", attention_share(l)}, {"op", l.op}, {"entropy", l.entropy}};
    json["meta_gate"] = t.meta_gate;
    json["entropy_router"] = entropy_router(c);
    return json;
}

}  // namespace spectral::cli
