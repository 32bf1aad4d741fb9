// SPDX-License-Identifier: Apache-2.0
// include/spectral/io/peft.hpp: adapters as PEFT writes them, and LayerRoute's gates beside them
//
//   adapter_config.json, adapter_model.safetensors      readable by PEFT alone
//   router_config.json, router.safetensors              router.N.weight (1, d), router.N.bias (1)
// What changes the mathematics and is not implemented is refused by name.
#pragma once
#include <spectral/io/json.hpp>
#include <spectral/models/layer_route_config.hpp>

#include <array>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <regex>
#include <set>

namespace spectral {

// The modules of a block that can have an adapter.
inline constexpr std::array<const char*, 7> lora_modules{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                         "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                                         "mlp.down_proj"};

namespace detail {
// PEFT matches a list entry against the end of the module's path, and a string as a regular expression against all of
// it.
inline bool module_matches(const std::string& path, const std::string& entry) {
    return path == entry ||
           (path.size() > entry.size() && path.ends_with(entry) && path[path.size() - entry.size() - 1] == '.');
}
// A pattern from a file. std::regex tries every way to share a text among repetitions: a repeated group can take time
// without end, and so can many repetitions of characters.
inline std::regex module_pattern(const std::string& pattern, std::string_view where, const char* key) {
    check(pattern.size() <= 1000, where, key, ": expected a pattern of at most 1000 characters, found ",
          pattern.size());
    int repeated = 0;
    for (std::size_t i = 1; i < pattern.size(); ++i) {
        if (pattern[i] != '*' && pattern[i] != '+' && pattern[i] != '{') continue;
        check(pattern[i - 1] != ')', where, key, ": repeated groups are not taken, found ",
              in_quotes(pattern.substr(0, 60)));
        check(++repeated <= 4, where, key, ": expected at most 4 repetitions, found ",
              in_quotes(pattern.substr(0, 60)));
    }
    try {
        return std::regex(pattern, std::regex::ECMAScript);
    } catch (const std::regex_error&) {
        fail(where, key, ": expected a regular expression, found ", in_quotes(pattern));
    }
}
// N of a path with "layers.N."; -1 of another
inline index layer_of(const std::string& path) {
    const std::size_t at = path.find("layers.");
    return at == path.npos ? -1 : std::atol(path.c_str() + at + 7);
}
// rank_pattern and alpha_pattern: the first key that matches the end of the path as a regular expression
inline double pattern_value(const nlohmann::json& patterns, const std::string& path, double otherwise,
                            std::string_view where, const char* key) {
    if (!patterns.is_object()) return otherwise;
    for (const auto& [pattern, value] : patterns.items()) {
        check(value.is_number(), where, key, "[", in_quotes(pattern), "]: expected a number");
        if (std::regex_search(path, module_pattern("(^|.*\\.)(" + pattern + ")$", where, key)))
            return value.get<double>();
    }
    return otherwise;
}
}  // namespace detail

// The linear maps of a backbone's blocks, by path.
inline std::vector<std::string> linear_modules(const qwen2_config& backbone) {
    std::vector<std::string> out;
    for (index l = 0; l < backbone.num_hidden_layers; ++l)
        for (const char* module : lora_modules) out.push_back("model.layers." + std::to_string(l) + "." + module);
    return out;
}

// adapter_config.json -> options of every adapted module among these
inline std::map<std::string, lora_options> parse_peft_config(const nlohmann::json& json, std::string_view where,
                                                             const std::vector<std::string>& modules) {
    check(json.is_object(), where, "expected a JSON object");
    const auto get = [&](const char* key) { return json.contains(key) ? json[key] : nlohmann::json(); };
    check(get("peft_type") == "LORA", where, "peft_type: expected \"LORA\", found ",
          get("peft_type").dump().substr(0, 60));
    for (const char* key : {"use_dora", "lora_bias", "fan_in_fan_out", "use_qalora", "use_bdlora"})
        check(get(key).is_null() || get(key) == false, where, key, ": not implemented, and it changes the result");
    for (const char* key :
         {"alora_invocation_tokens", "layer_replication", "trainable_token_indices", "target_parameters",
          "modules_to_save", "megatron_config", "arrow_config", "kasa_config", "velora_config", "monteclora_config"})
        check(get(key).is_null() || get(key).empty(), where, key, ": not implemented, and it changes the result");
    check(get("bias").is_null() || get("bias") == "none", where, "bias: expected \"none\", found ",
          get("bias").dump().substr(0, 60));
    // pissa, olora, corda, loftq: their adapters belong to a base whose weights were changed
    const auto initial = get("init_lora_weights");
    check(initial.is_null() || initial.is_boolean() || initial == "gaussian" || initial == "eva" ||
              initial == "orthogonal",
          where, "init_lora_weights: expected true, false, \"gaussian\", \"eva\" or \"orthogonal\", found ",
          initial.dump().substr(0, 60));
    const auto number = [&](const char* key, double otherwise) {
        const auto v = get(key);
        check(v.is_null() || v.is_number(), where, key, ": expected a number, found ", v.dump().substr(0, 60));
        return v.is_null() ? otherwise : v.get<double>();
    };
    for (const char* key : {"rank_pattern", "alpha_pattern"})
        check(get(key).is_null() || get(key).is_object(), where, key, ": expected an object, found ",
              get(key).dump().substr(0, 60));
    const auto layers = get("layers_to_transform");
    check(layers.is_null() || layers.is_array() || layers.is_number_integer(), where,
          "layers_to_transform: expected a number or a list of numbers, found ", layers.dump().substr(0, 60));
    const auto layers_name = get("layers_pattern");
    check(layers_name.is_null() || layers_name == "layers" || layers_name.empty(), where,
          "layers_pattern: expected \"layers\", found ", layers_name.dump().substr(0, 60));
    const auto stabilized = get("use_rslora");
    check(stabilized.is_null() || stabilized.is_boolean(), where, "use_rslora: expected true or false, found ",
          stabilized.dump().substr(0, 60));
    const double rank = number("r", 8), alpha = number("lora_alpha", 8), dropout = number("lora_dropout", 0);
    const auto target = get("target_modules"), exclude = get("exclude_modules");
    const auto matches = [&](const nlohmann::json& rule, const std::string& path, const char* key) {
        if (rule.is_string()) {
            if (rule == "all-linear") return true;
            return std::regex_match(path, detail::module_pattern(rule.get<std::string>(), where, key));
        }
        check(rule.is_array(), where, key, ": expected a list, a regular expression or \"all-linear\", found ",
              rule.dump().substr(0, 60));
        for (const auto& entry : rule)
            if (entry.is_string() && detail::module_matches(path, entry.get<std::string>())) return true;
        return false;
    };
    check(!target.is_null(), where,
          "target_modules: expected a list, a regular expression or \"all-linear\", found none");
    std::map<std::string, lora_options> out;
    for (const std::string& path : modules) {
        const index l = detail::layer_of(path);
        if (layers.is_array() && std::find(layers.begin(), layers.end(), l) == layers.end()) continue;
        if (layers.is_number_integer() && layers != l) continue;
        if (!matches(target, path, "target_modules") ||
            (!exclude.is_null() && matches(exclude, path, "exclude_modules")))
            continue;
        lora_options o;
        const double own_rank = detail::pattern_value(get("rank_pattern"), path, rank, where, "rank_pattern");
        check(own_rank >= 1 && own_rank <= 1 << 20 && own_rank == std::floor(own_rank), where,
              "r: expected a whole number from 1 to ", 1 << 20, ", found ", own_rank);
        o.rank = static_cast<index>(own_rank);
        o.alpha = detail::pattern_value(get("alpha_pattern"), path, alpha, where, "alpha_pattern");
        o.dropout = dropout;
        o.rank_stabilized = stabilized == true;
        out.emplace(path, o);
    }
    check(!out.empty(), where, "target_modules: none of the backbone's modules match ", target.dump().substr(0, 120));
    return out;
}

// Options of each adapted module of a Qwen2 backbone, by path; throws error where a key would change the maths.
inline std::map<std::string, lora_options> parse_peft_config(const nlohmann::json& json, std::string_view where,
                                                             const qwen2_config& backbone) {
    return parse_peft_config(json, where, linear_modules(backbone));
}

// The adapters of a configuration, as PEFT writes them: keys sorted, two spaces. Modules are listed by name where every
// block has them, else by path; ranks and alphas that differ from the first adapter's become patterns.
inline std::string write_peft_config(const std::map<std::string, lora_options>& adapters,
                                     const std::vector<std::string>& modules, const std::string& base_model) {
    check(!adapters.empty(), "adapter_config.json", "target_modules: none of the backbone's modules is named");
    const lora_options& first = adapters.begin()->second;
    std::set<std::string> names;
    for (const auto& [path, o] : adapters) names.insert(path.substr(path.rfind('.') + 1));
    const bool everywhere =
        !modules.empty() && std::all_of(modules.begin(), modules.end(), [&](const std::string& path) {
            return adapters.count(path) || !names.count(path.substr(path.rfind('.') + 1));
        });
    std::vector<std::string> targets;
    if (everywhere) targets.assign(names.begin(), names.end());
    nlohmann::json ranks = nlohmann::json::object(), alphas = nlohmann::json::object();
    for (const auto& [path, o] : adapters) {
        if (!everywhere) targets.push_back(path);
        if (o.rank != first.rank) ranks[path] = o.rank;
        if (o.alpha != first.alpha) alphas[path] = o.alpha;
        check(
            o.dropout == first.dropout && o.rank_stabilized == first.rank_stabilized, path,
            "dropout and rank stabilisation of an adapter: expected those of the others, which is all the file can say");
    }
    std::sort(targets.begin(), targets.end());
    const nlohmann::json json{{"peft_type", "LORA"},
                              {"task_type", "CAUSAL_LM"},
                              {"base_model_name_or_path", base_model},
                              {"r", first.rank},
                              {"lora_alpha", first.alpha},
                              {"lora_dropout", first.dropout},
                              {"target_modules", targets},
                              {"bias", "none"},
                              {"fan_in_fan_out", false},
                              {"inference_mode", true},
                              {"use_rslora", first.rank_stabilized},
                              {"use_dora", false},
                              {"modules_to_save", nullptr},
                              {"rank_pattern", ranks},
                              {"alpha_pattern", alphas},
                              {"init_lora_weights", true},
                              {"revision", nullptr}};
    return json.dump(2) + "\n";
}

// The text of adapter_config.json, as PEFT writes it.
inline std::string write_peft_config(const layer_route_config& r, const qwen2_config& backbone) {
    std::map<std::string, lora_options> adapters;
    for (const std::string& path : linear_modules(backbone))
        if (const auto options = r.adapter_of(path)) adapters.emplace(path, *options);
    return write_peft_config(adapters, linear_modules(backbone), r.base_model);
}

// how a parameter of the stack is named in adapter_model.safetensors
inline std::string peft_name(const std::string& name) { return "base_model.model." + name; }
// Which part of a LayerRoute model a parameter belongs to, by its name.
inline bool is_adapter(std::string_view name) {
    return name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight");
}
inline bool is_router(std::string_view name) { return name.starts_with("router."); }
inline bool is_backbone(std::string_view name) { return !is_adapter(name) && !is_router(name); }

// router_config.json
inline skip_gate_options parse_router_config(const nlohmann::json& json, std::string_view where, index layers) {
    check(json.is_object(), where, "expected a JSON object");
    skip_gate_options o;
    std::vector<std::string> known{"pool",  "threshold", "gate_reg_weight",     "num_layers",
                                   "scope", "kind",      "skip_first_position", "write_kv"};
    for (const auto& [key, value] : json.items())
        if (std::find(known.begin(), known.end(), key) == known.end())
            fail(where, "unknown key ", in_quotes(key), suggestion(key, known));
    const auto choose =
        [&](const char* key, auto& out,
            std::initializer_list<std::pair<const char*, std::remove_reference_t<decltype(out)>>> names) {
            if (!json.contains(key)) return;
            std::string list;
            for (const auto& [name, value] : names) {
                if (json[key] == name) {
                    out = value;
                    return;
                }
                list += (list.empty() ? "" : ", ") + std::string(name);
            }
            fail(where, key, ": expected one of ", list, "; found ", json[key].dump().substr(0, 60));
        };
    choose("pool", o.pool,
           {{"sequence", gate_pool::sequence},
            {"prompt", gate_pool::prompt},
            {"last_prompt_token", gate_pool::last_prompt_token}});
    choose("scope", o.scope,
           {{"block", gate_scope::block},
            {"attention", gate_scope::attention},
            {"feed_forward", gate_scope::feed_forward}});
    choose("kind", o.kind,
           {{"straight_through", gate_kind::straight_through}, {"hard_concrete", gate_kind::hard_concrete}});
    for (const char* key : {"threshold", "gate_reg_weight"})
        check(!json.contains(key) || json[key].is_number(), where, key, ": expected a number");
    if (json.contains("threshold")) {
        o.threshold = json["threshold"].get<double>();
        check(o.threshold > 0 && o.threshold < 1, where, "threshold: expected a number between 0 and 1, found ",
              o.threshold);
    }
    for (auto [key, out] :
         {std::pair{"skip_first_position", &o.skip_first_position}, std::pair{"write_kv", &o.write_kv}})
        if (json.contains(key)) {
            check(json[key].is_boolean(), where, key, ": expected true or false");
            *out = json[key].get<bool>();
        }
    if (json.contains("num_layers"))
        check(json["num_layers"] == layers, where, "num_layers: expected ", layers, " as in the backbone, found ",
              json["num_layers"].dump());
    return o;
}

// The text of router_config.json.
inline std::string write_router_config(const skip_gate_options& o, double gate_reg_weight, index layers) {
    const char* pools[] = {"sequence", "prompt", "last_prompt_token"};
    const char* kinds[] = {"straight_through", "hard_concrete"};
    const char* scopes[] = {"block", "attention", "feed_forward"};
    const nlohmann::ordered_json json{
        {"pool", pools[static_cast<int>(o.pool)]},      {"threshold", o.threshold},
        {"gate_reg_weight", gate_reg_weight},           {"num_layers", layers},
        {"scope", scopes[static_cast<int>(o.scope)]},   {"kind", kinds[static_cast<int>(o.kind)]},
        {"skip_first_position", o.skip_first_position}, {"write_kv", o.write_kv}};
    return json.dump(2) + "\n";
}

}  // namespace spectral
