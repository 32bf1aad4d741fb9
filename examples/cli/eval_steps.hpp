// SPDX-License-Identifier: Apache-2.0
// examples/cli/eval_steps.hpp: `spectral eval --by step_type`
#pragma once
#include "conversation_options.hpp"
#include "runners.hpp"

namespace spectral::cli {

struct step_evaluation {
    std::string model, side = "all";
    std::vector<std::string> files, runs;  // conversations; runs of finetune
    route_files route;  // where there are no runs
    runner_choice runner;
    conversation_choice data{.max_length = 2048};
    double held_out = 0.1;
    index batch = 8, samples = 0, resamples = 2000;
    bool json = false, length_given = false;  // not given: max_length, or the longest that the model takes
};
void evaluate_steps(step_evaluation o);

}  // namespace spectral::cli
