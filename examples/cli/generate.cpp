// SPDX-License-Identifier: Apache-2.0
// examples/cli/generate.cpp: `spectral generate`: continues prompts, streaming, with a key/value cache
#include "commands.hpp"
#include "runners.hpp"

#include <spectral/models/generate.hpp>
#include <spectral/text/tokenizer.hpp>

#include <chrono>
#include <iostream>

namespace spectral::cli {
namespace {

struct generate_options {
    std::string model, prompt_file;
    std::vector<std::string> prompts, stop;
    generation_options how;
    bool only_new = false, jsonl = false;
    runner_choice runner;
    route_files route;
};

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

void run_generate(generate_options& o) {
    const model_directory model(o.model);
    const auto tok = tokenizer::from_file(model.tokenizer());
    if (!o.prompt_file.empty()) {
        o.prompts.push_back(read_text_file(o.prompt_file));
        check_utf8(o.prompts.back(), o.prompt_file);
    }
    check(!o.prompts.empty(), "spectral generate", "expected --prompt TEXT or --prompt-file FILE");
    check(o.how.max_new_tokens > 0, "--max-new-tokens", "expected at least 1, found ", o.how.max_new_tokens);
    for (const auto& s : o.stop) check(!s.empty(), "--stop", "expected text, found an empty string");
    std::vector<std::vector<row_index>> prompts;
    for (const auto& p : o.prompts) {
        check_utf8(p, "--prompt");
        prompts.push_back(tok.encode(p));
    }
    if (model.is_qwen2()) o.how.end_ids = model.qwen2().eos_token_ids;
    if (const auto end = tok.token_id("<|endoftext|>"); end && o.how.end_ids.empty()) o.how.end_ids = {*end};
    o.how.known_ids = std::min(tok.vocab_size(), model.vocabulary());
    const auto r = model.load(o.runner, o.route);

    const bool streams = prompts.size() == 1 && !o.jsonl;
    std::vector<answer> answers;
    for (std::size_t s = 0; s < prompts.size(); ++s) answers.emplace_back(tok, o.stop);
    if (streams && !o.only_new) std::cout << o.prompts[0] << std::flush;
    const auto began = std::chrono::steady_clock::now();
    const auto ids = generate(*r, prompts, o.how, [&](index s, row_index id) {
        answer& a = answers[static_cast<std::size_t>(s)];
        const std::string piece = a.push(id);
        if (streams) std::cout << piece << std::flush;
        return !a.stopped();
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    index count = 0;
    for (std::size_t s = 0; s < prompts.size(); ++s) {
        const std::string rest = answers[s].finish();
        count += static_cast<index>(ids[s].size());
        if (o.jsonl) {
            const bool full = static_cast<index>(prompts[s].size() + ids[s].size()) >= model.longest();
            const char* finish = answers[s].stopped()                                                ? "stop"
                                 : full || static_cast<index>(ids[s].size()) >= o.how.max_new_tokens ? "length"
                                                                                                     : "end";
            std::cout << nlohmann::ordered_json{{"prompt", o.prompts[s]},
                                                {"text", answers[s].text()},
                                                {"ids", ids[s]},
                                                {"finish", finish}}
                             .dump()
                      << '\n';
        } else if (streams)
            std::cout << rest << '\n';
        else
            std::cout << (s ? "\n" : "") << (o.only_new ? "" : o.prompts[s]) << answers[s].text() << '\n';
    }
    std::cout.flush();
    std::fprintf(stderr, "%lld tokens, %.1f tokens/s\n", static_cast<long long>(count),
                 static_cast<double>(count) / seconds);
}

}  // namespace

void add_generate(CLI::App& app) {
    auto* c =
        app.add_subcommand("generate", "continues prompts: temperature, top-k, top-p, min-p, repetition penalty, stop");
    auto o = std::make_shared<generate_options>();
    auto& s = o->how.sampling;
    option(*c, "--model", o->model, "DIR", "model directory or run, with a tokenizer")->required();
    option(*c, "--prompt", o->prompts, "TEXT...", "one prompt streams; several are continued side by side");
    option(*c, "--prompt-file", o->prompt_file, "FILE", "a prompt from a file");
    option(*c, "--max-new-tokens", o->how.max_new_tokens, "N", "tokens at most; the model's max_seq_len ends it too");
    option(*c, "--temperature", s.temperature, "X", "0: always the most likely token");
    option(*c, "--top-k", s.top_k, "N", "keep the N most likely tokens; 0: all");
    option(*c, "--top-p", s.top_p, "X", "keep the most likely tokens of this probability together");
    option(*c, "--min-p", s.min_p, "X", "keep tokens of at least X times the largest probability");
    option(*c, "--repetition-penalty", s.repetition_penalty, "X", "above 1 makes tokens seen before less likely");
    option(*c, "--seed", s.seed, "N", "of the draws: the same seed gives the same text");
    option(*c, "--stop", o->stop, "TEXT...", "end before any of these");
    c->add_flag("--only-new", o->only_new, "leave the prompt out of the output");
    c->add_flag("--jsonl", o->jsonl, "a JSON line for each prompt: prompt, text, ids, finish (stop, length, end)");
    add_route_options(*c, o->route);
    add_storage_option(*c, o->runner);
    add_runner_options(*c, o->runner);
    c->callback([o] { run_generate(*o); });
}

}  // namespace spectral::cli
