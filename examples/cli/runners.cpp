// SPDX-License-Identifier: Apache-2.0
// examples/cli/runners.cpp: the table of executors and scalars; loading a model directory
#include "runners.hpp"
#include "stack_only.hpp"

#include <spectral/train/checkpoint.hpp>

namespace spectral::cli {

std::unique_ptr<runner> runner_choice::make(const chiar_config& c, bool for_training) const {
    for (const auto& entry : runner_table)
        if (executor == entry.executor && dtype == entry.dtype) return entry.make(c, threads, for_training);
    fail("--executor " + executor + " --dtype " + dtype, "this build has no such executor");
}

void add_runner_options(CLI::App& app, runner_choice& choice_) {
    choice(app, "--executor", choice_.executor, {"reference", "cpu"}, "who computes")->group("Machine");
    choice(app, "--dtype", choice_.dtype, {"f32", "f64"}, "scalar of weights and activations")->group("Machine");
    option(app, "--threads", choice_.threads, "N", "threads of the cpu executor; 0: all")
        ->group("Machine")
        ->check(CLI::Range(0, 4096).description(""));
}

model_directory::model_directory(const std::filesystem::path& model_or_run)
    : path(find_checkpoint(model_or_run)), config(read_chiar_config(path / "config.json")) {}

std::filesystem::path model_directory::tokenizer() const {
    const auto file = path / "tokenizer.json";
    check(std::filesystem::exists(file), file.string(), "the model has no tokenizer; this command needs one");
    return file;
}

std::filesystem::path model_directory::run() const {
    return std::filesystem::absolute(path).lexically_normal().parent_path();
}

std::unique_ptr<runner> model_directory::load(const runner_choice& choice, bool for_training) const {
    const safetensors_file weights(weights_file(path));
    double wanted = 0, stored = 0;  // a configuration that lies about sizes is found before memory is asked for
    for (const auto& p : parameters_of(config)) wanted += static_cast<double>(p.size);
    for (const auto& [name, entry] : weights.tensors()) stored += static_cast<double>(entry.size());
    check(wanted <= 2 * stored + 1e7, (path / "config.json").string(), "the sizes make ", wanted, " parameters, but ",
          weights.name(), " holds ", stored, " values");
    auto r = choice.make(config, for_training);
    r->load_weights(weights);
    return r;
}

std::filesystem::path weights_file(const std::filesystem::path& directory) {
    if (std::filesystem::exists(directory / "model.safetensors")) return directory / "model.safetensors";
    std::vector<std::filesystem::path> found;
    for (const auto& entry : std::filesystem::directory_iterator(directory))
        if (entry.path().extension() == ".safetensors") found.push_back(entry.path());
    check(found.size() == 1, directory.string(), "expected model.safetensors or one other *.safetensors, found ",
          found.size());
    return found[0];
}

}  // namespace spectral::cli
