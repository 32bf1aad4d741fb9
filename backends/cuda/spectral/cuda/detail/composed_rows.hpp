// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/composed_rows.hpp: the DCT of rows that are too long or too odd for one block, by
// cuFFT or by products with the transform's matrix
//
// By cuFFT: Makhoul's order makes the DCT a real transform of length N, which is cuFFT's; the rotation after it (before
// it, on the way back) is dct_plan.hpp's, and so are the factors. Order, cuFFT, rotation, cuFFT and order again are a
// pass over device memory each, against none in dct_plan.hpp.
// Or by products with the transform's matrix, which take N² operations a row and fewer passes: for narrow rows. Both
// compute in float (double for double): a matrix rounded to bfloat16 or TF32 would change routes.
// Rows go in chunks, as many at a time as a power of two, so that few plans serve all counts.
#pragma once
#include <spectral/core/tensor.hpp>
#include <spectral/cuda/detail/cufft_plan.hpp>
#include <spectral/cuda/detail/gemm.hpp>

#include <cmath>
#include <map>
#include <string>

namespace spectral::cuda::detail {

// What dct_plan.hpp leaves to this: rows that shared memory does not hold (with the two more that backward keeps), and
// widths with prime factors above 7.
template <class A>
bool is_composed(const executor& ex, index width) {
    const index values = (width % 2 ? 7 : 5) * width;
    if (static_cast<std::size_t>(values) * sizeof(A) > ex.shared_limit()) return true;
    index left = width;
    for (index p : {2, 3, 5, 7})
        while (left > 1 && left % p == 0) left /= p;
    return left > 1;
}

// C, with C[k, c] = √((k ? 2 : 1)/N) cos(π (2c+1) k / 2N)
template <class A>
struct dct_matrix : kept {
    tensor<executor, A, 2> C;

    dct_matrix(executor& ex, index N) {
        std::vector<double> cosine;  // of a 4N-th of a turn, so many times
        for (index j = 0; j < 4 * N; ++j) cosine.push_back(cosine_of_turn(j, 4 * N));
        std::vector<A> host;
        for (index k = 0; k < N; ++k) {
            const double scale = std::sqrt((k ? 2.0 : 1.0) / static_cast<double>(N));
            for (index c = 0; c < N; ++c)
                host.push_back(static_cast<A>(scale * cosine[static_cast<std::size_t>((2 * c + 1) * k % (4 * N))]));
        }
        C = tensor<executor, A, 2>(ex, {N, N}, host);
    }
};

// Where sample c of a row lies: in Makhoul's order, or at c
struct sample_places {
    index N;
    bool in_order;
    __device__ index operator()(index c) const { return in_order ? c : c % 2 == 0 ? c / 2 : N - 1 - c / 2; }
};

// Where products win (bench/results/cuda/forms_h200.txt, forms_primes_h200.txt): cuFFT is fast where prime factors are
// small, and slow in double.
inline bool matrix_by_rule(index N, index rows, bool is_double) {
    if (rows <= 4096 || N < 64 || N > (is_double ? 512 : 256)) return false;
    index largest = 1;
    for (index p = 2, left = N; left > 1; ++p)
        while (left % p == 0) left /= p, largest = p;
    return is_double || largest > 64;
}

// The form of every class of transforms that had a choice: "dct WIDTH float, up to ROWS rows"
struct transform_choices : kept {
    std::map<std::string, bool> by_matrix;
    explicit transform_choices(executor&) {}
};

// Rows in chunks:   for (composed_rows<A> s(ex, what, rows, N); s.next();) …rows s.first … s.first + s.count − 1…
// Rows of samples are left in the order of `place`. Memory comes from the arena and is the caller's scope's.
template <class A>
struct composed_rows {
    static constexpr bool is_double = std::is_same_v<A, double>;
    static constexpr index widest_trial = 1024;
    executor& ex;
    const char* what;
    index rows, N, most, first = 0, count = 0;
    index line;  // bins of a row: N/2 + 1, of odd widths N
    complex<A>* bins = nullptr;  // (count, line)
    A* reals;  // (count, N), in the memory of the bins
    const A* matrix = nullptr;  // (N, N), or cuFFT does it
    sample_places place;

    composed_rows(executor& ex_, const char* what_, index rows_, index N_)
        : ex(ex_), what(what_), rows(rows_), N(N_), most(1), line(N % 2 ? N : N / 2 + 1) {
        check(N < (1 << 24), what, "widths below ", 1 << 24, " are supported on cuda, found ", N);
        while (2 * most * N <= (index{1} << 24) && most < rows) most *= 2;
        bins = ex.memory().template vector<complex<A>>(most * line).data;
        reals = reinterpret_cast<A*>(bins);
        use_matrix(chosen_form());
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
        if (matrix) {
            lay(reals, load);
            return product(true, X);
        }
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
        if (matrix) {
            lay(reals, coefficient);
            return product(false, samples);
        }
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
        if (matrix) {
            lay(reals, load);
            product(true, samples);
            const index N = this->N;
            lay(reals, [=] __device__(index i, index k) { return weight(k) * samples[i * N + k]; });
            return product(false, samples);
        }
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
    // to[i, place(c)] = f(i, c)
    template <class F>
    void lay(A* to, F f) {
        const index N = this->N;
        const auto place = this->place;
        for_each_element(ex, what, count, N, [=] __device__(index i, index c) { to[i * N + place(c)] = f(i, c); });
    }
    // to = reals Cᵀ, or back: reals C
    void product(bool there, A* to) {
        gemm<A>(ex, what, {matrix_view<A>(reals, {count, N}), false}, {const_matrix<A>(matrix, {N, N}), there}, 1, {},
                matrix_view<A>(to, {count, N}));
    }
    void use_matrix(bool wanted) {
        matrix = wanted ? ex.keep<dct_matrix<A>>(N, N).C.data() : nullptr;
        place = {N, wanted};
    }
    // whether the matrix, for rows as many as this class has at most. What a trial made stays with the executor.
    bool chosen_form() {
        if (N > widest_trial || (!is_double && ex.options().tf32)) return false;
        const std::string name =
            spectral::detail::join("dct ", N, is_double ? " double" : " float", ", up to ", most, " rows");
        auto& known = ex.keep<transform_choices>(0).by_matrix;
        if (const auto it = known.find(name); it != known.end()) return it->second;
        const bool chosen =
            ex.options().tune ? there_and_back_ms(true) < there_and_back_ms(false) : matrix_by_rule(N, most, is_double);
        return known[name] = chosen;
    }
    float there_and_back_ms(bool with_matrix) {
        arena_scope scratch(ex);
        A *X = buffer(), *samples = buffer();
        const index N = this->N;
        use_matrix(with_matrix);
        count = most;
        const float ms = fastest_ms(ex, [&] {
            dct(X, [=] __device__(index, index) { return A(1); });
            idct(samples, [=] __device__(index i, index k) { return X[i * N + k]; });
            return true;
        });
        count = 0;
        return ms;
    }
    template <class Load>
    void transform(A* ordered, Load load) {
        const index N = this->N;
        complex<A>* V = bins;
        const auto& p = plan();
        if (N % 2 == 0) {
            lay(ordered, load);
            ex.queue(what, [&] { p.real(ordered, V); });
        } else {
            const auto place = this->place;
            for_each_element(ex, what, count, N, [=] __device__(index i, index c) {
                V[i * N + place(c)] = {load(i, c), A(0)};
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
