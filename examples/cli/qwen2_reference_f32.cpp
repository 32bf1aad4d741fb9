// SPDX-License-Identifier: Apache-2.0
// examples/cli/qwen2_reference_f32.cpp: Qwen2 and LayerRoute on the reference executor in float
#include "runners.hpp"

#include <spectral/reference.hpp>

#include <spectral/train/layer_route_runner.hpp>

namespace spectral::cli {

std::unique_ptr<runner> make_reference_f32(const layer_route_model& m, int, bool for_training) {
    auto ex = std::make_unique<reference::executor>();
    return make_runner<reference::executor, float>(std::move(ex), m, for_training);
}

}  // namespace spectral::cli
