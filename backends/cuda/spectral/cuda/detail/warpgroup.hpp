// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/warpgroup.hpp: Hopper's asynchronous matrix products (wgmma) and register shares
//
// A warpgroup (four warps, 128 threads) multiplies 64 rows of A, in shared memory or registers, with B in shared
// memory; the sums lie in the warps' registers as after multiply_add(), 16 rows to a warp. A product runs on its own
// between warpgroup_begin() and warpgroup_wait(): meanwhile its registers are not to be touched. Only code compiled for
// sm_90a has these instructions; tests/cuda_on_host has its own version of this file.
#pragma once
#include <spectral/cuda/detail/tensor_core.hpp>

namespace spectral::cuda::detail {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr bool warpgroup_products_built = true;
#else
inline constexpr bool warpgroup_products_built = false;
#endif
inline constexpr bool warp_products_built = !warpgroup_products_built;  // one of the two is enough

// How a matrix of bfloat16 lies in shared memory: lines of 128 (64) bytes, the 16-byte chunks of a line exchanged by
// the bits of its number as tile_layout does.
template <int Line>
__device__ inline std::uint64_t matrix_descriptor(unsigned shared) {
    constexpr std::uint64_t swizzle = Line == 128 ? 1 : 2, below = 8 * Line;  // bytes to the next eight lines
    return (shared & 0x3FFFFu) >> 4 | std::uint64_t{1} << 16 | below >> 4 << 32 | swizzle << 62;
}

// of what lies `bytes` behind: an addition to the address, which never carries
__device__ inline std::uint64_t behind(std::uint64_t descriptor, unsigned bytes) {
    return descriptor >> 32 << 32 | (static_cast<unsigned>(descriptor) + (bytes >> 4));
}

__device__ inline void warpgroup_begin() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ inline void warpgroup_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int Pending>
__device__ inline void warpgroup_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(Pending) : "memory");
}
// Registers of a product that was waited for: the compiler must not read them earlier.
template <int N>
__device__ inline void settle(float (&sums)[N][4]) {
#pragma unroll
    for (int j = 0; j < N; ++j)
        asm volatile("" : "+f"(sums[j][0]), "+f"(sums[j][1]), "+f"(sums[j][2]), "+f"(sums[j][3])::"memory");
}

template <int Registers>
__device__ inline void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(Registers));
}
template <int Registers>
__device__ inline void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(Registers));
}

#define SPECTRAL_ROW(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])

// d (64 × N) = A B (+ d if add), both in shared memory. Left (Right) 0: a line of A (B) is a row (column) of the product;
// 1: lines, 16 of them, are the summed direction.
template <int N, int Left = 0, int Right = Left>
__device__ __forceinline__ void warpgroup_multiply(float (*d)[4], std::uint64_t a, std::uint64_t b, int add) {
    static_assert(N == 32 || N == 64 || N == 128);
    if constexpr (N == 32)
        asm volatile(
            "{\n.reg .pred add;\nsetp.ne.b32 add, %18, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
            "}, %16, %17, add, 1, 1, %19, %20;\n}\n"
            : SPECTRAL_ROW(0), SPECTRAL_ROW(1), SPECTRAL_ROW(2), SPECTRAL_ROW(3)
            : "l"(a), "l"(b), "r"(add), "n"(Left), "n"(Right));
    else if constexpr (N == 64)
        asm volatile(
            "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
            "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
            "}, %32, %33, add, 1, 1, %35, %36;\n}\n"
            : SPECTRAL_ROW(0), SPECTRAL_ROW(1), SPECTRAL_ROW(2), SPECTRAL_ROW(3), SPECTRAL_ROW(4), SPECTRAL_ROW(5),
              SPECTRAL_ROW(6), SPECTRAL_ROW(7)
            : "l"(a), "l"(b), "r"(add), "n"(Left), "n"(Right));
    else if constexpr (N == 128)
        asm volatile(
            "{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
            "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
            "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "
            "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
            "}, %64, %65, add, 1, 1, %67, %68;\n}\n"
            : SPECTRAL_ROW(0), SPECTRAL_ROW(1), SPECTRAL_ROW(2), SPECTRAL_ROW(3), SPECTRAL_ROW(4), SPECTRAL_ROW(5),
              SPECTRAL_ROW(6), SPECTRAL_ROW(7), SPECTRAL_ROW(8), SPECTRAL_ROW(9), SPECTRAL_ROW(10), SPECTRAL_ROW(11),
              SPECTRAL_ROW(12), SPECTRAL_ROW(13), SPECTRAL_ROW(14), SPECTRAL_ROW(15)
            : "l"(a), "l"(b), "r"(add), "n"(Left), "n"(Right));
}

// The same with A in registers
template <int N, int Along>
__device__ __forceinline__ void warpgroup_multiply(float (*d)[4], const unsigned (&a)[4], std::uint64_t b, int add) {
    static_assert(N == 32 || N == 64 || N == 128);
    if constexpr (N == 32)
        asm volatile(
            "{\n.reg .pred add;\nsetp.ne.b32 add, %21, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
            "}, {%16, %17, %18, %19}, %20, add, 1, 1, %22;\n}\n"
            : SPECTRAL_ROW(0), SPECTRAL_ROW(1), SPECTRAL_ROW(2), SPECTRAL_ROW(3)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(Along));
    else if constexpr (N == 64)
        asm volatile(
            "{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
            "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
            "}, {%32, %33, %34, %35}, %36, add, 1, 1, %38;\n}\n"
            : SPECTRAL_ROW(0), SPECTRAL_ROW(1), SPECTRAL_ROW(2), SPECTRAL_ROW(3), SPECTRAL_ROW(4), SPECTRAL_ROW(5),
              SPECTRAL_ROW(6), SPECTRAL_ROW(7)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(Along));
    else if constexpr (N == 128)
        asm volatile(
            "{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
            "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
            "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "
            "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
            "}, {%64, %65, %66, %67}, %68, add, 1, 1, %70;\n}\n"
            : SPECTRAL_ROW(0), SPECTRAL_ROW(1), SPECTRAL_ROW(2), SPECTRAL_ROW(3), SPECTRAL_ROW(4), SPECTRAL_ROW(5),
              SPECTRAL_ROW(6), SPECTRAL_ROW(7), SPECTRAL_ROW(8), SPECTRAL_ROW(9), SPECTRAL_ROW(10), SPECTRAL_ROW(11),
              SPECTRAL_ROW(12), SPECTRAL_ROW(13), SPECTRAL_ROW(14), SPECTRAL_ROW(15)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(Along));
}

#undef SPECTRAL_ROW

}  // namespace spectral::cuda::detail
