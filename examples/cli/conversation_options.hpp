// SPDX-License-Identifier: Apache-2.0
// examples/cli/conversation_options.hpp: conversations of one or more JSONL files as samples
#pragma once
#include "options.hpp"

#include <spectral/data/conversation_batches.hpp>
#include <spectral/train/evaluate.hpp>

namespace spectral::cli {

struct conversation_choice {
    index max_length = 512, limit = 0;
    std::string too_long = "oldest_turns", loss = "answer";
    std::vector<std::string> step_types{};  // empty: all
};
void add_conversation_options(CLI::App& app, conversation_choice& o);

// Samples of all files, of these step types (empty: those of the options), on one side of the hold-out.
conversation_data read_samples(const std::vector<std::string>& files, const tokenizer& tok,
                               const conversation_choice& o, conversation_side side, double held_out,
                               const std::vector<std::string>& step_types = {});
conversation_batch_options batch_options(const conversation_choice& o, index batch, std::uint64_t seed, bool balanced);

}  // namespace spectral::cli
