// SPDX-License-Identifier: Apache-2.0
// bench/gemm_bench.cpp: our matrix products against Eigen's, on the shapes of the small model, in turns in one loop
//
// y = x Wᵀ (forward), dx = dy W (input), dw = dyᵀ x (weight), float. GFLOP/s of ours and `over_eigen`, the median of
// the ratios of neighbouring runs.
#include "processor.hpp"
#include "timing.hpp"

#include <spectral/cpu/detail/gemm.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <chrono>
#include <vector>

namespace spectral::bench {
namespace {

using rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using cpu::detail::transpose;

matrix_view<float> view_of(rows& m) { return {m.data(), {m.rows(), m.cols()}}; }

// which: 0 forward, 1 input gradient, 2 weight gradient
void product(benchmark::State& state) {
    const index n = state.range(0), in = state.range(1), out = state.range(2);
    const auto which = state.range(3);
    const int threads = static_cast<int>(state.range(4));
    cpu::executor ex(threads);
    Eigen::setNbThreads(threads);
    rows x = rows::Random(n, in), w = rows::Random(out, in), y = rows::Random(n, out), c, d;
    if (which == 0) c = d = rows::Zero(n, out);
    if (which == 1) c = d = rows::Zero(n, in);
    if (which == 2) c = d = rows::Zero(out, in);
    const auto ours = [&] {
        if (which == 0)
            cpu::detail::gemm<float>(ex, transpose::no, transpose::yes, 1.0f, view_of(x), view_of(w), write::overwrite,
                                     view_of(c));
        if (which == 1)
            cpu::detail::gemm<float>(ex, transpose::no, transpose::no, 1.0f, view_of(y), view_of(w), write::overwrite,
                                     view_of(c));
        if (which == 2)
            cpu::detail::gemm<float>(ex, transpose::yes, transpose::no, 1.0f, view_of(y), view_of(x), write::overwrite,
                                     view_of(c));
    };
    const auto eigens = [&] {
        if (which == 0) d.noalias() = x * w.transpose();
        if (which == 1) d.noalias() = y * w;
        if (which == 2) d.noalias() = y.transpose() * x;
    };
    ours();
    eigens();
    check((c - d).norm() <= 1e-4f * d.norm(), "gemm_bench", "the products differ");
    std::vector<double> own, ratio;
    for (auto _ : state) {
        const double t0 = seconds();
        ours();
        const double t1 = seconds();
        eigens();
        const double t2 = seconds();
        own.push_back(t1 - t0);
        ratio.push_back((t2 - t1) / (t1 - t0));
        state.SetIterationTime(t1 - t0);
    }
    state.counters["GFLOP/s"] =
        2e-9 * static_cast<double>(n) * static_cast<double>(in) * static_cast<double>(out) / median(own);
    state.counters["over_eigen"] = median(ratio);
}
BENCHMARK(product)
    ->ArgNames({"rows", "in", "out", "which", "threads"})
    ->UseManualTime()
    ->Iterations(9)
    ->Unit(benchmark::kMillisecond)
    ->ArgsProduct({{8192}, {256}, {768, 1024}, {0, 1, 2}, {1, 2}})
    ->ArgsProduct({{8192}, {1024}, {256}, {0, 1, 2}, {1, 2}})
    ->ArgsProduct({{8192}, {256}, {8192}, {0, 1, 2}, {1, 2}});

}  // namespace
}  // namespace spectral::bench

int main(int argc, char** argv) {
    benchmark::AddCustomContext("processor", spectral::bench::processor());
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::RunSpecifiedBenchmarks();
}
