// SPDX-License-Identifier: Apache-2.0
// bench/spectral_mix_cuda.cu: the spectral operators on a GPU: checked against double, then timed beside a copy and a
// product
//   nvcc -std=c++20 -O3 -arch=sm_90a --expt-relaxed-constexpr --extended-lambda -Iinclude -Ibackends/cuda
//   bench/spectral_mix_cuda.cu -lcublasLt -lcufft spectral_mix_cuda [WIDTH...]
// 65536 and 8192 rows of bfloat16, medians of event times in ms. `copy` moves the bytes of x and y once; `product` is x
// times one folded d x d matrix (no entropy, no norm). Errors are the largest differences, over the largest value, from
// the same operators in double on the same numbers; `flips` is the share of routes that differ, at a threshold that
// splits the rows in two.
#include <spectral/cuda.hpp>

#include <cstdio>
#include <cstdlib>

#include "event_timing.hpp"

namespace spectral {

using E = cuda::executor;
namespace D = cuda::detail;
constexpr dct_norm ortho = dct_norm::ortho;

// All that one call of the operators reads and writes
template <class T>
struct workload {
    index n, d;
    tensor<E, T, 2> x, dy, y, dx;
    tensor<E, T> w, gamma, beta;
    tensor<E, statistic<T>> entropy, mean, rstd, dw, dgamma, dbeta;
    tensor<E, row_index> op;
    std::vector<selection> rows{2};
    norm_statistics<T> stats;

    workload(E& ex, index n_, index d_)
        : n(n_),
          d(d_),
          x(ex, {n, d}),
          dy(ex, {n, d}),
          y(ex, {n, d}),
          dx(ex, {n, d}),
          w(ex, {d}),
          gamma(ex, {d}),
          beta(ex, {d}),
          entropy(ex, {n}),
          mean(ex, {n}),
          rstd(ex, {n}),
          dw(ex, {d}),
          dgamma(ex, {d}),
          dbeta(ex, {d}),
          op(ex, {n}),
          stats{mean.view(), rstd.view()} {
        fill(ex, x.view().matrix(), 1, 0, 1);
        fill(ex, dy.view().matrix(), 2, 0, 1);
        fill(ex, w.view().matrix(), 3, 0.5, 0.25);
        fill(ex, gamma.view().matrix(), 4, 1, 0.25);
        fill(ex, beta.view().matrix(), 5, 0, 1);
        for (auto* t : {&dw, &dgamma, &dbeta})
            ex.fill_bytes(t->data(), 0, static_cast<std::size_t>(d) * sizeof(statistic<T>));
        ex.fill_bytes(dx.data(), 0, static_cast<std::size_t>(n * d) * sizeof(T));
        ex.fill_bytes(y.data(), 0xFF, static_cast<std::size_t>(n * d) * sizeof(T));
    }
    // nearly normal numbers, the same in every scalar type: what a bfloat16 holds
    static void fill(E& ex, matrix_view<T> m, std::uint64_t seed, double centre, double spread) {
        T* p = m.data;
        D::for_each(ex, "fill", m.size(), [=] __device__(index i) {
            double sum = 0;
            for (int k = 0; k < 4; ++k)
                sum += random_stream{seed, 7}.uniform(4 * static_cast<std::uint64_t>(i) + k) - 0.5;
            const bfloat16 held = D::narrow<bfloat16>(static_cast<float>(centre + spread * 1.7320508 * sum));
            p[i] = D::narrow<T>(D::widen(held));
        });
    }
    void route(E& ex, std::vector<double> thresholds) {
        arena_scope scratch(ex);
        spectral_route_mix_forward<E, T>(ex, x.view(), ortho, thresholds, entropy.view(), op.view(), rows, w.view(),
                                         gamma.view(), beta.view(), 1e-5, y.view(), stats);
    }
    void only_entropy(E& ex) { spectral_entropy_forward<E, T>(ex, x.view(), ortho, entropy.view()); }
    void mix(E& ex) {
        spectral_mix_forward<E, T>(ex, x.view(), selection::all(n), w.view(), ortho, gamma.view(), beta.view(), 1e-5,
                                   y.view(), stats);
    }
    void backward(E& ex) {
        spectral_mix_backward<E, T>(ex, dy.view(), x.view(), selection::all(n), w.view(), ortho, gamma.view(), stats,
                                    dx.view(), dw.view(), dgamma.view(), dbeta.view());
    }
    void filter_backward(E& ex) {
        spectral_filter_backward<E, T>(ex, dy.view(), x.view(), w.view(), ortho, dx.view(), dw.view());
    }
};

template <class T, std::size_t R>
std::vector<double> host(E& ex, const tensor<E, T, R>& t) {
    std::vector<T> raw(static_cast<std::size_t>(t.view().size()));
    ex.copy_to_host(raw.data(), t.data(), raw.size() * sizeof(T));
    std::vector<double> out;
    for (T v : raw) out.push_back(widen<double>(v));
    return out;
}
double difference(const std::vector<double>& got, const std::vector<double>& want) {
    double worst = 0, largest = 1e-30;
    for (std::size_t i = 0; i < got.size(); ++i) {
        const double e = std::abs(got[i] - want[i]);
        worst = e <= worst ? worst : e;  // a NaN stays
        largest = std::max(largest, std::abs(want[i]));
    }
    return worst / largest;
}

// the largest float errors of everything, and the share of flipped routes
void check_width(E& ex, index d) {
    const index n = 4099;
    workload<double> exact(ex, n, d);
    exact.only_entropy(ex);
    auto entropy = host(ex, exact.entropy);
    std::nth_element(entropy.begin(), entropy.begin() + n / 2, entropy.end());
    const std::vector<double> split{entropy[static_cast<std::size_t>(n / 2)]}, above{2};
    exact.route(ex, split);
    const auto routes = host(ex, exact.op);
    exact.route(ex, above);
    exact.backward(ex);
    const auto one = [&]<class T>(workload<T> w, const char* name) {
        w.route(ex, split);
        const auto got = host(ex, w.op);
        double flips = 0;
        for (std::size_t i = 0; i < got.size(); ++i) flips += got[i] != routes[i];
        w.route(ex, above);
        w.backward(ex);
        std::printf(
            "  %-8s H %.1e  y %.1e  mean %.1e  rstd %.1e  dx %.1e  dw %.1e  dgamma %.1e  dbeta %.1e  flips %.3f %%\n",
            name, difference(host(ex, w.entropy), host(ex, exact.entropy)),
            difference(host(ex, w.y), host(ex, exact.y)), difference(host(ex, w.mean), host(ex, exact.mean)),
            difference(host(ex, w.rstd), host(ex, exact.rstd)), difference(host(ex, w.dx), host(ex, exact.dx)),
            difference(host(ex, w.dw), host(ex, exact.dw)), difference(host(ex, w.dgamma), host(ex, exact.dgamma)),
            difference(host(ex, w.dbeta), host(ex, exact.dbeta)), 100 * flips / static_cast<double>(n));
    };
    one(workload<float>(ex, n, d), "float");
    one(workload<bfloat16>(ex, n, d), "bfloat16");
}

void time_width(E& ex, index d, index n) {
    using T = bfloat16;
    workload<T> w(ex, n, d);
    w.only_entropy(ex);
    auto entropy = host(ex, w.entropy);
    std::nth_element(entropy.begin(), entropy.begin() + n / 2, entropy.end());
    const double half = entropy[static_cast<std::size_t>(n / 2)];
    tensor<E, T, 2> folded(ex, {d, d});
    workload<T>::fill(ex, folded.view().matrix(), 9, 0, 0.03);
    const double copied = bench::event_ms(ex, [&] { copy<E, T>(ex, w.x.view(), w.y.view()); });
    const double product =
        bench::event_ms(ex, [&] { linear_forward<E, T>(ex, w.x.view(), folded.view(), {}, w.y.view()); });
    const double all = bench::event_ms(ex, [&] { w.route(ex, {2}); }),
                 some = bench::event_ms(ex, [&] { w.route(ex, {half}); }),
                 none = bench::event_ms(ex, [&] { w.route(ex, {-1}); });
    const double entropies = bench::event_ms(ex, [&] { w.only_entropy(ex); }),
                 mix = bench::event_ms(ex, [&] { w.mix(ex); });
    const double back = bench::event_ms(ex, [&] { w.backward(ex); }),
                 filter_back = bench::event_ms(ex, [&] { w.filter_backward(ex); });
    std::printf(
        "%5d x %4d  copy %.3f  product %.3f | route+mix: share 1 %.3f  1/2 %.3f  0 %.3f | entropy %.3f  mix %.3f | backward: mix %.3f"
        "  filter %.3f\n",
        static_cast<int>(n), static_cast<int>(d), copied, product, all, some, none, entropies, mix, back, filter_back);
    std::fflush(stdout);
}

}  // namespace spectral

int main(int count, char** values) try {
    spectral::E ex;
    std::printf("%s, bfloat16, ms\n", ex.device_name().c_str());
    std::vector<spectral::index> widths;
    for (int i = 1; i < count; ++i) widths.push_back(std::atoi(values[i]));
    if (widths.empty()) widths = {256, 512, 768, 896, 1024, 2048, 4096};
    for (auto d : widths)
        spectral::time_width(ex, d, 65536), spectral::time_width(ex, d, 8192), spectral::check_width(ex, d);
} catch (const std::exception& e) {
    return std::fprintf(stderr, "spectral_mix_cuda: %s\n", e.what()), 1;
}
