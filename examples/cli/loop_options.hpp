// SPDX-License-Identifier: Apache-2.0
// examples/cli/loop_options.hpp: options of a run and of its optimizer, for `train` and `finetune`
#pragma once
#include "options.hpp"

#include <spectral/train/trainer.hpp>

namespace spectral::cli {

struct loop_options {
    std::string out, schedule = "cosine", tensorboard;
    index steps = 0;
    double epochs = 0;
    double learning_rate = 1e-3, last_learning_rate = 1e-6;
    training_options loop;
};
void add_run_options(CLI::App& app, loop_options& o);
void add_loop_options(CLI::App& app, loop_options& o);

// Options that may change between a run and its continuation.
inline const std::vector<std::string> free_options{
    "out",  "resume",       "quiet", "threads",     "eval-every", "save-every",    "log-every",
    "keep", "eval-batches", "plain", "tensorboard", "recompute",  "time-products", "plans"};

// Steps of the whole run: given, or so many epochs of data that ends (`per_epoch` batches; 0: it does not).
index total_steps(const loop_options& o, double per_epoch);
void set_schedule(loop_options& o, index steps);

// The options of a run: read from run.json and restored (--resume), or written there. Returns whether it has a
// checkpoint.
bool open_run(loop_options& o, CLI::App& command, const std::vector<std::string>& path_options);

// Ends the program as the signal would have, once the run is saved; returns if training is done.
void finish(const loop_options& o, const char* command, training_end end);

}  // namespace spectral::cli
