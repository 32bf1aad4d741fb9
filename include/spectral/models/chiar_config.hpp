// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/chiar_config.hpp: every choice of a CHIAR-Former, its baseline and its classifier
//
// Field names are the keys of config.json (io/chiar_config_json.hpp reads and writes it).
#pragma once
#include <spectral/layers/lora.hpp>
#include <spectral/layers/meta_router.hpp>
#include <spectral/layers/router.hpp>

#include <array>
#include <map>
#include <optional>
#include <string_view>

namespace spectral {

// Versions of the published model: see docs/07-reproducing.md.
enum class architecture { v1, v2, v3 };
// The operators of a routed layer, in the order of their numbers.
enum class layer_variant { dct_attn, identity_attn, dct_rbf_attn };

// Each variant's name in files, and the operators of its routed layers in routing order, named as their parameters are.
// models/chiar_variants.hpp gives their types.
struct layer_variant_entry {
    layer_variant variant;
    const char* name;
    std::array<std::string_view, 3> operators;  // the last of two is empty
    index count;
};
inline constexpr std::array layer_variants{
    layer_variant_entry{layer_variant::dct_attn, "dct_attn", {"dct_mix", "attn"}, 2},
    layer_variant_entry{layer_variant::identity_attn, "identity_attn", {"identity_mix", "attn"}, 2},
    layer_variant_entry{layer_variant::dct_rbf_attn, "dct_rbf_attn", {"dct_mix", "rbf_mix", "attn"}, 3}};

struct chiar_config {
    std::string model_type = "chiar_former";  // chiar_former | full_attention | chiar_classifier
    index vocab_size = 50257, d_model = 256, n_heads = 4, n_layers = 4, max_seq_len = 256;
    double rope_base = 10000, dropout = 0.1;

    spectral::architecture architecture = architecture::v3;
    spectral::layer_variant layer_variant = layer_variant::dct_attn;
    spectral::dct_norm dct_norm = dct_norm::ortho;
    spectral::kv_scope kv_scope = kv_scope::all;

    spectral::routing_mode routing_mode = routing_mode::threshold;
    spectral::estimator estimator = estimator::straight_through;
    // one value for all layers, or one per layer (null where unrouted); empty: from tau_low and tau_high
    std::vector<std::optional<double>> tau;
    // 33rd and 67th percentiles of the entropy; the reference's values at d 256
    double tau_low = 0.855, tau_high = 0.865;
    double target_share = 0.5;
    std::uint64_t random_seed = 0;
    bool use_collapse_reg = false, collapse_reg_detached = false;
    double lambda_reg = 0.01;

    bool use_meta_router = true;
    spectral::meta_pool meta_pool = meta_pool::batch;
    // of meta_pool fixed (1 if not given); in a file without meta_pool it means fixed
    std::optional<double> meta_gate_value;
    double meta_gate_threshold = 0;  // hard gating at evaluation: a gate below it leaves L1 out

    double rbf_gamma = 1;
    index n_random_features = 64;
    bool rbf_causal = true;
    index num_classes = 0;  // chiar_classifier
    std::vector<std::pair<std::string, index>> task_classes;  // mixed training: further heads, (task, classes)

    // low-rank adapters by path of a linear map ("layers.1.attn.qkv"): the rest of the stack is frozen; not in
    // config.json
    std::map<std::string, lora_options> adapters;

    // the published small and 400M shapes (d 256, 4 layers; d 1024, 28 layers)
    static chiar_config small() { return {}; }
    static chiar_config large() {
        chiar_config c;
        c.d_model = 1024;
        c.n_heads = 16;
        c.n_layers = 28;
        c.tau_low = 0.8935;
        c.tau_high = 0.8973;
        return c;
    }

    const layer_variant_entry& variant() const { return layer_variants[static_cast<std::size_t>(layer_variant)]; }
    index operators() const { return variant().count; }
    bool baseline() const { return model_type == "full_attention"; }
    bool has_meta_router() const { return architecture == architecture::v3 && use_meta_router && !baseline(); }
    // a learned table instead of rotation
    bool has_positions() const { return architecture != architecture::v3 && !baseline(); }

    // thresholds of one routed layer, ascending
    std::vector<double> thresholds(index layer) const {
        if (operators() == 3) return {tau_low, tau_high};
        if (tau.empty()) return {(tau_low + tau_high) / 2};
        const auto& t = tau.size() == 1 ? tau[0] : tau[static_cast<std::size_t>(layer)];
        const bool needed = routing_mode == routing_mode::threshold || routing_mode == routing_mode::permuted;
        check(t.has_value() || !needed, "config", "tau[", layer, "]: expected a number for a routed layer, found null");
        return {t.value_or(0.0)};
    }

    void validate() const {
        const auto at_least = [](index value, index low, const char* key) {
            check(value >= low, "config", key, ": expected at least ", low, ", found ", value);
        };
        const auto within = [](double value, double low, double high, const char* key) {
            check(value >= low && value <= high, "config", key, ": expected a number in [", low, ", ", high,
                  "], found ", value);
        };
        check(model_type == "chiar_former" || model_type == "full_attention" || model_type == "chiar_classifier",
              "config", "model_type: expected chiar_former, full_attention or chiar_classifier, found ", model_type);
        // sizes stay far from overflow
        const auto between = [&](index value, index low, index high, const char* key) {
            at_least(value, low, key);
            check(value <= high, "config", key, ": expected at most ", high, ", found ", value);
        };
        between(vocab_size, 1, index{1} << 30, "vocab_size");
        between(d_model, 1, index{1} << 20, "d_model");
        at_least(n_heads, 1, "n_heads");
        between(n_layers, baseline() ? 1 : 2, 10000, "n_layers");
        between(max_seq_len, 1, index{1} << 22, "max_seq_len");  // a rotary table has that many rows
        between(n_random_features, 1, index{1} << 20, "n_random_features");
        between(num_classes, 0, index{1} << 30, "num_classes");
        check(d_model % n_heads == 0, "config", "d_model: expected a multiple of n_heads (", n_heads, "), found ",
              d_model);
        check(has_positions() || d_model / n_heads % 2 == 0, "config",
              "d_model / n_heads: expected an even head width for rotary positions, found ", d_model / n_heads);
        check(rope_base > 0, "config", "rope_base: expected a positive number, found ", rope_base);
        check(dropout >= 0 && dropout < 1, "config", "dropout: expected a number in [0, 1), found ", dropout);
        within(target_share, 0, 1, "target_share");
        if (meta_gate_value) within(*meta_gate_value, 0, 1, "meta_gate_value");
        for (const auto& [task, classes] : task_classes)
            check(classes >= 1 && classes <= 1000000, "config", "task_classes[", task,
                  "]: expected 1 to 1000000, found ", classes);
        within(meta_gate_threshold, 0, 1, "meta_gate_threshold");
        check(rbf_gamma > 0, "config", "rbf_gamma: expected a positive number, found ", rbf_gamma);
        check(tau_low <= tau_high, "config", "tau_low: expected at most tau_high (", tau_high, "), found ", tau_low);
        check(tau.size() <= 1 || static_cast<index>(tau.size()) == n_layers, "config", "tau: expected one number or ",
              n_layers, " entries, found ", tau.size());
        if (model_type == "chiar_classifier") at_least(num_classes, 1, "num_classes");
        check(baseline() || routing_mode != routing_mode::random || operators() == 2, "config",
              "routing_mode: random needs a layer_variant of two operators");
        if (!baseline())
            for (index l = 1; l + 1 < n_layers; ++l) thresholds(l);
    }
};

}  // namespace spectral
