// SPDX-License-Identifier: Apache-2.0
// tests/backend_stub/spectral/stub.hpp: the executor with all its kernels: one line per operator that it has
#pragma once
#include <spectral/stub/executor.hpp>
#include <spectral/stub/linear.hpp>
