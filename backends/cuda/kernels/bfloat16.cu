// SPDX-License-Identifier: Apache-2.0
// backends/cuda/kernels/bfloat16.cu: the cuda executor's kernels in bfloat16
#include <spectral/cuda/kernels.hpp>

namespace spectral::cuda {
SPECTRAL_CUDA_KERNELS(template, bfloat16)
}  // namespace spectral::cuda
