// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/cufft_rows.hpp: the DCT of rows by cuFFT, for widths that are no block's work
//
// Makhoul's order makes the DCT a real transform of length N, which is cuFFT's; the rotation after it (before it, on the
// way back) is dct_plan.hpp's, and so are the factors. Everything lies in device memory: order, cuFFT, rotation, cuFFT
// and order again are a pass over it each, against none in dct_plan.hpp. Rows go in chunks, as many at a time as a power
// of two, so that few plans serve all counts.
#pragma once
#include <spectral/core/tensor.hpp>
#include <spectral/cuda/detail/small_dft.hpp>

#include <cmath>

namespace spectral::cuda::detail {

// What dct_plan.hpp leaves to cuFFT: rows that shared memory does not hold (with the two more that backward keeps), and
// widths with prime factors above 7.
template <class A>
bool by_cufft(const executor& ex, index width) {
    const index values = (width % 2 ? 7 : 5) * width;
    if (static_cast<std::size_t>(values) * sizeof(A) > ex.shared_limit()) return true;
    index left = width;
    for (index p : {2, 3, 5, 7})
        while (left > 1 && left % p == 0) left /= p;
    return left > 1;
}

struct cufft_handle {
    cufftHandle plan = 0;
    cufft_handle() = default;
    cufft_handle(const cufft_handle&) = delete;
    ~cufft_handle() {
        if (plan) noted(cufftDestroy(plan), "cufftDestroy");
    }
    // of `batch` rows; returns the bytes of memory that it works in
    std::size_t make(cufftType type, index width, index batch, cudaStream_t stream) {
        int N = static_cast<int>(width);
        std::size_t asked = 0;
        checked(cufftCreate(&plan), "cufftCreate");
        checked(cufftSetAutoAllocation(plan, 0), "cufftSetAutoAllocation");
        checked(cufftMakePlanMany(plan, 1, &N, nullptr, 1, N, nullptr, 1, N, type, static_cast<int>(batch), &asked),
                "cufftMakePlanMany");
        checked(cufftSetStream(plan, stream), "cufftSetStream");
        return asked;
    }
};

// Even widths: real transforms. Odd ones: complex transforms, because cuFFT pairs the rows of odd real transforms, and
// a row must not reach its neighbour.
template <class A>
struct cufft_plan : kept {
    static constexpr bool is_double = std::is_same_v<A, double>;
    cufft_handle forward, inverse;  // odd: one for both
    tensor<executor, unsigned char> work;
    tensor<executor, complex<A>> table;
    const complex<A>* quarter = nullptr;  // e^{-iπk/2N}, k ≤ N/2

    cufft_plan(executor& ex, index width, index batch) {
        const bool odd = width % 2;
        const auto stream = ex.stream();
        std::size_t bytes = forward.make(odd         ? is_double ? CUFFT_Z2Z : CUFFT_C2C
                                         : is_double ? CUFFT_D2Z
                                                     : CUFFT_R2C,
                                         width, batch, stream);
        if (!odd) bytes = std::max(bytes, inverse.make(is_double ? CUFFT_Z2D : CUFFT_C2R, width, batch, stream));
        work = tensor<executor, unsigned char>(ex, {static_cast<index>(std::max<std::size_t>(bytes, 1))});
        for (const auto* h : {&forward, &inverse})
            if (h->plan) checked(cufftSetWorkArea(h->plan, work.data()), "cufftSetWorkArea");
        std::vector<complex<A>> host;
        for (index k = 0; k <= width / 2; ++k) {
            const double angle = -1.57079632679489661923 * static_cast<double>(k) / static_cast<double>(width);
            host.push_back({static_cast<A>(std::cos(angle)), static_cast<A>(std::sin(angle))});
        }
        table = tensor<executor, complex<A>>(ex, {static_cast<index>(host.size())}, host);
        quarter = table.data();
    }
    void real(A* from, complex<A>* to) const {
        if constexpr (is_double)
            checked(cufftExecD2Z(forward.plan, from, reinterpret_cast<cufftDoubleComplex*>(to)), "cufftExecD2Z");
        else
            checked(cufftExecR2C(forward.plan, from, reinterpret_cast<cufftComplex*>(to)), "cufftExecR2C");
    }
    void real_back(complex<A>* from, A* to) const {
        if constexpr (is_double)
            checked(cufftExecZ2D(inverse.plan, reinterpret_cast<cufftDoubleComplex*>(from), to), "cufftExecZ2D");
        else
            checked(cufftExecC2R(inverse.plan, reinterpret_cast<cufftComplex*>(from), to), "cufftExecC2R");
    }
    void in_place(complex<A>* bins, int direction) const {
        if constexpr (is_double) {
            auto* p = reinterpret_cast<cufftDoubleComplex*>(bins);
            checked(cufftExecZ2Z(forward.plan, p, p, direction), "cufftExecZ2Z");
        } else {
            auto* p = reinterpret_cast<cufftComplex*>(bins);
            checked(cufftExecC2C(forward.plan, p, p, direction), "cufftExecC2C");
        }
    }
};

// Where sample c of a row of N lies in Makhoul's order
__device__ inline index sample_place(index N, index c) { return c % 2 == 0 ? c / 2 : N - 1 - c / 2; }

// Rows in chunks:   for (cufft_rows<A> s(ex, what, rows, N); s.next();) …rows s.first … s.first + s.count − 1…
// Rows of samples are left in Makhoul's order. Memory comes from the arena and is the caller's scope's.
template <class A>
struct cufft_rows {
    executor& ex;
    const char* what;
    index rows, N, most, first = 0, count = 0;
    index line;  // bins of a row: N/2 + 1, of odd widths N
    complex<A>* bins = nullptr;  // (count, line)

    cufft_rows(executor& ex_, const char* what_, index rows_, index N_)
        : ex(ex_), what(what_), rows(rows_), N(N_), most(1), line(N % 2 ? N : N / 2 + 1) {
        check(N < (1 << 24), what, "widths below ", 1 << 24, " are supported on cuda, found ", N);
        while (2 * most * N <= (index{1} << 24) && most < rows) most *= 2;
        bins = ex.memory().template vector<complex<A>>(most * line).data;
    }
    bool next() {
        first += count;
        count = std::min(most, rows - first);
        return count > 0;
    }
    // Room for a chunk: of (count, N)
    A* buffer() { return ex.memory().template vector<A>(most * N).data; }

    // X = C x for x = load(i, c), i < count
    template <class Load>
    void dct(A* X, Load load) {
        const index N = this->N, line = this->line;
        const complex<A>*V = bins, *quarter = plan().quarter;
        const A zero = static_cast<A>(std::sqrt(1.0 / static_cast<double>(N))),
                rest = static_cast<A>(std::sqrt(2.0 / static_cast<double>(N)));
        transform(X, load);
        for_each_element(ex, what, count, N / 2 + 1, [=] __device__(index i, index k) {
            const auto y = quarter[k] * V[i * line + k];
            A* to = X + i * N;
            to[k] = (k == 0 ? zero : rest) * y.re;
            if (k > 0 && k < N - k) to[N - k] = -rest * y.im;
        });
    }
    // samples = Cᵀ X for X = coefficient(i, k), i < count
    template <class Coefficient>
    void idct(A* samples, Coefficient coefficient) {
        const index N = this->N, line = this->line, mirrored = N % 2 ? N : 0;
        complex<A>* V = bins;
        const complex<A>* quarter = plan().quarter;
        const A zero = static_cast<A>(std::sqrt(1.0 / static_cast<double>(N))),
                rest = static_cast<A>(std::sqrt(0.5 / static_cast<double>(N)));
        for_each_element(ex, what, count, N / 2 + 1, [=] __device__(index i, index k) {  // V[k] / N
            complex<A> bin{zero * coefficient(i, k), A(0)};
            if (k > 0)
                bin = conjugate(quarter[k]) * complex<A>{rest * coefficient(i, k), -rest * coefficient(i, N - k)};
            put(V + i * line, k, bin, mirrored);
        });
        transform_back(samples);
    }
    // samples = Cᵀ (weight ⊙ C x) for x = load(i, c), weight(k): without a look at the coefficients
    template <class Load, class Weight>
    void filter(A* samples, Load load, Weight weight) {
        const index N = this->N, line = this->line, mirrored = N % 2 ? N : 0;
        complex<A>* V = bins;
        const complex<A>* quarter = plan().quarter;
        const A each = static_cast<A>(1 / static_cast<double>(N));
        transform(samples, load);
        for_each_element(ex, what, count, N / 2 + 1, [=] __device__(index i, index k) {
            const auto y = quarter[k] * V[i * line + k];  // X[k] and −X[N−k], but for their factor
            const complex<A> kept{each * weight(k) * y.re, k == 0 ? A(0) : each * weight(N - k) * y.im};
            put(V + i * line, k, conjugate(quarter[k]) * kept, mirrored);
        });
        transform_back(samples);
    }

    // bin k of a row, and where the row has all N of them the one that mirrors it
    static __device__ void put(complex<A>* row, index k, complex<A> bin, index mirrored) {
        row[k] = bin;
        if (mirrored && k > 0) row[mirrored - k] = conjugate(bin);
    }

    // ---- their parts (nvcc wants functions that hold __device__ lambdas to be public) ----
    template <class Load>
    void transform(A* ordered, Load load) {
        const index N = this->N;
        complex<A>* V = bins;
        const auto& p = plan();
        if (N % 2 == 0) {
            for_each_element(ex, what, count, N,
                             [=] __device__(index i, index c) { ordered[i * N + sample_place(N, c)] = load(i, c); });
            ex.queue(what, [&] { p.real(ordered, V); });
        } else {
            for_each_element(ex, what, count, N, [=] __device__(index i, index c) {
                V[i * N + sample_place(N, c)] = {load(i, c), A(0)};
            });
            ex.queue(what, [&] { p.in_place(V, CUFFT_FORWARD); });
        }
    }
    void transform_back(A* samples) {
        const index N = this->N;
        complex<A>* V = bins;
        const auto& p = plan();
        ex.queue(what, [&] {
            if (N % 2 == 0)
                p.real_back(V, samples);
            else
                p.in_place(V, CUFFT_INVERSE);
        });
        if (N % 2)
            for_each_element(ex, what, count, N,
                             [=] __device__(index i, index j) { samples[i * N + j] = V[i * N + j].re; });
    }
    // of as many rows as the least power of two that holds this chunk
    const cufft_plan<A>& plan() {
        index batch = 1, log = 0;
        while (batch < count) batch *= 2, ++log;
        return ex.keep<cufft_plan<A>>(N * 64 + log, N, batch);
    }
};

}  // namespace spectral::cuda::detail
