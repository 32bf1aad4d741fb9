// SPDX-License-Identifier: Apache-2.0
// examples/cli/merge.cpp: `spectral merge`: an adapter folded into the weights of its backbone
#include "commands.hpp"
#include "runners.hpp"

#include <spectral/train/checkpoint.hpp>

#include <iostream>
#include <list>

namespace spectral::cli {
namespace {

namespace fs = std::filesystem;

struct merge_options {
    std::string model, out;
    route_files route;
    runner_choice runner;
};

// The tensors of a file rounded to bfloat16, in its place: an adapter is folded in before anything is rounded.
void narrow(const fs::path& path) {
    safetensors_writer writer;
    std::list<std::vector<bfloat16>> kept;
    {
        const safetensors_file file(path);
        writer.set_metadata(file.metadata());
        for (const auto& [name, entry] : file.tensors()) {
            const auto& values = kept.emplace_back(file.read<bfloat16>(name));
            writer.add(name, entry.shape, std::span<const bfloat16>(values));
        }
    }
    writer.write(path);
}

void run_merge(const merge_options& o) {
    const model_directory model(o.model);
    model.qwen2();
    check(!o.route.adapter.empty(), "spectral merge", "expected --adapter DIR");
    check(!fs::exists(o.out) || (fs::is_directory(o.out) && fs::is_empty(o.out)), o.out,
          "the directory to write: expected a new or empty one");
    const bool as_bf16 = o.runner.backbone_storage() == weight_storage::bf16;
    runner_choice wide = o.runner;
    wide.storage.clear();
    const auto r = model.load(wide, o.route);
    r->layer_route()->merge_adapters();
    fs::create_directories(o.out);
    r->save_weights(fs::path(o.out) / "model.safetensors", {{"format", "pt"}}, backbone_weights);
    if (as_bf16) narrow(fs::path(o.out) / "model.safetensors");
    auto config = read_json_file<nlohmann::ordered_json>(model.path / "config.json");
    // what was written may be of another type than the model's own weights
    const char* dtype = as_bf16 || o.runner.dtype == "bf16" ? "bfloat16"
                        : o.runner.dtype == "f64"           ? "float64"
                                                            : "float32";
    config["torch_dtype"] = dtype;
    if (config.contains("dtype")) config["dtype"] = dtype;
    write_file_atomically(fs::path(o.out) / "config.json", config.dump(2) + "\n");
    for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json", "vocab.json",
                             "merges.txt", "chat_template.jinja", "special_tokens_map.json", "added_tokens.json"})
        if (fs::exists(model.path / name))
            write_file_atomically(fs::path(o.out) / name, read_text_file(model.path / name));
    if (!o.route.router.empty()) {  // the gates stay gates
        write_file_atomically(
            fs::path(o.out) / "router_config.json",
            write_router_config(*r->layer_route()->config().route.gates,
                                r->layer_route()->config().route.gate_reg_weight, model.qwen2().num_hidden_layers));
        r->save_weights(fs::path(o.out) / router_part.file, {{"format", "pt"}}, router_part.which);
    }
    const fs::path adapter = find_checkpoint(o.route.adapter);
    if (o.route.router.empty() && fs::exists(adapter / router_part.file))
        std::cerr << "gates are not merged and stay in " << adapter.string() << '\n';
    std::cerr << "written to " << o.out << '\n';
}

}  // namespace

void add_merge(CLI::App& app) {
    auto* c =
        app.add_subcommand("merge", "folds an adapter into a Qwen2 model's weights; skip gates are copied beside them");
    auto o = std::make_shared<merge_options>();
    option(*c, "--model", o->model, "DIR", "Qwen2 model directory")->required();
    option(*c, "--out", o->out, "DIR",
           "model directory to write; weights in --dtype, or with --storage bf16 rounded after the adapter")
        ->required();
    add_route_options(*c, o->route);
    add_storage_option(*c, o->runner);
    add_runner_options(*c, o->runner);
    c->callback([o] { run_merge(*o); });
}

}  // namespace spectral::cli
