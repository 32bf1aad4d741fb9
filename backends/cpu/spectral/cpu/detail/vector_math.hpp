// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/vector_math.hpp: exp, log, erf, GELU and SiLU that compilers vectorise
//
// Straight-line code: no branch, no table, no library call. A loop over float arrays under `#pragma omp simd` becomes
// SSE, AVX2 or AVX-512 code with g++ and clang (-O3 and -fopenmp or -fopenmp-simd). -ffast-math is neither needed nor
// allowed: it would break the rounding trick in exp. The polynomials are weighted least-squares fits iterated towards
// the minimax one (Lawson). Largest errors over every 7th float (gelu and silu: every 37th), the worse of code with and
// without fused multiply-add:
//
//     exp               1.1 ulp (denormal results included: half of 2^-149 more)
//     log               0.83 ulp (denormal arguments included)
//     erf               1.6 ulp, 9.1e-8 absolute
//     gelu              2.5 ulp for x > 0, 6e-8 absolute for x < 0 (0 below -6)
//     gelu_derivative   1.6e-7 absolute
//     sigmoid           2.4 ulp      silu  3.1 ulp for x > -87      silu_derivative  5e-7 absolute for abs(x) < 6
//
// tests/ops/vector_math_test.cpp measures these errors again on a sample of the floats, with room for what a compiler
// makes of a multiplication and an addition. What the functions cost is part of every row that they work on:
// bench/training_step_bench.cpp.
//
// NaN gives NaN; exp(-inf) = 0, exp(inf) = inf, log(0) = -inf, log(< 0) = NaN, erf(+-inf) = +-1.
// The double overloads call std::, so that a computation in double is exact to the last bits everywhere.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace spectral::cpu::detail {

// a - b modulo 2^32: bit patterns of -0, infinities and NaN would overflow a signed difference
inline std::int32_t wrapping_difference(std::int32_t a, std::int32_t b) {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) - static_cast<std::uint32_t>(b));
}

// c ? a : b by bit masks. Written with ?: GCC moves the arithmetic of a and b into branches, and because floating-point
// operations can trap it does not turn these back into straight-line code: the loop would not vectorise.
inline std::int32_t choose(bool c, std::int32_t a, std::int32_t b) {
    const std::int32_t mask = -static_cast<std::int32_t>(c);
    return (a & mask) | (b & ~mask);
}
inline float choose(bool c, float a, float b) {
    return std::bit_cast<float>(choose(c, std::bit_cast<std::int32_t>(a), std::bit_cast<std::int32_t>(b)));
}
inline double choose(bool c, double a, double b) { return c ? a : b; }

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to an integer and leaves it in
// the low bits of the sum. The factor 2^n is applied as two halves: 2^128 and 2^-149 are then reached without overflow.
inline float exp(float x) {
    constexpr float shift = 12582912.0f;
    x = choose(x > 89.0f, 89.0f, x);  // exp(89) = inf; a comparison with NaN is false and keeps it
    x = choose(x < -104.0f, -104.0f, x);  // exp(-104) = 0
    const float t = x * 1.44269504089f + shift, n = t - shift;
    const float r = (x - n * 0.693145751953125f) - n * 1.42860677e-6f;  // ln 2 in two parts, the first product exact
    float p = 1.381446677e-03f;
    p = p * r + 8.368780427e-03f;
    p = p * r + 4.166839422e-02f;
    p = p * r + 1.666652011e-01f;
    p = p * r + 4.999999341e-01f;
    p = p * r * r + r + 1.0f;
    const std::int32_t whole = wrapping_difference(std::bit_cast<std::int32_t>(t), std::bit_cast<std::int32_t>(shift)),
                       half = whole >> 1;
    const float a = std::bit_cast<float>((half + 127) << 23), b = std::bit_cast<float>((whole - half + 127) << 23);
    return p * a * b;
}

// log(x) = e ln 2 + log(1 + f), x = 2^e (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) = f - f^2 / 2 + f^3 P(f).
inline float log(float x) {
    const std::int32_t given = std::bit_cast<std::int32_t>(x);
    const bool small = given < 0x00800000;  // a denormal (or nothing the sum below is used for): make it normal
    const std::int32_t bits = std::bit_cast<std::int32_t>(x * choose(small, 8388608.0f, 1.0f));
    // 0x3f3504f3 is sqrt(1/2): subtracting it moves the exponent's steps there
    const std::int32_t e = wrapping_difference(bits, 0x3f3504f3) >> 23;
    const float f = std::bit_cast<float>(wrapping_difference(bits, e << 23)) - 1.0f;
    const float k = static_cast<float>(e) - choose(small, 23.0f, 0.0f);
    float p = 6.746634265e-02f;
    p = p * f - 1.167605120e-01f;
    p = p * f + 1.188837882e-01f;
    p = p * f - 1.240554378e-01f;
    p = p * f + 1.421951956e-01f;
    p = p * f - 1.666799694e-01f;
    p = p * f + 2.000212015e-01f;
    p = p * f - 2.500000960e-01f;
    p = p * f + 3.333331259e-01f;
    const float s = f * f;
    const float tail = p * f * s + k * 1.42860677e-6f - 0.5f * s;
    std::int32_t out = std::bit_cast<std::int32_t>(k * 0.693145751953125f + (f + tail));
    constexpr std::int32_t inf = 0x7f800000, nan = 0x7fc00000, sign = std::numeric_limits<std::int32_t>::min();
    out = choose(given >= inf, given, out);  // inf and NaN stay
    out = choose(given < 0, nan, out);  // negative, and NaN with the sign bit set
    out = choose((given & ~sign) == 0, inf | sign, out);  // 0 and -0
    return std::bit_cast<float>(out);
}

// |x| < 1: x + x P(x^2). Otherwise 1 - exp(Q(|x|)), Q a fit of ln erfc on [0.92, 4], beyond which erf rounds to 1.
inline float erf(float x) {
    const float t = std::fabs(x), s = x * x;
    float p = 7.853861017e-05f;
    p = p * s - 8.010193523e-04f;
    p = p * s + 5.188327674e-03f;
    p = p * s - 2.685381193e-02f;
    p = p * s + 1.128358515e-01f;
    p = p * s - 3.761262582e-01f;
    p = p * s + 1.283791657e-01f;
    const float near = x + x * p;
    const float c = choose(t > 4.0f, 4.0f, t);
    float q = -2.116182643e-05f;
    q = q * c + 4.352180076e-04f;
    q = q * c - 4.174638985e-03f;
    q = q * c + 2.512861452e-02f;
    q = q * c - 1.082939319e-01f;
    q = q * c - 6.333346657e-01f;
    q = q * c - 1.129520817e+00f;
    q = q * c + 1.758733870e-04f;
    const float far = std::copysign(1.0f - exp(q), x);
    return choose(t < 1.0f, near, far);
}

// Phi(x) = (1 + erf(x / sqrt 2)) / 2 through ln Phi(-|x|) on [0, 6]: relative accuracy in the lower tail, one exp.
inline float normal_cdf(float x) {
    float t = std::fabs(x);
    t = choose(t > 6.0f, 6.0f, t);
    float q = 2.149350378e-09f;
    q = q * t - 7.771414951e-08f;
    q = q * t + 1.246662854e-06f;
    q = q * t - 1.161444011e-05f;
    q = q * t + 6.768168351e-05f;
    q = q * t - 2.264398841e-04f;
    q = q * t + 4.297206274e-05f;
    q = q * t + 4.783616928e-03f;
    q = q * t - 3.633824522e-02f;
    q = q * t - 3.183089334e-01f;
    q = q * t - 7.978846724e-01f;
    q = q * t - 6.931471785e-01f;
    float h = exp(q);
    h = choose(x < -6.0f, 0.0f, h);
    return choose(x < 0.0f, h, 1.0f - h);
}

inline double exp(double x) { return std::exp(x); }
inline double log(double x) { return std::log(x); }
inline double erf(double x) { return std::erf(x); }
inline double normal_cdf(double x) { return 0.5 * std::erfc(-0.70710678118654752440 * x); }

// ---- activations: the function, then its derivative ----------------------------------------------------------------

// Exact GELU, x Phi(x)
template <class T>
inline T gelu(T x) {
    const T y = x * normal_cdf(x);
    return choose(x < -std::numeric_limits<T>::max(), T(0), y);  // -inf * 0
}
// Phi(x) + x exp(-x^2 / 2) / sqrt(2 pi)
template <class T>
inline T gelu_derivative(T x) {
    T c = choose(x > T(40), T(40), x);  // the bell is 0 there; keeps inf * 0 out
    c = choose(c < T(-40), T(-40), c);
    return normal_cdf(x) + c * static_cast<T>(0.39894228040143267794) * exp(T(-0.5) * c * c);
}

// 1 / (1 + exp(-x)), as e / (1 + e) with e = exp(x) for x < 0: silu keeps its relative accuracy down to its last bit
template <class T>
inline T sigmoid(T x) {
    const T e = exp(choose(x > T(0), -x, x));
    return choose(x > T(0), T(1), e) / (T(1) + e);
}
// x sigmoid(x)
template <class T>
inline T silu(T x) {
    const T y = x * sigmoid(x);
    return choose(x < -std::numeric_limits<T>::max(), T(0), y);
}
// s (1 + x (1 - s)), s = sigmoid(x)
template <class T>
inline T silu_derivative(T x) {
    T c = choose(x > T(1000), T(1000), x);  // x (1 - s) at inf
    c = choose(c < T(-1000), T(-1000), c);
    const T s = sigmoid(c);
    return s + s * (c * (T(1) - s));
}

// ---- loops and rows ------------------------------------------------------------------------------------------------

// f(i) for i in [0, n), vectorised for float. Not requested for double: its functions are library calls, and clang
// warns of a request it cannot meet.
template <class T, class F>
inline void simd_for(std::int64_t n, F f) {
    if constexpr (std::is_same_v<T, float>) {
#pragma omp simd
        for (std::int64_t i = 0; i < n; ++i) f(i);
    } else {
        for (std::int64_t i = 0; i < n; ++i) f(i);
    }
}
// sum of f(i)
template <class T, class F>
inline T simd_sum(std::int64_t n, F f) {
    T sum = 0;
    if constexpr (std::is_same_v<T, float>) {
#pragma omp simd reduction(+ : sum)
        for (std::int64_t i = 0; i < n; ++i) sum += f(i);
    } else {
        for (std::int64_t i = 0; i < n; ++i) sum += f(i);
    }
    return sum;
}

// NaN entries are ignored; -inf for an empty row. 32 running maxima, because a max reduction of floats does not
// vectorise in clang.
template <class T>
inline T row_max(const T* x, std::int64_t n) {
    constexpr int lanes = 32;
    T best[lanes];
    for (T& b : best) b = -std::numeric_limits<T>::infinity();
    const std::int64_t whole = n - n % lanes;
    for (std::int64_t i = 0; i < whole; i += lanes)
        for (int j = 0; j < lanes; ++j) best[j] = x[i + j] > best[j] ? x[i + j] : best[j];
    for (std::int64_t i = whole; i < n; ++i) best[0] = x[i] > best[0] ? x[i] : best[0];
    T m = best[0];
    for (T b : best) m = b > m ? b : m;
    return m;
}

// y_i = exp(x_i - shift); returns their sum. y may be x.
template <class T>
inline T row_exp(const T* x, std::int64_t n, T shift, T* y) {
    return simd_sum<T>(n, [=](std::int64_t i) { return y[i] = exp(x[i] - shift); });
}

// sum_i exp(x_i - shift)
template <class T>
inline T row_sum_exp(const T* x, std::int64_t n, T shift) {
    return simd_sum<T>(n, [=](std::int64_t i) { return exp(x[i] - shift); });
}

}  // namespace spectral::cpu::detail
