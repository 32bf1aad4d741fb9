// SPDX-License-Identifier: Apache-2.0
// backends/cuda/kernels/float.cu: the cuda executor's kernels in float
#include <spectral/cuda/kernels.hpp>

namespace spectral::cuda {
SPECTRAL_CUDA_KERNELS(template, float)
SPECTRAL_CUDA_STATISTIC_KERNELS(template, float)
}  // namespace spectral::cuda
