// SPDX-License-Identifier: Apache-2.0
// examples/cli/train.cpp: `spectral train`: data, model and optimizer from options; the loop is train/trainer.hpp
#include "commands.hpp"
#include "data_options.hpp"
#include "loop_options.hpp"
#include "runners.hpp"
#include "stack_only.hpp"

#include <iostream>

namespace spectral::cli {
namespace {

namespace fs = std::filesystem;

struct train_options : loop_options {
    std::string from;
    data_options data;
    std::shared_ptr<model_options> model = std::make_shared<model_options>();
    runner_choice runner;
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

void run_training(train_options& o, CLI::App& command) {
    const fs::path run = o.out, settings = run / "run.json";
    const bool begun = open_run(o, command, train_paths), fresh = !o.loop.resume;
    std::ostream* say = o.loop.quiet ? nullptr : &std::cerr;
    const prepared_data data = prepare_data(o.data, run, say);
    const auto batches = data.batches(o.data.seed);
    set_schedule(o, total_steps(o, data.tasks.size() == 1 ? data.tasks[0].per_epoch : 0));
    if (fresh && !data.train_tokens.empty()) {
        auto kept = nlohmann::ordered_json::parse(read_text_file(settings));
        kept["train_tokens"] = data.train_tokens.lexically_relative(run).string();
        write_file_atomically(settings, kept.dump(2) + "\n");
    }
    const auto config = begun ? model_directory(run).config : make_config(*o.model, data.needs(o.data.time));
    o.loop.resume = begun;  // stopped before its first checkpoint: from the start, which is the same
    o.loop.tokenizer = data.tokenizer;
    o.loop.seed = o.data.seed;
    if (!o.from.empty() && !begun) o.loop.start_weights = weights_file(find_checkpoint(o.from));
    const auto r = std::visit(
        [&](const auto& c) {
            if (say) print_plan(o, data, c);
            if constexpr (std::is_same_v<decltype(c), const qwen2_config&>)
                return o.runner.make(layer_route_model{c, {}}, true);
            else
                return o.runner.make(c, true);
        },
        config);
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
    add_runner_options(*c, o->runner);
    c->callback([o, c] { run_training(*o, *c); });
}

}  // namespace spectral::cli
