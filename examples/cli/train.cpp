// SPDX-License-Identifier: Apache-2.0
// examples/cli/train.cpp: `spectral train`: data, model and optimizer from options; the loop is train/trainer.hpp
#include "commands.hpp"
#include "data_options.hpp"
#include "loop_options.hpp"
#include "runners.hpp"
#include "stack_only.hpp"

#include <spectral/train/checkpoint.hpp>

#include <iostream>

namespace spectral::cli {
namespace {

namespace fs = std::filesystem;

struct train_options : loop_options {
    std::string from;
    data_options data;
    std::shared_ptr<model_options> model = std::make_shared<model_options>();
    runner_choice runner;
    lora_options lora{.rank = 0};  // adapters over the model of --from, where the rank is not 0
    std::vector<std::string> targets{"qkv", "out_proj"};
};

const std::vector<std::string> train_paths{"train",     "valid",  "train-tsv", "valid-tsv",
                                           "tokenizer", "config", "from",      "tensorboard"};

std::string about(const chiar_config& c) {
    const std::string routing = c.baseline() ? std::string()
                                             : std::string(", ") + spectral::detail::name_of(c.layer_variant) +
                                                   ", routing " + spectral::detail::name_of(c.routing_mode);
    return spectral::detail::join(c.model_type, routing, ", ", c.n_layers, " layers of width ", c.d_model);
}
std::string about(const qwen2_config& c) {
    return spectral::detail::join("qwen2, ", c.num_hidden_layers, " blocks of width ", c.hidden_size);
}
std::vector<parameter_size> sizes(const chiar_config& c) { return parameters_of(c); }
std::vector<parameter_size> sizes(const qwen2_config& c) { return parameters_of(layer_route_model{c, {}}); }

template <class Config>
void print_plan(const train_options& o, const prepared_data& data, const Config& c) {
    index parameters = 0;
    for (const auto& p : sizes(c)) parameters += p.size;
    std::cerr << "model: " << about(c) << ", " << parameters << " parameters, " << o.runner.executor << " "
              << o.runner.dtype << '\n';
    for (const auto& t : data.tasks) std::cerr << "data: " << t.name << (t.about.empty() ? "" : ", " + t.about) << '\n';
    std::cerr << "plan: " << o.loop.steps << " steps of " << o.data.batch << " x " << o.loop.accumulation
              << " sequences, learning rate " << o.learning_rate << ", warm-up " << o.loop.schedule.warmup << ", "
              << o.schedule << '\n';
}

// The model of --from with adapters: they alone train, and they alone are saved.
chiar_config adapted(const train_options& o, const data_needs& needs) {
    const char* where = "--lora-rank";
    check(o.model->config.empty() && o.model->model.empty() && o.model->set.empty(), where,
          "the model is that of --from: expected no options of a new one");
    check(needs.language && needs.classes.empty(), where,
          "expected the task language: heads are not saved with adapters");
    const model_directory model(o.from);
    chiar_config c = model.chiar();
    check(needs.vocabulary <= c.vocab_size, model.path.string(), "vocab_size: expected at least ", needs.vocabulary,
          " (tokens of the data), found ", c.vocab_size);
    check(needs.time <= c.max_seq_len, model.path.string(), "max_seq_len: expected at least ", needs.time,
          " (--time), found ", c.max_seq_len);
    std::vector<std::string> known;
    for (const auto& path : linear_modules(c)) {
        const std::string name = path.substr(path.rfind('.') + 1);
        known.push_back(name);
        if (std::find(o.targets.begin(), o.targets.end(), name) != o.targets.end()) c.adapters[path] = o.lora;
    }
    for (const auto& t : o.targets)
        check(std::find(known.begin(), known.end(), t) != known.end(), "--lora-targets", "unknown module ",
              in_quotes(t), suggestion(t, known));
    return c;
}

void run_training(train_options& o, CLI::App& command) {
    const fs::path run = o.out, settings = run / "run.json";
    const bool begun = open_run(o, command, train_paths), fresh = !o.loop.resume;
    std::ostream* say = o.loop.quiet ? nullptr : &std::cerr;
    const bool adapts = o.lora.rank != 0;
    check(o.lora.rank >= 0, "--lora-rank", "expected at least 0, found ", o.lora.rank);
    check(!adapts || !o.from.empty(), "--lora-rank", "expected --from DIR, the model to adapt, found none");
    for (const char* name : {"--lora-alpha", "--lora-dropout", "--lora-targets"})
        check(adapts || command.count(name) == 0, name, "expected --lora-rank beside it");
    if (const auto own = fs::path(adapts ? find_checkpoint(o.from) : fs::path()) / "tokenizer.json";
        adapts && o.data.tokenizer.empty() && fs::exists(own))
        o.data.tokenizer = own.string();
    const prepared_data data = prepare_data(o.data, run, say);
    const auto batches = data.batches(o.data.seed);
    set_schedule(o, total_steps(o, data.tasks.size() == 1 ? data.tasks[0].per_epoch : 0));
    if (fresh && !data.train_tokens.empty()) {
        auto kept = nlohmann::ordered_json::parse(read_text_file(settings));
        kept["train_tokens"] = data.train_tokens.lexically_relative(run).string();
        write_file_atomically(settings, kept.dump(2) + "\n");
    }
    const data_needs needs = data.needs(o.data.time);
    const std::variant<chiar_config, qwen2_config> config = adapts  ? adapted(o, needs)
                                                            : begun ? model_directory(run).config
                                                                    : make_config(*o.model, needs);
    o.loop.resume = begun;  // stopped before its first checkpoint: from the start, which is the same
    o.loop.tokenizer = data.tokenizer;
    o.loop.seed = o.data.seed;
    if (adapts) {
        o.loop.keep_frozen = true;
        o.loop.more_identity = {{"lora", {o.lora.rank, o.lora.alpha, o.lora.dropout}}, {"lora_targets", o.targets}};
    } else if (!o.from.empty() && !begun)
        o.loop.start_weights = weights_file(find_checkpoint(o.from));
    const auto r = std::visit(
        [&](const auto& c) {
            if (say) print_plan(o, data, c);
            if constexpr (std::is_same_v<decltype(c), const qwen2_config&>)
                return o.runner.make(layer_route_model{c, {}}, true);
            else
                return o.runner.make(c, true);
        },
        config);
    if (adapts) r->load_weights(weight_files::of_file(weights_file(find_checkpoint(o.from))), backbone_weights);
    finish(o, "train", spectral::train(*r, batches, data.sets(), o.loop, std::cerr));
}

}  // namespace

void add_train(CLI::App& app) {
    auto* c =
        app.add_subcommand("train", "trains a model on text, ListOps, labelled texts or a mix; --resume continues");
    auto o = std::make_shared<train_options>();
    add_run_options(*c, *o);
    add_data_options(*c, o->data);
    add_model_options(*c, o->model);
    add_loop_options(*c, *o);
    option(*c, "--from", o->from, "DIR", "start from another model's weights, of the same shapes")
        ->group("Optimisation");
    const char* lora = "Adapters, on a frozen CHIAR model (--from)";
    option(*c, "--lora-rank", o->lora.rank, "N", "of every low-rank adapter; they alone train; 0: none")->group(lora);
    option(*c, "--lora-alpha", o->lora.alpha, "X", "scale is alpha / rank")->group(lora);
    option(*c, "--lora-dropout", o->lora.dropout, "X", "of an adapter's input")->group(lora);
    option(*c, "--lora-targets", o->targets, "NAME...", "last part of a map's path [qkv, out_proj]")->group(lora);
    add_runner_options(*c, o->runner);
    c->callback([o, c] { run_training(*o, *c); });
}

}  // namespace spectral::cli
