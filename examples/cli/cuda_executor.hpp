// SPDX-License-Identifier: Apache-2.0
// examples/cli/cuda_executor.hpp: the executor of the program's CUDA runners (included by .cu files alone)
#pragma once
#include "runners.hpp"

#include <spectral/cuda.hpp>

namespace spectral::cli {

// On the first device; CUDA_VISIBLE_DEVICES says which that is.
inline std::unique_ptr<cuda::executor> make_cuda_executor(const machine_options& machine) {
    return std::make_unique<cuda::executor>(cuda::executor_options{.tune = machine.time_products});
}

}  // namespace spectral::cli
