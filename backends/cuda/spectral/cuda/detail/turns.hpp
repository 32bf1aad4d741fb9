// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/turns.hpp: blocks of one launch add to sums in memory in a given order
//
// A block waits for blocks that were started before it alone: no more than there are need to run at once.
#pragma once
#include <spectral/cuda/detail/launch.hpp>

namespace spectral::cuda::detail {

// Until `turn` blocks have ended theirs; what they added is there for what this thread adds or reads next.
__device__ inline void wait_for_turn(const int* ended, int turn) {
#if defined(__CUDA_ARCH__)
    int now;
    do asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(ended) : "memory");
    while (now < turn);
#else
    if (*ended != turn) std::fprintf(stderr, "cuda_on_host: turn %d after %d\n", turn, *ended), std::abort();
#endif
}
// By one thread that knows of the block's additions through a barrier.
__device__ inline void end_turn(int* ended) {
#if defined(__CUDA_ARCH__)
    asm volatile("fence.acq_rel.gpu;\nred.relaxed.gpu.global.add.s32 [%0], 1;" ::"l"(ended) : "memory");
#else
    ++*ended;
#endif
}

// Four sums of one lane, at 16 bytes
__device__ inline void add_to(float* sums, const float (&more)[4]) {
#if defined(__CUDA_ARCH__)
#if __CUDA_ARCH__ >= 900
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(sums), "f"(more[0]), "f"(more[1]),
                 "f"(more[2]), "f"(more[3])
                 : "memory");
#endif
#else
    for (int i = 0; i < 4; ++i) sums[i] += more[i];
#endif
}
__device__ inline void read_sum(const float* from, float (&to)[4]) {
#if defined(__CUDA_ARCH__)
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(to[0]), "=f"(to[1]), "=f"(to[2]), "=f"(to[3])
                 : "l"(from)
                 : "memory");
#else
    for (int i = 0; i < 4; ++i) to[i] = from[i];
#endif
}

}  // namespace spectral::cuda::detail
