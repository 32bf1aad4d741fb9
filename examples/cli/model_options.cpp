// SPDX-License-Identifier: Apache-2.0
// examples/cli/model_options.cpp: options of a new model, merged as JSON and read like a config.json
#include "model_options.hpp"

namespace spectral::cli {
namespace {

struct short_option {
    const char *name, *key, *type, *help;
};
constexpr short_option short_options[] = {
    {"--d-model", "d_model", "N", "width of a token, a multiple of the heads"},
    {"--heads", "n_heads", "N", "attention heads"},
    {"--layers", "n_layers", "N", "layers; of a CHIAR-Former the first is spectral and the last attention"},
    {"--routing", "routing_mode", "MODE", "threshold|hard|soft|budget|random|permuted|attention|dct"},
    {"--variant", "layer_variant", "NAME", "operators of a routed layer: dct_attn|identity_attn|dct_rbf_attn"},
    {"--architecture", "architecture", "NAME", "v1|v2|v3 of the paper"},
    {"--estimator", "estimator", "NAME", "training of hard and budget: straight_through|selected_only"},
    {"--tau", "tau", "X", "entropy above which a token goes to attention; a list [null,0.86,...]: one per layer"},
    {"--target-share", "target_share", "X", "share of tokens to attention of random and budget routing"},
    {"--kv-scope", "kv_scope", "NAME", "tokens that give keys and values: all|routed"},
    {"--meta-pool", "meta_pool", "NAME",
     "what the MetaRouter reads: causal|sequence|batch|fixed [causal in a new model]"},
    {"--dropout", "dropout", "X", "share of activations dropped in training"}};

// "d_model=128" -> {"d_model", 128}: a JSON value where it is one, else a string
std::pair<std::string, nlohmann::json> key_and_value(const std::string& text) {
    const std::size_t equals = text.find('=');
    check(equals != text.npos && equals > 0, "--set", "expected key=value, found ", in_quotes(text));
    const std::string value = text.substr(equals + 1);
    auto json = nlohmann::json::parse(value, nullptr, false);
    return {text.substr(0, equals), json.is_discarded() ? nlohmann::json(value) : json};
}

}  // namespace

void add_model_options(CLI::App& app, std::shared_ptr<model_options> o) {
    const char* group = "Model";
    option(app, "--config", o->config, "FILE", "config.json to start from; unknown keys are refused")->group(group);
    choice(app, "--preset", o->preset, {"small", "large"}, "without --config: width 256 and 4 layers, or 1024 and 28")
        ->group(group);
    choice(app, "--model", o->model, {"chiar_former", "full_attention", "chiar_classifier"}, "[by the task]")
        ->group(group);
    for (const auto& s : short_options)
        app.add_option_function<std::string>(
               s.name, [o, key = s.key](const std::string& v) { o->set.push_back(std::string(key) + "=" + v); }, s.help)
            ->option_text(s.type)
            ->group(group);
    app.add_option_function<std::vector<std::string>>(
           "--set", [o](const std::vector<std::string>& v) { o->set.insert(o->set.end(), v.begin(), v.end()); },
           "any key of config.json, such as use_collapse_reg=true")
        ->option_text("KEY=VALUE...")
        ->group(group);
}

chiar_config make_config(const model_options& o, const data_needs& needs) {
    nlohmann::json json = nlohmann::json::object();
    std::string where = "model options";
    if (!o.config.empty()) {
        json = read_json_file(o.config);
        check(json.is_object(), o.config, "expected a JSON object");
        where = o.config;
    } else {
        json = nlohmann::json::parse(
            write_chiar_config(o.preset == "large" ? chiar_config::large() : chiar_config::small()));
        for (const char* open : {"vocab_size", "max_seq_len", "model_type", "num_classes", "task_classes"})
            json.erase(open);
        json["meta_pool"] = "causal";  // the published batch mean lets tokens see later ones
    }
    if (!o.model.empty()) json["model_type"] = o.model;
    for (const auto& text : o.set) {
        const auto [key, value] = key_and_value(text);
        json[key] = value;
    }
    if (!json.contains("model_type")) json["model_type"] = needs.language ? "chiar_former" : "chiar_classifier";
    if (!json.contains("vocab_size")) json["vocab_size"] = needs.vocabulary;
    if (!json.contains("max_seq_len")) json["max_seq_len"] = needs.time;
    if (json["model_type"] == "chiar_classifier") {
        check(!needs.language && needs.classes.size() == 1, where,
              "model_type: chiar_classifier has one classification task");
        if (!json.contains("num_classes")) json["num_classes"] = needs.classes[0].second;
    } else if (!json.contains("task_classes") && !needs.classes.empty()) {
        for (const auto& [task, classes] : needs.classes) json["task_classes"][task] = classes;
    }
    const chiar_config c = parse_chiar_config(json, where);
    check(c.vocab_size >= needs.vocabulary, where, "vocab_size: expected at least ", needs.vocabulary,
          " (tokens of the data), found ", c.vocab_size);
    check(c.max_seq_len >= needs.time, where, "max_seq_len: expected at least ", needs.time, " (--time), found ",
          c.max_seq_len);
    return c;
}

}  // namespace spectral::cli
