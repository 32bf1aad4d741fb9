// SPDX-License-Identifier: Apache-2.0
// examples/cli/generation.hpp: what `generate` and `chat` share: options, the growing text of an answer, what it cost
#pragma once
#include "runners.hpp"

#include <spectral/models/generate.hpp>
#include <spectral/text/tokenizer.hpp>

namespace spectral::cli {

struct generation_choice {
    generation_options how;
    std::vector<std::string> stop;
    std::string mode = "routed";
    CLI::App* command = nullptr;  // says which options were given
};
void add_generation_options(CLI::App& app, generation_choice& o);

// Ends of a text, known ids and, where options do not say, generation_config.json's sampling of a model, into the
// options; checks them.
void complete(generation_choice& o, const model_directory& model, const tokenizer& tok);

// The text of one answer as it grows. What might be the start of a stop string waits until it cannot be one any more.
class answer {
public:
    answer(const tokenizer& tok, const std::vector<std::string>& stop) : decoder_(tok, true), stop_(stop) {}

    // the text that may be shown now; stopped() says whether a stop string has come
    std::string push(row_index id) { return take(decoder_.push(id), false); }
    std::string finish() { return stopped_ ? std::string() : take(decoder_.finish(), true); }
    bool stopped() const { return stopped_; }
    const std::string& text() const { return shown_; }

private:
    std::string take(const std::string& more, bool last) {
        waiting_ += more;
        std::size_t keep = 0;
        for (const auto& s : stop_) {
            if (const std::size_t at = waiting_.find(s); at != waiting_.npos) {
                stopped_ = true;
                waiting_.resize(at);
            }
            for (std::size_t n = std::min(s.size() - 1, waiting_.size()); n > keep; --n)
                if (waiting_.ends_with(std::string_view(s).substr(0, n))) keep = n;
        }
        if (last || stopped_) keep = 0;
        const std::string out = waiting_.substr(0, waiting_.size() - keep);
        waiting_.erase(0, out.size());
        shown_ += out;
        return out;
    }
    stream_decoder decoder_;
    const std::vector<std::string>& stop_;
    std::string waiting_, shown_;
    bool stopped_ = false;
};

// One generation by the gates' decisions, with every block, or both after each other: the first is the one returned.
struct generation_cost {
    struct run {
        double seconds = 0, first_seconds = 0;  // in all (0: not run), until the first token
        index tokens = 0, first_tokens = 0;
        // after the first token of every prompt, if more came: reading the prompt and starting up are apart
        double tokens_per_second() const {
            return tokens > first_tokens ? static_cast<double>(tokens - first_tokens) / (seconds - first_seconds)
                                         : static_cast<double>(tokens) / seconds;
        }
    };
    run chosen, full;
    std::vector<double> open_shares;  // of blocks, by prompt; empty without gates
};
std::vector<std::vector<row_index>> generate_measured(runner& r, const std::vector<std::vector<row_index>>& prompts,
                                                      const generation_choice& o, const token_callback& on_token,
                                                      generation_cost& cost);
// "120 tokens, the first after 0.21 s, then 35.1 tokens/s; blocks run: 75.0 %; with every block: 27.9 tokens/s", on
// stderr
void print_cost(const generation_cost& cost);

}  // namespace spectral::cli
