// SPDX-License-Identifier: Apache-2.0
// examples/cli/runners.hpp: the model of a configuration on the executor and scalar asked for
#pragma once
#include "options.hpp"

#include <spectral/train/runner.hpp>

#include <variant>

namespace spectral::cli {

// What executors are made with; each takes what concerns it.
struct machine_options {
    int threads = 0;  // cpu
    bool time_products = false;  // cuda
};

// A translation unit per executor and scalar instantiates the models, and makes one of a configuration.
template <class Config>
using make_function = std::unique_ptr<runner>(const Config&, const machine_options&, bool for_training);
make_function<chiar_config> make_reference_f32, make_reference_f64, make_cpu_f32, make_cpu_f64;
make_function<layer_route_model> make_reference_f32, make_reference_f64, make_cpu_f32, make_cpu_f64;
#if SPECTRAL_PROGRAM_CUDA  // built with -DSPECTRAL_CUDA=ON
make_function<chiar_config> make_cuda_f32, make_cuda_bf16;
make_function<layer_route_model> make_cuda_f32, make_cuda_bf16;
#endif

struct runner_entry {
    const char *executor, *dtype;
    make_function<chiar_config>* make_chiar;
    make_function<layer_route_model>* make_qwen2;
};
inline constexpr runner_entry runner_table[] = {
#if SPECTRAL_PROGRAM_CUDA
    {"cuda", "bf16", make_cuda_bf16, make_cuda_bf16},
    {"cuda", "f32", make_cuda_f32, make_cuda_f32},
#endif
    {"cpu", "f32", make_cpu_f32, make_cpu_f32},
    {"cpu", "f64", make_cpu_f64, make_cpu_f64},
    {"reference", "f32", make_reference_f32, make_reference_f32},
    {"reference", "f64", make_reference_f64, make_reference_f64}};

struct runner_choice {
    std::string executor = "cpu", dtype = "f32";
    std::string storage;  // of a Qwen2 backbone; empty: as computed
    std::string plans;  // a run or checkpoint whose choices of products and transforms are taken
    machine_options machine;

    weight_storage backbone_storage() const;
    std::unique_ptr<runner> make(const chiar_config& c, bool for_training) const;
    std::unique_ptr<runner> make(const layer_route_model& m, bool for_training) const;

private:
    machine_options checked_machine() const;
    void use_plans(runner& r) const;
};
void add_runner_options(CLI::App& app, runner_choice& choice);

// Adapter and skip gates over a Qwen2 backbone: directories or runs, both may be empty.
struct route_files {
    std::string adapter, router;
};
void add_route_options(CLI::App& app, route_files& files);
void add_storage_option(CLI::App& app, runner_choice& choice);

// A model directory or a run (its last checkpoint): configuration, weights, and the tokenizer's path.
struct model_directory {
    std::filesystem::path path;
    std::variant<chiar_config, qwen2_config> config;

    explicit model_directory(const std::filesystem::path& model_or_run);
    static model_directory of_file(const std::filesystem::path& config_json);  // a configuration without weights
    bool is_qwen2() const { return std::holds_alternative<qwen2_config>(config); }
    const chiar_config& chiar() const;  // each throws of a model of the other family
    const qwen2_config& qwen2() const;
    index vocabulary() const;
    index longest() const;
    std::filesystem::path tokenizer() const;  // throws if there is none
    std::filesystem::path run() const;  // the run that the checkpoint belongs to; may not exist
    std::unique_ptr<runner> load(const runner_choice& choice, const route_files& route = {},
                                 bool for_training = false) const;

private:
    model_directory() = default;
    void read(const std::filesystem::path& config_json);
};
// model.safetensors of a directory, or its only *.safetensors
std::filesystem::path weights_file(const std::filesystem::path& directory);

// The backbone's configuration with the adapter and gates of these files, and their weights into its runner.
layer_route_model with_route(const qwen2_config& backbone, const route_files& route);
void load_route(runner& r, const route_files& route);

}  // namespace spectral::cli
