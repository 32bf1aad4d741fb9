// SPDX-License-Identifier: Apache-2.0
// examples/cli/runner_reference_f32.cpp: every model on the reference executor in float
#include "runners.hpp"

#include <spectral/reference.hpp>

#include <spectral/train/chiar_runner.hpp>
#include <spectral/train/layer_route_runner.hpp>

namespace spectral::cli {

std::unique_ptr<runner> make_reference_f32(const chiar_config& c, const machine_options&, bool for_training) {
    return make_runner<reference::executor, float>(std::make_unique<reference::executor>(), c, for_training);
}
std::unique_ptr<runner> make_reference_f32(const layer_route_model& m, const machine_options&, bool for_training) {
    return make_runner<reference::executor, float>(std::make_unique<reference::executor>(), m, for_training);
}

}  // namespace spectral::cli
