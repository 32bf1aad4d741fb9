// SPDX-License-Identifier: Apache-2.0
// examples/cli/runner_cpu_f32.cpp: every CHIAR model on the cpu executor in float
#include "runners.hpp"

#include <spectral/cpu.hpp>

#include <spectral/train/chiar_runner.hpp>

namespace spectral::cli {

std::unique_ptr<runner> make_cpu_f32(const chiar_config& c, int threads, bool for_training) {
    auto ex = threads > 0 ? std::make_unique<cpu::executor>(threads) : std::make_unique<cpu::executor>();
    return make_runner<cpu::executor, float>(std::move(ex), c, for_training);
}

}  // namespace spectral::cli
