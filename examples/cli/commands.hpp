// SPDX-License-Identifier: Apache-2.0
// examples/cli/commands.hpp: the commands of the program, one file each
#pragma once
#include <CLI/CLI.hpp>

namespace spectral::cli {

void add_train(CLI::App& app);
void add_eval(CLI::App& app);
void add_generate(CLI::App& app);
void add_calibrate(CLI::App& app);
void add_route(CLI::App& app);
void add_tokenizer(CLI::App& app);
void add_info(CLI::App& app);
void add_dumps(CLI::App& app);  // logits and gradients
void add_finetune(CLI::App& app);
void add_merge(CLI::App& app);
void add_chat(CLI::App& app);
void add_convert(CLI::App& app);  // public data sets to conversations
void add_report(CLI::App& app);

}  // namespace spectral::cli
