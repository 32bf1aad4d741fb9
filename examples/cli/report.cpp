// SPDX-License-Identifier: Apache-2.0
// examples/cli/report.cpp: `spectral report`: one page of figures of runs and evaluations
#include "commands.hpp"
#include "routed_text.hpp"

#include <spectral/report/report.hpp>

#include <iostream>

namespace spectral::cli {
namespace {

struct report_options {
    std::vector<std::string> sources;
    std::string out, csv, text, title = "Report";
    runner_choice runner;
};

// The routing of a text by every run that has a model which routes.
void add_routes(std::vector<report::run_record>& runs, const report_options& o) {
    std::error_code not_a_name;  // a text may be longer than any
    const bool is_file = std::filesystem::is_regular_file(o.text, not_a_name);
    const std::string text = is_file ? read_text_file(o.text) : o.text;
    check_utf8(text, is_file ? o.text : "--text");
    check(!text.empty(), is_file ? o.text : "--text", "expected a text, found none");
    bool any = false;
    for (auto& r : runs) {
        // adapters or gates alone are of a model elsewhere
        if (r.directory.empty() || !std::filesystem::exists(r.directory / "last/config.json")) continue;
        const model_directory model(r.directory);
        if (model.is_qwen2() || model.chiar().baseline()) continue;
        const auto tok = tokenizer::from_file(model.tokenizer());
        const routed_text routed = route(*model.load(o.runner), tok, text);
        if (routed.layers.empty()) continue;  // two layers: no token has a choice
        r.route = to_json(routed, model.chiar());
        any = true;
    }
    check(any, "--text", "expected a run with a model that routes tokens, found none");
}

void run_report(const report_options& o) {
    report::sources read;
    for (const auto& source : o.sources) read.add(source);
    check_is_no_input(o.out, read.files());
    check_is_no_input(o.out, {o.text});
    for (const auto& file : read.files())
        if (const auto run = std::filesystem::absolute(file).parent_path(); std::filesystem::exists(run / "run.json"))
            check_is_no_input(o.out, {run.string()});
    auto runs = read.finish();
    if (!o.text.empty()) add_routes(runs, o);
    const report::page page = report::make_report(o.title, runs);
    std::size_t figures = 0;
    page.for_each_figure([&](const report::figure&) { ++figures; });
    check(figures > 0, "spectral report", "expected numbers for at least one figure, found none");
    write_file_atomically(o.out, page.html());
    if (!o.csv.empty()) page.write_csv(o.csv);
    std::cerr << o.out << ": " << figures << " figures of " << runs.size() << (runs.size() == 1 ? " run\n" : " runs\n");
}

}  // namespace

void add_report(CLI::App& app) {
    auto* c =
        app.add_subcommand("report", "one page of figures and numbers of runs and evaluations, to look at or print");
    auto o = std::make_shared<report_options>();
    option(
        *c, "RUN", o->sources, "RUN...",
        "runs; or metrics (.jsonl), what eval --json, route --json, eval --by step_type --json printed (.json); NAME=RUN names one")
        ->required();
    option(*c, "-o,--out", o->out, "FILE", "the page, HTML")->required();
    option(*c, "--csv", o->csv, "DIR", "the numbers of each figure too");
    option(*c, "--text", o->text, "TEXT|FILE", "show where each token of it goes in every run that routes");
    option(*c, "--title", o->title, "TEXT", "of the page");
    add_runner_options(*c, o->runner);
    c->callback([o] { run_report(*o); });
}

}  // namespace spectral::cli
