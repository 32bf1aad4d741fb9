// SPDX-License-Identifier: Apache-2.0
// examples/cli/conversation_options.cpp: conversations of one or more JSONL files as samples
#include "conversation_options.hpp"

namespace spectral::cli {

void add_conversation_options(CLI::App& c, conversation_choice& o) {
    const char* group = "Data";
    option(c, "--max-length", o.max_length, "T", "tokens of a sample, prompt and answer")->group(group);
    choice(c, "--too-long", o.too_long, {"oldest_turns", "left", "leave_out"},
           "what goes from a longer sample's prompt, or the sample itself")
        ->group(group);
    choice(c, "--loss", o.loss, {"answer", "everything"}, "tokens that are targets")->group(group);
    option(c, "--step-types", o.step_types, "TYPE...", "use only turns of these types [all]")->group(group);
    option(c, "--limit", o.limit, "N", "conversations of each file; 0: all")->group(group);
}

conversation_data read_samples(const std::vector<std::string>& files, const tokenizer& tok,
                               const conversation_choice& o, conversation_side side, double held_out,
                               const std::vector<std::string>& step_types) {
    check(!files.empty(), "conversations", "expected files of JSON lines, found none");
    conversation_data all;
    for (const auto& file : files) {
        conversation_data one = read_conversations(file, tok,
                                                   {.max_length = o.max_length,
                                                    .too_long = o.too_long == "left"        ? long_prompt::left
                                                                : o.too_long == "leave_out" ? long_prompt::leave_out
                                                                                            : long_prompt::oldest_turns,
                                                    .step_types = step_types.empty() ? o.step_types : step_types,
                                                    .max_conversations = o.limit,
                                                    .side = side,
                                                    .held_out_share = held_out});
        const auto first = static_cast<index>(all.conversations.size());
        for (auto& c : one.conversations) all.conversations.push_back(std::move(c));
        for (auto& t : one.turns) {
            t.conversation += first;
            all.turns.push_back(std::move(t));
        }
        all.name += (all.name.empty() ? "" : ", ") + file;
        all.lines += one.lines, all.cut += one.cut, all.left_out += one.left_out;
        all.longest_left_out = std::max(all.longest_left_out, one.longest_left_out);
    }
    return all;
}

conversation_batch_options batch_options(const conversation_choice& o, index batch, std::uint64_t seed, bool balanced) {
    return {.batch = batch,
            .seed = seed,
            .loss = o.loss == "everything" ? loss_on::everything : loss_on::answer,
            .balanced = balanced};
}

}  // namespace spectral::cli
