// SPDX-License-Identifier: Apache-2.0
// include/spectral/core/half.hpp: bfloat16 and float16 as storage, with conversions from and to float
//
// Two bytes each and no arithmetic: values are widened to float, computed with, and rounded once when stored (to
// nearest, ties to even). A NaN stays a NaN; what is too large becomes infinity. Conversions are explicit, so that no
// expression computes in another type than the one written down.
#pragma once
#include <bit>
#include <cstdint>
#include <type_traits>

namespace spectral {

// 1 sign, 8 exponent, 7 fraction bits: the upper half of a float
struct bfloat16 {
    std::uint16_t bits;

    bfloat16() = default;
    constexpr explicit bfloat16(float value) : bits(round(std::bit_cast<std::uint32_t>(value))) {}
    constexpr explicit operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
    static constexpr bfloat16 from_bits(std::uint16_t raw) {
        bfloat16 out(0.0f);
        out.bits = raw;
        return out;
    }

private:
    static constexpr std::uint16_t round(std::uint32_t f) {
        if ((f & 0x7fffffffu) > 0x7f800000u)  // NaN: keep sign and upper payload, make it quiet so that it stays a NaN
            return static_cast<std::uint16_t>((f >> 16) | 0x40u);
        return static_cast<std::uint16_t>((f + 0x7fffu + ((f >> 16) & 1u)) >> 16);
    }
};

// IEEE binary16: 1 sign, 5 exponent, 10 fraction bits
struct float16 {
    std::uint16_t bits;

    float16() = default;
    constexpr explicit float16(float value) : bits(round(std::bit_cast<std::uint32_t>(value))) {}
    constexpr explicit operator float() const { return widen(bits); }
    static constexpr float16 from_bits(std::uint16_t raw) {
        float16 out(0.0f);
        out.bits = raw;
        return out;
    }

private:
    static constexpr std::uint16_t round(std::uint32_t f) {
        const std::uint32_t sign = (f >> 16) & 0x8000u, magnitude = f & 0x7fffffffu;
        if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
        if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // >= 65520 rounds to infinity
        if (magnitude >= 0x38800000u) {  // normal: drop 13 bits, move the exponent bias from 127 to 15
            const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
            return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
        }
        if (magnitude <= 0x33000000u) return static_cast<std::uint16_t>(sign);  // <= 2^-25: zero (the tie goes to even)
        const std::uint32_t fraction = (magnitude & 0x7fffffu) | 0x800000u;  // subnormal: units of 2^-24
        const std::uint32_t shift = 126u - (magnitude >> 23);
        const std::uint32_t half = 1u << (shift - 1), odd = (fraction >> shift) & 1u;
        return static_cast<std::uint16_t>(sign | ((fraction + half - 1u + odd) >> shift));
    }
    static constexpr float widen(std::uint16_t h) {
        const std::uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 0x1fu, fraction = h & 0x3ffu;
        if (exponent == 0x1fu) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
        if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (fraction << 13));
        const float value = static_cast<float>(fraction) * 0x1p-24f;  // exact
        return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
    }
};

// What sums, norms' statistics, softmax, losses, entropies, gates and gradients of parameters are kept in: a model of
// bfloat16 keeps them in float. T may be const.
template <class T>
using statistic = std::conditional_t<std::is_same_v<std::remove_const_t<T>, bfloat16>, float, std::remove_const_t<T>>;

// A stored value as the type that is computed with.
template <class T, class Stored>
constexpr T widen(Stored value) {
    if constexpr (std::is_same_v<Stored, T>)
        return value;
    else
        return static_cast<T>(static_cast<float>(value));
}

static_assert(sizeof(bfloat16) == 2 && std::is_trivially_copyable_v<bfloat16>);
static_assert(sizeof(float16) == 2 && std::is_trivially_copyable_v<float16>);

}  // namespace spectral
