// SPDX-License-Identifier: Apache-2.0
// examples/cli/qwen2_cuda_bf16.cu: Qwen2 and LayerRoute on the cuda executor in bfloat16
#include "cuda_executor.hpp"

#include <spectral/train/layer_route_runner.hpp>

namespace spectral::cli {

std::unique_ptr<runner> make_cuda_bf16(const layer_route_model& m, int, bool for_training) {
    return make_runner<cuda::executor, bfloat16>(make_cuda_executor(), m, for_training);
}

}  // namespace spectral::cli
