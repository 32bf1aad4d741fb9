// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu.hpp: the CPU executor and all its kernels
#pragma once
#include <spectral/cpu/activation.hpp>
#include <spectral/cpu/attention.hpp>
#include <spectral/cpu/cross_entropy.hpp>
#include <spectral/cpu/dct.hpp>
#include <spectral/cpu/decision.hpp>
#include <spectral/cpu/dropout.hpp>
#include <spectral/cpu/elementwise.hpp>
#include <spectral/cpu/embedding.hpp>
#include <spectral/cpu/executor.hpp>
#include <spectral/cpu/gate.hpp>
#include <spectral/cpu/kv_cache.hpp>
#include <spectral/cpu/linear.hpp>
#include <spectral/cpu/next_token.hpp>
#include <spectral/cpu/norm.hpp>
#include <spectral/cpu/optimizer.hpp>
#include <spectral/cpu/partition.hpp>
#include <spectral/cpu/pool.hpp>
#include <spectral/cpu/random_features.hpp>
#include <spectral/cpu/rotary.hpp>
#include <spectral/cpu/row_scale.hpp>
#include <spectral/cpu/spectral_entropy.hpp>
#include <spectral/cpu/spectral_filter.hpp>
