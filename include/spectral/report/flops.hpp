// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/flops.hpp: multiply-accumulates that a CHIAR-Former executes, by operator
//
// Counted from what ran, not from what a formula hopes for: the caller says how many rows each operator ran on and how
// many query-key pairs attention looked at. Conventions, the same for every model that is compared:
//   - one multiply-accumulate (MAC) is one multiplication and one addition: 2 floating-point operations;
//   - a DCT or its inverse of width d counts 2.5 d log2 d MACs: a real transform takes 2.5 d log2 d operations in
//     FFTW's convention, and since butterflies seldom fuse a multiplication with an addition, each counts as a MAC;
//   - a causal query counts the keys it sees, itself included, not the masked square;
//   - biases, norms, activations, softmax, residual sums and the embedding look-up are not counted: O(d) per row;
//   - a training step counts 3 times the forward pass (the backward pass computes two products for each of the
//     forward pass); scores that a kernel recomputes to save memory are not work of the model and do not count.
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/layers/route_trace.hpp>

#include <array>
#include <cmath>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spectral {

// double: exact up to 9e15, and sums over a whole run may be larger
struct mac_counts {
    double attention_query = 0;  // q projection
    double attention_key_value = 0;
    double attention_output = 0;
    double attention_scores = 0;  // q·k of visible pairs
    double attention_values = 0;  // weights times v
    double feed_forward = 0;
    double dct = 0;  // two transforms and the filter
    double rbf = 0;
    double router = 0;  // entropies and gates
    double adapter = 0;  // low-rank adapters
    double head = 0;

    static constexpr std::array<std::pair<std::string_view, double mac_counts::*>, 11> fields();

    double attention() const {
        return attention_query + attention_key_value + attention_output + attention_scores + attention_values;
    }
    double total() const { return attention() + feed_forward + dct + rbf + router + adapter + head; }
    double flops() const { return 2 * total(); }

    mac_counts& operator+=(const mac_counts& o) {
        for (const auto& [name, field] : fields()) this->*field += o.*field;
        return *this;
    }
    friend mac_counts operator+(mac_counts a, const mac_counts& b) { return a += b; }
    friend mac_counts operator*(double times, mac_counts a) {
        for (const auto& [name, field] : fields()) a.*field *= times;
        return a;
    }
    bool operator==(const mac_counts&) const = default;
};

constexpr std::array<std::pair<std::string_view, double mac_counts::*>, 11> mac_counts::fields() {
    return {{{"attention_query", &mac_counts::attention_query},
             {"attention_key_value", &mac_counts::attention_key_value},
             {"attention_output", &mac_counts::attention_output},
             {"attention_scores", &mac_counts::attention_scores},
             {"attention_values", &mac_counts::attention_values},
             {"feed_forward", &mac_counts::feed_forward},
             {"dct", &mac_counts::dct},
             {"rbf", &mac_counts::rbf},
             {"router", &mac_counts::router},
             {"adapter", &mac_counts::adapter},
             {"head", &mac_counts::head}}};
}

// forward and backward
inline mac_counts training(const mac_counts& forward) { return 3.0 * forward; }

// ---- visible pairs

// T queries on T keys of one sequence: 1 + 2 + ... + T

// Queries at these positions of one sequence, keys at all positions (kv_scope = "all"): a query at p sees p + 1 keys.
inline double causal_pairs(std::span<const row_index> query_positions) {
    double pairs = 0;
    for (row_index p : query_positions) pairs += static_cast<double>(p) + 1;
    return pairs;
}

// Queries and keys at positions of one sequence, both ascending (kv_scope = "routed": the same list twice).
inline double causal_pairs(std::span<const row_index> query_positions, std::span<const row_index> key_positions) {
    double pairs = 0;
    std::size_t keys = 0;
    for (std::size_t i = 0; i < query_positions.size(); ++i) {
        check(i == 0 || query_positions[i] >= query_positions[i - 1], "causal_pairs",
              "query positions must ascend, found ", query_positions[i], " after ", query_positions[i ? i - 1 : 0]);
        while (keys < key_positions.size() && key_positions[keys] <= query_positions[i]) ++keys;
        pairs += static_cast<double>(keys);
    }
    return pairs;
}

// ---- operators, forward

// rows × in × out.
inline double linear_macs(index rows, index in, index out) {
    return static_cast<double>(rows) * static_cast<double>(in) * static_cast<double>(out);
}

// one transform of every row
inline double dct_macs(index rows, index d) {
    return d > 1 ? 2.5 * static_cast<double>(rows) * static_cast<double>(d) * std::log2(static_cast<double>(d)) : 0.0;
}

// Queries and outputs for the selected rows, keys and values for key_rows. `kv_width` is that of the keys: d, or less
// with grouped queries.
inline mac_counts attention_macs(index selected, index key_rows, double visible_pairs, index d, index kv_width) {
    mac_counts m;
    m.attention_query = m.attention_output = linear_macs(selected, d, d);
    m.attention_key_value = 2 * linear_macs(key_rows, d, kv_width);
    m.attention_scores = m.attention_values = visible_pairs * static_cast<double>(d);  // h heads of width d / h
    return m;
}
// The same with as many key/value heads as heads.
inline mac_counts attention_macs(index selected, index key_rows, double visible_pairs, index d) {
    return attention_macs(selected, key_rows, visible_pairs, d, d);
}

// Two matrices, d × width and back.
inline mac_counts feed_forward_macs(index rows, index d, index width) {
    mac_counts m;
    m.feed_forward = 2 * linear_macs(rows, d, width);
    return m;
}

// transform, filter, inverse
inline mac_counts dct_mixing_macs(index rows, index d) {
    mac_counts m;
    m.dct = 2 * dct_macs(rows, d) + static_cast<double>(rows) * static_cast<double>(d);
    return m;
}

// Random features (cos and sin of `features` projections) of the rows that are keys, scores and means of visible pairs,
// and W_o of the selected rows.
inline mac_counts rbf_mixing_macs(index selected, index key_rows, double visible_pairs, index d, index features) {
    mac_counts m;
    m.rbf = linear_macs(key_rows, d, features) + 4 * visible_pairs * static_cast<double>(features) +
            linear_macs(selected, 2 * features, d);
    return m;
}

// One transform and one gate of (d + 1) inputs (0 outputs: a threshold) per row.
inline mac_counts router_macs(index rows, index d, index gate_outputs) {
    mac_counts m;
    m.router = dct_macs(rows, d) + linear_macs(rows, d + 1, gate_outputs);
    return m;
}

// The tied output projection.
inline mac_counts head_macs(index rows, index d, index vocabulary) {
    mac_counts m;
    m.head = linear_macs(rows, d, vocabulary);
    return m;
}

// ---- layers and models, forward

// The sizes that a layer's work depends on.
struct chiar_widths {
    index d = 256, feed_forward = 1024, vocabulary = 0, rbf_features = 64;
    bool mixers_have_feed_forward = false;  // v1: DCT and RBF mixing keep one of their own
};

// One layer, from what a trace counted; throws error where an operator ran on more rows than the layer has.
inline mac_counts layer_macs(const chiar_widths& c, const layer_work& w) {
    check(w.attention_rows <= w.rows && w.key_rows <= w.rows && w.dct_rows <= w.rows && w.rbf_rows <= w.rows,
          "layer_macs", "rows of an operator: expected at most the ", w.rows, " rows of the layer, found ",
          w.attention_rows, " queries, ", w.key_rows, " keys, ", w.dct_rows, " DCT, ", w.rbf_rows, " RBF");
    mac_counts m = feed_forward_macs(w.rows, c.d, c.feed_forward);
    m += attention_macs(w.attention_rows, w.key_rows, w.attention_pairs, c.d);
    m += dct_mixing_macs(w.dct_rows, c.d);
    m += rbf_mixing_macs(w.rbf_rows, w.rbf_key_rows, w.rbf_pairs, c.d, c.rbf_features);
    if (w.router_rows) m += router_macs(w.router_rows, c.d, w.gate_outputs);
    if (c.mixers_have_feed_forward) m += feed_forward_macs(w.dct_rows + w.rbf_rows, c.d, c.feed_forward);
    return m;
}

// All layers, and the head on `head_rows` (0: none; one per sequence when only the last token's logits are needed).
inline mac_counts model_macs(const chiar_widths& c, std::span<const layer_work> layers, index head_rows) {
    mac_counts m = head_macs(head_rows, c.d, c.vocabulary);
    for (const layer_work& w : layers) m += layer_macs(c, w);
    return m;
}

// ---- report

// Operators, MACs, share of the total; with a second count, its MACs and the ratio too. Operators at 0 are left out.
//   operator               MACs   share
//   feed_forward     2.147e+09   65.2%
inline std::string mac_table(const mac_counts& counts, const mac_counts* dense = nullptr) {
    std::string out = dense ? "operator                   MACs   share       dense   ratio\n"
                            : "operator                   MACs   share\n";
    const auto row = [&](std::string_view name, double macs, double reference) {
        char text[160];
        const double share = counts.total() > 0 ? 100 * macs / counts.total() : 0;
        std::snprintf(text, sizeof text, "%-20.*s %10.4g %6.1f%%", static_cast<int>(name.size()), name.data(), macs,
                      share);
        out += text;
        if (dense && reference > 0)
            std::snprintf(text, sizeof text, "  %10.4g %6.1f%%", reference, 100 * macs / reference);
        else if (dense)
            std::snprintf(text, sizeof text, "  %10s %7s", "0", "-");
        if (dense) out += text;
        out += '\n';
    };
    for (const auto& [name, field] : mac_counts::fields())
        if (counts.*field > 0 || (dense && dense->*field > 0)) row(name, counts.*field, dense ? dense->*field : 0);
    row("attention only", counts.attention(), dense ? dense->attention() : 0);
    row("total", counts.total(), dense ? dense->total() : 0);
    return out;
}

}  // namespace spectral
