// SPDX-License-Identifier: Apache-2.0
// backends/cuda/kernels/double.cu: the cuda executor's kernels in double
#include <spectral/cuda/kernels.hpp>

namespace spectral::cuda {
SPECTRAL_CUDA_KERNELS(template, double)
SPECTRAL_CUDA_STATISTIC_KERNELS(template, double)
}  // namespace spectral::cuda
