// SPDX-License-Identifier: Apache-2.0
// examples/cli/runner_reference_f64.cpp: every CHIAR model on the reference executor in double
#include "runners.hpp"

#include <spectral/reference.hpp>

#include <spectral/train/chiar_runner.hpp>

namespace spectral::cli {

std::unique_ptr<runner> make_reference_f64(const chiar_config& c, int, bool for_training) {
    auto ex = std::make_unique<reference::executor>();
    return make_runner<reference::executor, double>(std::move(ex), c, for_training);
}

}  // namespace spectral::cli
