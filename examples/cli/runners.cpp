// SPDX-License-Identifier: Apache-2.0
// examples/cli/runners.cpp: the table of executors and scalars; loading a model directory
#include "runners.hpp"
#include "stack_only.hpp"

#include <spectral/train/checkpoint.hpp>

#include <omp.h>

namespace spectral::cli {
namespace {

const runner_entry& entry_of(const runner_choice& c) {
    std::string found;
    bool has_cuda = false;
    for (const auto& entry : runner_table) {
        if (c.executor == entry.executor && c.dtype == entry.dtype) return entry;
        has_cuda = has_cuda || entry.executor == std::string_view("cuda");
        found += std::string(found.empty() ? "" : ", ") + entry.executor + " " + entry.dtype;
    }
    fail("--executor " + c.executor + " --dtype " + c.dtype, "this build has ", found,
         c.executor == "cuda" && !has_cuda ? "; configure with -DSPECTRAL_CUDA=ON (preset cuda) for cuda bf16 and f32"
                                           : "");
}

// a configuration that lies about sizes is found before memory is asked for
void check_sizes(const std::filesystem::path& path, const std::vector<parameter_size>& parameters,
                 const weight_files& files) {
    double wanted = 0, stored = 0;
    for (const auto& p : parameters) wanted += static_cast<double>(p.size);
    for (const auto& [name, entry] : files.tensors()) stored += static_cast<double>(entry.size());
    check(wanted <= 2 * stored + 1e7, (path / "config.json").string(), "the sizes make ", wanted, " parameters, but ",
          files.name(), " holds ", stored, " values");
}

// without their dropout: what is loaded is looked at, not trained
std::map<std::string, lora_options> adapters_of(const route_files& route, const std::vector<std::string>& modules) {
    const auto file = find_checkpoint(route.adapter) / "adapter_config.json";
    auto adapters = parse_peft_config(read_json_file(file), file.string(), modules);
    for (auto& [path, o] : adapters) o.dropout = 0;
    return adapters;
}

}  // namespace

weight_storage runner_choice::backbone_storage() const {
    if (storage == "bf16") return weight_storage::bf16;
    check(storage.empty() || storage == dtype, "--storage " + storage, "--dtype is ", dtype,
          ": expected bf16 or the same");
    return weight_storage::as_computed;
}
machine_options runner_choice::checked_machine() const {
    check(executor == "cuda" || !machine.time_products, "--time-products", "expected --executor cuda, found ",
          executor);
    check(executor == "cuda" || plans.empty(), "--plans", "expected --executor cuda, found ", executor);
    machine_options m = machine;
    if (m.threads <= 0) m.threads = omp_get_max_threads();
    return m;
}
void runner_choice::use_plans(runner& r) const {
    if (plans.empty()) return;
    const auto checkpoint = find_checkpoint(plans);
    const executor_plans chosen = read_plans(checkpoint);
    check(!chosen.products.empty(), checkpoint.string(), "--plans: expected a plans.json, found none");
    check(r.use_plans(chosen), (checkpoint / "plans.json").string(), "made_by: expected ", r.plans().made_by,
          ", found ", chosen.made_by);
}
std::unique_ptr<runner> runner_choice::make(const chiar_config& c, bool for_training) const {
    auto r = entry_of(*this).make_chiar(c, checked_machine(), for_training);
    use_plans(*r);
    return r;
}
std::unique_ptr<runner> runner_choice::make(const layer_route_model& m, bool for_training) const {
    auto r = entry_of(*this).make_qwen2(m, checked_machine(), for_training);
    use_plans(*r);
    return r;
}

void add_runner_options(CLI::App& app, runner_choice& choice_) {
    choice(app, "--executor", choice_.executor, {"reference", "cpu", "cuda"}, "who computes")->group("Machine");
    choice(app, "--dtype", choice_.dtype, {"f32", "f64", "bf16"},
           "scalar of weights and activations; bf16 (cuda) trains float masters")
        ->group("Machine");
    option(app, "--threads", choice_.machine.threads, "N", "threads of the cpu executor; 0: all")
        ->group("Machine")
        ->check(CLI::Range(0, 4096).description(""));
    app.add_flag("--time-products", choice_.machine.time_products,
                 "cuda: choose products and forms of transforms by timing; a run keeps what was chosen in plans.json")
        ->group("Machine");
    option(app, "--plans", choice_.plans, "RUN", "cuda: take the choices of this run: the same bits")->group("Machine");
}
void add_route_options(CLI::App& app, route_files& files) {
    option(app, "--adapter", files.adapter, "DIR", "low-rank adapter, as PEFT writes it, or a run")
        ->group("LayerRoute");
    option(app, "--router", files.router, "DIR", "skip gates (router_config.json, router.safetensors), or a run")
        ->group("LayerRoute");
}
void add_storage_option(CLI::App& app, runner_choice& choice_) {
    choice(app, "--storage", choice_.storage, {"f32", "bf16"},
           "how a Qwen2 backbone is kept; bf16 halves its memory and is read as it is computed with [--dtype]")
        ->group("Machine");
}

model_directory::model_directory(const std::filesystem::path& model_or_run) : path(find_checkpoint(model_or_run)) {
    const auto file = path / "config.json";
    check(std::filesystem::exists(file), path.string(),
          "this holds adapters or gates alone: give the backbone as the model, and this as --adapter or --router");
    read(file);
}
model_directory model_directory::of_file(const std::filesystem::path& config_json) {
    model_directory out;
    out.path = config_json.parent_path();
    out.read(config_json);
    return out;
}
void model_directory::read(const std::filesystem::path& file) {
    const auto json = read_json_file(file);
    if (json.is_object() && json.value("model_type", nlohmann::json()) == "qwen2")
        config = parse_qwen2_config(json, file.string());
    else
        config = read_chiar_config(file);
    if (!is_qwen2()) return;
    const auto generation = path / "generation_config.json";  // ends of a text: all of both files
    if (!std::filesystem::exists(generation)) return;
    auto& ends = std::get<qwen2_config>(config).eos_token_ids;
    for (row_index id : read_eos_ids(generation, vocabulary()))
        if (std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
}

const chiar_config& model_directory::chiar() const {
    check(!is_qwen2(), path.string(), "model_type: expected a CHIAR model, found qwen2");
    return std::get<chiar_config>(config);
}
const qwen2_config& model_directory::qwen2() const {
    check(is_qwen2(), path.string(), "model_type: expected qwen2, found a CHIAR model");
    return std::get<qwen2_config>(config);
}
index model_directory::vocabulary() const { return is_qwen2() ? qwen2().vocab_size : chiar().vocab_size; }
index model_directory::longest() const { return is_qwen2() ? qwen2().max_position_embeddings : chiar().max_seq_len; }

std::filesystem::path model_directory::tokenizer() const {
    auto file = path / "tokenizer.json";
    check(std::filesystem::exists(file), file.string(), "the model has no tokenizer; this command needs one");
    return file;
}

std::filesystem::path model_directory::run() const {
    return std::filesystem::absolute(path).lexically_normal().parent_path();
}

layer_route_model with_route(const qwen2_config& backbone, const route_files& route) {
    layer_route_model m{backbone, {}};
    if (!route.adapter.empty()) m.route.lora_by_module = adapters_of(route, linear_modules(backbone));
    if (!route.router.empty()) {
        const auto file = find_checkpoint(route.router) / "router_config.json";
        const auto json = read_json_file(file);
        m.route.gates = parse_router_config(json, file.string(), backbone.num_hidden_layers);
        m.route.gate_reg_weight = json.value("gate_reg_weight", 1.0);
    }
    return m;
}
void load_route(runner& r, const route_files& route) {
    if (!route.adapter.empty())
        r.load_weights(weight_files::of_file(find_checkpoint(route.adapter) / adapter_part.file), adapter_part.which);
    if (!route.router.empty())
        r.load_weights(weight_files::of_file(find_checkpoint(route.router) / router_part.file), router_part.which);
}

std::unique_ptr<runner> model_directory::load(const runner_choice& choice, const route_files& route,
                                              bool for_training) const {
    if (is_qwen2()) {
        const weight_files weights(path);
        layer_route_model m = with_route(qwen2(), route);
        m.storage = choice.backbone_storage();
        check_sizes(path, parameters_of({m.backbone, {}}), weights);
        auto r = choice.make(m, for_training);
        r->load_weights(weights, backbone_weights);
        load_route(*r, route);
        return r;
    }
    check(route.router.empty(), path.string(), "--router: expected a qwen2 model, found a CHIAR model");
    check(choice.backbone_storage() == weight_storage::as_computed, path.string(),
          "--storage bf16: expected a qwen2 model, found a CHIAR model");
    const weight_files weights = weight_files::of_file(weights_file(path));
    check_sizes(path, parameters_of(chiar()), weights);
    chiar_config c = chiar();
    if (!route.adapter.empty()) c.adapters = adapters_of(route, linear_modules(c));
    auto r = choice.make(c, for_training);
    r->load_weights(weights, backbone_weights);
    load_route(*r, route);
    return r;
}

std::filesystem::path weights_file(const std::filesystem::path& directory) {
    if (std::filesystem::exists(directory / "model.safetensors")) return directory / "model.safetensors";
    std::vector<std::filesystem::path> found;
    for (const auto& entry : std::filesystem::directory_iterator(directory))
        if (const auto name = entry.path().filename(); name.extension() == ".safetensors" &&
                                                       name != "optimizer.safetensors" && name != adapter_part.file &&
                                                       name != router_part.file)
            found.push_back(entry.path());
    check(found.size() == 1, directory.string(),
          "expected model.safetensors or one other *.safetensors of weights, found ", found.size());
    return found[0];
}

}  // namespace spectral::cli
