// SPDX-License-Identifier: Apache-2.0
// examples/cli/info.cpp: `spectral info`: parameters by part, FLOPs by operator, and what this build is
#include "commands.hpp"
#include "runners.hpp"
#include "stack_only.hpp"

#include <spectral/report/work.hpp>
#include <spectral/version.hpp>

#include <iostream>
#include <thread>

#include <omp.h>

#ifndef SPECTRAL_BUILD_INFO
#define SPECTRAL_BUILD_INFO "built without CMake"
#endif

namespace spectral::cli {
namespace {

struct info_options {
    std::string model;
    bool build = false, json = false;
    index batch = 1, time = 0;
    double share = 0.5;
    route_files route;
};

void check_batch_fits(const info_options& o, index time, index longest, const char* field) {
    constexpr index most = index{1} << 40;  // tokens: what is counted stays exact
    check(time > 0 && time <= longest, o.model, "--time: expected 1 to ", longest, " (", field, "), found ", time);
    check(o.batch > 0 && o.batch <= most / time, o.model, "--batch: expected 1 to ", most / time, ", found ", o.batch);
}

// Which part a parameter belongs to, by its published name; the first match counts.
std::string part_of(const std::string& name) {
    static constexpr std::pair<const char*, const char*> parts[] = {{"token_emb", "embedding and head"},
                                                                    {"pos_emb", "positions"},
                                                                    {"meta_router", "MetaRouter"},
                                                                    {"router", "routers"},
                                                                    {"dct_mix", "DCT mixing"},
                                                                    {"rbf_mix", "RBF mixing"},
                                                                    {"identity_mix", "identity"},
                                                                    {"embed_tokens", "embedding and head"},
                                                                    {"lm_head", "head"},
                                                                    {"attn", "attention"},
                                                                    {"mlp", "feed-forward"},
                                                                    {"layernorm", "norms"},
                                                                    {"model.norm", "norms"},
                                                                    {"ffn", "feed-forward"},
                                                                    {"classifier", "classifier"},
                                                                    {"heads.", "task heads"}};
    for (const auto& [key, part] : parts)
        if (name.find(key) != std::string::npos) return part;
    return "final norm";
}

// What every layer runs on B sequences of T when `share` of the tokens of a routed layer go to attention, in
// evaluation.
mac_counts forward_macs(const chiar_config& c, index batch, index time, double share) {
    if (c.baseline()) return dense_macs(c, std::vector<index>(static_cast<std::size_t>(batch), time), batch * time);
    const bool identity = c.layer_variant == layer_variant::identity_attn;
    const index rows = batch * time;
    if (c.routing_mode == routing_mode::attention) share = 1;
    if (c.routing_mode == routing_mode::dct) share = 0;
    const bool all_run = c.routing_mode == routing_mode::soft;
    const auto pairs = static_cast<double>(batch) * causal_pairs(time);
    layer_work first, middle, last = layer_work::all_attention(batch, time);
    first.rows = rows;
    (identity ? first.identity_rows : first.dct_rows) = rows;

    const double kept = all_run ? 1 : share;
    middle.rows = rows;
    middle.attention_rows = static_cast<index>(kept * static_cast<double>(rows));
    const bool all_keys = c.kv_scope == kv_scope::all || all_run;
    middle.key_rows = all_keys ? rows : middle.attention_rows;
    middle.attention_pairs = pairs * kept * (all_keys ? 1 : kept);
    const index others = all_run ? rows : rows - middle.attention_rows,
                rbf = c.operators() == 3 ? (all_run ? rows : others / 2) : 0;
    (identity ? middle.identity_rows : middle.dct_rows) = all_run ? rows : others - rbf;
    middle.rbf_rows = rbf;
    if (rbf)
        middle.rbf_key_rows = rows, middle.rbf_pairs = pairs * static_cast<double>(rbf) / static_cast<double>(rows);
    const bool learned = c.routing_mode == routing_mode::hard || c.routing_mode == routing_mode::soft ||
                         c.routing_mode == routing_mode::budget;
    if (learned || c.routing_mode == routing_mode::threshold || c.routing_mode == routing_mode::permuted)
        middle.router_rows = rows;
    middle.gate_outputs = learned ? c.operators() : 0;

    std::vector<layer_work> layers(static_cast<std::size_t>(c.n_layers), middle);
    layers.front() = first;
    layers.back() = last;
    const chiar_widths widths{.d = c.d_model,
                              .feed_forward = 4 * c.d_model,
                              .vocabulary = c.vocab_size,
                              .rbf_features = c.n_random_features,
                              .mixers_have_feed_forward = c.architecture == architecture::v1};
    return model_macs(widths, layers, rows);
}

void print_build() {
    std::printf("spectral    %d.%d.%d\n", version_major, version_minor, version_patch);
    std::printf("build       %s\n", SPECTRAL_BUILD_INFO);
    std::printf("executors  ");
    for (const auto& entry : runner_table) std::printf(" %s/%s", entry.executor, entry.dtype);
    std::printf("\nthreads     %d by default, %u processors\n", omp_get_max_threads(),
                std::thread::hardware_concurrency());
}

// parameters by part, in the order they appear
std::vector<parameter_size> by_part(const std::vector<parameter_size>& parameters) {
    std::vector<parameter_size> parts;
    for (const auto& [name, size, trainable] : parameters) {
        const std::string part = part_of(name);
        auto found = std::find_if(parts.begin(), parts.end(), [&](const auto& p) { return p.name == part; });
        if (found == parts.end()) found = parts.insert(parts.end(), {part, 0, trainable});
        found->size += size;
    }
    return parts;
}
void print_parts(const std::vector<parameter_size>& parts, index total) {
    std::printf("\nparameters\n");
    for (const auto& p : parts)
        std::printf("  %-20s %13lld %6.1f%%\n", p.name.c_str(), static_cast<long long>(p.size),
                    100.0 * static_cast<double>(p.size) / static_cast<double>(total));
    std::printf("  %-20s %13lld\n", "total", static_cast<long long>(total));
}

// A backbone, with the adapters and gates of `--adapter` and `--router`; without them, what the published ones would
// add.
void print_qwen2(const info_options& o, const qwen2_config& c) {
    layer_route_model m = with_route(c, o.route);
    const bool published = m.route.plain();
    if (published) {
        m.route.lora = lora_options{};
        m.route.gates = skip_gate_options{};
    }
    const auto all = parameters_of(m);
    index backbone = 0, tensors = 0, adapters = 0, gates = 0;
    for (const auto& p : all) {
        index& sum = is_adapter(p.name) ? adapters : is_router(p.name) ? gates : backbone;
        sum += p.size;
        tensors += is_backbone(p.name);
    }
    std::vector<parameter_size> of_backbone;
    std::copy_if(all.begin(), all.end(), std::back_inserter(of_backbone),
                 [](const auto& p) { return is_backbone(p.name); });
    const index time = o.time ? o.time : std::min<index>(c.max_position_embeddings, 512);
    check_batch_fits(o, time, c.max_position_embeddings, "max_position_embeddings");
    const layer_route_model plain{c, published ? layer_route_config{} : m.route};
    const mac_counts macs =
        dense_macs(plain, std::vector<index>(static_cast<std::size_t>(o.batch), time), o.batch * time);
    if (o.json) {
        nlohmann::ordered_json json{{"config", nlohmann::ordered_json::parse(write_qwen2_config(c))},
                                    {"parameters", {{"total", backbone}, {"tensors", tensors}}}};
        for (const auto& p : by_part(of_backbone)) json["parameters"][p.name] = p.size;
        json[published ? "published_layer_route" : "layer_route"] = {{"adapters", adapters}, {"gates", gates}};
        for (const auto& [name, field] : mac_counts::fields())
            if (macs.*field > 0) json["macs"][std::string(name)] = macs.*field;
        json["batch"] = o.batch, json["time"] = time;
        std::cout << json.dump(2) << '\n';
        return;
    }
    std::printf(
        "qwen2, %lld blocks, width %lld, %lld heads, %lld key/value heads, vocabulary %lld, at most %lld tokens\n",
        static_cast<long long>(c.num_hidden_layers), static_cast<long long>(c.hidden_size),
        static_cast<long long>(c.num_attention_heads), static_cast<long long>(c.num_key_value_heads),
        static_cast<long long>(c.vocab_size), static_cast<long long>(c.max_position_embeddings));
    print_parts(by_part(of_backbone), backbone);
    std::printf("  %-20s %13lld\n", "tensors", static_cast<long long>(tensors));
    std::printf("\nLayerRoute, %s: %lld values in adapters, %lld in gates\n",
                published ? "with the published options (q, k, v, o at rank 8)" : "as given",
                static_cast<long long>(adapters), static_cast<long long>(gates));
    std::printf("\nforward pass of %lld x %lld tokens, every block open; 1 MAC = 2 FLOPs\n%s",
                static_cast<long long>(o.batch), static_cast<long long>(time), mac_table(macs).c_str());
}

void print_model(const info_options& o) {
    namespace fs = std::filesystem;
    const model_directory model =
        fs::is_directory(o.model) ? model_directory(o.model) : model_directory::of_file(o.model);
    if (model.is_qwen2()) return print_qwen2(o, model.qwen2());
    const chiar_config& c = model.chiar();
    const index time = o.time ? o.time : c.max_seq_len;
    check_batch_fits(o, time, c.max_seq_len, "max_seq_len");
    check(o.share >= 0 && o.share <= 1, "--share", "expected a number in [0, 1], found ", o.share);
    const std::vector<parameter_size> parts = by_part(parameters_of(c));
    index total = 0;
    for (const auto& p : parts) total += p.size;
    const mac_counts macs = forward_macs(c, o.batch, time, o.share);
    const mac_counts dense = dense_macs(c, std::vector<index>(static_cast<std::size_t>(o.batch), time), o.batch * time);
    if (o.json) {
        nlohmann::ordered_json json{{"config", nlohmann::ordered_json::parse(write_chiar_config(c))},
                                    {"parameters", {{"total", total}}}};
        for (const auto& p : parts) json["parameters"][p.name] = p.size;
        for (const auto& [name, field] : mac_counts::fields())
            if (dense.*field > 0 || macs.*field > 0)
                json["macs"][std::string(name)] = {{"model", macs.*field}, {"dense", dense.*field}};
        json["batch"] = o.batch, json["time"] = time, json["share"] = o.share;
        std::cout << json.dump(2) << '\n';
        return;
    }
    std::printf("%s, %lld layers, width %lld, %lld heads, vocabulary %lld, at most %lld tokens\n", c.model_type.c_str(),
                static_cast<long long>(c.n_layers), static_cast<long long>(c.d_model),
                static_cast<long long>(c.n_heads), static_cast<long long>(c.vocab_size),
                static_cast<long long>(c.max_seq_len));
    if (!c.baseline())
        std::printf("%s, routing %s, %s DCT, keys and values of %s tokens\n",
                    spectral::detail::name_of(c.layer_variant), spectral::detail::name_of(c.routing_mode),
                    spectral::detail::name_of(c.dct_norm), spectral::detail::name_of(c.kv_scope));
    print_parts(parts, total);
    std::printf("\nforward pass of %lld x %lld tokens", static_cast<long long>(o.batch), static_cast<long long>(time));
    if (!c.baseline()) std::printf(", %.0f %% of the tokens of a routed layer to attention", 100 * o.share);
    std::printf("; 1 MAC = 2 FLOPs; dense: attention in every layer\n%s", mac_table(macs, &dense).c_str());
    std::printf("FLOPs %.4g, dense %.4g; a training step takes about 3 times that\n", macs.flops(), dense.flops());
}

}  // namespace

void add_info(CLI::App& app) {
    auto* c =
        app.add_subcommand("info", "parameters by part, FLOPs by operator; --build: compiler, threads, transforms");
    auto o = std::make_shared<info_options>();
    option(*c, "model,--model", o->model, "PATH", "model directory, run, or a config.json alone");
    c->add_flag("--build", o->build, "how this program was built");
    option(*c, "--batch", o->batch, "N", "sequences of the FLOP count");
    option(*c, "--time", o->time, "N", "tokens a sequence; 0: max_seq_len");
    option(*c, "--share", o->share, "X", "share of tokens to attention in routed layers");
    c->add_flag("--json", o->json, "JSON instead of tables");
    add_route_options(*c, o->route);
    c->callback([o] {
        check(o->build || !o->model.empty(), "spectral info", "expected a model directory, a config.json or --build");
        if (o->build) print_build();
        if (!o->model.empty()) print_model(*o);
    });
}

}  // namespace spectral::cli
