// SPDX-License-Identifier: Apache-2.0
// examples/cli/route.cpp: `spectral route`: which operator each token went to, layer by layer
#include "commands.hpp"
#include "routed_text.hpp"

#include <unistd.h>

#include <cmath>
#include <iostream>

namespace spectral::cli {
namespace {

struct route_options {
    std::string model, text, file;
    bool json = false, color = false, plain = false;
    runner_choice runner;
};

std::string visible(const std::string& piece) { return nlohmann::json(piece).dump(); }

// The text once a layer, attention's tokens on a colour.
void print_colored(const routed_text& t, const std::vector<std::string>& names) {
    static constexpr const char* paint[] = {"\x1b[2m", "\x1b[30;43m", "\x1b[30;46m"};  // dim, then backgrounds
    for (const auto& [layer, l] : t.layers) {
        std::printf("\x1b[1mlayer %lld: %.1f %% to attention\x1b[0m ", static_cast<long long>(layer),
                    100 * attention_share(l));
        const auto colour = [last = l.operators - 1](row_index op) {  // clang 14 captures no structured binding
            return paint[op == 0 ? 0 : op == last ? 2 : 1];
        };
        for (row_index op = 0; op < l.operators; ++op)
            std::printf(" %s%s\x1b[0m", colour(op), names[static_cast<std::size_t>(op)].c_str());
        std::printf("\n");
        for (std::size_t i = 0; i < t.pieces.size(); ++i)
            std::printf("%s%s\x1b[0m", colour(l.op[i]), t.pieces[i].c_str());
        std::printf("\n\n");
    }
}

void print_table(const routed_text& t, const std::vector<std::string>& names) {
    std::printf("%6s  %-20s", "", "token");
    for (const auto& [layer, l] : t.layers)
        std::printf("  layer %-3lld entropy, operator", static_cast<long long>(layer));
    std::printf("\n");
    for (std::size_t i = 0; i < t.ids.size(); ++i) {
        std::printf("%6zu  %-20s", i, visible(t.pieces[i]).c_str());
        for (const auto& [layer, l] : t.layers)
            std::printf("  %-9.4f %-18s", l.entropy.empty() ? 0.0 : l.entropy[i],
                        names[static_cast<std::size_t>(l.op[i])].c_str());
        std::printf("\n");
    }
    for (const auto& [layer, l] : t.layers)
        std::printf("layer %lld: %.1f %% to attention\n", static_cast<long long>(layer), 100 * attention_share(l));
}

void run_route(const route_options& o) {
    check(o.text.empty() != o.file.empty(), "spectral route", "expected either --text or --file");
    const model_directory model(o.model);
    check(!model.chiar().baseline(), o.model, "a full_attention model routes nothing");
    const auto tok = tokenizer::from_file(model.tokenizer());
    const std::string text = o.file.empty() ? o.text : read_text_file(o.file);
    check(!text.empty(), o.file, "the file is empty");
    check_utf8(text, o.file.empty() ? "--text" : o.file);
    const auto names = operator_names(model.chiar());
    const routed_text t = route(*model.load(o.runner), tok, text);
    for (const auto& [layer, l] : t.layers)
        for (double h : l.entropy)
            check(!std::isnan(h), o.model, "layer ", layer, ": an entropy is NaN: the model's weights are broken");
    if (o.json)
        std::cout << to_json(t, model.chiar()).dump() << '\n';
    else if (o.color || (!o.plain && ::isatty(1)))
        print_colored(t, names);
    else
        print_table(t, names);
}

}  // namespace

void add_route(CLI::App& app) {
    auto* c = app.add_subcommand("route", "shows where each token went: entropy and operator, layer by layer");
    auto o = std::make_shared<route_options>();
    option(*c, "--model", o->model, "DIR", "model directory or run, with a tokenizer")->required();
    option(*c, "--text", o->text, "TEXT", "the text itself");
    option(*c, "--file", o->file, "FILE", "or a file of text");
    c->add_flag("--json", o->json, "ids, tokens, and per layer operators and entropies");
    c->add_flag("--color", o->color, "the text in colours, even if the output is no terminal");
    c->add_flag("--plain", o->plain, "a table, even on a terminal");
    add_runner_options(*c, o->runner);
    c->callback([o] { run_route(*o); });
}

}  // namespace spectral::cli
