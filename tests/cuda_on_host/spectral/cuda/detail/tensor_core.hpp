// SPDX-License-Identifier: Apache-2.0
// tests/cuda_on_host/spectral/cuda/detail/tensor_core.hpp: what backends/cuda's file of this name does, see
// cuda_runtime.h
//
// Copies happen when they are asked for. A thread that waits at a barrier in shared memory lets the others run.
#pragma once
#include <spectral/cuda/detail/launch.hpp>

namespace spectral::cuda::detail {

inline unsigned shared_address(const void* p) {
    return static_cast<unsigned>(static_cast<const unsigned char*>(p) - shared_bytes);
}

template <int Bytes = 16>
void copy_async(void* shared, const void* from, bool valid) {
    const auto misplaced = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % Bytes != 0; };
    if (misplaced(shared) || (valid && misplaced(from)))
        std::fprintf(stderr, "cuda_on_host: misaligned copy\n"), std::abort();
    if (valid)
        std::memcpy(shared, from, Bytes);
    else
        std::memset(shared, 0, Bytes);
}
inline void copies_end_group() {}
template <int>
void copies_wait() {}
inline void products_see_shared() {}

struct shared_barrier {
    std::uint16_t count, missing, phase, unused;

    void init(unsigned threads) { count = missing = static_cast<std::uint16_t>(threads), phase = 0; }
    void arrive() {
        if (--missing == 0) missing = count, ++phase;
    }
    void wait(unsigned parity) const {
        while (phase % 2 == parity) cuda_on_host::block_runner::instance().wait(cuda_on_host::waits::other);
    }
};

inline void copy_async_arrive(shared_barrier& barrier) { barrier.arrive(); }
inline void copy_bulk_once(void* shared, const void* from, unsigned bytes, shared_barrier& barrier) {
    std::memcpy(shared, from, bytes);
    barrier.arrive();
}

// What the threads of a warp have in their hands, to be read by all of it.
template <class T>
struct warp_words {
    T of[32];
    explicit warp_words(T mine) {
        static thread_local T all[1024];
        const unsigned me = cuda_on_host::block_runner::instance().current;
        all[me] = mine;
        __syncwarp();
        std::copy(all + me / 32 * 32, all + me / 32 * 32 + 32, of);
        __syncwarp();
    }
};

template <bool Transposed>
void host_load_matrices(unsigned (&to)[4], const void* line) {
    const warp_words<const void*> lines(line);
    const int lane = host_lane();
    const auto value = [&](int matrix, int row, int column) {
        return static_cast<unsigned>(static_cast<const std::uint16_t*>(lines.of[8 * matrix + row])[column]);
    };
    for (int m = 0; m < 4; ++m) {
        const int at = lane / 4, pair = 2 * (lane % 4);
        to[m] = Transposed ? value(m, pair, at) | value(m, pair + 1, at) << 16
                           : value(m, at, pair) | value(m, at, pair + 1) << 16;
    }
}
inline void load_matrices(unsigned (&to)[4], const void* line) { host_load_matrices<false>(to, line); }
inline void load_matrices_transposed(unsigned (&to)[4], const void* line) { host_load_matrices<true>(to, line); }

inline float host_half(unsigned pair, int which) {
    return std::bit_cast<float>(which ? pair & 0xFFFF0000u : pair << 16);
}

struct host_operand {
    unsigned a[4], b[2];
};
// value (row, k) of a 16 × 16 left operand in the registers of a warp
template <class Lanes>
float host_left(const Lanes& lanes, int row, int k) {
    return host_half(lanes.of[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k % 2);
}

inline void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    const warp_words<host_operand> lanes({{a[0], a[1], a[2], a[3]}, {b0, b1}});
    const int lane = host_lane();
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        float sum = 0;
        for (int k = 0; k < 16; ++k)
            sum += host_left(lanes, row, k) * host_half(lanes.of[column * 4 + k % 8 / 2].b[k / 8], k % 2);
        d[i] += sum;
    }
}

inline float exp2_approximate(float x) { return std::exp2(x); }
inline unsigned pack_bfloat16(float low, float high) {
    return bfloat16(low).bits | static_cast<unsigned>(bfloat16(high).bits) << 16;
}

}  // namespace spectral::cuda::detail
