// SPDX-License-Identifier: Apache-2.0
// examples/cli/generate.cpp: `spectral generate`: continues prompts, streaming, with a key/value cache
#include "commands.hpp"
#include "generation.hpp"

#include <iostream>
#include <utility>

namespace spectral::cli {
namespace {

struct generate_options {
    std::string model, prompt_file;
    std::vector<std::string> prompts;
    generation_choice generation;
    bool only_new = false, jsonl = false;
    runner_choice runner;
    route_files route;
};

void run_generate(generate_options& o) {
    const model_directory model(o.model);
    const auto tok = tokenizer::from_file(model.tokenizer());
    if (!o.prompt_file.empty()) {
        o.prompts.push_back(read_text_file(o.prompt_file));
        check_utf8(o.prompts.back(), o.prompt_file);
    }
    check(!o.prompts.empty(), "spectral generate", "expected --prompt TEXT or --prompt-file FILE");
    std::vector<std::vector<row_index>> prompts;
    for (const auto& p : o.prompts) {
        check_utf8(p, "--prompt");
        prompts.push_back(tok.encode(p));
    }
    complete(o.generation, model, tok);
    const auto r = model.load(o.runner, o.route);

    const bool streams = prompts.size() == 1 && !o.jsonl;
    std::vector<answer> answers;
    for (std::size_t s = 0; s < prompts.size(); ++s) answers.emplace_back(tok, o.generation.stop);
    bool shown = !streams || o.only_new;
    const auto show_prompt = [&] {  // not before the model has taken it
        if (!std::exchange(shown, true)) std::cout << o.prompts[0];
    };
    generation_cost cost;
    const auto ids = generate_measured(
        *r, prompts, o.generation,
        [&](index s, row_index id) {
            answer& a = answers[static_cast<std::size_t>(s)];
            show_prompt();
            const std::string piece = a.push(id);
            if (streams) std::cout << piece << std::flush;
            return !a.stopped();
        },
        cost);
    show_prompt();
    for (std::size_t s = 0; s < prompts.size(); ++s) {
        const std::string rest = answers[s].finish();
        if (o.jsonl) {
            const bool full = static_cast<index>(prompts[s].size() + ids[s].size()) >= model.longest();
            const char* finish = answers[s].stopped() ? "stop"
                                 : full || static_cast<index>(ids[s].size()) >= o.generation.how.max_new_tokens
                                     ? "length"
                                     : "end";
            nlohmann::ordered_json line{
                {"prompt", o.prompts[s]}, {"text", answers[s].text()}, {"ids", ids[s]}, {"finish", finish}};
            if (!cost.open_shares.empty()) line["skip_share"] = 1 - cost.open_shares[s];
            line["seconds"] = cost.chosen.seconds;  // of all prompts, which are continued side by side
            if (cost.full.seconds > 0) line["seconds_full"] = cost.full.seconds;
            std::cout << line.dump() << '\n';
        } else if (streams)
            std::cout << rest << '\n';
        else
            std::cout << (s ? "\n" : "") << (o.only_new ? "" : o.prompts[s]) << answers[s].text() << '\n';
    }
    std::cout.flush();
    print_cost(cost);
}

}  // namespace

void add_generate(CLI::App& app) {
    auto* c =
        app.add_subcommand("generate", "continues prompts: temperature, top-k, top-p, min-p, repetition penalty, stop");
    auto o = std::make_shared<generate_options>();
    option(*c, "--model", o->model, "DIR", "model directory or run, with a tokenizer")->required();
    option(*c, "--prompt", o->prompts, "TEXT...", "one prompt streams; several are continued side by side");
    option(*c, "--prompt-file", o->prompt_file, "FILE", "a prompt from a file");
    add_generation_options(*c, o->generation);
    c->add_flag("--only-new", o->only_new, "leave the prompt out of the output");
    c->add_flag(
        "--jsonl", o->jsonl,
        "a JSON line for each prompt: prompt, text, ids, finish (stop, length, end), skip_share (of the blocks, with "
        "gates), seconds of all prompts together, seconds_full (with every block: --mode both)");
    add_route_options(*c, o->route);
    add_storage_option(*c, o->runner);
    add_runner_options(*c, o->runner);
    c->callback([o] { run_generate(*o); });
}

}  // namespace spectral::cli
