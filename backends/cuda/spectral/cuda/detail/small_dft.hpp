// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/small_dft.hpp: transforms of a few points in one thread's registers
//
// small_dft: radices 2, 4, 8, 3, 5, 7. register_dft: products of them, by Cooley and Tukey with constant twiddles, so
// that every index is known to the compiler and no array leaves the registers.
#pragma once
#include <spectral/cuda/detail/reduce.hpp>

#include <utility>

namespace spectral::cuda::detail {

template <class A>
struct alignas(2 * sizeof(A)) complex {
    A re, im;
};
template <class A>
__device__ inline complex<A> operator+(complex<A> a, complex<A> b) {
    return {a.re + b.re, a.im + b.im};
}
template <class A>
__device__ inline complex<A> operator-(complex<A> a, complex<A> b) {
    return {a.re - b.re, a.im - b.im};
}
template <class A>
__device__ inline complex<A> operator*(complex<A> a, complex<A> b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
template <class A>
__device__ inline complex<A> operator*(A a, complex<A> b) {
    return {a * b.re, a * b.im};
}
template <class A>
__device__ inline complex<A> conjugate(complex<A> a) {
    return {a.re, -a.im};
}

// In registers: v becomes its transform of length R; Sign −1 forward, +1 inverse.
template <int R, int Sign, class A>
__device__ inline void small_dft(complex<A> (&v)[R]) {
    if constexpr (R == 2) {
        const auto t = v[0] - v[1];
        v[0] = v[0] + v[1];
        v[1] = t;
    } else if constexpr (R == 4) {
        const auto s = v[0] + v[2], d = v[0] - v[2], t = v[1] + v[3], e = v[1] - v[3];
        const complex<A> turned{-Sign * e.im, Sign * e.re};  // ± i e
        v[0] = s + t;
        v[2] = s - t;
        v[1] = d + turned;
        v[3] = d - turned;
    } else if constexpr (R == 8) {
        complex<A> even[4] = {v[0], v[2], v[4], v[6]}, odd[4] = {v[1], v[3], v[5], v[7]};
        small_dft<4, Sign>(even);
        small_dft<4, Sign>(odd);
        const A h = A(0.70710678118654752440);
        odd[1] = h * complex<A>{odd[1].re - Sign * odd[1].im, odd[1].im + Sign * odd[1].re};
        odd[2] = {-Sign * odd[2].im, Sign * odd[2].re};
        odd[3] = h * complex<A>{-odd[3].re - Sign * odd[3].im, -odd[3].im + Sign * odd[3].re};
#pragma unroll
        for (int k = 0; k < 4; ++k) v[k] = even[k] + odd[k], v[k + 4] = even[k] - odd[k];
    } else {  // 3, 5, 7: pairs k, R−k share their sums
        constexpr int half = (R - 1) / 2;
        complex<A> sum[half], difference[half];
        const auto zero = v[0];
#pragma unroll
        for (int j = 0; j < half; ++j) {
            sum[j] = v[j + 1] + v[R - 1 - j];
            difference[j] = v[j + 1] - v[R - 1 - j];
            v[0] = v[0] + sum[j];
        }
        constexpr double cosine[3][3] = {{-0.5, 0, 0},
                                         {0.30901699437494742410, -0.80901699437494742410, 0},
                                         {0.62348980185873353053, -0.22252093395631440429, -0.90096886790241912624}};
        constexpr double sine[3][3] = {{0.86602540378443864676, 0, 0},
                                       {0.95105651629515357212, 0.58778525229247312917, 0},
                                       {0.78183148246802980871, 0.97492791218182360702, 0.43388373911755812048}};
#pragma unroll
        for (int k = 1; k <= half; ++k) {
            complex<A> even = zero, odd{0, 0};
#pragma unroll
            for (int j = 1; j <= half; ++j) {
                const int turn = j * k % R, folded = turn <= half ? turn : R - turn;
                even = even + A(cosine[half - 1][folded - 1]) * sum[j - 1];
                odd = odd +
                      A(turn <= half ? sine[half - 1][folded - 1] : -sine[half - 1][folded - 1]) * difference[j - 1];
            }
            const complex<A> turned{-Sign * odd.im, Sign * odd.re};
            v[k] = even + turned;
            v[R - k] = even - turned;
        }
    }
}

// ---- constants ------------------------------------------------------------------------------------------------------

// cos(2π j/n), folded to an eighth of a turn, where the series is exact to the last bits
constexpr double cosine_of_turn(long j, long n) {
    j = (j % n + n) % n;
    if (2 * j > n) j = n - j;
    if (4 * j > n) return -cosine_of_turn(n - 2 * j, 2 * n);
    const bool sine = 8 * j > n;
    const double a = 2 * 3.14159265358979323846 * (sine ? double(n - 4 * j) / double(4 * n) : double(j) / double(n)),
                 square = a * a;
    double term = sine ? a : 1, sum = term;
    for (int k = sine ? 3 : 2; k < 26; k += 2) sum += term *= -square / (k * (k - 1));
    return sum;
}
constexpr double sine_of_turn(long j, long n) { return cosine_of_turn(4 * j - n, 4 * n); }

// f(integral_constant<int, 0>) ... f(integral_constant<int, Count - 1>)
template <int Count, class F>
__device__ inline void for_constants(F&& f) {
    [&]<int... I>(std::integer_sequence<int, I...>) { (f(std::integral_constant<int, I>{}), ...); }
    (std::make_integer_sequence<int, Count>{});
}

// v e^{Sign 2πi J/N}
template <int Sign, int J, int N, class A>
__device__ inline complex<A> turned(complex<A> v) {
    constexpr int j = J % N;
    if constexpr (j == 0)
        return v;
    else if constexpr (2 * j == N)
        return {-v.re, -v.im};
    else if constexpr (4 * j == N)
        return {-Sign * v.im, Sign * v.re};
    else if constexpr (4 * j == 3 * N)
        return {Sign * v.im, -Sign * v.re};
    else {
        constexpr A c = static_cast<A>(cosine_of_turn(j, N)), s = static_cast<A>(Sign * sine_of_turn(j, N));
        if constexpr (8 * j % N == 0)
            return {c * (v.re - (s / c) * v.im), c * ((s / c) * v.re + v.im)};  // s/c = ±1
        else
            return {c * v.re - s * v.im, s * v.re + c * v.im};
    }
}

// the larger factor that small_dft has of a length that it has not
constexpr int first_factor(int R) {
    for (int f : {8, 7, 5, 4, 3, 2})
        if (R % f == 0 && R != f && !(f == 8 && R == 16)) return f;
    return R;
}

// v becomes its transform of length R, in natural order; Sign −1 forward, +1 inverse
template <int R, int Sign, class A>
__device__ inline void register_dft(complex<A> (&v)[R]) {
    if constexpr (R == 2 || R == 3 || R == 4 || R == 5 || R == 7 || R == 8) {
        small_dft<R, Sign>(v);
    } else if constexpr (R > 1) {
        constexpr int P = first_factor(R), Q = R / P;
        static_assert(P < R, "a product of 2, 3, 5 and 7");
        complex<A> part[Q][P];  // over every Q-th value, then turned
        for_constants<Q>([&](auto q) {
#pragma unroll
            for (int p = 0; p < P; ++p) part[q()][p] = v[Q * p + q()];
            register_dft<P, Sign>(part[q()]);
            for_constants<P>([&](auto p) { part[q()][p()] = turned<Sign, q() * p(), R>(part[q()][p()]); });
        });
#pragma unroll
        for (int p = 0; p < P; ++p) {
            complex<A> column[Q];
#pragma unroll
            for (int q = 0; q < Q; ++q) column[q] = part[q][p];
            register_dft<Q, Sign>(column);
#pragma unroll
            for (int q = 0; q < Q; ++q) v[p + P * q] = column[q];
        }
    }
}

}  // namespace spectral::cuda::detail
