// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/register_dct.hpp: the DCT of a row in the registers of a part of a warp
//
// Width N as in dct_plan.hpp: a complex transform of M = N/2 = R L points z. A row belongs to L lanes. Lane a holds z[a
// + L b], b < R, transforms them (length R), turns them and hands them over in shared memory; then it holds whole
// columns k1 of Z[k1 + R k2] and transforms those (length L). Z[k] and Z[M−k], which one DCT needs together, lie in
// columns k1 and R−k1: unit u is the columns u and R−u, unit 0 the columns 0 and R/2, and lane l has the units l, l +
// L, ... So one exchange a transform is all that leaves the registers. The way back is the transpose of every step, in
// the opposite order.
//
// A pair (Z[k], Z[M−k]) gives four coefficients at once:
//   E = Z[k] + conj Z[M−k],  D = Z[k] − conj Z[M−k],  s = a_k E,  t = b_k D,  a_k = c e^{-iπk/2N} / 2,  b_k = −i c
//   e^{-5iπk/2N} / 2 C x[k] = Re(s+t),  C x[N−k] = −Im(s+t),  √2 C x[M−k] = Re(s−t) − Im(s−t),  √2 C x[M+k] = Re(s−t) +
//   Im(s−t),   c = √(2/N)
// and the pair of unit 0 that is left, (Z[0], Z[M/2]), gives C x[0], C x[M], √2 C x[M/2], √2 C x[N−M/2]. Signs of
// odd-numbered places are left out: whoever changes coefficients multiplies them.
#pragma once
#include <spectral/cuda/detail/small_dft.hpp>

#include <cmath>

namespace spectral::cuda::detail {

// The widths that have a register form, and their R
struct register_form {
    int width, radix;
};
constexpr register_form register_forms[] = {{64, 16},   {128, 16},  {192, 24},  {256, 16},  {320, 40},  {384, 48},
                                            {512, 32},  {576, 36},  {640, 40},  {768, 48},  {896, 56},  {960, 30},
                                            {1024, 32}, {1152, 36}, {1280, 40}, {1536, 48}, {1600, 50}, {1920, 60},
                                            {2048, 64}, {2304, 36}, {2560, 40}, {3072, 48}, {3584, 56}, {4096, 64}};

constexpr int register_radix(index width) {
    for (const auto& form : register_forms)
        if (form.width == width) return form.radix;
    return 0;
}

template <int Width>
struct register_shape {
    static constexpr int N = Width, M = N / 2, R = register_radix(N), L = M / R;
    static constexpr int units = R / 2, slots = (units + L - 1) / L;  // of a lane; the last may be beyond the units
    static constexpr int pairs = slots * L;  // of a lane
    static constexpr int rows = 32 / L;  // of a warp
    static constexpr int pitch = L + 1;  // of a column in the exchange: no bank conflicts
    static constexpr int exchange = (R * pitch + 15) / 16 * 16 + L % 16;
    static_assert(R * L == M && R % 2 == 0 && (L & (L - 1)) == 0 && L >= 2 && L <= 32);

    // Pair i of slot s in a lane: its k, and whether it is (Z[0], Z[M/2])
    static __host__ __device__ constexpr int unit(int lane, int s) { return lane + L * s; }
    static __host__ __device__ constexpr bool special(int lane, int s, int i) { return unit(lane, s) == 0 && i == 0; }
    static __host__ __device__ constexpr int bin(int lane, int s, int i) {
        const int u = unit(lane, s);
        return (u == 0 && i >= L / 2 ? R / 2 : u) + R * i;
    }
    // the four coefficients of a pair
    static __host__ __device__ constexpr int coefficient(int lane, int s, int i, int which) {
        const int k = bin(lane, s, i);
        if (special(lane, s, i)) return which == 0 ? 0 : which == 1 ? M : which == 2 ? M / 2 : N - M / 2;
        return which == 0 ? k : which == 1 ? N - k : which == 2 ? M - k : M + k;
    }
};

// f(integral_constant<int, width>) where there is a register form, else nothing is done and the result is 0
template <class F>
auto with_register_width(index width, F f) {
    const auto at = [&](auto... w) {
        decltype(f(std::integral_constant<int, 64>{})) result{};
        ((width == w() ? void(result = f(w)) : void()), ...);
        return result;
    };
    const auto all = [&]<std::size_t... I>(std::index_sequence<I...>) {
        return at(std::integral_constant<int, register_forms[I].width>{}...);
    };
    return all(std::make_index_sequence<std::size(register_forms)>{});
}

template <class A>
struct alignas(4 * sizeof(A)) quad {
    A v[4];
};

// ---- tables ---------------------------------------------------------------------------------------------------------

// turn[k1 L + lane] = e^{-2πi k1 lane/M}; split[(s L + i) L + lane] = {a_k, b_k}
template <int Width>
struct register_plan : kept {
    using shape = register_shape<Width>;
    static constexpr std::size_t turns = shape::M, splits = std::size_t{shape::pairs} * shape::L;
    executor& ex;
    complex<float>* turn = nullptr;
    quad<float>* split = nullptr;
    static constexpr std::size_t bytes = turns * sizeof(complex<float>) + splits * sizeof(quad<float>);

    explicit register_plan(executor& ex_) : ex(ex_) {
        constexpr int N = shape::N, M = shape::M, L = shape::L;
        std::vector<quad<float>> host(splits);
        for (int s = 0; s < shape::slots; ++s)
            for (int i = 0; i < L; ++i)
                for (int lane = 0; lane < L; ++lane) {
                    const double scale = 0.5 * std::sqrt(2.0 / N),
                                 angle = 3.14159265358979323846 * shape::bin(lane, s, i) / (2.0 * N);
                    auto& q = host[static_cast<std::size_t>((s * L + i) * L + lane)].v;
                    q[0] = static_cast<float>(scale * std::cos(angle));
                    q[1] = static_cast<float>(-scale * std::sin(angle));
                    q[2] = static_cast<float>(-scale * std::sin(5 * angle));
                    q[3] = static_cast<float>(-scale * std::cos(5 * angle));
                }
        const std::size_t split_bytes = splits * sizeof(quad<float>);
        split = static_cast<quad<float>*>(ex.allocate(bytes));
        ex.copy_from_host(split, host.data(), split_bytes);
        std::vector<complex<float>> roots(turns);
        for (int k = 0; k < shape::R; ++k)
            for (int lane = 0; lane < L; ++lane)
                roots[static_cast<std::size_t>(k * L + lane)] = {static_cast<float>(cosine_of_turn(k * lane, M)),
                                                                 static_cast<float>(-sine_of_turn(k * lane, M))};
        turn = reinterpret_cast<complex<float>*>(split + splits);
        ex.copy_from_host(turn, roots.data(), turns * sizeof(complex<float>));
    }
    ~register_plan() override { ex.deallocate(split, bytes); }
};

// ---- device ---------------------------------------------------------------------------------------------------------

// What one lane needs to know for its row: its place among the row's lanes, the tables and its row's part of the
// exchange.
template <int Width>
struct register_lane {
    using shape = register_shape<Width>;
    using value = complex<float>;
    static constexpr int N = shape::N, R = shape::R, L = shape::L, S = shape::slots;
    int lane;
    const value* turn;
    const quad<float>* split;
    value* exchange;

    // the sum over the row's lanes
    __device__ float sum(float v) const {
#pragma unroll
        for (int step = L / 2; step > 0; step /= 2) v += __shfl_xor_sync(full_warp, v, step);
        return v;
    }

    // f(b, z[lane + L b]) for every b, in Makhoul's order: four neighbours x[4m..4m+3] are z[m] = (x0, x2) and
    // z[M−1−m] = (x3, x1), which lane L−1−a holds
    template <class T, class F>
    __device__ void read(const T* x, F f) const {
        constexpr bool narrow = std::is_same_v<T, bfloat16>;
        using access = std::conditional_t<narrow, uint2, quad<float>>;
        constexpr int ahead = 128 / sizeof(access);  // registers for what is on its way
#pragma unroll
        for (int from = 0; from < R / 2; from += ahead) {
            access word[ahead];
#pragma unroll
            for (int i = 0; i < ahead; ++i)
                if (from + i < R / 2) word[i] = *reinterpret_cast<const access*>(x + 4 * (lane + L * (from + i)));
#pragma unroll
            for (int i = 0; i < ahead; ++i) {
                const int b = from + i;
                if (b >= R / 2) break;
                if constexpr (narrow) {
                    const unsigned other =
                        __shfl_xor_sync(full_warp, __byte_perm(word[i].y, word[i].x, 0x7632), L - 1);  // x3, x1
                    f(b, value{__uint_as_float(word[i].x << 16), __uint_as_float(word[i].y << 16)});
                    f(R - 1 - b, value{__uint_as_float(other << 16), __uint_as_float(other & 0xFFFF0000u)});
                } else {
                    const auto& q = word[i].v;
                    f(b, value{q[0], q[2]});
                    f(R - 1 - b,
                      value{__shfl_xor_sync(full_warp, q[3], L - 1), __shfl_xor_sync(full_warp, q[1], L - 1)});
                }
            }
        }
    }
    // v to x's places; only rows that are `wanted` are written
    template <class T>
    __device__ void store(const value (&v)[R], T* y, bool wanted) const {
        if constexpr (std::is_same_v<T, bfloat16>) {
            const auto packed = [](value z) {
                const __nv_bfloat162 both = __floats2bfloat162_rn(z.re, z.im);
                return *reinterpret_cast<const unsigned*>(&both);
            };
#pragma unroll
            for (int b = 0; b < R / 2; ++b) {
                const unsigned own = packed(v[b]),
                               other = __shfl_xor_sync(full_warp, packed(v[R - 1 - b]), L - 1);  // (y0, y2), (y3, y1)
                const uint2 word{__byte_perm(own, other, 0x7610), __byte_perm(own, other, 0x5432)};
                if (wanted) *reinterpret_cast<uint2*>(y + 4 * (lane + L * b)) = word;
            }
        } else {
#pragma unroll
            for (int b = 0; b < R / 2; ++b) {
                const float y3 = __shfl_xor_sync(full_warp, v[R - 1 - b].re, L - 1),
                            y1 = __shfl_xor_sync(full_warp, v[R - 1 - b].im, L - 1);
                if (wanted) *reinterpret_cast<quad<float>*>(y + 4 * (lane + L * b)) = {v[b].re, y1, v[b].im, y3};
            }
        }
    }
    // the two columns of v[b] in x
    __device__ int column(int b, bool second) const {
        const int m = lane + L * b;
        if (b < R / 2) return 4 * m + (second ? 2 : 0);
        return 4 * (shape::M - 1 - m) + (second ? 1 : 3);
    }

    // The four coefficients of every pair, as {C x[k], ∓C x[N−k]} in low and √2 {C x[M−k], C x[M+k]} in high.
    __device__ void forward(value (&v)[R], value (&low)[S][L], value (&high)[S][L]) const {
        register_dft<R, -1>(v);
#pragma unroll
        for (int k = 0; k < R; ++k) exchange[k * shape::pitch + lane] = k == 0 ? v[0] : v[k] * turn[k * L + lane];
        __syncwarp();
#pragma unroll
        for (int s = 0; s < S; ++s) {
            const int u = shape::unit(lane, s);
            const bool here = S * L == shape::units || u < shape::units;
            const value* first = exchange + (here ? u : 0) * shape::pitch;
            const value* second = exchange + (here ? u == 0 ? R / 2 : R - u : 0) * shape::pitch;
            value a[L], b[L];
#pragma unroll
            for (int j = 0; j < L; ++j) a[j] = here ? first[j] : value{0, 0}, b[j] = here ? second[j] : value{0, 0};
            register_dft<L, -1>(a);
            register_dft<L, -1>(b);
            const bool zero = s == 0 && lane == 0;
#pragma unroll
            for (int i = 0; i < L; ++i) {
                const value p = i >= L / 2 && zero ? b[i] : a[i];
                const value o = i < L / 2 && zero ? a[i == 0 ? L / 2 : L - i] : b[L - 1 - i];
                const auto q = split[(s * L + i) * L + lane];
                const value e{p.re + o.re, p.im - o.im}, d{p.re - o.re, p.im + o.im};
                const value x = value{q.v[0], q.v[1]} * e, t = value{q.v[2], q.v[3]} * d, y = x + t, r = x - t;
                low[s][i] = y;
                high[s][i] = {r.re - r.im, r.re + r.im};
                if (i == 0 && s == 0 && zero) {
                    low[0][0] = edge * value{p.re + p.im, p.re - p.im};
                    high[0][0] = value{o.re * middle_re + o.im * middle_im, o.im * middle_re - o.re * middle_im};
                }
            }
        }
        __syncwarp();
    }
    // v ← Cᵀ of the coefficients
    __device__ void inverse(const value (&low)[S][L], const value (&high)[S][L], value (&v)[R]) const {
#pragma unroll
        for (int s = 0; s < S; ++s) {
            const int u = shape::unit(lane, s);
            const bool here = S * L == shape::units || u < shape::units, zero = s == 0 && lane == 0;
            value p[L], o[L], a[L], b[L];
#pragma unroll
            for (int i = 0; i < L; ++i) {
                const auto q = split[(s * L + i) * L + lane];
                const value y = low[s][i], h = high[s][i], r{h.re + h.im, h.im - h.re}, x = y + r, t = y - r;
                const value e = value{q.v[0], -q.v[1]} * x, d = value{q.v[2], -q.v[3]} * t;
                p[i] = e + d;
                o[i] = {e.re - d.re, d.im - e.im};
                if (i == 0 && s == 0 && zero) {
                    p[0] = edge * value{y.re + y.im, y.re - y.im};
                    o[0] = value{middle_re * h.re - middle_im * h.im, middle_im * h.re + middle_re * h.im};
                }
            }
#pragma unroll
            for (int i = 0; i < L; ++i) {
                a[i] = i >= L / 2 && zero ? o[i == L / 2 ? 0 : L - i] : p[i];
                b[i] = i >= L / 2 && zero ? p[i] : o[L - 1 - i];
            }
            register_dft<L, 1>(a);
            register_dft<L, 1>(b);
            if (here) {
                value* first = exchange + u * shape::pitch;
                value* second = exchange + (u == 0 ? R / 2 : R - u) * shape::pitch;
#pragma unroll
                for (int j = 0; j < L; ++j) first[j] = a[j], second[j] = b[j];
            }
        }
        __syncwarp();
#pragma unroll
        for (int k = 0; k < R; ++k) {
            v[k] = exchange[k * shape::pitch + lane];
            if (k > 0) v[k] = v[k] * conjugate(turn[k * L + lane]);
        }
        __syncwarp();
        register_dft<R, 1>(v);
    }

private:
    static constexpr float root(double v) {
        double r = 1;
        for (int i = 0; i < 60; ++i) r = (r + v / r) / 2;
        return static_cast<float>(r);
    }
    // √(1/N), and √2 √(2/N) e^{-iπ/8}
    static constexpr float edge = root(1.0 / N), middle_re = static_cast<float>(root(4.0 / N) * cosine_of_turn(1, 16)),
                           middle_im = static_cast<float>(-root(4.0 / N) * sine_of_turn(1, 16));
};

}  // namespace spectral::cuda::detail
