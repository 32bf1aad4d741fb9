// SPDX-License-Identifier: Apache-2.0
// tests/cuda_on_host/spectral/cuda/detail/warpgroup.hpp: what backends/cuda's file of this name does, see
// cuda_runtime.h
//
// Descriptors are made and read as the instructions define them; a product happens when it is asked for.
#pragma once
#include <spectral/cuda/detail/tensor_core.hpp>

namespace spectral::cuda::detail {

inline constexpr bool warpgroup_products_built = true, warp_products_built = true;

template <int Line>
std::uint64_t matrix_descriptor(unsigned shared) {
    constexpr std::uint64_t swizzle = Line == 128 ? 1 : 2, below = 8 * Line;
    return (shared & 0x3FFFFu) >> 4 | std::uint64_t{1} << 16 | below >> 4 << 32 | swizzle << 62;
}

inline std::uint64_t behind(std::uint64_t descriptor, unsigned bytes) { return descriptor + (bytes >> 4); }

inline void warpgroup_begin() { __syncwarp(); }
inline void warpgroup_commit() {}
template <int Pending>
void warpgroup_wait() {
    __syncwarp();
}
template <int N>
void settle(float (&)[N][4]) {}
template <int Registers>
void take_registers() {}
template <int Registers>
void give_registers() {}

// One value of a matrix: `line` across lines of memory, `along` within them.
inline float host_value(std::uint64_t descriptor, int line, int along) {
    const unsigned start = (descriptor & 0x3FFF) << 4, beside = (descriptor >> 16 & 0x3FFF) << 4,
                   below = (descriptor >> 32 & 0x3FFF) << 4;
    const unsigned bytes = descriptor >> 62 == 1 ? 128 : 64, columns = bytes / 2, chunks = bytes / 16;
    unsigned at = start + line / 8 * below + line % 8 * bytes + along / columns * beside + along % columns * 2;
    at ^= (at >> 7 & (chunks - 1)) << 4;
    std::uint16_t bits;
    std::memcpy(&bits, shared_bytes + at, 2);
    return host_half(bits, 0);
}

template <int N, class Left, class Right>
void host_multiply(float (*d)[4], int add, Left left, Right right) {
    const int lane = host_lane();
    float a[2][16];
    for (int k = 0; k < 16; ++k) a[0][k] = left(lane / 4, k), a[1][k] = left(lane / 4 + 8, k);
    for (int j = 0; j < N / 8; ++j)
        for (int i = 0; i < 2; ++i) {
            float sum[2] = {};
            for (int k = 0; k < 16; ++k) {
                const float b = right(8 * j + lane % 4 * 2 + i, k);
                sum[0] += a[0][k] * b;
                sum[1] += a[1][k] * b;
            }
            for (int r = 0; r < 2; ++r) d[j][2 * r + i] = add ? d[j][2 * r + i] + sum[r] : sum[r];
        }
}

template <int N, int Left = 0, int Right = Left>
void warpgroup_multiply(float (*d)[4], std::uint64_t a, std::uint64_t b, int add) {
    const int first = threadIdx.x / 32 % 4 * 16;
    host_multiply<N>(
        d, add, [&](int row, int k) { return Left ? host_value(a, k, first + row) : host_value(a, first + row, k); },
        [&](int column, int k) { return Right ? host_value(b, k, column) : host_value(b, column, k); });
}
template <int N, int Along>
void warpgroup_multiply(float (*d)[4], const unsigned (&a)[4], std::uint64_t b, int add) {
    const warp_words<host_operand> lanes({{a[0], a[1], a[2], a[3]}, {}});
    host_multiply<N>(
        d, add, [&](int row, int k) { return host_left(lanes, row, k); },
        [&](int column, int k) { return Along ? host_value(b, k, column) : host_value(b, column, k); });
}

}  // namespace spectral::cuda::detail
