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

// What the short options are called in a Qwen2 configuration; empty: it has no such choice.
std::string qwen2_key(const std::string& key) {
    if (key == "d_model") return "hidden_size";
    if (key == "n_heads") return "num_attention_heads";
    if (key == "n_layers") return "num_hidden_layers";
    for (const auto& s : short_options)
        if (key == s.key) return {};
    return key;
}

qwen2_config make_qwen2_config(const model_options& o, nlohmann::json json, const std::string& where,
                               const data_needs& needs) {
    check(needs.language && needs.classes.empty(), where,
          "model_type: qwen2 is a language model; its task is language");
    if (o.config.empty())
        json = {{"hidden_size", 256},       {"intermediate_size", 704}, {"num_hidden_layers", 12},
                {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"tie_word_embeddings", true}};
    json["model_type"] = "qwen2";
    for (const auto& text : o.set) {
        const auto [key, value] = key_and_value(text);
        check(!qwen2_key(key).empty(), where, key, ": a qwen2 model has no such choice");
        json[qwen2_key(key)] = value;
    }
    if (!json.contains("vocab_size")) json["vocab_size"] = needs.vocabulary;
    if (!json.contains("max_position_embeddings")) json["max_position_embeddings"] = std::max<index>(needs.time, 2048);
    return parse_qwen2_config(json, where);
}

void check_fit(const std::string& where, const data_needs& needs, index vocabulary, const char* key, index longest) {
    check(vocabulary >= needs.vocabulary, where, "vocab_size: expected at least ", needs.vocabulary,
          " (tokens of the data), found ", vocabulary);
    check(longest >= needs.time, where, key, ": expected at least ", needs.time, " (--time), found ", longest);
}

}  // namespace

void add_model_options(CLI::App& app, std::shared_ptr<model_options> o) {
    const char* group = "Model";
    option(app, "--config", o->config, "FILE", "config.json to start from; unknown keys are refused")->group(group);
    choice(app, "--preset", o->preset, {"small", "large"}, "without --config: width 256 and 4 layers, or 1024 and 28")
        ->group(group);
    choice(app, "--model", o->model, {"chiar_former", "full_attention", "chiar_classifier", "qwen2"}, "[by the task]")
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

std::variant<chiar_config, qwen2_config> make_config(const model_options& o, const data_needs& needs) {
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
    if (json.value("model_type", nlohmann::json()) == "qwen2") {
        const qwen2_config c = make_qwen2_config(o, json, where, needs);
        check_fit(where, needs, c.vocab_size, "max_position_embeddings", c.max_position_embeddings);
        return c;
    }
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
    check_fit(where, needs, c.vocab_size, "max_seq_len", c.max_seq_len);
    return c;
}

}  // namespace spectral::cli
