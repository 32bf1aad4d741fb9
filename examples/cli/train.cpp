// SPDX-License-Identifier: Apache-2.0
// examples/cli/train.cpp: `spectral train`: data, model and optimizer from options; the loop is train/trainer.hpp
#include "commands.hpp"
#include "data_options.hpp"
#include "runners.hpp"
#include "saved_options.hpp"
#include "stack_only.hpp"

#include <iostream>

namespace spectral::cli {
namespace {

namespace fs = std::filesystem;

struct train_options {
    std::string out, from, schedule = "cosine";
    data_options data;
    std::shared_ptr<model_options> model = std::make_shared<model_options>();
    runner_choice runner;
    index steps = 0;
    double epochs = 0;
    double learning_rate = 1e-3, last_learning_rate = 1e-6;
    training_options loop;
};

const std::vector<std::string> path_options{"train", "valid", "train-tsv", "valid-tsv", "tokenizer", "config", "from"};
const std::vector<std::string> free_options{"out",        "resume",    "quiet", "threads",     "eval-every",
                                            "save-every", "log-every", "keep",  "eval-batches"};

// Steps of the whole run: given, or so many epochs of a task whose data ends.
index total_steps(const train_options& o, const prepared_data& data) {
    check(o.steps >= 0 && o.epochs >= 0 && !(o.steps > 0 && o.epochs > 0), "--steps, --epochs",
          "expected one of them, at least 1");
    if (o.epochs == 0) return o.steps > 0 ? o.steps : 300;
    check(data.tasks.size() == 1 && data.tasks[0].per_epoch > 0, "--epochs",
          "expected one task whose data ends; use --steps");
    return std::max<index>(
        1, static_cast<index>(o.epochs * data.tasks[0].per_epoch / static_cast<double>(o.loop.accumulation) + 0.5));
}

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
    const bool begun = fs::exists(run / "last");
    check(o.loop.resume || !begun, o.out, "the directory holds a run already: resume it (--resume) or choose another");
    if (o.loop.resume) {
        check(fs::exists(settings), settings.string(), "expected the options of a run to resume, found no such file");
        const auto json = read_json_file(settings);
        check(json.is_object() && json.contains("options") && json["options"].is_object(), settings.string(),
              "expected an object with \"options\"");
        restore_options(command, json["options"], settings.string(), path_options, free_options);
    }
    fs::create_directories(run);
    if (!begun && !o.loop.resume) {  // a run that ended without any checkpoint may have left its tokenizer
        check(fs::exists(settings) || !fs::exists(run / "tokenizer.json"), (run / "tokenizer.json").string(),
              "the file is not that of a run and would be replaced: choose another --out");
        fs::remove(run / "tokenizer.json");
    }
    const bool fresh = !o.loop.resume;
    nlohmann::ordered_json kept;
    kept["options"] = given_options(command, path_options);
    if (fresh) write_file_atomically(settings, kept.dump(2) + "\n");  // from here on the directory is a run's
    std::ostream* say = o.loop.quiet ? nullptr : &std::cerr;
    const prepared_data data = prepare_data(o.data, run, say);
    o.loop.steps = total_steps(o, data);
    if (fresh && !data.train_tokens.empty()) {
        kept["train_tokens"] = data.train_tokens.lexically_relative(run).string();
        write_file_atomically(settings, kept.dump(2) + "\n");
    }
    const auto config = begun ? model_directory(run).config : make_config(*o.model, data.needs(o.data.time));
    o.loop.resume = begun;  // stopped before its first checkpoint: from the start, which is the same
    o.loop.run = run;
    o.loop.tokenizer = data.tokenizer;
    o.loop.seed = o.data.seed;
    o.loop.schedule.peak = o.learning_rate;
    o.loop.schedule.last = o.last_learning_rate;
    o.loop.schedule.steps = o.loop.steps;
    o.loop.schedule.decay = o.schedule == "cosine"   ? decay::cosine
                            : o.schedule == "linear" ? decay::linear
                                                     : decay::constant;
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
    const training_end end = spectral::train(*r, data.batches(o.data.seed), data.sets(), o.loop, std::cerr);
    if (end == training_end::done) return;
    std::cerr << "to continue: spectral train --out " << o.out << " --resume\n";
    throw exit_with{128 + spectral::detail::stop_signal};
}

void add_loop_options(CLI::App& c, train_options& o) {
    const char* group = "Optimisation";
    option(c, "--steps", o.steps, "N", "optimizer steps; 0: 300, or by --epochs")->group(group);
    option(c, "--epochs", o.epochs, "X", "passes over the data instead of --steps")->group(group);
    option(c, "--accumulation", o.loop.accumulation, "N", "batches summed in one step")
        ->group(group)
        ->check(CLI::Range(1, 1 << 20).description(""));
    option(c, "--lr", o.learning_rate, "X", "learning rate after warm-up")->group(group);
    option(c, "--min-lr", o.last_learning_rate, "X", "learning rate at the last step")->group(group);
    option(c, "--warmup", o.loop.schedule.warmup, "N", "steps of linear warm-up")->group(group);
    choice(c, "--schedule", o.schedule, {"cosine", "linear", "constant"}, "learning rate after warm-up")->group(group);
    option(c, "--clip", o.loop.clip, "X", "largest norm of the gradient; 0: any")->group(group);
    option(c, "--weight-decay", o.loop.optimizer.weight_decay, "X", "of AdamW, on every parameter")->group(group);
    option(c, "--beta1", o.loop.optimizer.beta1, "X", "of AdamW")->group(group);
    option(c, "--beta2", o.loop.optimizer.beta2, "X", "of AdamW")->group(group);
    option(c, "--from", o.from, "DIR", "start from another model's weights, of the same shapes")->group(group);
    c.add_flag("--overfit-one-batch", o.loop.overfit_one_batch, "train on the first step's batches again and again")
        ->group(group);
}

void add_run_options(CLI::App& c, train_options& o) {
    const char* group = "Run";
    option(c, "--out", o.out, "RUN", "directory of checkpoints and metrics.jsonl")->group(group)->required();
    c.add_flag("--resume", o.loop.resume, "continue the run; every other option is taken from it")->group(group);
    option(c, "--eval-every", o.loop.evaluate_every, "N", "steps between evaluations; 0: at the end")->group(group);
    option(c, "--save-every", o.loop.save_every, "N", "steps between checkpoints; 0: at the end and at the best")
        ->group(group);
    option(c, "--log-every", o.loop.log_every, "N", "steps between lines of metrics.jsonl")->group(group);
    option(c, "--keep", o.loop.keep, "N", "newest checkpoints kept, beside the best; 0: all")->group(group);
    c.add_flag("--quiet", o.loop.quiet, "no progress on stderr")->group(group);
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
    add_runner_options(*c, o->runner);
    c->callback([o, c] { run_training(*o, *c); });
}

}  // namespace spectral::cli
