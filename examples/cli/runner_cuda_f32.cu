// SPDX-License-Identifier: Apache-2.0
// examples/cli/runner_cuda_f32.cu: every model on the cuda executor in float
#include "cuda_executor.hpp"

#include <spectral/train/chiar_runner.hpp>
#include <spectral/train/layer_route_runner.hpp>

namespace spectral::cli {

std::unique_ptr<runner> make_cuda_f32(const chiar_config& c, const machine_options& machine, bool for_training) {
    return make_runner<cuda::executor, float>(make_cuda_executor(machine), c, for_training);
}
std::unique_ptr<runner> make_cuda_f32(const layer_route_model& m, const machine_options& machine, bool for_training) {
    return make_runner<cuda::executor, float>(make_cuda_executor(machine), m, for_training);
}

}  // namespace spectral::cli
