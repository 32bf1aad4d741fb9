// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/tensor_core.hpp: instructions of sm_80 and later, one function each
//
// Copies from global to shared memory that run on their own, barriers in shared memory, 8 × 8 matrices from shared
// memory to registers, a warp's product of bfloat16 matrices. tests/cuda_on_host has its own version of this file.
#pragma once
#include <spectral/cuda/detail/launch.hpp>

namespace spectral::cuda::detail {

__device__ inline unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

// ---- copies ---------------------------------------------------------------------------------------------------------

// 16 (or 4 or 8) bytes from global to shared memory; zeros, and nothing is read, if not `valid`
template <int Bytes = 16>
__device__ inline void copy_async(void* shared, const void* from, bool valid) {
    const unsigned to = shared_address(shared), read = valid ? Bytes : 0;
    if constexpr (Bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(read) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(to), "l"(from), "n"(Bytes), "r"(read)
                     : "memory");
}
// Copies asked for since the last group are one; all but the last `Pending` groups of this thread have arrived.
__device__ inline void copies_end_group() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int Pending>
__device__ inline void copies_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(Pending) : "memory");
}
// What other threads wrote to shared memory, as far as this thread knows of it, may be read by asynchronous products.
__device__ inline void products_see_shared() {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
#endif
}

// A barrier in shared memory: a phase ends when `count` threads have arrived. Phases are waited for by parity, 0 first.
struct shared_barrier {
    std::uint64_t state;

    __device__ void init(unsigned count) {
        asm volatile("mbarrier.init.shared.b64 [%0], %1;\n" ::"r"(shared_address(this)), "r"(count) : "memory");
    }
    __device__ void arrive() {
        asm volatile("{\n.reg .b64 now;\nmbarrier.arrive.shared.b64 now, [%0];\n}\n" ::"r"(shared_address(this))
                     : "memory");
    }
    __device__ void wait(unsigned parity) {
        unsigned done;
        do {
#if __CUDA_ARCH__ >= 900
            asm volatile(
                "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;\n}\n"
                : "=r"(done)
                : "r"(shared_address(this)), "r"(parity)
                : "memory");
#else
            asm volatile(
                "{\n.reg .pred p;\nmbarrier.test_wait.parity.shared.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;\n}\n"
                : "=r"(done)
                : "r"(shared_address(this)), "r"(parity)
                : "memory");
#endif
        } while (!done);
    }
};

// Arrives, on its own, when this thread's copies so far have.
__device__ inline void copy_async_arrive(shared_barrier& barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];\n" ::"r"(shared_address(&barrier)) : "memory");
}

// Copies a multiple of 16 bytes, which nobody reads again soon; arrives at the barrier when they are there.
__device__ inline void copy_bulk_once(void* shared, const void* from, unsigned bytes, shared_barrier& barrier) {
#if __CUDA_ARCH__ >= 900
    unsigned long long once;  // the first to leave the second level cache
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;\n" : "=l"(once));
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;\n" ::"r"(shared_address(&barrier)), "r"(bytes)
                 : "memory");
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;\n" ::
            "r"(shared_address(shared)),
        "l"(from), "r"(bytes), "r"(shared_address(&barrier)), "l"(once)
        : "memory");
#endif
}
// Makes initialised barriers known to copies.
__device__ inline void copies_see_barriers() {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;\n" ::: "memory");
#endif
}

// ---- products of a warp ---------------------------------------------------------------------------------------------

// Four 8 × 8 matrices of bfloat16: lane l gives the address of line l % 8 of matrix l / 8, and gets of each matrix the
// two values 2 (l % 4), 2 (l % 4) + 1 of line l / 4; transposed: of column l / 4.
__device__ inline void load_matrices(unsigned (&to)[4], const void* line) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(line))
                 : "memory");
}
__device__ inline void load_matrices_transposed(unsigned (&to)[4], const void* line) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(line))
                 : "memory");
}
// d (16 × 8) += a (16 × 16) b (16 × 8). Lane l holds of d rows l / 4 and l / 4 + 8, columns 2 (l % 4) and the next.
__device__ inline void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline float exp2_approximate(float x) {  // 2 ulp; -∞ gives 0
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}
__device__ inline unsigned pack_bfloat16(float low, float high) {
    unsigned out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

}  // namespace spectral::cuda::detail
