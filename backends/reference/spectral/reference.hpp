// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference.hpp: the reference executor with all its kernels
#pragma once
#include <spectral/reference/activation.hpp>
#include <spectral/reference/attention.hpp>
#include <spectral/reference/cross_entropy.hpp>
#include <spectral/reference/dct.hpp>
#include <spectral/reference/decision.hpp>
#include <spectral/reference/dropout.hpp>
#include <spectral/reference/elementwise.hpp>
#include <spectral/reference/embedding.hpp>
#include <spectral/reference/executor.hpp>
#include <spectral/reference/gate.hpp>
#include <spectral/reference/kv_cache.hpp>
#include <spectral/reference/linear.hpp>
#include <spectral/reference/next_token.hpp>
#include <spectral/reference/norm.hpp>
#include <spectral/reference/optimizer.hpp>
#include <spectral/reference/partition.hpp>
#include <spectral/reference/pool.hpp>
#include <spectral/reference/random_features.hpp>
#include <spectral/reference/rotary.hpp>
#include <spectral/reference/row_scale.hpp>
#include <spectral/reference/spectral_entropy.hpp>
#include <spectral/reference/spectral_filter.hpp>
