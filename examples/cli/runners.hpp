// SPDX-License-Identifier: Apache-2.0
// examples/cli/runners.hpp: the model of a configuration on the executor and scalar asked for
#pragma once
#include "options.hpp"

#include <spectral/models/runner.hpp>

namespace spectral::cli {

// One translation unit per executor and scalar instantiates every model; threads 0: all.
std::unique_ptr<runner> make_reference_f32(const chiar_config& c, int threads, bool for_training);
std::unique_ptr<runner> make_reference_f64(const chiar_config& c, int threads, bool for_training);
std::unique_ptr<runner> make_cpu_f32(const chiar_config& c, int threads, bool for_training);
std::unique_ptr<runner> make_cpu_f64(const chiar_config& c, int threads, bool for_training);

struct runner_entry {
    const char *executor, *dtype;
    std::unique_ptr<runner> (*make)(const chiar_config&, int, bool);
};
inline constexpr runner_entry runner_table[] = {{"cpu", "f32", make_cpu_f32},
                                                {"cpu", "f64", make_cpu_f64},
                                                {"reference", "f32", make_reference_f32},
                                                {"reference", "f64", make_reference_f64}};

struct runner_choice {
    std::string executor = "cpu", dtype = "f32";
    int threads = 0;

    std::unique_ptr<runner> make(const chiar_config& c, bool for_training) const;
};
void add_runner_options(CLI::App& app, runner_choice& choice);

// A model directory or a run (its last checkpoint): configuration, weights, and the tokenizer's path.
struct model_directory {
    std::filesystem::path path;
    chiar_config config;

    explicit model_directory(const std::filesystem::path& model_or_run);
    std::filesystem::path tokenizer() const;  // throws if there is none
    std::filesystem::path run() const;  // the run that the checkpoint belongs to; may not exist
    std::unique_ptr<runner> load(const runner_choice& choice, bool for_training = false) const;
};
// model.safetensors of a directory, or its only *.safetensors
std::filesystem::path weights_file(const std::filesystem::path& directory);

}  // namespace spectral::cli
