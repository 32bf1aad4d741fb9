// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda.hpp: the executor of one CUDA device with all its kernels
#pragma once
#include <spectral/cuda/activation.hpp>
#include <spectral/cuda/attention.hpp>
#include <spectral/cuda/cross_entropy.hpp>
#include <spectral/cuda/dct.hpp>
#include <spectral/cuda/decision.hpp>
#include <spectral/cuda/dropout.hpp>
#include <spectral/cuda/elementwise.hpp>
#include <spectral/cuda/embedding.hpp>
#include <spectral/cuda/executor.hpp>
#include <spectral/cuda/few_rows.hpp>
#include <spectral/cuda/gate.hpp>
#include <spectral/cuda/kv_cache.hpp>
#include <spectral/cuda/linear.hpp>
#include <spectral/cuda/next_token.hpp>
#include <spectral/cuda/norm.hpp>
#include <spectral/cuda/optimizer.hpp>
#include <spectral/cuda/partition.hpp>
#include <spectral/cuda/plans.hpp>
#include <spectral/cuda/pool.hpp>
#include <spectral/cuda/random_features.hpp>
#include <spectral/cuda/rotary.hpp>
#include <spectral/cuda/row_scale.hpp>
#include <spectral/cuda/spectral_entropy.hpp>
#include <spectral/cuda/spectral_filter.hpp>
#include <spectral/cuda/spectral_route_mix.hpp>
