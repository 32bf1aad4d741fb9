// SPDX-License-Identifier: Apache-2.0
// examples/cli/runner_cpu_f64.cpp: every model on the cpu executor in double
#include "runners.hpp"

#include <spectral/cpu.hpp>

#include <spectral/train/chiar_runner.hpp>
#include <spectral/train/layer_route_runner.hpp>

namespace spectral::cli {

std::unique_ptr<runner> make_cpu_f64(const chiar_config& c, const machine_options& machine, bool for_training) {
    return make_runner<cpu::executor, double>(std::make_unique<cpu::executor>(machine.threads), c, for_training);
}
std::unique_ptr<runner> make_cpu_f64(const layer_route_model& m, const machine_options& machine, bool for_training) {
    return make_runner<cpu::executor, double>(std::make_unique<cpu::executor>(machine.threads), m, for_training);
}

}  // namespace spectral::cli
