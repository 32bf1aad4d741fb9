// SPDX-License-Identifier: Apache-2.0
// examples/cli/qwen2_cpu_f32.cpp: Qwen2 and LayerRoute on the cpu executor in float
#include "runners.hpp"

#include <spectral/cpu.hpp>

#include <spectral/train/layer_route_runner.hpp>

namespace spectral::cli {

std::unique_ptr<runner> make_cpu_f32(const layer_route_model& m, int threads, bool for_training) {
    auto ex = threads > 0 ? std::make_unique<cpu::executor>(threads) : std::make_unique<cpu::executor>();
    return make_runner<cpu::executor, float>(std::move(ex), m, for_training);
}

}  // namespace spectral::cli
