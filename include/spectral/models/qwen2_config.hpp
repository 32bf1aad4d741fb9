// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/qwen2_config.hpp: shape of a Qwen2 model; field names are Hugging Face's
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/core/view.hpp>

#include <string>
#include <vector>

namespace spectral {

struct qwen2_config {
    index vocab_size = 151936, hidden_size = 4096, intermediate_size = 22016, num_hidden_layers = 32;
    index num_attention_heads = 32, num_key_value_heads = 32, max_position_embeddings = 32768;
    double rope_theta = 10000, rms_norm_eps = 1e-6, initializer_range = 0.02;
    bool tie_word_embeddings = false;
    std::vector<row_index> eos_token_ids{};

    index head_width() const { return hidden_size / num_attention_heads; }

    // Qwen2.5-0.5B
    static qwen2_config half_billion() {
        return {.vocab_size = 151936,
                .hidden_size = 896,
                .intermediate_size = 4864,
                .num_hidden_layers = 24,
                .num_attention_heads = 14,
                .num_key_value_heads = 2,
                .max_position_embeddings = 32768,
                .rope_theta = 1e6,
                .rms_norm_eps = 1e-6,
                .initializer_range = 0.02,
                .tie_word_embeddings = true,
                .eos_token_ids = {151645, 151643}};
    }

    void validate(std::string_view where = "config") const {
        const auto positive = [&](index value, const char* key, index most = 1 << 24) {
            check(value >= 1 && value <= most, where, key, ": expected 1 to ", most, ", found ", value);
        };
        positive(vocab_size, "vocab_size");
        positive(hidden_size, "hidden_size");
        positive(intermediate_size, "intermediate_size");
        positive(num_hidden_layers, "num_hidden_layers", 1 << 12);
        positive(num_attention_heads, "num_attention_heads");
        positive(num_key_value_heads, "num_key_value_heads");
        positive(max_position_embeddings, "max_position_embeddings", 1 << 22);
        check(hidden_size % num_attention_heads == 0 && head_width() % 2 == 0, where,
              "hidden_size: expected an even multiple of num_attention_heads (", num_attention_heads, "), found ",
              hidden_size);
        check(num_attention_heads % num_key_value_heads == 0, where,
              "num_key_value_heads: expected a divisor of num_attention_heads (", num_attention_heads, "), found ",
              num_key_value_heads);
        check(rope_theta > 0, where, "rope_theta: expected a positive number, found ", rope_theta);
        check(rms_norm_eps > 0, where, "rms_norm_eps: expected a positive number, found ", rms_norm_eps);
    }
};

}  // namespace spectral
