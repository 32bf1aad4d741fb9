// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/turns.hpp: blocks of one launch add to sums in memory in a given order
//
// Who waits for a turn waits for work with a smaller number alone, and numbers are taken in order: so the smallest that
// is not done can always go on. tests/cuda_on_host has its own version of this file; blocks run one after another
// there, so no block waits for another.
#pragma once
#include <spectral/cuda/detail/launch.hpp>

namespace spectral::cuda::detail {

__device__ inline int take_number(int* next) {
    int taken;
    asm volatile("atom.relaxed.gpu.global.add.s32 %0, [%1], 1;\n" : "=r"(taken) : "l"(next) : "memory");
    return taken;
}

// Until `turn` others have ended theirs; what they added comes before what this thread adds next.
__device__ inline void wait_for_turn(const int* ended, int turn) {
    int now;
    do asm volatile("ld.acquire.gpu.global.s32 %0, [%1];\n" : "=r"(now) : "l"(ended) : "memory");
    while (now < turn);
}
// By one thread that knows of all additions of this turn through a barrier
__device__ inline void end_turn(int* ended) {
    asm volatile("fence.acq_rel.gpu;\nred.relaxed.gpu.global.add.s32 [%0], 1;\n" ::"l"(ended) : "memory");
}

// Four sums of one lane, at 16 bytes
__device__ inline void add_to(float* sums, const float (&more)[4]) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};\n" ::"l"(sums), "f"(more[0]), "f"(more[1]),
                 "f"(more[2]), "f"(more[3])
                 : "memory");
#endif
}

}  // namespace spectral::cuda::detail
