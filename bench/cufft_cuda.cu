// SPDX-License-Identifier: Apache-2.0
// bench/cufft_cuda.cu: the DCT by cuFFT, an independent check of the library's transforms, and what it takes
//   cufft_cuda [WIDTH...]          the check
//   cufft_cuda --forms [WIDTH...]  mix and its gradients by cuFFT and by products with the matrix, for widths that are no
//                                  block's work (detail/composed_rows.hpp), ms
// Makhoul's way (doi:10.1109/TASSP.1980.1163351): even samples forwards and odd ones backwards, a real transform of
// length d, a rotation, written here once more. Differences are the largest, over the largest coefficient, from
// dct_forward in double and float, of few rows and of so many that products may be chosen; who makes the library's
// stands beside them: a kernel of its own, cuFFT too, or products with the matrix. Times, ms, of 65536 rows in float:
// `cufft` is its batched real transform alone, there and back, of what our operator does in one kernel with filter,
// residual and norm (`mix`, beside it); `copy` moves the bytes of x and y once.
#include <spectral/cuda.hpp>

#include <cufft.h>

#include <cstdio>
#include <cstdlib>

#include "event_timing.hpp"

namespace spectral {
namespace {

using E = cuda::executor;
namespace D = cuda::detail;

void require(cufftResult status, const char* what) {
    check(status == CUFFT_SUCCESS, "cufft", what, ": cuFFT's status ", static_cast<int>(status));
}

template <class T>
constexpr bool wide = std::is_same_v<T, double>;

template <class T>
struct transforms {  // of n rows of length d
    using complex = std::conditional_t<wide<T>, cufftDoubleComplex, cufftComplex>;
    cufftHandle forward{}, inverse{};

    transforms(E& ex, index n, index d) {
        int length = static_cast<int>(d);
        const int half = length / 2 + 1, rows = static_cast<int>(n);
        for (auto [plan, there] : {std::pair{&forward, true}, {&inverse, false}}) {
            const cufftType type = wide<T> ? there ? CUFFT_D2Z : CUFFT_Z2D : there ? CUFFT_R2C : CUFFT_C2R;
            require(cufftPlanMany(plan, 1, &length, nullptr, 1, there ? length : half, nullptr, 1,
                                  there ? half : length, type, rows),
                    "cufftPlanMany");
            require(cufftSetStream(*plan, ex.stream()), "cufftSetStream");
        }
    }
    transforms(const transforms&) = delete;
    ~transforms() { cufftDestroy(forward), cufftDestroy(inverse); }
    void there(T* x, complex* to) {
        if constexpr (wide<T>)
            require(cufftExecD2Z(forward, x, to), "cufftExecD2Z");
        else
            require(cufftExecR2C(forward, x, to), "cufftExecR2C");
    }
    void back(complex* x, T* to) {
        if constexpr (wide<T>)
            require(cufftExecZ2D(inverse, x, to), "cufftExecZ2D");
        else
            require(cufftExecC2R(inverse, x, to), "cufftExecC2R");
    }
};

template <class T>
tensor<E, T, 2> random(E& ex, index n, index d) {
    tensor<E, T, 2> t(ex, {n, d});
    T* p = t.data();
    D::for_each(ex, "random", n * d, [=] __device__(index i) {
        p[i] = static_cast<T>(random_stream{3, 7}.uniform(static_cast<std::uint64_t>(i)) - 0.5);
    });
    return t;
}

// C x by cuFFT
template <class T>
tensor<E, T, 2> makhoul_by_cufft(E& ex, const tensor<E, T, 2>& x) {
    const index n = x.view().rows(), d = x.view().width(), half = d / 2 + 1;
    transforms<T> plan(ex, n, d);
    using complex = typename transforms<T>::complex;
    tensor<E, T, 2> ordered(ex, {n, d}), y(ex, {n, d}), spectrum(ex, {n, 2 * half});
    const T* from = x.data();
    T *to = ordered.data(), *out = y.data();
    const T* sums = spectrum.data();
    D::for_each(ex, "reorder", n * d, [=] __device__(index i) {
        const index k = i % d;
        to[i] = from[i - k + (2 * k < d ? 2 * k : 2 * (d - k) - 1)];
    });
    plan.there(to, reinterpret_cast<complex*>(spectrum.data()));
    D::for_each(ex, "rotate", n * d, [=] __device__(index i) {  // C x[k] = scale Re(V[k] e^(-i pi k / 2 d))
        const index row = i / d, k = i % d, at = k < half ? k : d - k;
        const double re = sums[2 * (row * half + at)],
                     im = k < half ? sums[2 * (row * half + at) + 1] : -sums[2 * (row * half + at) + 1];
        const double angle = 3.14159265358979323846 * static_cast<double>(k) / static_cast<double>(2 * d);
        const double scale = sqrt((k == 0 ? 1.0 : 2.0) / static_cast<double>(d));
        out[i] = static_cast<T>(scale * (re * cos(angle) + im * sin(angle)));
    });
    ex.synchronize();
    return y;
}

template <class T>
double difference(E& ex, index d, index n) {
    const auto x = random<T>(ex, n, d);
    tensor<E, T, 2> ours(ex, {n, d});
    dct_forward<E, T>(ex, x.view(), dct_norm::ortho, ours.view());
    const auto want = makhoul_by_cufft(ex, x).to_host(), got = ours.to_host();
    double worst = 0, largest = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
        const double e = std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
        worst = e <= worst ? worst : e;  // a NaN stays
        largest = std::max(largest, std::abs(static_cast<double>(want[i])));
    }
    return worst / largest;
}

// The filter and its gradients of so many rows that they go in two chunks, against the same rows in two calls
double chunks_difference(E& ex, index d, index n, bool matrix) {
    const auto x = random<float>(ex, n, d), dy = random<float>(ex, n, d);
    const auto w = random<float>(ex, 1, d);
    {
        const arena_scope scratch(ex);
        (void)D::composed_rows<float>(ex, "chunks", n, d);  // makes the class known
        for (auto& [name, by_matrix] : ex.keep<D::transform_choices>(0).by_matrix) by_matrix = matrix;
    }
    std::vector<std::vector<float>> found;
    for (index parts : {1, 2}) {
        tensor<E, float, 2> y(ex, {n, d}), dx(ex, {n, d});
        tensor<E, float> dw(ex, {d});
        for (index p = 0; p < parts; ++p) {
            const index first = n * p / parts, count = n * (p + 1) / parts - first;
            const vector_view<float> weights{w.data(), {d}};
            spectral_filter_forward<E, float>(ex, x.view().slice(first, count), weights, dct_norm::ortho,
                                              y.view().slice(first, count));
            spectral_filter_backward<E, float>(ex, dy.view().slice(first, count), x.view().slice(first, count), weights,
                                               dct_norm::ortho, dx.view().slice(first, count), dw.view());
        }
        for (auto values : {y.to_host(), dx.to_host(), dw.to_host()}) found.push_back(std::move(values));
    }
    double worst = 0;
    for (std::size_t k = 0; k < 3; ++k) {
        double largest = 0, off = 0;
        for (std::size_t i = 0; i < found[k].size(); ++i) {
            const double e = std::abs(static_cast<double>(found[k][i]) - static_cast<double>(found[k + 3][i]));
            off = e <= off ? off : e;
            largest = std::max(largest, std::abs(static_cast<double>(found[k][i])));
        }
        worst = off / largest <= worst ? worst : off / largest;
    }
    return worst;
}

bool measure(E& ex, index d) {
    const index n = 65536, some = 5000;  // more than the rule asks for
    const double exact = std::max(difference<double>(ex, d, 257), difference<double>(ex, d, some)),
                 single = std::max(difference<float>(ex, d, 257), difference<float>(ex, d, some));
    auto x = random<float>(ex, n, d);
    tensor<E, float, 2> y(ex, {n, d}), spectrum(ex, {n, 2 * (d / 2 + 1)});
    tensor<E, float> w(ex, {d}), mean(ex, {n}), rstd(ex, {n});
    ex.fill_bytes(w.data(), 0, static_cast<std::size_t>(d) * sizeof(float));
    double cufft = 0;
    {
        transforms<float> plan(ex, n, d);
        auto* sums = reinterpret_cast<cufftComplex*>(spectrum.data());
        cufft = bench::event_ms(ex, [&] { plan.there(x.data(), sums), plan.back(sums, y.data()); });
    }
    const double mix = bench::event_ms(ex, [&] {
        spectral_mix_forward<E, float>(ex, x.view(), selection::all(n), w.view(), dct_norm::ortho, w.view(), w.view(),
                                       1e-5, y.view(), {mean.view(), rstd.view()});
    });
    const double copied = bench::event_ms(ex, [&] { copy<E, float>(ex, x.view(), y.view()); });
    // a transform's rounding grows with the logarithm of its length: 20 eps holds it for every width here
    const bool good = exact < 20 * 2.3e-16 && single < 20 * 1.2e-7;
    const auto by = [&]<class A>(A) -> std::string {
        if (!D::is_composed<A>(ex, d)) return "own";
        std::string out = "cuFFT";
        const std::string start = spectral::detail::join("dct ", d, std::is_same_v<A, double> ? " double" : " float");
        for (const auto& [name, by_matrix] : ex.keep<D::transform_choices>(0).by_matrix)
            if (by_matrix && name.starts_with(start)) out = "cuFFT, matrix";
        return out;
    };
    std::printf("%s d %5d: double %.1e by %-13s  float %.1e by %-13s   copy %.3f  cufft %.3f  mix %.3f ms\n",
                good ? "ok " : "BAD", int(d), exact, by(0.0).c_str(), single, by(0.0f).c_str(), copied, cufft, mix);
    return good;
}

template <class T>
void forms(E& ex, index d) {
    using S = statistic<T>;
    if (!D::is_composed<S>(ex, d)) throw error("cufft", spectral::detail::join(d, " is no composed width"));
    for (index n : {64, 1024, 4097, 8192, 65536}) {
        auto x = random<T>(ex, n, d), dy = random<T>(ex, n, d), dx = random<T>(ex, n, d);
        tensor<E, T, 2> y(ex, {n, d});
        tensor<E, T> w(ex, {d});
        tensor<E, S> mean(ex, {n}), rstd(ex, {n}), dw(ex, {d}), dgamma(ex, {d}), dbeta(ex, {d});
        ex.fill_bytes(w.data(), 0, static_cast<std::size_t>(d) * sizeof(T));
        const norm_statistics<T> stats{mean.view(), rstd.view()};
        const auto forward = [&] {
            spectral_mix_forward<E, T>(ex, x.view(), selection::all(n), w.view(), dct_norm::ortho, w.view(), w.view(),
                                       1e-5, y.view(), stats);
        };
        const auto backward = [&] {
            spectral_mix_backward<E, T>(ex, dy.view(), x.view(), selection::all(n), w.view(), dct_norm::ortho, w.view(),
                                        stats, dx.view(), dw.view(), dgamma.view(), dbeta.view());
        };
        double ms[2][2];
        auto& choices = ex.keep<D::transform_choices>(0).by_matrix;
        for (bool matrix : {false, true}) {
            forward();  // makes the class of this shape known
            check(!choices.empty(), "cufft", "width ", d, " has no choice");
            for (auto& [name, by_matrix] : choices) by_matrix = matrix;
            ms[matrix][0] = bench::event_ms(ex, forward);
            ms[matrix][1] = bench::event_ms(ex, backward);
        }
        std::printf(
            "%-8s %5d x %4d  mix: cufft %.3f  matrix %.3f   backward: cufft %.3f  matrix %.3f   forward and "
            "backward %.2f\n",
            std::is_same_v<T, double>  ? "double"
            : std::is_same_v<T, float> ? "float"
                                       : "bfloat16",
            int(n), int(d), ms[0][0], ms[1][0], ms[0][1], ms[1][1], (ms[0][0] + ms[0][1]) / (ms[1][0] + ms[1][1]));
    }
}

}  // namespace
}  // namespace spectral

int main(int count, char** values) try {
    spectral::E ex;
    int version = 0;
    cufftGetVersion(&version);
    std::printf("%s, cuFFT %d\n", ex.device_name().c_str(), version);
    std::vector<spectral::index> widths;
    const bool forms = count > 1 && std::string(values[1]) == "--forms";
    for (int i = forms ? 2 : 1; i < count; ++i) widths.push_back(std::atoi(values[i]));
    if (forms) {
        if (widths.empty()) widths = {22, 88, 97, 104, 136, 176, 194, 220, 254, 352, 509, 704, 1012};
        for (auto d : widths) {
            spectral::forms<float>(ex, d);
            spectral::forms<spectral::bfloat16>(ex, d);
            spectral::forms<double>(ex, d);
        }
        return 0;
    }
    if (widths.empty()) widths = {60, 97, 256, 384, 640, 768, 896, 1000, 1024, 1536, 2048, 3584, 4096, 6000, 8192};
    bool good = true;
    for (bool matrix : {false, true}) {  // 131072 rows of 97 are a chunk
        const double chunks = spectral::chunks_difference(ex, 97, 200000, matrix);
        const bool fine = chunks < 1e-5;  // sums of 200000 rows
        std::printf("%s rows in two chunks against two calls, by %s: %.1e\n", fine ? "ok " : "BAD",
                    matrix ? "products" : "cuFFT", chunks);
        good = good && fine;
    }
    for (auto d : widths) good = spectral::measure(ex, d) && good;
    return good ? 0 : 1;
} catch (const std::exception& e) {
    return std::fprintf(stderr, "cufft_cuda: %s\n", e.what()), 1;
}
