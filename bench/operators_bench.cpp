// SPDX-License-Identifier: Apache-2.0
// bench/operators_bench.cpp: operators that memory bounds, against a copy
//
// Each is timed in turns with a copy of as large a matrix. GB counts what the formula must read and write, once;
// of_copy is its rate over the copy's. A copy also reads the lines that it overwrites, which is not counted: what works in
// place may reach 1.5, everything else about 1.
// Arrays are 32768 x 1024 of float, 128 MiB each, so that none lasts in a cache from one call to the next. What
// computes much (matrix products, attention, spectral mixing) has a bench of its own.
//   operators_bench --benchmark_out=results.json --benchmark_out_format=json
#include "processor.hpp"
#include "timing.hpp"

#include <spectral/cpu.hpp>
#include <spectral/ops/cross_entropy.hpp>
#include <spectral/ops/dropout.hpp>
#include <spectral/ops/embedding.hpp>
#include <spectral/ops/optimizer.hpp>
#include <spectral/ops/partition.hpp>
#include <spectral/ops/pool.hpp>
#include <spectral/ops/rotary.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace spectral::bench {
namespace {

using executor_t = cpu::executor;
using matrix = tensor<executor_t, float, 2>;

constexpr index N = 32768, C = 1024, sequences = 32, vocabulary = 8192, head = 64;

struct operands {
    executor_t ex;
    matrix a, b, c, d, e, table, logits, pooled, rotation_table;
    tensor<executor_t, float> gamma, beta, mean, rstd, dgamma, dbeta, loss;
    tensor<executor_t, row_index> ids, targets, op;
    row_map rows;

    explicit operands(int threads)
        : ex(threads),
          a(ex, {N, C}),
          b(ex, {N, C}),
          c(ex, {N, C}),
          d(ex, {N, C}),
          e(ex, {N, C}),
          table(ex, {vocabulary, C}),
          logits(ex, {N * C / vocabulary, vocabulary}),
          pooled(ex, {sequences, C}),
          rotation_table(ex, {N / sequences, head}),
          gamma(ex, {C}),
          beta(ex, {C}),
          mean(ex, {N}),
          rstd(ex, {N}),
          dgamma(ex, {C}),
          dbeta(ex, {C}),
          loss(ex, {logits.view().rows()}),
          ids(ex, {N}),
          targets(ex, {logits.view().rows()}),
          op(ex, {N}),
          rows(uniform_rows(ex, sequences, N / sequences)) {
        const random_stream draw{1, 2};
        const auto uniform = [&](index i) { return draw.uniform(static_cast<std::uint64_t>(i)); };
        for (matrix* m : {&a, &b, &c, &d, &e, &table, &logits})
            for (index i = 0; i < m->size(); ++i) m->data()[i] = static_cast<float>(uniform(i) - 0.5);
        std::ranges::copy(rotary_table<float>(N / sequences, head, 1e4), rotation_table.data());
        for (index i = 0; i < C; ++i) gamma.data()[i] = 1;
        for (index n = 0; n < N; ++n) {
            ids.data()[n] = static_cast<row_index>(uniform(n) * vocabulary);
            op.data()[n] = uniform(n + N) < 0.5;
        }
        for (index n = 0; n < targets.size(); ++n) targets.data()[n] = static_cast<row_index>(n % vocabulary);
    }
    vector_view<float> flat(matrix& m) { return {m.data(), {m.size()}}; }
};

struct operation {
    const char* name;
    double arrays;  // of N x C floats that it must read and write
    void (*run)(operands&, const selection* parts);
};

using E = executor_t;
const operation operations[] = {
    {"add", 3, [](operands& o, const selection*) { add<E, float>(o.ex, o.a.view(), o.b.view()); }},
    {"gelu", 2, [](operands& o, const selection*) { gelu_forward<E, float>(o.ex, o.a.view(), o.b.view()); }},
    {"gelu_backward", 3,
     [](operands& o, const selection*) { gelu_backward<E, float>(o.ex, o.a.view(), o.b.view(), o.c.view()); }},
    {"silu_gate", 3,
     [](operands& o, const selection*) { silu_gate_forward<E, float>(o.ex, o.a.view(), o.b.view(), o.c.view()); }},
    {"silu_gate_backward", 5,
     [](operands& o, const selection*) {
         silu_gate_backward<E, float>(o.ex, o.a.view(), o.b.view(), o.c.view(), o.d.view(), o.e.view());
     }},
    {"layer_norm", 2,
     [](operands& o, const selection*) {
         layer_norm_forward<E, float>(o.ex, o.a.view(), o.gamma.view(), o.beta.view(), 1e-5, o.b.view(), o.mean.view(),
                                      o.rstd.view());
     }},
    {"layer_norm_backward", 3,
     [](operands& o, const selection*) {
         layer_norm_backward<E, float>(o.ex, o.c.view(), o.a.view(), o.gamma.view(), o.mean.view(), o.rstd.view(),
                                       o.d.view(), o.dgamma.view(), o.dbeta.view());
     }},
    {"rms_norm", 2,
     [](operands& o, const selection*) {
         rms_norm_forward<E, float>(o.ex, o.a.view(), o.gamma.view(), 1e-6, o.b.view(), o.rstd.view());
     }},
    {"rms_norm_backward", 3,
     [](operands& o, const selection*) {
         rms_norm_backward<E, float>(o.ex, o.c.view(), o.a.view(), o.gamma.view(), o.rstd.view(), o.d.view(),
                                     o.dgamma.view());
     }},
    {"rotary", 2,
     [](operands& o, const selection*) {
         rotary<E, float>(o.ex, o.a.view(), o.rows.position, o.rotation_table.view(), rotation::forward);
     }},
    {"dropout", 2,
     [](operands& o, const selection*) {
         dropout<E, float>(o.ex, o.a.view(), 0.1, random_stream{3, 4}, o.b.view());
     }},
    {"gather_rows, half of them", 1,
     [](operands& o, const selection* parts) { gather_rows<E, float>(o.ex, o.a.view(), parts[1], o.b.view()); }},
    {"scatter_rows, half of them", 1,
     [](operands& o, const selection* parts) {
         scatter_rows<E, float>(o.ex, o.b.view(), parts[1], o.a.view(), write::overwrite);
     }},
    {"embedding", 2,
     [](operands& o, const selection*) {
         embedding_forward<E, float>(o.ex, o.ids.view(), o.table.view(), o.b.view());
     }},
    {"embedding_backward", 3,
     [](operands& o, const selection*) {
         embedding_backward<E, float>(o.ex, o.ids.view(), o.b.view(), o.table.view());
     }},
    {"mean_pool", 1,
     [](operands& o, const selection*) {
         mean_pool_forward<E, float>(o.ex, o.a.view(), o.rows, pool_scope::sequence, o.pooled.view());
     }},
    {"cross_entropy, in place", 2,
     [](operands& o, const selection*) {
         cross_entropy<E, float>(o.ex, o.logits.view(), o.targets.view(), o.loss.view(), 1e-3, o.logits.view());
     }},
    {"adamw_step", 7,
     [](operands& o, const selection*) {
         adamw_step<E, float>(o.ex, o.flat(o.a), o.flat(o.b), o.flat(o.c), o.flat(o.d), {}, 1, {});
     }},
};

void against_copy(benchmark::State& state, const operation& what, int threads) {
    operands o(threads);
    arena_scope scratch(o.ex);
    selection parts[2];
    partition(o.ex, o.op.view(), std::span(parts));
    for (float& v : std::span(o.d.data(), static_cast<std::size_t>(o.d.size()))) v = std::abs(v);  // second moments
    const double array = static_cast<double>(N * C) * sizeof(float);
    std::vector<double> own, of_copy;
    const auto once = [&] {
        arena_scope inner(o.ex);
        what.run(o, parts);
    };
    once();
    for (auto _ : state) {
        const double start = seconds();
        copy<E, float>(o.ex, o.e.view(), o.c.view());
        const double copied = seconds();
        once();
        const double done = seconds();
        own.push_back(done - copied);
        of_copy.push_back(what.arrays / (done - copied) / (2 / (copied - start)));
        state.SetIterationTime(done - copied);
    }
    state.counters["ms"] = 1e3 * median(own);
    state.counters["GB/s"] = 1e-9 * what.arrays * array / median(own);
    state.counters["of_copy"] = median(of_copy);
}

}  // namespace
}  // namespace spectral::bench

int main(int argc, char** argv) {
    using namespace spectral::bench;
    for (const auto& what : operations)
        for (int threads : {1, 2})
            benchmark::RegisterBenchmark((std::string(what.name) + "/threads:" + std::to_string(threads)).c_str(),
                                         against_copy, what, threads)
                ->UseManualTime()
                ->Iterations(9)
                ->Unit(benchmark::kMillisecond);
    benchmark::AddCustomContext("processor", processor());
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::RunSpecifiedBenchmarks();
}
