// SPDX-License-Identifier: Apache-2.0
// tests/io/hugging_face_test.cpp: a Qwen2 configuration is read back; the ids that end a text; what is refused
#include <spectral/io/hugging_face.hpp>

#include "support/golden.hpp"

namespace spectral::test {

namespace {
qwen2_config config_of(const std::string& more) {
    return parse_qwen2_config(
        parse_json(R"({"model_type": "qwen2", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 100)" +
                       more + "}",
                   "given"),
        "config.json");
}
}  // namespace

TEST_CASE("hugging_face: ids that end a text, of generation_config.json", "[io][hugging_face]") {
    const temporary_dir dir;
    const auto file = dir / "generation_config.json";
    const auto ids = [&](const std::string& text) {
        write_file_atomically(file, text);
        return read_eos_ids(file, 100);
    };
    CHECK(ids(R"({"eos_token_id": 7})") == std::vector<row_index>{7});
    CHECK(ids(R"({"eos_token_id": [99, 0, 7], "do_sample": true})") == std::vector<row_index>{99, 0, 7});
    for (const char* none : {"{}", R"({"eos_token_id": null})", R"({"eos_token_id": []})"}) CHECK(ids(none).empty());
    for (const std::string bad : {"100", "-1", "1.5", "\"7\"", "[7]", "true", "null", "{}", "18446744073709551615"}) {
        const std::string list = "[1, " + bad + "]";
        for (const std::string& value : {bad, list}) {
            if (value == "null" || value == "[7]") continue;  // none; a list of one
            INFO(value);
            CHECK_SENTENCE(ids(R"({"eos_token_id": )" + value + "}"),
                           file.string() + ": eos_token_id: expected ids below vocab_size, found " + bad);
        }
    }
    CHECK_SENTENCE(ids("[7]"), "expected a JSON object");
    CHECK_SENTENCE(read_eos_ids(dir / "none.json", 100), (dir / "none.json").string());
}

TEST_CASE("hugging_face: sampling of generation_config.json", "[io][hugging_face]") {
    const temporary_dir dir;
    const auto file = dir / "generation_config.json";
    const auto read = [&](const std::string& text, sampling_options otherwise = {}) {
        write_file_atomically(file, text);
        return read_sampling(file, otherwise);
    };
    const auto o =
        read(R"({"do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.1})",
             {.min_p = 0.1, .seed = 5});
    CHECK((o.temperature == 0.7 && o.top_k == 20 && o.top_p == 0.8 && o.repetition_penalty == 1.1 && o.min_p == 0.1 &&
           o.seed == 5));
    CHECK(read(R"({"do_sample": false, "temperature": 0.7})").temperature == 0);
    CHECK(read(R"({"temperature": 0.7})").temperature == 0);  // as Transformers: do_sample is false by default
    CHECK(read(R"({"do_sample": true, "temperature": null})", {.temperature = 0.5}).temperature == 0.5);
    CHECK_SENTENCE(read(R"({"top_p": 2})"), file.string() + ": top_p: expected a number in (0, 1], found 2");
    CHECK_SENTENCE(read(R"({"top_k": "20"})"), file.string() + ": top_k: expected a number, found \"20\"");
}

TEST_CASE("hugging_face: config.json is read back", "[io][hugging_face]") {
    for (const std::vector<row_index>& ends : {std::vector<row_index>{}, {151645}, {151645, 151643}}) {
        qwen2_config c = qwen2_config::half_billion();
        c.eos_token_ids = ends;
        const qwen2_config back = parse_qwen2_config(parse_json(write_qwen2_config(c), "written"), "config.json");
        CHECK(back.eos_token_ids == ends);
        CHECK(write_qwen2_config(back) == write_qwen2_config(c));
        CHECK((back.vocab_size == c.vocab_size && back.hidden_size == c.hidden_size &&
               back.intermediate_size == c.intermediate_size));
        CHECK((back.num_hidden_layers == c.num_hidden_layers && back.num_attention_heads == 14 &&
               back.num_key_value_heads == 2));
        CHECK((back.max_position_embeddings == 32768 && back.rope_theta == 1e6 && back.rms_norm_eps == 1e-6 &&
               back.tie_word_embeddings));
    }
}

TEST_CASE("hugging_face: what config.json may say", "[io][hugging_face]") {
    CHECK(config_of("").num_key_value_heads == 2);
    CHECK(config_of(R"(, "rope_theta": 5e5)").rope_theta == 5e5);
    CHECK(config_of(R"(, "rope_parameters": {"rope_type": "default", "rope_theta": 7e5})").rope_theta == 7e5);
    CHECK(config_of(R"(, "rope_scaling": null, "some_new_key": [1])").rope_theta == 10000);
    CHECK(config_of(R"(, "eos_token_id": [3, 4])").eos_token_ids == std::vector<row_index>{3, 4});
    CHECK_SENTENCE(config_of(R"(, "eos_token_id": 100)"), "eos_token_id: expected ids below vocab_size, found 100");
    CHECK_SENTENCE(config_of(R"(, "rope_scaling": {"type": "yarn"})"),
                   "only \"default\" is implemented, found \"yarn\"");
    CHECK_SENTENCE(config_of(R"(, "hidden_act": "gelu")"), "hidden_act: only \"silu\" is implemented");
    CHECK_SENTENCE(config_of(R"(, "use_sliding_window": true)"), "use_sliding_window: true is not implemented");
    CHECK_SENTENCE(config_of(R"(, "num_hidden_layers": 1.5)"), "num_hidden_layers: expected a whole number, found 1.5");
    CHECK_SENTENCE(config_of(R"(, "num_hidden_layers": 0)"), "num_hidden_layers: expected 1 to 4096, found 0");
    CHECK_SENTENCE(config_of(R"(, "num_hidden_layers": 2000000000)"), "expected 1 to 4096, found 2000000000");
    CHECK_SENTENCE(config_of(R"(, "max_position_embeddings": 1000000000000)"),
                   "max_position_embeddings: expected 1 to");
    CHECK_SENTENCE(config_of(R"(, "head_dim": 6)"), "head_dim: expected hidden_size / num_attention_heads, found 6");
    CHECK_SENTENCE(config_of(R"(, "layer_types": ["full_attention", "sliding_attention"])"),
                   "found \"sliding_attention\"");
    CHECK_SENTENCE(config_of(R"(, "quantization_config": {"bits": 4})"), "quantization_config: quantised weights");
    CHECK_SENTENCE(parse_qwen2_config(parse_json(R"({"model_type": "llama"})", "x"), "x"),
                   "model_type: expected qwen2, found \"llama\"");
}

}  // namespace spectral::test
