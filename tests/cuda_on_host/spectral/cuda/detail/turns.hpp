// SPDX-License-Identifier: Apache-2.0
// tests/cuda_on_host/spectral/cuda/detail/turns.hpp: what backends/cuda's file of this name does, see cuda_runtime.h
#pragma once
#include <spectral/cuda/detail/launch.hpp>

namespace spectral::cuda::detail {

inline int take_number(int* next) { return (*next)++; }
inline void wait_for_turn(const int* ended, int turn) {
    while (*ended < turn) cuda_on_host::block_runner::instance().wait(cuda_on_host::waits::other);
    if (*ended != turn) std::fprintf(stderr, "cuda_on_host: turn %d after %d\n", turn, *ended), std::abort();
}
inline void end_turn(int* ended) { ++*ended; }
inline void add_to(float* sums, const float (&more)[4]) {
    for (int i = 0; i < 4; ++i) sums[i] += more[i];
}

}  // namespace spectral::cuda::detail
