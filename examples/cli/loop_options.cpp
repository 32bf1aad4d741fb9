// SPDX-License-Identifier: Apache-2.0
// examples/cli/loop_options.cpp: options of a run and of its optimizer
#include "loop_options.hpp"
#include "saved_options.hpp"

#include <spectral/train/checkpoint.hpp>

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cmath>
#include <iostream>

namespace spectral::cli {

namespace fs = std::filesystem;

void add_loop_options(CLI::App& c, loop_options& o) {
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
    c.add_flag("--recompute", o.loop.recompute,
               "keep the layers' inputs alone and compute the rest again in backward: less memory, the same numbers")
        ->group(group);
    c.add_flag("--overfit-one-batch", o.loop.overfit_one_batch, "train on the first step's batches again and again")
        ->group(group);
}

void add_run_options(CLI::App& c, loop_options& o) {
    const char* group = "Run";
    option(c, "--out", o.out, "RUN", "directory of checkpoints and metrics.jsonl")->group(group)->required();
    c.add_flag("--resume", o.loop.resume, "continue the run; every other option is taken from it")->group(group);
    option(c, "--eval-every", o.loop.evaluate_every, "N", "steps between evaluations; 0: at the end")->group(group);
    option(c, "--save-every", o.loop.save_every, "N", "steps between checkpoints; 0: at the end and at the best")
        ->group(group);
    option(c, "--log-every", o.loop.log_every, "N", "steps between lines of metrics.jsonl")->group(group);
    option(c, "--keep", o.loop.keep, "N", "newest checkpoints kept, beside the best; 0: all")->group(group);
    c.add_flag("--quiet", o.loop.quiet, "no progress on stderr")->group(group);
    c.add_flag("--plain", o.loop.plain, "progress as lines, on a terminal too")->group(group);
    option(c, "--tensorboard", o.tensorboard, "DIR", "event files for TensorBoard, beside metrics.jsonl")->group(group);
}

index total_steps(const loop_options& o, double per_epoch) {
    check(o.steps >= 0, "--steps", "expected at least 1, found ", o.steps);
    check(std::isfinite(o.epochs) && o.epochs >= 0, "--epochs", "expected a number above 0, found ", o.epochs);
    check(o.steps == 0 || o.epochs == 0, "--steps, --epochs", "expected one of them, found both");
    if (o.epochs == 0) return o.steps > 0 ? o.steps : 300;
    check(per_epoch > 0, "--epochs", "expected one task whose data ends; use --steps");
    const double steps = o.epochs * per_epoch / static_cast<double>(o.loop.accumulation);
    check(steps < 1e15, "--epochs", "expected fewer than 1e15 steps, found ", o.epochs, ", which are ", steps);
    return std::max<index>(1, std::llround(steps));
}

void set_schedule(loop_options& o, index steps) {
    o.loop.steps = steps;
    o.loop.read_ahead = true;
    o.loop.schedule.peak = o.learning_rate;
    o.loop.schedule.last = o.last_learning_rate;
    if (o.last_learning_rate == loop_options{}.last_learning_rate)  // not asked for: no higher than the learning rate
        o.loop.schedule.last = std::min(o.learning_rate, o.last_learning_rate);
    o.loop.schedule.steps = steps;
    o.loop.schedule.decay = o.schedule == "cosine"   ? decay::cosine
                            : o.schedule == "linear" ? decay::linear
                                                     : decay::constant;
}

namespace {
// Held until the process ends: two that write checkpoints and metrics of one run spoil both.
void lock_run(const fs::path& run) {
    const int directory = ::open(run.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    check(directory < 0 || ::flock(directory, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK, run.string(),
          "another process trains in this directory: wait for it, or choose another --out");
}
}  // namespace

bool open_run(loop_options& o, CLI::App& command, const std::vector<std::string>& path_options) {
    const fs::path run = o.out, settings = run / "run.json";
    if (!o.loop.resume) fs::create_directories(run);
    lock_run(run);
    const bool begun = has_checkpoint(run);
    check(o.loop.resume || !begun, o.out, "the directory holds a run already: resume it (--resume) or choose another");
    if (o.loop.resume) {
        check(fs::exists(settings), settings.string(), "expected the options of a run to resume, found no such file");
        const auto json = read_json_file(settings);
        check(json.is_object() && json.contains("options") && json["options"].is_object(), settings.string(),
              "expected an object with \"options\"");
        if (json.contains("command"))  // older runs lack it
            check(json["command"] == command.get_name(), settings.string(), "command: expected ", command.get_name(),
                  ", found ", json["command"].dump(), ": resume the run with that one");
        restore_options(command, json["options"], settings.string(), path_options, free_options);
    }
    if (!begun && !o.loop.resume) {  // a run that ended without any checkpoint may have left its tokenizer
        check(fs::exists(settings) || !fs::exists(run / "tokenizer.json"), (run / "tokenizer.json").string(),
              "the file is not that of a run and would be replaced: choose another --out");
        fs::remove(run / "tokenizer.json");
    }
    if (!o.loop.resume) {  // from here on the directory is a run's
        nlohmann::ordered_json kept;
        kept["command"] = command.get_name();
        kept["options"] = given_options(command, path_options);
        write_file_atomically(settings, kept.dump(2) + "\n");
    }
    o.loop.run = run;
    o.loop.tensorboard = o.tensorboard;
    return begun;
}

void finish(const loop_options& o, const char* command, training_end end) {
    if (end == training_end::done) return;
    std::cerr << "to continue: spectral " << command << " --out " << o.out << " --resume\n";
    throw exit_with{128 + spectral::detail::stop_signal};
}

}  // namespace spectral::cli
