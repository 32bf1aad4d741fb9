// SPDX-License-Identifier: Apache-2.0
// bench/spectral_mix_bench.cpp: fused spectral mixing against the same mathematics through Eigen's matrix products
//
//   fused        y = LN(x + filter(x)), one call
//   two_products X = x Cᵀ, w ⊙ X, (w ⊙ X) C: what a user of a matrix library writes (without residual and norm)
//   folded       x M with M = Cᵀ diag(w) C made beforehand: one product (without residual and norm)
//   entropy      spectral entropy alone;   backward  gradients of the fused form;   copy  reads x, writes y
// All on 65536 x d in float. The ratio over_two_products and over_folded of `fused` are measured in turns in one loop
// (medians of pairs).
//   spectral_mix_bench --benchmark_out=results.json --benchmark_out_format=json
#include "processor.hpp"
#include "timing.hpp"

#include <spectral/cpu.hpp>
#include <spectral/ops/spectral_entropy.hpp>
#include <spectral/ops/spectral_filter.hpp>
#include <spectral/reference/dct.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>

namespace spectral::bench {
namespace {

using executor_t = cpu::executor;
using matrix = tensor<executor_t, float, 2>;
using vector = tensor<executor_t, float>;
using eigen_rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using eigen_map = Eigen::Map<eigen_rows>;

constexpr index N = 65536;

struct workload {
    executor_t ex;
    matrix x, y, dx;
    vector w, gamma, beta, mean, rstd, dw, dgamma, dbeta, entropy;
    eigen_rows C, M;

    workload(index d, int threads)
        : ex(threads),
          x(ex, {N, d}),
          y(ex, {N, d}),
          dx(ex, {N, d}),
          w(ex, {d}),
          gamma(ex, {d}),
          beta(ex, {d}),
          mean(ex, {N}),
          rstd(ex, {N}),
          dw(ex, {d}),
          dgamma(ex, {d}),
          dbeta(ex, {d}),
          entropy(ex, {N}),
          C(d, d) {
        const random_stream draw{1, 2};
        for (index i = 0; i < x.size(); ++i)
            x.data()[i] = static_cast<float>(draw.uniform(static_cast<std::uint64_t>(i)) - 0.5);
        for (index k = 0; k < d; ++k) {
            w.data()[k] = static_cast<float>(0.5 + draw.uniform(static_cast<std::uint64_t>(k)));
            gamma.data()[k] = 1;
        }
        const auto c = reference::dct_matrix(d);
        for (index i = 0; i < d * d; ++i) C.data()[i] = static_cast<float>(c[static_cast<std::size_t>(i)]);
        M = C.transpose() * eigen_map(w.data(), d, 1).col(0).asDiagonal() * C;
        Eigen::setNbThreads(threads);
    }
    index d() const { return w.size(); }

    void fused() {
        spectral_mix_forward<executor_t, float>(ex, x.view(), selection::all(N), w.view(), dct_norm::ortho,
                                                gamma.view(), beta.view(), 1e-5, y.view(), {mean.view(), rstd.view()});
    }
    void backward() {
        spectral_mix_backward<executor_t, float>(ex, y.view(), x.view(), selection::all(N), w.view(), dct_norm::ortho,
                                                 gamma.view(), {mean.view(), rstd.view()}, dx.view(), dw.view(),
                                                 dgamma.view(), dbeta.view());
    }
    void folded() { eigen_map(dx.data(), N, d()).noalias() = eigen_map(x.data(), N, d()) * M; }
    void two_products() {
        eigen_map spectrum(y.data(), N, d()), out(dx.data(), N, d());
        spectrum.noalias() = eigen_map(x.data(), N, d()) * C.transpose();
        spectrum.array().rowwise() *= eigen_map(w.data(), 1, d()).row(0).array();
        out.noalias() = spectrum * C;
    }
    // the fused result minus its residual and norm against the folded product, before anything is timed
    void check_result() {
        spectral_filter_forward<executor_t, float>(ex, x.view(), w.view(), dct_norm::ortho, y.view());
        folded();
        double difference = 0, size = 0;
        for (index i = 0; i < 64 * d(); ++i) {
            difference += std::pow(double(y.data()[i]) - dx.data()[i], 2);
            size += std::pow(double(dx.data()[i]), 2);
        }
        check(std::sqrt(difference / size) < 1e-5, "spectral_mix_bench", "the filter and the folded product differ by ",
              std::sqrt(difference / size));
    }
};

void report(benchmark::State& state, const workload& w) {
    const double bytes = 2.0 * static_cast<double>(N * w.d()) * sizeof(float);
    state.counters["GB/s"] = benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void fused(benchmark::State& state) {
    workload w(state.range(0), static_cast<int>(state.range(1)));
    w.check_result();
    w.fused();
    std::vector<double> own, over_two, over_folded;
    for (auto _ : state) {
        double t[4];
        t[0] = seconds();
        w.fused();
        t[1] = seconds();
        w.folded();
        t[2] = seconds();
        w.two_products();
        t[3] = seconds();
        own.push_back(t[1] - t[0]);
        over_folded.push_back((t[2] - t[1]) / (t[1] - t[0]));
        over_two.push_back((t[3] - t[2]) / (t[1] - t[0]));
        state.SetIterationTime(t[1] - t[0]);
    }
    state.counters["ms"] = 1e3 * median(own);
    state.counters["over_folded"] = median(over_folded);
    state.counters["over_two_products"] = median(over_two);
    report(state, w);
}
BENCHMARK(fused)
    ->ArgsProduct({{256, 768, 896, 1024}, {1, 2}})
    ->ArgNames({"d", "threads"})
    ->UseManualTime()
    ->Iterations(7)
    ->Unit(benchmark::kMillisecond);

void entropy(benchmark::State& state) {
    workload w(state.range(0), static_cast<int>(state.range(1)));
    for (auto _ : state)
        spectral_entropy_forward<executor_t, float>(w.ex, w.x.view(), dct_norm::ortho, w.entropy.view());
    report(state, w);
}
BENCHMARK(entropy)
    ->ArgsProduct({{256, 1024}, {1, 2}})
    ->ArgNames({"d", "threads"})
    ->UseRealTime()
    ->Iterations(5)
    ->Unit(benchmark::kMillisecond);

void backward(benchmark::State& state) {
    workload w(state.range(0), static_cast<int>(state.range(1)));
    w.fused();
    for (auto _ : state) w.backward();
    report(state, w);
}
BENCHMARK(backward)
    ->ArgsProduct({{256, 1024}, {1, 2}})
    ->ArgNames({"d", "threads"})
    ->UseRealTime()
    ->Iterations(5)
    ->Unit(benchmark::kMillisecond);

void copy_memory(benchmark::State& state) {
    workload w(state.range(0), static_cast<int>(state.range(1)));
    for (auto _ : state) copy<executor_t, float>(w.ex, w.x.view(), w.y.view());
    report(state, w);
}
BENCHMARK(copy_memory)
    ->ArgsProduct({{1024}, {1, 2}})
    ->ArgNames({"d", "threads"})
    ->UseRealTime()
    ->Iterations(5)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace spectral::bench

int main(int argc, char** argv) {
    benchmark::AddCustomContext("processor", spectral::bench::processor());
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::RunSpecifiedBenchmarks();
}
