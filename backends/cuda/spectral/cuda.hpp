// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda.hpp: the executor of one CUDA device with all its kernels
#pragma once
#include <spectral/cuda/executor.hpp>
#include <spectral/cuda/kernels.hpp>
#include <spectral/cuda/plans.hpp>
