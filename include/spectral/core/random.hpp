// SPDX-License-Identifier: Apache-2.0
// include/spectral/core/random.hpp: counter-based random numbers, the same bits on every executor
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four 32-bit words from a
// 64-bit key and a 128-bit counter. No state: the n-th number of a stream is a function of (key, n), so a dropout
// mask is recomputed in the backward pass instead of stored, and does not depend on threads or launch shapes.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

#if defined(__CUDACC__)
#define SPECTRAL_HOST_DEVICE __host__ __device__
#else
#define SPECTRAL_HOST_DEVICE
#endif

namespace spectral {

// The four words of one Philox call.
struct philox_words {
    std::uint32_t word[4];
};

// The four words of block `counter` in stream (key, stream).
SPECTRAL_HOST_DEVICE inline philox_words philox(std::uint64_t key, std::uint64_t stream, std::uint64_t counter) {
    std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
    std::uint32_t c0 = static_cast<std::uint32_t>(counter), c1 = static_cast<std::uint32_t>(counter >> 32);
    std::uint32_t c2 = static_cast<std::uint32_t>(stream), c3 = static_cast<std::uint32_t>(stream >> 32);
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0, p1 = std::uint64_t{0xCD9E8D57u} * c2;
        const std::uint32_t h0 = static_cast<std::uint32_t>(p0 >> 32), l0 = static_cast<std::uint32_t>(p0);
        const std::uint32_t h1 = static_cast<std::uint32_t>(p1 >> 32), l1 = static_cast<std::uint32_t>(p1);
        c0 = h1 ^ c1 ^ k0;
        c1 = l1;
        c2 = h0 ^ c3 ^ k1;
        c3 = l0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// One stream of numbers: everything random in a training step has its own.
struct random_stream {
    std::uint64_t key = 0;  // the run's seed
    std::uint64_t stream = 0;  // what draws: (step, layer, site)

    SPECTRAL_HOST_DEVICE std::uint32_t bits(std::uint64_t n) const { return philox(key, stream, n / 4).word[n % 4]; }
    // uniform in [0, 1), 24 bits: exact in float and double
    SPECTRAL_HOST_DEVICE double uniform(std::uint64_t n) const { return (bits(n) >> 8) * (1.0 / 16777216.0); }
    // standard normal by Box-Muller from draws 2n and 2n + 1 (host only: libm's bits)
    double normal(std::uint64_t n) const {
        const double u = (bits(2 * n) + 0.5) * (1.0 / 4294967296.0), v = (bits(2 * n + 1) + 0.5) * (1.0 / 4294967296.0);
        return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586476925 * v);
    }
};

// A stream number from a name (FNV-1a, 64 bit): stable across compilers and runs.
constexpr std::uint64_t stream_of(std::string_view name, std::uint64_t hash = 14695981039346656037ull) {
    for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
    return hash;
}
// A stream number from a parent stream and a number (a step, a layer, a site).
constexpr std::uint64_t substream(std::uint64_t stream, std::uint64_t n) {
    stream ^= n + 0x9E3779B97F4A7C15ull + (stream << 6) + (stream >> 2);
    return stream * 0xD6E8FEB86659FD93ull;
}

// The event "uniform(n) < p" as one integer comparison: bits(n) < probability_threshold(p). p = 1 is always true
// only up to 2^-32; callers treat p <= 0 and p >= 1 themselves.
inline std::uint32_t probability_threshold(double p) {
    const double scaled = p * 4294967296.0;
    return scaled <= 0 ? 0u : scaled >= 4294967295.0 ? 4294967295u : static_cast<std::uint32_t>(scaled);
}

}  // namespace spectral
