// SPDX-License-Identifier: Apache-2.0
// examples/cli/main.cpp: the program `spectral`: commands, the help page, errors as one sentence and exit code 2
#include "commands.hpp"
#include "options.hpp"

#include <spectral/io/names.hpp>
#include <spectral/version.hpp>

#include <csignal>
#include <filesystem>
#include <iostream>
#include <new>

namespace spectral::cli {
namespace {

const char* const description =
    "spectral: trains, evaluates and samples CHIAR-Former language models, which send each token to attention or to a\n"
    "cheaper spectral operator by the entropy of its spectrum.\n";

const char* const footer = R"(
A first run, from text to text (each command has its own --help):
  spectral train    --out run --train train.txt --valid valid.txt --train-tokenizer 8192 --steps 300 --batch 32
  spectral eval     --model run --data valid.txt
  spectral generate --model run --prompt "The river"
  spectral route    --model run --text "The river ran north."
  spectral report   run -o report.html --text "The river ran north."

A run is a directory: checkpoints step-N, links last and best, metrics.jsonl, tokenizer.json and run.json (its options).
A checkpoint is a directory too: config.json, model.safetensors, optimizer.safetensors, trainer.json, tokenizer.json.
--model takes either. Ctrl-C during training saves and stops; spectral train --out run --resume continues as if it had
never stopped.

Exit codes: 0 done; 2 bad input, one sentence on stderr says what was expected and found; 130, 143 stopped by Ctrl-C or
SIGTERM after saving.)";

void add_commands(CLI::App& app) {
    add_train(app);
    add_eval(app);
    add_generate(app);
    add_calibrate(app);
    add_route(app);
    add_tokenizer(app);
    add_info(app);
    add_dumps(app);
    add_finetune(app);
    add_chat(app);
    add_merge(app);
    add_convert(app);
    add_report(app);
}

// The innermost command of the line, for its options' names.
const CLI::App& command_of(const CLI::App& app) {
    const auto chosen = app.get_subcommands();
    return chosen.empty() ? app : command_of(*chosen.front());
}

// CLI11's sentence; first of all about a misspelt option or command, with the nearest one that exists.
std::string usage_problem(const CLI::App& app, const CLI::ParseError& problem) {
    const CLI::App& command = command_of(app);
    const auto extra = app.remaining(true);
    if (!extra.empty()) {
        std::vector<std::string> known;
        if (!extra[0].starts_with("-"))
            for (const auto* c : command.get_subcommands({})) known.push_back(c->get_name());
        else
            for (const auto* o : command.get_options())
                for (const auto& name : o->get_lnames()) known.push_back("--" + name);
        return "unknown argument " + in_quotes(extra[0]) + " of " + command.get_display_name() +
               suggestion(extra[0], known);
    }
    std::string text = problem.what();
    for (char& c : text)
        if (c == '\n') c = ' ';
    return text +
           (command.get_parent() ? " (see spectral " + command.get_name() + " --help)" : " (see spectral --help)");
}

int run(int argc, char** argv) {
    CLI::App app(description, "spectral");
    app.get_formatter()->column_width(34);
    app.get_formatter()->label("OPTIONS", "options");
    app.get_formatter()->label("SUBCOMMAND", "command");
    app.set_help_flag("-h,--help", "this page, or that of a command");
    app.set_version_flag("--version", spectral::detail::join(version_major, ".", version_minor, ".", version_patch),
                         "the version");
    app.require_subcommand(1);
    add_commands(app);
    app.footer(footer);  // after the commands, which would repeat it
    try {
        app.parse(argc, argv);
        std::cout.flush();
        check(std::cout.good(), "standard output", "cannot be written");
        return 0;
    } catch (const exit_with& end) {
        return end.code;
    } catch (const CLI::ParseError& problem) {
        if (problem.get_exit_code() == 0) return app.exit(problem);  // help, version
        std::cerr << "spectral: " << usage_problem(app, problem) << '\n';
    } catch (const std::bad_alloc&) {
        std::cerr << "spectral: out of memory\n";
    } catch (const std::filesystem::filesystem_error& problem) {
        std::cerr << "spectral: " << problem.path1().string() << ": " << problem.code().message() << '\n';
    } catch (const std::exception& problem) {
        std::cerr << "spectral: " << problem.what() << '\n';
    }
    return 2;
}

}  // namespace
}  // namespace spectral::cli

int main(int argc, char** argv) {
    std::signal(SIGXFSZ, SIG_IGN);  // a file that grows too large is an error of its write, not the end of the program
    return spectral::cli::run(argc, argv);
}
