// SPDX-License-Identifier: Apache-2.0
// tests/models/tiny_qwen2.hpp: a backbone of three blocks, three query heads of 8 over one of keys, 61 tokens
#pragma once
#include <spectral/models/qwen2.hpp>

namespace spectral::test {

inline qwen2_config tiny_qwen2_backbone(bool tied = true) {
    return {.vocab_size = 61,
            .hidden_size = 24,
            .intermediate_size = 40,
            .num_hidden_layers = 3,
            .num_attention_heads = 3,
            .num_key_value_heads = 1,
            .max_position_embeddings = 64,
            .tie_word_embeddings = tied};
}

}  // namespace spectral::test
