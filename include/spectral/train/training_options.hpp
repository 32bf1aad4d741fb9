// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/training_options.hpp: the numbers of a training run, and those that its continuation must share
#pragma once
#include <spectral/io/json.hpp>
#include <spectral/ops/optimizer.hpp>
#include <spectral/train/schedule.hpp>

#include <filesystem>

namespace spectral {

// A training run.
struct training_options {
    index steps = 300, accumulation = 1;
    learning_rate_schedule schedule;
    adamw_options optimizer;
    double clip = 1.0;
    std::uint64_t seed = 0;
    index evaluate_every = 0, save_every = 0, log_every = 10, keep = 2;   // 0: only at the end
    bool overfit_one_batch = false, resume = false, quiet = false, plain = false;   // plain: no line drawn anew
    std::filesystem::path run;            // directory of checkpoints and metrics.jsonl
    std::filesystem::path tokenizer;      // copied into checkpoints; may be empty
    std::filesystem::path tensorboard;    // directory of event files; empty: none
    std::filesystem::path start_weights;  // safetensors to start from; empty: from the initialisers
    bool keep_frozen = false;             // frozen weights are loaded already: only the others start from initialisers
    nlohmann::json more_identity = nlohmann::json::object();   // further options that a continuation must agree in

    // what must agree between a run and its continuation
    nlohmann::json identity() const {
        nlohmann::json json{{"accumulation", accumulation}, {"learning_rate", schedule.peak}, {"last_learning_rate", schedule.last},
                {"warmup", schedule.warmup}, {"steps", steps}, {"decay", static_cast<int>(schedule.decay)},
                {"beta1", optimizer.beta1}, {"beta2", optimizer.beta2}, {"weight_decay", optimizer.weight_decay},
                {"clip", clip}, {"seed", seed}, {"overfit_one_batch", overfit_one_batch}};
        json.update(more_identity);
        return json;
    }
};

}  // namespace spectral
