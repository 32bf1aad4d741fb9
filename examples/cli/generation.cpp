// SPDX-License-Identifier: Apache-2.0
// examples/cli/generation.cpp: options and cost of a generation
#include "generation.hpp"

#include <spectral/report/statistics.hpp>

#include <chrono>

namespace spectral::cli {

void add_generation_options(CLI::App& c, generation_choice& o) {
    o.command = &c;
    auto& s = o.how.sampling;
    option(c, "--max-new-tokens", o.how.max_new_tokens, "N",
           "tokens at most; the model's longest sequence ends it too");
    option(
        c, "--temperature", s.temperature, "X",
        "0: always the most likely token; this and the next four: the model's generation_config.json, if it has one");
    option(c, "--top-k", s.top_k, "N", "keep the N most likely tokens; 0: all");
    option(c, "--top-p", s.top_p, "X", "keep the most likely tokens of this probability together");
    option(c, "--min-p", s.min_p, "X", "keep tokens of at least X times the largest probability");
    option(c, "--repetition-penalty", s.repetition_penalty, "X", "above 1 makes tokens seen before less likely");
    option(c, "--seed", s.seed, "N", "of the draws: the same seed gives the same text");
    option(c, "--stop", o.stop, "TEXT...", "end before any of these");
    choice(c, "--mode", o.mode, {"routed", "full", "both"},
           "skip gates decide, every block runs, or both after each other")
        ->group("LayerRoute");
}

void complete(generation_choice& o, const model_directory& model, const tokenizer& tok) {
    check(o.how.max_new_tokens > 0, "--max-new-tokens", "expected at least 1, found ", o.how.max_new_tokens);
    for (const auto& s : o.stop) check(!s.empty(), "--stop", "expected text, found an empty string");
    if (const auto file = model.path / "generation_config.json"; std::filesystem::exists(file)) {
        sampling_options s = read_sampling(file, o.how.sampling);
        const auto given = [&](const char* name, auto sampling_options::*field) {
            if (o.command->count(name)) s.*field = o.how.sampling.*field;
        };
        given("--temperature", &sampling_options::temperature);
        given("--top-k", &sampling_options::top_k);
        given("--top-p", &sampling_options::top_p);
        given("--min-p", &sampling_options::min_p);
        given("--repetition-penalty", &sampling_options::repetition_penalty);
        o.how.sampling = s;
    }
    if (model.is_qwen2()) o.how.end_ids = model.qwen2().eos_token_ids;
    if (const auto end = tok.token_id("<|endoftext|>"); end && o.how.end_ids.empty()) o.how.end_ids = {*end};
    o.how.known_ids = std::min(tok.vocab_size(), model.vocabulary());
}

std::vector<std::vector<row_index>> generate_measured(runner& r, const std::vector<std::vector<row_index>>& prompts,
                                                      const generation_choice& o, const token_callback& on_token,
                                                      generation_cost& cost) {
    auto* route = r.layer_route();
    const bool gated = route && route->config().route.gates;
    check(gated || o.command->count("--mode") == 0, "--mode", "expected a model with skip gates");
    const auto run = [&](bool full, const token_callback& each, generation_cost::run& cost) {
        if (gated)
            route->force_open(
                full ? std::vector<char>(static_cast<std::size_t>(route->config().backbone.num_hidden_layers), 1)
                     : std::vector<char>{});
        using clock = std::chrono::steady_clock;
        clock::duration shown{};  // the time of decoding and printing is not the model's
        const auto began = clock::now();
        const auto since = [&] { return std::chrono::duration<double>(clock::now() - began - shown).count(); };
        const token_callback timed = [&](index sequence, row_index id) {
            if (cost.first_seconds == 0) cost.first_seconds = since();
            const auto now = clock::now();
            const bool more = !each || each(sequence, id);
            shown += clock::now() - now;
            return more;
        };
        auto ids = generate(r, prompts, o.how, timed);
        cost.seconds = since();
        for (const auto& answer : ids) {
            cost.tokens += static_cast<index>(answer.size());
            cost.first_tokens += !answer.empty();
        }
        return ids;
    };
    if (o.mode == "both" && gated) {  // the first pass makes memory and reads files: neither time should hold that
        generation_cost::run unused;
        run(
            true, [](index, row_index) { return false; }, unused);
    }
    auto ids = run(o.mode == "full", on_token, cost.chosen);
    if (gated) cost.open_shares = route->open_shares();
    if (o.mode == "both" && gated) run(true, {}, cost.full);
    if (gated) route->force_open({});
    return ids;
}

void print_cost(const generation_cost& c) {
    const auto print = [](const generation_cost::run& run) {
        std::fprintf(stderr, "%lld tokens, the first after %.3g s, then %.1f tokens/s",
                     static_cast<long long>(run.tokens), run.first_seconds, run.tokens_per_second());
    };
    print(c.chosen);
    if (!c.open_shares.empty()) std::fprintf(stderr, "; blocks run: %.1f %%", 100 * mean_of(c.open_shares));
    if (c.full.seconds > 0) {
        std::fprintf(stderr, "; with every block: ");
        print(c.full);
    }
    std::fprintf(stderr, "\n");
}

}  // namespace spectral::cli
