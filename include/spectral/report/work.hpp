// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/work.hpp: multiply-accumulates of a model's forward passes: what a trace counted, and what
// the same batch would take with everything run on every token (`dense`, the denominator of every ratio)
#pragma once
#include <spectral/models/chiar_config.hpp>
#include <spectral/models/layer_route_config.hpp>
#include <spectral/report/flops.hpp>

namespace spectral {

// Attention on every token of sequences of these lengths.
inline layer_work dense_work(const std::vector<index>& lengths) {
    layer_work w;
    for (index n : lengths) {
        w.rows += n;
        w.attention_pairs += causal_pairs(n);
    }
    w.attention_rows = w.key_rows = w.rows;
    return w;
}

// ---- CHIAR-Former; dense: attention in every layer

// The sizes of a configured model.
inline chiar_widths widths_of(const chiar_config& c) {
    return {.d = c.d_model,
            .feed_forward = 4 * c.d_model,
            .vocabulary = c.vocab_size,
            .rbf_features = c.n_random_features,
            .mixers_have_feed_forward = c.architecture == architecture::v1};
}
// What a trace counted, and the head on `head_rows` rows.
inline mac_counts executed_macs(const chiar_config& c, const route_trace& trace, index head_rows) {
    mac_counts m = head_macs(head_rows, c.d_model, c.vocab_size);
    for (const auto& [layer, count] : trace.counts) m += layer_macs(widths_of(c), count.work);
    return m;
}
// The same batch with attention in every layer.
inline mac_counts dense_macs(const chiar_config& c, const std::vector<index>& lengths, index head_rows) {
    return head_macs(head_rows, c.d_model, c.vocab_size) +
           static_cast<double>(c.n_layers) * layer_macs(widths_of(c), dense_work(lengths));
}

// ---- Qwen2 and LayerRoute; dense: every block, adapters included

// One block, adapters included.
inline mac_counts block_macs(const layer_route_model& m, index layer, const layer_work& w) {
    const qwen2_config& b = m.backbone;
    const index kv_width = b.num_key_value_heads * b.head_width(), inner = b.intermediate_size;
    mac_counts macs = attention_macs(w.attention_rows, w.key_rows, w.attention_pairs, b.hidden_size, kv_width);
    macs.feed_forward += 3 * linear_macs(w.rows, b.hidden_size, inner);
    const std::string at = "model.layers." + std::to_string(layer) + ".";
    const auto adapter = [&](const char* module, index rows, index in, index out) {
        if (const auto o = m.route.adapter_of(at + module))
            macs.adapter += linear_macs(rows, in, o->rank) + linear_macs(rows, o->rank, out);
    };
    adapter("self_attn.q_proj", w.attention_rows, b.hidden_size, b.hidden_size);
    adapter("self_attn.k_proj", w.key_rows, b.hidden_size, kv_width);
    adapter("self_attn.v_proj", w.key_rows, b.hidden_size, kv_width);
    adapter("self_attn.o_proj", w.attention_rows, b.hidden_size, b.hidden_size);
    adapter("mlp.gate_proj", w.rows, b.hidden_size, inner);
    adapter("mlp.up_proj", w.rows, b.hidden_size, inner);
    adapter("mlp.down_proj", w.rows, inner, b.hidden_size);
    return macs;
}
// What a trace counted, and the head on `head_rows` rows.
inline mac_counts executed_macs(const layer_route_model& m, const route_trace& trace, index head_rows) {
    mac_counts macs = head_macs(head_rows, m.backbone.hidden_size, m.backbone.vocab_size);
    for (const auto& [layer, count] : trace.counts) macs += block_macs(m, layer, count.work);
    return macs;
}
// The same batch with every block run.
inline mac_counts dense_macs(const layer_route_model& m, const std::vector<index>& lengths, index head_rows) {
    mac_counts macs = head_macs(head_rows, m.backbone.hidden_size, m.backbone.vocab_size);
    for (index l = 0; l < m.backbone.num_hidden_layers; ++l) macs += block_macs(m, l, dense_work(lengths));
    return macs;
}

}  // namespace spectral
