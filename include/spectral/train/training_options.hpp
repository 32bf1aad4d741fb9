// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/training_options.hpp: the numbers of a training run, and those that its continuation must
// share
#pragma once
#include <spectral/io/json.hpp>
#include <spectral/ops/optimizer.hpp>
#include <spectral/train/schedule.hpp>

#include <cmath>
#include <filesystem>
#include <limits>

namespace spectral {

// A training run.
struct training_options {
    index steps = 300, accumulation = 1;
    learning_rate_schedule schedule;
    adamw_options optimizer;
    double clip = 1.0;
    std::uint64_t seed = 0;
    index evaluate_every = 0, save_every = 0, log_every = 10, keep = 2;  // 0: only at the end
    bool overfit_one_batch = false, resume = false, quiet = false, plain = false;  // plain: no line drawn anew
    std::filesystem::path run;  // directory of checkpoints and metrics.jsonl
    std::filesystem::path tokenizer;  // copied into checkpoints; may be empty
    std::filesystem::path tensorboard;  // directory of event files; empty: none
    std::filesystem::path start_weights;  // safetensors to start from; empty: from the initialisers
    bool recompute = false;  // keep the layers' inputs alone and run each layer again in backward: the same bits
    bool read_ahead = false;  // another thread makes the next batch during a step: making one must change nothing
    bool keep_frozen = false;  // frozen weights are loaded already: only the others start from initialisers
    nlohmann::json more_identity = nlohmann::json::object();  // further options that a continuation must agree in

    // Refuses numbers that no training can use.
    void validate() const {
        const auto within = [](double v, double least, double most, const char* name, const char* expected) {
            check(v >= least && v <= most && std::isfinite(v), "train", name, ": expected ", expected, ", found ", v);
        };
        constexpr double any = std::numeric_limits<double>::max(), below_1 = 1 - 1e-12;
        within(static_cast<double>(steps), 1, any, "steps", "at least 1");
        within(static_cast<double>(evaluate_every), 0, any, "steps between evaluations", "at least 0");
        within(static_cast<double>(save_every), 0, any, "steps between checkpoints", "at least 0");
        within(static_cast<double>(log_every), 0, any, "steps between lines of metrics", "at least 0");
        within(static_cast<double>(keep), 0, any, "checkpoints kept", "at least 0");
        within(schedule.peak, 0, any, "learning rate", "a finite number of at least 0");
        within(schedule.last, 0, schedule.peak, "last learning rate", "a number from 0 to the learning rate");
        within(static_cast<double>(schedule.warmup), 0, any, "warm-up", "at least 0 steps");
        within(optimizer.weight_decay, 0, any, "weight decay", "a finite number of at least 0");
        within(optimizer.beta1, 0, below_1, "beta1", "a number from 0 to below 1");
        within(optimizer.beta2, 0, below_1, "beta2", "a number from 0 to below 1");
        within(clip, 0, any, "clip", "a finite number of at least 0");
        within(static_cast<double>(accumulation), 1, any, "accumulation", "at least 1");
    }

    // what must agree between a run and its continuation
    nlohmann::json identity() const {
        nlohmann::json json{{"accumulation", accumulation},
                            {"learning_rate", schedule.peak},
                            {"last_learning_rate", schedule.last},
                            {"warmup", schedule.warmup},
                            {"steps", steps},
                            {"decay", static_cast<int>(schedule.decay)},
                            {"beta1", optimizer.beta1},
                            {"beta2", optimizer.beta2},
                            {"weight_decay", optimizer.weight_decay},
                            {"clip", clip},
                            {"seed", seed},
                            {"overfit_one_batch", overfit_one_batch}};
        json.update(more_identity);
        return json;
    }
};

}  // namespace spectral
