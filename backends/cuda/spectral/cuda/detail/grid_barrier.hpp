// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/grid_barrier.hpp: blocks of one launch wait for each other and read each other's
// results
#pragma once
#include <spectral/cuda/detail/halves_job.hpp>

namespace spectral::cuda::detail {

__device__ inline void stream_sync() { asm volatile("bar.sync 1, %0;" ::"n"(stream_threads) : "memory"); }

// 16 bytes that another multiprocessor wrote in this launch
__device__ inline words read_result(const void* from) {
    words out;
#if defined(__CUDA_ARCH__)
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out.value[0]), "=r"(out.value[1]), "=r"(out.value[2]), "=r"(out.value[3])
                 : "l"(from)
                 : "memory");
#else
    out = *static_cast<const words*>(from);
#endif
    return out;
}
// asks for 128 bytes, which stay in the second level cache when others leave
__device__ inline void keep_near(const void* from) {
#if defined(__CUDA_ARCH__)
    asm volatile("prefetch.global.L2::evict_last [%0];" ::"l"(from));
#endif
}
template <class T>
__device__ inline T read_one(const T* from) {
    if constexpr (sizeof(T) == 2) {
        const unsigned short bits = __ldcg(reinterpret_cast<const unsigned short*>(from));
        return reinterpret_cast<const T&>(bits);
    } else {
        return __ldcg(from);
    }
}

// All blocks of the grid have arrived; what they wrote before is there.
struct grid_barrier {
    unsigned long long *arrivals, target = 0;
    __device__ explicit grid_barrier(unsigned long long* a) : arrivals(a) {
#if defined(__CUDA_ARCH__)
        unsigned long long now;  // between two multiples of the grid: the others cannot be further than this block
        asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(now) : "l"(arrivals) : "memory");
        target = now - now % gridDim.x;
#endif
    }
    __device__ void arrive() {
        stream_sync();
        target += gridDim.x;
#if defined(__CUDA_ARCH__)
        if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u64 [%0], 1;" ::"l"(arrivals) : "memory");
#endif
    }
    __device__ void wait() const {
#if defined(__CUDA_ARCH__)
        if (threadIdx.x == 0) {
            unsigned long long now;
            do asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(now) : "l"(arrivals) : "memory");
            while (now < target);
        }
#endif
        stream_sync();
    }
};

}  // namespace spectral::cuda::detail
