// SPDX-License-Identifier: Apache-2.0
// include/spectral/io/chiar_config_json.hpp: chiar_config from and to config.json
//
// One table names every key once; reading, writing and the list for "did you mean" come from it. Unknown keys are an
// error: a misspelt option must not be a silent default.
#pragma once
#include <spectral/io/json.hpp>
#include <spectral/models/chiar_config.hpp>

#include <array>
#include <utility>

namespace spectral {

namespace detail {

// the names of an enumeration's values in files and on the command line
template <class Enum>
using enum_names = std::span<const std::pair<Enum, const char*>>;

inline constexpr std::array routing_mode_names{
    std::pair{routing_mode::threshold, "threshold"}, std::pair{routing_mode::hard, "hard"},
    std::pair{routing_mode::soft, "soft"},           std::pair{routing_mode::budget, "budget"},
    std::pair{routing_mode::random, "random"},       std::pair{routing_mode::permuted, "permuted"},
    std::pair{routing_mode::attention, "attention"}, std::pair{routing_mode::dct, "dct"}};
inline constexpr auto layer_variant_names = [] {
    std::array<std::pair<layer_variant, const char*>, layer_variants.size()> names{};
    for (std::size_t i = 0; i < names.size(); ++i) names[i] = {layer_variants[i].variant, layer_variants[i].name};
    return names;
}();
inline constexpr std::array dct_norm_names{std::pair{dct_norm::ortho, "ortho"},
                                           std::pair{dct_norm::reference, "reference"}};
inline constexpr std::array kv_scope_names{std::pair{kv_scope::all, "all"}, std::pair{kv_scope::routed, "routed"}};
inline constexpr std::array meta_pool_names{
    std::pair{meta_pool::batch, "batch"}, std::pair{meta_pool::sequence, "sequence"},
    std::pair{meta_pool::causal, "causal"}, std::pair{meta_pool::fixed, "fixed"}};
inline constexpr std::array estimator_names{std::pair{estimator::straight_through, "straight_through"},
                                            std::pair{estimator::selected_only, "selected_only"}};
inline constexpr std::array architecture_names{std::pair{architecture::v1, "v1"}, std::pair{architecture::v2, "v2"},
                                               std::pair{architecture::v3, "v3"}};

constexpr enum_names<routing_mode> names_of(routing_mode) { return routing_mode_names; }
constexpr enum_names<layer_variant> names_of(layer_variant) { return layer_variant_names; }
constexpr enum_names<dct_norm> names_of(dct_norm) { return dct_norm_names; }
constexpr enum_names<kv_scope> names_of(kv_scope) { return kv_scope_names; }
constexpr enum_names<meta_pool> names_of(meta_pool) { return meta_pool_names; }
constexpr enum_names<estimator> names_of(estimator) { return estimator_names; }
constexpr enum_names<architecture> names_of(architecture) { return architecture_names; }

template <class Enum>
const char* name_of(Enum value) {
    for (const auto& [v, name] : names_of(value))
        if (v == value) return name;
    return "?";
}
template <class Enum>
Enum value_of(const std::string& text, std::string_view where, std::string_view key) {
    std::vector<std::string> known;
    for (const auto& [v, name] : names_of(Enum{})) {
        if (text == name) return v;
        known.emplace_back(name);
    }
    std::string list;
    for (const auto& k : known) list += (list.empty() ? "" : ", ") + k;
    fail(where, key, ": expected one of ", list, "; found ", in_quotes(text), suggestion(text, known));
}

// visit(key, member) for every key of config.json, in the order it is written
template <class Config, class Visit>
void for_each_key(Config& c, Visit&& visit) {
    visit("model_type", c.model_type);
    visit("architecture", c.architecture);
    visit("vocab_size", c.vocab_size);
    visit("d_model", c.d_model);
    visit("n_heads", c.n_heads);
    visit("n_layers", c.n_layers);
    visit("max_seq_len", c.max_seq_len);
    visit("rope_base", c.rope_base);
    visit("dropout", c.dropout);
    visit("layer_variant", c.layer_variant);
    visit("dct_norm", c.dct_norm);
    visit("kv_scope", c.kv_scope);
    visit("routing_mode", c.routing_mode);
    visit("estimator", c.estimator);
    visit("tau", c.tau);
    visit("tau_low", c.tau_low);
    visit("tau_high", c.tau_high);
    visit("target_share", c.target_share);
    visit("random_seed", c.random_seed);
    visit("use_collapse_reg", c.use_collapse_reg);
    visit("collapse_reg_detached", c.collapse_reg_detached);
    visit("lambda_reg", c.lambda_reg);
    visit("use_meta_router", c.use_meta_router);
    visit("meta_pool", c.meta_pool);
    visit("meta_gate_value", c.meta_gate_value);
    visit("meta_gate_threshold", c.meta_gate_threshold);
    visit("rbf_gamma", c.rbf_gamma);
    visit("n_random_features", c.n_random_features);
    visit("rbf_causal", c.rbf_causal);
    visit("num_classes", c.num_classes);
    visit("task_classes", c.task_classes);
}

struct config_reader {
    const nlohmann::json& value;
    std::string_view where, key;

    [[noreturn]] void wrong(const char* expected) const {
        fail(where, key, ": expected ", expected, ", found ",
             value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace).substr(0, 80));
    }
    void operator()(std::string& out) const {
        value.is_string() ? void(out = value.get<std::string>()) : wrong("a string");
    }
    void operator()(bool& out) const { value.is_boolean() ? void(out = value.get<bool>()) : wrong("true or false"); }
    void operator()(double& out) const { value.is_number() ? void(out = value.get<double>()) : wrong("a number"); }
    void operator()(std::optional<double>& out) const {
        if (value.is_null()) return out.reset();
        out.emplace();
        (*this)(*out);
    }
    void operator()(index& out) const {
        if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<std::uint64_t>() > 1000000000000))
            wrong("a whole number");
        out = value.get<index>();
    }
    void operator()(std::uint64_t& out) const {
        value.is_number_unsigned() ? void(out = value.get<std::uint64_t>()) : wrong("a whole number of at least 0");
    }
    template <class Enum>
        requires std::is_enum_v<Enum>
    void operator()(Enum& out) const {
        if (!value.is_string()) wrong("a string");
        out = value_of<Enum>(value.get<std::string>(), where, key);
    }
    void operator()(std::vector<std::optional<double>>& out) const {
        const auto entry = [&](const nlohmann::json& v) -> std::optional<double> {
            if (v.is_null()) return std::nullopt;
            if (!v.is_number()) wrong("a number, or a list of numbers and nulls");
            return v.get<double>();
        };
        out.clear();
        if (value.is_null()) return;  // from tau_low and tau_high
        if (!value.is_array()) return out.push_back(entry(value));
        for (const auto& v : value) out.push_back(entry(v));
    }
    void operator()(std::vector<std::pair<std::string, index>>& out) const {
        if (!value.is_object()) wrong("an object of task: classes");
        out.clear();
        for (const auto& [task, classes] : value.items()) {
            if (!classes.is_number_integer() || classes.get<index>() < 1)
                wrong("an object of task: classes (at least 1)");
            out.emplace_back(task, classes.get<index>());
        }
    }
};

struct config_writer {
    template <class V>
    nlohmann::ordered_json operator()(const V& v) const {
        if constexpr (std::is_enum_v<V>)
            return name_of(v);
        else
            return v;
    }
    nlohmann::ordered_json operator()(const std::optional<double>& v) const {
        return v ? nlohmann::ordered_json(*v) : nlohmann::ordered_json();
    }
    nlohmann::ordered_json operator()(const std::vector<std::optional<double>>& tau) const {
        const auto entry = [](const std::optional<double>& t) {
            return t ? nlohmann::ordered_json(*t) : nlohmann::ordered_json();
        };
        if (tau.empty()) return nullptr;
        if (tau.size() == 1) return entry(tau[0]);
        auto list = nlohmann::ordered_json::array();
        for (const auto& t : tau) list.push_back(entry(t));
        return list;
    }
    nlohmann::ordered_json operator()(const std::vector<std::pair<std::string, index>>& tasks) const {
        auto object = nlohmann::ordered_json::object();
        for (const auto& [task, classes] : tasks) object[task] = classes;
        return object;
    }
};

}  // namespace detail

// Reads and validates; `where` names the file in errors. Absent keys keep their defaults.
inline chiar_config parse_chiar_config(const nlohmann::json& json, std::string_view where) {
    check(json.is_object(), where, "expected a JSON object");
    chiar_config config;
    std::vector<std::string> known;
    detail::for_each_key(config, [&](const char* key, auto& member) {
        known.emplace_back(key);
        if (const auto found = json.find(key); found != json.end()) detail::config_reader{*found, where, key}(member);
    });
    for (const auto& [key, value] : json.items())
        if (std::find(known.begin(), known.end(), key) == known.end())
            fail(where, "unknown key ", in_quotes(key), suggestion(key, known));
    if (config.meta_gate_value && !json.contains("meta_pool")) config.meta_pool = meta_pool::fixed;
    try {
        config.validate();
    } catch (const error& problem) {
        fail(where, std::string_view(problem.what()).substr(problem.where().size() + 2));
    }
    return config;
}
// config.json of a CHIAR model or baseline. Throws error with file and key where one is unknown, missing or out of
// range.
inline chiar_config read_chiar_config(const std::filesystem::path& file) {
    return parse_chiar_config(read_json_file(file), file.string());
}

// The text of config.json: read_chiar_config() gives the same configuration back.
inline std::string write_chiar_config(const chiar_config& config) {
    nlohmann::ordered_json json;
    detail::for_each_key(config,
                         [&](const char* key, const auto& member) { json[key] = detail::config_writer{}(member); });
    return json.dump(2) + "\n";
}

}  // namespace spectral
