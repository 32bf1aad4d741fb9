// SPDX-License-Identifier: Apache-2.0
// examples/cli/model_options.hpp: a configuration from a file, a preset and single keys on the command line
#pragma once
#include "options.hpp"

#include <spectral/io/chiar_config_json.hpp>
#include <spectral/io/hugging_face.hpp>

#include <variant>

namespace spectral::cli {

struct model_options {
    std::string config, preset = "small", model;
    std::vector<std::string> set;  // key=value; the short options add to it
};
void add_model_options(CLI::App& app, std::shared_ptr<model_options> o);

// What the data asks of a model.
struct data_needs {
    index vocabulary = 0, time = 0;
    bool language = true;  // a loss on next tokens
    std::vector<std::pair<std::string, index>> classes = {};  // classification tasks and their classes
};

// The configuration: file or preset, then the command line's keys; what stays open follows from the data.
std::variant<chiar_config, qwen2_config> make_config(const model_options& o, const data_needs& needs);

}  // namespace spectral::cli
