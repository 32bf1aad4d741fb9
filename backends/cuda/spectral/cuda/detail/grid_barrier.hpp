// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/grid_barrier.hpp: blocks of one launch wait for each other and read each other's
// results
#pragma once
#include <spectral/cuda/detail/halves_job.hpp>

namespace spectral::cuda::detail {

__device__ inline void stream_sync() { asm volatile("bar.sync 1, %0;" ::"n"(stream_threads) : "memory"); }

// 16 bytes that another multiprocessor wrote, in this launch or before
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

// ---- results with a stamp -------------------------------------------------------------------------------------------

// To say that what was written before is there costs a wait for the memory's answer, 0.6 us at each of a token's hundred
// barriers. So four bytes of a result travel in one access with the number of the barrier they were made before: a
// barrier tells readers when to look, the stamp whether this packet has come, and who finds an older one looks again.
// A packet is written at most once for a barrier.
__device__ inline void write_packet(packet* to, packet from) {
#if defined(__CUDA_ARCH__)
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to),
                 "l"(from.data | static_cast<unsigned long long>(from.stamp) << 32)
                 : "memory");
#else
    *to = from;
#endif
}
struct two_packets {
    packet first, second;
};
__device__ inline two_packets read_packets(const packet* from) {
#if defined(__CUDA_ARCH__)
    unsigned long long first, second;
    asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(first), "=l"(second) : "l"(from) : "memory");
    return {{static_cast<unsigned>(first), static_cast<unsigned>(first >> 32)},
            {static_cast<unsigned>(second), static_cast<unsigned>(second >> 32)}};
#else
    return {from[0], from[1]};
#endif
}
// Count times 16 bytes of results, from where(u) if u < there: asked for at once, and again until all have come.
template <int Count, class Where>
__device__ void read_stamped(words (&got)[Count], unsigned stamp, int there, Where&& where) {
    bool missing;
    do {
        two_packets low[Count], high[Count];
#pragma unroll
        for (int u = 0; u < Count; ++u)
            if (u < there) low[u] = read_packets(where(u)), high[u] = read_packets(where(u) + 2);
        missing = false;
#pragma unroll
        for (int u = 0; u < Count; ++u) {
            if (u >= there) continue;
            got[u] = {{low[u].first.data, low[u].second.data, high[u].first.data, high[u].second.data}};
            missing |= low[u].first.stamp != stamp || low[u].second.stamp != stamp || high[u].first.stamp != stamp ||
                       high[u].second.stamp != stamp;
        }
    } while (missing);
}
// columns 2 p and 2 p + 1 of a row
template <class T>
__device__ void write_pair(packet* row, int p, float a, float b, unsigned stamp) {
    if constexpr (sizeof(T) == 2) {
        const pack<T, 2> both{{narrow<T>(a), narrow<T>(b)}};
        write_packet(row + p, {reinterpret_cast<const unsigned&>(both), stamp});
    } else {
        write_packet(row + 2 * p, {__float_as_uint(a), stamp});
        write_packet(row + 2 * p + 1, {__float_as_uint(b), stamp});
    }
}
template <class T>
__device__ pair_of<float> read_pair(const packet* row, int p) {  // whose stamps have been seen
    if constexpr (sizeof(T) == 2) {
        const unsigned both = __ldcg(&row[p].data);
        return {__uint_as_float(both << 16), __uint_as_float(both & 0xFFFF0000u)};
    } else {
        return {__uint_as_float(__ldcg(&row[2 * p].data)), __uint_as_float(__ldcg(&row[2 * p + 1].data))};
    }
}
// A column of a row, where the other lane of an even and an odd one has the other column of such a pair. `lanes`: that
// are here; `wanted`: whether to write, the same for both.
template <class T>
__device__ void write_column(packet* row, int column, float value, unsigned stamp, unsigned lanes, bool wanted) {
    if constexpr (sizeof(T) == 2) {
        const float odd = __shfl_xor_sync(lanes, value, 1);
        if (wanted && column % 2 == 0) write_pair<T>(row, column / 2, value, odd, stamp);
    } else if (wanted) {
        write_packet(row + column, {__float_as_uint(value), stamp});
    }
}

// ---- the barrier ----------------------------------------------------------------------------------------------------

// All blocks of the grid have arrived. What they wrote before is there only with `Writes`. What a block reads it must
// have used before it arrives: others may then write there, and a relaxed arrival orders no load whose value is pending.
struct grid_barrier {
    unsigned long long *arrivals, target = 0;
    __device__ explicit grid_barrier(unsigned long long* a) : arrivals(a) {
#if defined(__CUDA_ARCH__)
        unsigned long long now;  // between two multiples of the grid: the others cannot be further than this block
        asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(now) : "l"(arrivals) : "memory");
        target = now - now % gridDim.x;
#endif
    }
    // of what was made before the last arrival, and before the next
    __device__ unsigned stamp() const { return static_cast<unsigned>(target); }
    __device__ unsigned next_stamp() const { return static_cast<unsigned>(target + gridDim.x); }

    // Writes: what this block wrote before may be read by who waits<true>(); the two belong together.
    template <bool Writes = false>
    __device__ void arrive() {
        stream_sync();
        target += gridDim.x;
#if defined(__CUDA_ARCH__)
        if (threadIdx.x != 0) return;
        if constexpr (Writes)
            asm volatile("red.release.gpu.global.add.u64 [%0], 1;" ::"l"(arrivals) : "memory");
        else
            asm volatile("red.relaxed.gpu.global.add.u64 [%0], 1;" ::"l"(arrivals) : "memory");
#endif
    }
    template <bool Writes = false>
    __device__ void wait() const {
#if defined(__CUDA_ARCH__)
        if (threadIdx.x == 0) {
            unsigned long long now;
            do {
                if constexpr (Writes)
                    asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(now) : "l"(arrivals) : "memory");
                else
                    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(now) : "l"(arrivals) : "memory");
            } while (now < target);
        }
#endif
        stream_sync();
    }
};

}  // namespace spectral::cuda::detail
