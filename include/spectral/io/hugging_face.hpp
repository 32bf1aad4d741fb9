// SPDX-License-Identifier: Apache-2.0
// include/spectral/io/hugging_face.hpp: the configuration of a Qwen2 directory (weights: io/weight_files.hpp)
//
// Unknown keys of config.json are ignored, as they are elsewhere, unless they change the mathematics and are not
// implemented: those are refused.
#pragma once
#include <spectral/io/json.hpp>
#include <spectral/models/qwen2_config.hpp>
#include <spectral/ops/sampling.hpp>

namespace spectral {

// eos_token_id: one id or a list
inline std::vector<row_index> parse_eos_ids(const nlohmann::json& json, std::string_view where, index vocabulary) {
    std::vector<row_index> out;
    for (const auto& v : json.is_array() ? json : nlohmann::json::array({json})) {
        check(v.is_number_integer() && v.get<index>() >= 0 && v.get<index>() < vocabulary, where,
              "eos_token_id: expected ids below vocab_size, found ", v.dump().substr(0, 60));
        out.push_back(v.get<row_index>());
    }
    return out;
}

// A Hugging Face configuration of Qwen2; keys that do not change the maths are ignored, others throw error.
inline qwen2_config parse_qwen2_config(const nlohmann::json& json, std::string_view where) {
    check(json.is_object(), where, "expected a JSON object");
    const auto present = [&](const char* key) { return json.contains(key) && !json[key].is_null(); };
    const auto whole = [&](const char* key, index otherwise) {
        if (!present(key)) return otherwise;
        check(json[key].is_number_integer(), where, key, ": expected a whole number, found ",
              json[key].dump().substr(0, 60));
        return json[key].get<index>();
    };
    const auto real = [&](const nlohmann::json& from, const char* key, double otherwise) {
        if (!from.contains(key) || from[key].is_null()) return otherwise;
        check(from[key].is_number(), where, key, ": expected a number, found ", from[key].dump().substr(0, 60));
        return from[key].get<double>();
    };
    const auto truth = [&](const char* key, bool otherwise) {
        if (!present(key)) return otherwise;
        check(json[key].is_boolean(), where, key, ": expected true or false, found ", json[key].dump().substr(0, 60));
        return json[key].get<bool>();
    };
    const std::string type =
        json.value("model_type", nlohmann::json("")).is_string() ? json.value("model_type", "") : "";
    check(type == "qwen2", where, "model_type: expected qwen2, found ", in_quotes(type));

    qwen2_config c;
    c.vocab_size = whole("vocab_size", c.vocab_size);
    c.hidden_size = whole("hidden_size", c.hidden_size);
    c.intermediate_size = whole("intermediate_size", c.intermediate_size);
    c.num_hidden_layers = whole("num_hidden_layers", c.num_hidden_layers);
    c.num_attention_heads = whole("num_attention_heads", c.num_attention_heads);
    c.num_key_value_heads = whole("num_key_value_heads", c.num_attention_heads);
    c.max_position_embeddings = whole("max_position_embeddings", c.max_position_embeddings);
    c.rms_norm_eps = real(json, "rms_norm_eps", c.rms_norm_eps);
    c.initializer_range = real(json, "initializer_range", c.initializer_range);
    c.tie_word_embeddings = truth("tie_word_embeddings", c.tie_word_embeddings);
    c.rope_theta = real(json, "rope_theta", c.rope_theta);
    for (const char* key : {"rope_parameters", "rope_scaling"}) {  // newer files; older ones
        if (!present(key)) continue;
        const auto& rope = json[key];
        check(rope.is_object(), where, key, ": expected an object");
        const auto kind = rope.value("rope_type", rope.value("type", nlohmann::json("default")));
        check(kind == "default", where, key, ".rope_type: only \"default\" is implemented, found ",
              kind.dump().substr(0, 60));
        c.rope_theta = real(rope, "rope_theta", c.rope_theta);
    }
    const auto act = json.value("hidden_act", nlohmann::json("silu"));
    check(act == "silu", where, "hidden_act: only \"silu\" is implemented, found ", act.dump().substr(0, 60));
    check(!present("quantization_config"), where, "quantization_config: quantised weights are not implemented");
    if (present("head_dim"))
        check(json["head_dim"] == c.hidden_size / std::max<index>(c.num_attention_heads, 1), where,
              "head_dim: expected hidden_size / num_attention_heads, found ", json["head_dim"].dump().substr(0, 60));
    if (present("layer_types"))
        for (const auto& kind : json["layer_types"])
            check(kind == "full_attention", where, "layer_types: only \"full_attention\" is implemented, found ",
                  kind.dump().substr(0, 60));
    check(!truth("use_sliding_window", false), where, "use_sliding_window: true is not implemented");
    if (present("eos_token_id")) c.eos_token_ids = parse_eos_ids(json["eos_token_id"], where, c.vocab_size);
    c.validate(where);
    return c;
}
// The same from a file.
inline qwen2_config read_qwen2_config(const std::filesystem::path& file) {
    return parse_qwen2_config(read_json_file(file), file.string());
}

// generation_config.json: every id that ends a text
inline std::vector<row_index> read_eos_ids(const std::filesystem::path& file, index vocabulary) {
    const auto json = read_json_file(file);
    check(json.is_object(), file.string(), "expected a JSON object");
    if (!json.contains("eos_token_id") || json["eos_token_id"].is_null()) return {};
    return parse_eos_ids(json["eos_token_id"], file.string(), vocabulary);
}

// and how Transformers would draw, which it does where do_sample is true: what else the file does not say stays as given
inline sampling_options read_sampling(const std::filesystem::path& file, sampling_options o) {
    const auto json = read_json_file(file);
    check(json.is_object(), file.string(), "expected a JSON object");
    const auto number = [&](const char* key, auto& out) {
        if (!json.contains(key) || json[key].is_null()) return;
        check(json[key].is_number(), file.string(), key, ": expected a number, found ", json[key].dump().substr(0, 60));
        out = json[key].get<std::remove_reference_t<decltype(out)>>();
    };
    number("temperature", o.temperature);
    number("top_k", o.top_k);
    number("top_p", o.top_p);
    number("min_p", o.min_p);
    number("repetition_penalty", o.repetition_penalty);
    if (const auto draws = json.find("do_sample"); draws == json.end() || *draws != true) o.temperature = 0;
    o.validate(file.string());
    return o;
}

// The text of config.json as Transformers reads it.
inline std::string write_qwen2_config(const qwen2_config& c) {
    nlohmann::ordered_json json{{"architectures", {"Qwen2ForCausalLM"}},
                                {"model_type", "qwen2"},
                                {"vocab_size", c.vocab_size},
                                {"hidden_size", c.hidden_size},
                                {"intermediate_size", c.intermediate_size},
                                {"num_hidden_layers", c.num_hidden_layers},
                                {"num_attention_heads", c.num_attention_heads},
                                {"num_key_value_heads", c.num_key_value_heads},
                                {"max_position_embeddings", c.max_position_embeddings},
                                {"rope_theta", c.rope_theta},
                                {"rms_norm_eps", c.rms_norm_eps},
                                {"initializer_range", c.initializer_range},
                                {"tie_word_embeddings", c.tie_word_embeddings},
                                {"hidden_act", "silu"},
                                {"attention_dropout", 0.0},
                                {"use_sliding_window", false},
                                {"torch_dtype", "float32"}};
    if (c.eos_token_ids.size() == 1) json["eos_token_id"] = c.eos_token_ids[0];
    if (c.eos_token_ids.size() > 1) json["eos_token_id"] = c.eos_token_ids;
    return json.dump(2) + "\n";
}

}  // namespace spectral
