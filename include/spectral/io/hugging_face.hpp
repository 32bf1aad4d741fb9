// SPDX-License-Identifier: Apache-2.0
// include/spectral/io/hugging_face.hpp: Qwen2 from a Hugging Face directory: config.json, weights whole or in shards
//
// Unknown keys of config.json are ignored, as they are elsewhere, unless they change the mathematics and are not
// implemented: those are refused. Files named by an index are untrusted: a name, not a path.
#pragma once
#include <spectral/io/weights.hpp>
#include <spectral/models/qwen2_config.hpp>

#include <list>

namespace spectral {

inline qwen2_config parse_qwen2_config(const nlohmann::json& json, std::string_view where) {
    check(json.is_object(), where, "expected a JSON object");
    const auto present = [&](const char* key) { return json.contains(key) && !json[key].is_null(); };
    const auto whole = [&](const char* key, index otherwise) {
        if (!present(key)) return otherwise;
        check(json[key].is_number_integer(), where, key, ": expected a whole number, found ", json[key].dump().substr(0, 60));
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
    const std::string type = json.value("model_type", nlohmann::json("")).is_string() ? json.value("model_type", "") : "";
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
    for (const char* key : {"rope_parameters", "rope_scaling"}) {   // newer files; older ones
        if (!present(key)) continue;
        const auto& rope = json[key];
        check(rope.is_object(), where, key, ": expected an object");
        const auto kind = rope.value("rope_type", rope.value("type", nlohmann::json("default")));
        check(kind == "default", where, key, ".rope_type: only \"default\" is implemented, found ", kind.dump().substr(0, 60));
        c.rope_theta = real(rope, "rope_theta", c.rope_theta);
    }
    const auto act = json.value("hidden_act", nlohmann::json("silu"));
    check(act == "silu", where, "hidden_act: only \"silu\" is implemented, found ", act.dump().substr(0, 60));
    check(!truth("use_sliding_window", false), where, "use_sliding_window: true is not implemented");
    if (present("eos_token_id")) {
        const auto& eos = json["eos_token_id"];
        const auto one = [&](const nlohmann::json& v) {
            check(v.is_number_integer() && v.get<index>() >= 0 && v.get<index>() < c.vocab_size, where, "eos_token_id: expected ids below vocab_size, found ", v.dump().substr(0, 60));
            c.eos_token_ids.push_back(v.get<row_index>());
        };
        if (eos.is_array()) for (const auto& v : eos) one(v);
        else one(eos);
    }
    c.validate(where);
    return c;
}
inline qwen2_config read_qwen2_config(const std::filesystem::path& file) { return parse_qwen2_config(read_json_file(file), file.string()); }

inline std::string write_qwen2_config(const qwen2_config& c) {
    nlohmann::ordered_json json{{"architectures", {"Qwen2ForCausalLM"}}, {"model_type", "qwen2"}, {"vocab_size", c.vocab_size},
        {"hidden_size", c.hidden_size}, {"intermediate_size", c.intermediate_size}, {"num_hidden_layers", c.num_hidden_layers},
        {"num_attention_heads", c.num_attention_heads}, {"num_key_value_heads", c.num_key_value_heads},
        {"max_position_embeddings", c.max_position_embeddings}, {"rope_theta", c.rope_theta}, {"rms_norm_eps", c.rms_norm_eps},
        {"initializer_range", c.initializer_range}, {"tie_word_embeddings", c.tie_word_embeddings}, {"hidden_act", "silu"},
        {"attention_dropout", 0.0}, {"use_sliding_window", false}, {"torch_dtype", "float32"}};
    if (c.eos_token_ids.size() == 1) json["eos_token_id"] = c.eos_token_ids[0];
    if (c.eos_token_ids.size() > 1) json["eos_token_id"] = c.eos_token_ids;
    return json.dump(2) + "\n";
}

// The weights of a model directory: model.safetensors, or the shards that model.safetensors.index.json names.
class weight_files {
public:
    explicit weight_files(const std::filesystem::path& directory) {
        namespace fs = std::filesystem;
        const fs::path whole = directory / "model.safetensors", index_file = directory / "model.safetensors.index.json";
        if (fs::exists(whole) || !fs::exists(index_file)) {
            files_.emplace_back(whole);
            for (const auto& [name, entry] : files_.back().tensors()) where_[name] = &files_.back();
            name_ = whole.string();
            return;
        }
        name_ = index_file.string();
        const auto json = read_json_file(index_file);
        check(json.is_object() && json.contains("weight_map") && json["weight_map"].is_object(), name_, "expected an object with \"weight_map\"");
        std::map<std::string, safetensors_file*> opened;
        for (const auto& [tensor, file] : json["weight_map"].items()) {
            check(file.is_string(), name_, "weight_map[", in_quotes(tensor), "]: expected a file name");
            const std::string shard = file.get<std::string>();
            check(!shard.empty() && shard.find('/') == std::string::npos && shard.find('\\') == std::string::npos && shard != "." && shard != "..",
                  name_, "weight_map[", in_quotes(tensor), "]: expected a plain file name, found ", in_quotes(shard));
            auto& slot = opened[shard];
            if (!slot) slot = &files_.emplace_back(directory / shard);
            check(slot->contains(tensor), name_, "weight_map[", in_quotes(tensor), "]: ", shard, " has no such tensor");
            where_[tensor] = slot;
        }
        for (const auto& file : files_)
            for (const auto& [tensor, entry] : file.tensors()) {
                const auto owner = where_.find(tensor);
                check(owner != where_.end() && owner->second == &file, file.name(), "tensor ", in_quotes(tensor), ": the index does not place it in this shard");
            }
    }

    const std::string& name() const { return name_; }
    bool contains(const std::string& tensor) const { return where_.count(tensor) != 0; }
    const tensor_entry& at(const std::string& tensor) const { return file_of(tensor).at(tensor); }
    template <class T>
    void read(const std::string& tensor, std::span<T> out) const { file_of(tensor).read(tensor, out); }
    std::map<std::string, tensor_entry> tensors() const {
        std::map<std::string, tensor_entry> all;
        for (const auto& [name, file] : where_) all.emplace(name, file->at(name));
        return all;
    }

private:
    const safetensors_file& file_of(const std::string& tensor) const {
        const auto found = where_.find(tensor);
        check(found != where_.end(), name_, "there is no tensor ", in_quotes(tensor));
        return *found->second;
    }
    std::list<safetensors_file> files_;
    std::map<std::string, const safetensors_file*> where_;
    std::string name_;
};

}  // namespace spectral
