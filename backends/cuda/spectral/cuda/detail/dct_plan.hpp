// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/dct_plan.hpp: the DCT of one row by one block, in shared memory
//
// Even width N: Makhoul's order v (even samples forwards, odd ones backwards) makes the DCT a real transform of length
// N, which is a complex one of M = N/2 on z[m] = v[2m] + i v[2m+1]. Odd N: a complex transform of length M = N on v.
// Transforms are Stockham's, radix 8, 4, 2, 3, 5, 7 in registers, between two buffers. Widths that these divide and
// shared memory holds; the others are composed (composed_rows.hpp).
//
//   V[k] = DFT_N(v)[k],   (C x)[k] = c_k Re(e^{-iπk/2N} V[k]),   (C x)[N-k] = -c_k Im(e^{-iπk/2N} V[k])
// with c_0 = √(1/N), c_k = √(2/N); and back: e^{-iπk/2N} V[k] = (X[k] − i X[N-k]) / c_k.
#pragma once
#include <spectral/cuda/detail/small_dft.hpp>

#include <cmath>

namespace spectral::cuda::detail {

inline constexpr int most_radices = 9;  // 3^9 > any width that shared memory holds, and powers of 2 go by 8

// What a kernel needs to know of a width; passed by value.
template <class A>
struct dct_shape {
    int N = 0, M = 0, stages = 0;
    int radix[most_radices] = {};
    const complex<A>* root = nullptr;  // e^{-2πi j/M}, j < M
    const complex<A>* half = nullptr;  // e^{-2πi k/N}, k ≤ M/2  (even N)
    const complex<A>* quarter = nullptr;  // e^{-iπk/2N}, k < N
    A first = 0, rest = 0;  // c_0, c_k

    // two buffers of M complex numbers and one of N real ones
    std::size_t shared_bytes() const {
        return sizeof(A) * (4 * static_cast<std::size_t>(M) + static_cast<std::size_t>(N));
    }
    unsigned threads() const { return threads_for(divide_up(M, 4)); }
};

template <class A>
struct dct_plan : kept {
    executor& ex;
    dct_shape<A> shape;
    void* memory = nullptr;
    std::size_t bytes = 0;

    dct_plan(executor& ex_, index width) : ex(ex_) {
        const int N = static_cast<int>(width);
        shape.N = N;
        shape.M = N % 2 == 0 ? N / 2 : N;
        int left = shape.M;
        for (int radix : {8, 4, 2, 7, 5, 3})
            while (left % radix == 0) shape.radix[shape.stages++] = radix, left /= radix;
        std::vector<complex<A>> host;
        const auto angle = [&](double part, double of) {  // e^{-2πi part/of}
            const double a = -2 * 3.14159265358979323846 * part / of;
            host.push_back({static_cast<A>(std::cos(a)), static_cast<A>(std::sin(a))});
        };
        for (int j = 0; j < shape.M; ++j) angle(j, shape.M);
        for (int k = 0; k <= shape.M / 2; ++k) angle(k, N);
        for (int k = 0; k < N; ++k) angle(k, 4.0 * N);
        bytes = host.size() * sizeof(complex<A>);
        memory = ex.allocate(bytes);
        ex.copy_from_host(memory, host.data(), bytes);
        const auto* table = static_cast<const complex<A>*>(memory);
        shape.root = table;
        shape.half = table + shape.M;
        shape.quarter = shape.half + shape.M / 2 + 1;
        shape.first = static_cast<A>(std::sqrt(1.0 / N));
        shape.rest = static_cast<A>(std::sqrt(2.0 / N));
    }
    ~dct_plan() override { ex.deallocate(memory, bytes); }
};

template <class A>
const dct_shape<A>& dct_shape_of(executor& ex, index width) {
    return ex.keep<dct_plan<A>>(width, width).shape;
}

// ---- device ---------------------------------------------------------------------------------------------------------

// One block's memory: `row` holds a row, or its spectrum, in natural order.
template <class A>
struct dct_memory {
    complex<A>*a, *b;
    A* row;
    __device__ explicit dct_memory(const dct_shape<A>& p, unsigned char* shared)
        : a(reinterpret_cast<complex<A>*>(shared)), b(a + p.M), row(reinterpret_cast<A*>(b + p.M)) {}
};

template <int R, int Sign, class A>
__device__ inline void fft_stage(const dct_shape<A>& p, int done, const complex<A>* from, complex<A>* to) {
    const int groups = p.M / R, step = p.M / (done * R);  // root[step · j] = e^{-2πi j/(done R)}
    for (int g = threadIdx.x; g < groups; g += blockDim.x) {
        const int inside = g % done;
        complex<A> v[R];
#pragma unroll
        for (int r = 0; r < R; ++r) {
            v[r] = from[g + r * groups];
            if (r > 0 && done > 1) {
                const auto w = p.root[r * inside * step];
                v[r] = v[r] * (Sign < 0 ? w : conjugate(w));
            }
        }
        small_dft<R, Sign>(v);
        const int at = (g / done) * done * R + inside;
#pragma unroll
        for (int r = 0; r < R; ++r) to[at + r * done] = v[r];
    }
}

// m.a becomes its transform of length M; m.b is scratch and the two change places as often as there are stages.
template <int Sign, class A>
__device__ inline void fft(const dct_shape<A>& p, dct_memory<A>& m) {
    int done = 1;
    for (int s = 0; s < p.stages; ++s) {
        const int R = p.radix[s];
        __syncthreads();
        switch (R) {
            case 2: fft_stage<2, Sign>(p, done, m.a, m.b); break;
            case 3: fft_stage<3, Sign>(p, done, m.a, m.b); break;
            case 4: fft_stage<4, Sign>(p, done, m.a, m.b); break;
            case 5: fft_stage<5, Sign>(p, done, m.a, m.b); break;
            case 7: fft_stage<7, Sign>(p, done, m.a, m.b); break;
            default: fft_stage<8, Sign>(p, done, m.a, m.b);
        }
        const auto swap = m.a;
        m.a = m.b;
        m.b = swap;
        done *= R;
    }
    __syncthreads();
}

// m.row = C m.row. Begins and ends with a barrier.
template <class A>
__device__ inline void dct_in_block(const dct_shape<A>& p, dct_memory<A>& m) {
    const int N = p.N, M = p.M;
    __syncthreads();
    const auto order = [&](int j) { return j < (N + 1) / 2 ? m.row[2 * j] : m.row[2 * (N - 1 - j) + 1]; };  // v[j]
    for (int j = threadIdx.x; j < M; j += blockDim.x)
        m.a[j] = N % 2 == 0 ? complex<A>{order(2 * j), order(2 * j + 1)} : complex<A>{order(j), A(0)};
    fft<-1>(p, m);
    if (N % 2) {
        for (int k = threadIdx.x; k <= N / 2; k += blockDim.x) {
            const auto y = p.quarter[k] * m.a[k];
            if (k == 0)
                m.row[0] = p.first * y.re;
            else
                m.row[k] = p.rest * y.re, m.row[N - k] = -p.rest * y.im;
        }
    } else {
        for (int k = threadIdx.x; k <= M / 2; k += blockDim.x) {
            const auto z = m.a[k], other = conjugate(m.a[k == 0 ? 0 : M - k]);
            const auto even = A(0.5) * (z + other), difference = A(0.5) * (z - other);
            const complex<A> odd =
                p.half[k] * complex<A>{difference.im, -difference.re};  // −i (z − other)/2 e^{-2πik/N}
            const auto low = even + odd, high = conjugate(even - odd);  // V[k], V[M−k]
            const auto y = p.quarter[k] * low;
            if (k == 0) {
                m.row[0] = p.first * y.re;
                m.row[M] = p.rest * (p.quarter[M] * high).re;
            } else {
                const auto u = p.quarter[M - k] * high;
                m.row[k] = p.rest * y.re;
                m.row[N - k] = -p.rest * y.im;
                m.row[M - k] = p.rest * u.re;
                m.row[N - (M - k)] = -p.rest * u.im;
            }
        }
    }
    __syncthreads();
}

// m.row = Cᵀ m.row. Begins and ends with a barrier.
template <class A>
__device__ inline void idct_in_block(const dct_shape<A>& p, dct_memory<A>& m) {
    const int N = p.N, M = p.M;
    __syncthreads();
    // V[k] / N, the 1/N of the inverse transform included: 1/(c_k N) is c_0 for k = 0 and c_k / 2 above
    const auto bin = [&](int k) {
        if (k == 0) return complex<A>{p.first * m.row[0], A(0)};
        return conjugate(p.quarter[k]) * (A(0.5) * p.rest * complex<A>{m.row[k], -m.row[N - k]});
    };
    if (N % 2) {
        for (int k = threadIdx.x; k < N; k += blockDim.x) m.a[k] = bin(k);
    } else {
        for (int k = threadIdx.x; k <= M / 2; k += blockDim.x) {
            const auto low = bin(k), high = conjugate(bin(M - k));
            const auto even = low + high, odd = conjugate(p.half[k]) * (low - high);  // a factor 2 makes 1/N 1/M
            m.a[k] = {even.re - odd.im, even.im + odd.re};  // even + i odd
            if (k > 0 && 2 * k != M) m.a[M - k] = {even.re + odd.im, odd.re - even.im};  // conj(even) + i conj(odd)
        }
    }
    fft<1>(p, m);
    const auto sample = [&](int j) { return N % 2 ? m.a[j].re : j % 2 ? m.a[j / 2].im : m.a[j / 2].re; };  // v[j]
    for (int j = threadIdx.x; j < N; j += blockDim.x) m.row[j < (N + 1) / 2 ? 2 * j : 2 * (N - 1 - j) + 1] = sample(j);
    __syncthreads();
}

}  // namespace spectral::cuda::detail
