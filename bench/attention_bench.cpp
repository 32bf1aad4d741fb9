// SPDX-License-Identifier: Apache-2.0
// bench/attention_bench.cpp: attention alone against Eigen's matrix product, decoding, and what routing saves of a
// sub-layer
//
// Attention alone: GFLOP/s counted on visible pairs, 4 D each forward and 10 D backward; of_sgemm divides by the rate
// of Eigen's product measured in the same run. Sub-layer: layers/self_attention.hpp as the models run it, on all rows
// and on routed ones. Its "kept" is the saved time as a share of the saved multiplications:
// (t_dense - t_routed) / t_dense / (1 - executed share). Dense and routed runs alternate; the fastest of each counts;
// kept_cpu is the same of processor time.
#include "processor.hpp"
#include "timing.hpp"

#include <spectral/cpu.hpp>
#include <spectral/layers/self_attention.hpp>
#include <spectral/report/flops.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <chrono>
#include <ctime>

namespace spectral::bench {
namespace {

using executor_t = cpu::executor;
using matrix = tensor<executor_t, float, 2>;

// Processor time of all threads: what other programs on the machine do not add to (set OMP_WAIT_POLICY=passive)
double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

matrix normals(executor_t& ex, index rows, index width, std::uint64_t seed, double scale = 1) {
    matrix m(ex, {rows, width});
    const random_stream draw{1, seed};
    for (index i = 0; i < m.size(); ++i)
        m.data()[i] = static_cast<float>(scale * draw.normal(static_cast<std::uint64_t>(i)));
    return m;
}

// GFLOP/s of Eigen's product (4096 x 256 x 1024) on this many threads
double eigen_rate(int threads) {
    static std::vector<double> known(257);
    double& rate = known.at(static_cast<std::size_t>(threads));
    if (rate > 0) return rate;
    using rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const rows a = rows::Random(4096, 256), b = rows::Random(256, 1024);
    rows c(4096, 1024);
    const int before = Eigen::nbThreads();
    Eigen::setNbThreads(threads);
    for (int i = 0; i < 12; ++i) {
        const double t = seconds();
        c.noalias() = a * b;
        rate = std::max(rate, 2e-9 * 4096 * 256 * 1024 / (seconds() - t));
    }
    Eigen::setNbThreads(before);
    return rate;
}

attention_options options_of(index heads, index kv_heads, index d, double dropout) {
    attention_options o;
    o.heads = heads;
    o.kv_heads = kv_heads;
    o.scale = 1 / std::sqrt(static_cast<double>(d));
    o.dropout = dropout;
    o.draw = {1, 2};
    return o;
}

// The same random rows for everyone: each with this chance
std::vector<row_index> random_rows(index n, double share) {
    const random_stream draw{5, 6};
    std::vector<row_index> rows;
    for (index i = 0; i < n; ++i)
        if (draw.uniform(static_cast<std::uint64_t>(i)) < share) rows.push_back(static_cast<row_index>(i));
    return rows;
}

double visible_pairs(const row_map& q_rows, const row_map& k_rows) {
    double pairs = 0;
    for (index s = 0; s < q_rows.sequences(); ++s)
        for (index n = q_rows.begin[s], m = k_rows.begin[s]; n < q_rows.end[s]; ++n) {
            while (m < k_rows.end[s] && k_rows.position[m] <= q_rows.position[n]) ++m;
            pairs += static_cast<double>(m - k_rows.begin[s]);
        }
    return pairs;
}

// T, sequences, kv heads (of 4), dropout in %, backward, threads: D 64, q, k, v as the parts of one fused projection
void attention_alone(benchmark::State& state) {
    const index time = state.range(0), sequences = state.range(1), kv_heads = state.range(2), d = 64, heads = 4;
    const bool back = state.range(4) != 0;
    executor_t ex(static_cast<int>(state.range(5)));
    const auto o = options_of(heads, kv_heads, d, static_cast<double>(state.range(3)) / 100);
    const index n = time * sequences, wq = heads * d, wk = kv_heads * d;
    const row_map rows = uniform_rows(ex, sequences, time);
    matrix qkv = normals(ex, n, wq + 2 * wk, 1), out(ex, {n, wq}), lse(ex, {n, heads}), g = normals(ex, n, wq, 2),
           dqkv(ex, {n, wq + 2 * wk});
    const auto all = qkv.view(), gradients = dqkv.view();
    const auto q = all.columns(0, wq), k = all.columns(wq, wk), v = all.columns(wq + wk, wk);
    attention_forward<executor_t, float>(ex, q, k, v, rows, rows, o, out, lse);
    const double rate = eigen_rate(ex.threads());
    for (auto _ : state) {
        if (back)
            attention_backward<executor_t, float>(ex, g, q, k, v, out, lse, rows, rows, o, gradients.columns(0, wq),
                                                  gradients.columns(wq, wk), gradients.columns(wq + wk, wk));
        else
            attention_forward<executor_t, float>(ex, q, k, v, rows, rows, o, out, lse);
    }
    const double flop = visible_pairs(rows, rows) * heads * static_cast<double>(d) * (back ? 10 : 4) * 1e-9;
    const auto iterations = static_cast<double>(state.iterations());
    state.counters["GFLOP/s"] = benchmark::Counter(flop * iterations, benchmark::Counter::kIsRate);
    state.counters["of_sgemm"] = benchmark::Counter(flop * iterations / rate, benchmark::Counter::kIsRate);
}

// sequences, cached keys of each, heads, kv heads, threads: one row a sequence, D 64; GB/s of keys and values
void decode(benchmark::State& state) {
    const index sequences = state.range(0), keys = state.range(1), heads = state.range(2), kv_heads = state.range(3),
                d = 64;
    executor_t ex(static_cast<int>(state.range(4)));
    const auto o = options_of(heads, kv_heads, d, 0);
    const row_map k_rows = uniform_rows(ex, sequences, keys);
    const std::vector<index> one(static_cast<std::size_t>(sequences), 1),
        last(static_cast<std::size_t>(sequences), keys - 1);
    const row_map q_rows = pack_rows(ex, one, last);
    matrix q = normals(ex, sequences, heads * d, 1), k = normals(ex, sequences * keys, kv_heads * d, 2),
           v = normals(ex, sequences * keys, kv_heads * d, 3);
    matrix out(ex, {sequences, heads * d}), lse(ex, {sequences, heads});
    for (auto _ : state) attention_forward<executor_t, float>(ex, q, k, v, q_rows, k_rows, o, out, lse);
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * 2 * k.size() *
                            static_cast<index>(sizeof(float)));
}

// The layer of the models, on rows of one length, d 256, 4 heads.
struct sub_layer {
    static constexpr index d = 256, heads = 4;
    executor_t& ex;
    row_map map;
    self_attention<executor_t, float> layer;
    parameter_store<executor_t, float> parameters;
    matrix x, y, dL_dy, dL_dx;
    tensor<executor_t, row_index> rows, count;
    route_trace* trace = nullptr;

    sub_layer(executor_t& e, index sequences, index time)
        : ex(e),
          map(uniform_rows(e, sequences, time)),
          layer(config(e, time)),
          parameters(e, layer),
          x(normals(e, map.rows(), d, 1)),
          y(e, {map.rows(), d}),
          dL_dy(normals(e, map.rows(), d, 2)),
          dL_dx(e, {map.rows(), d}),
          rows(e, {map.rows()}),
          count(e, {1}) {
        parameters.initialize(3);
    }

    static operator_config<executor_t, float> config(executor_t& ex, index time) {
        operator_config<executor_t, float> c{.width = d, .heads = heads};
        c.rotary = std::make_shared<tensor<executor_t, float, 2>>(ex, std::array<index, 2>{time, d / heads},
                                                                  rotary_table<float>(time, d / heads, 10000));
        return c;
    }

    selection select(double share) {
        const auto host = random_rows(map.rows(), share);
        std::copy(host.begin(), host.end(), rows.data());
        count.data()[0] = static_cast<row_index>(host.size());
        return {rows.data(), count.data(), map.rows()};
    }

    void run(const selection& s, bool back) {
        const arena_scope scope(ex);
        pass<executor_t, float> p{
            .ex = ex, .rows = map, .phase = back ? phase::training : phase::evaluation, .trace = trace};
        self_attention<executor_t, float>::saved saved;
        layer.forward(p, x, s, y.view(), saved);
        if (back) layer.backward(p, dL_dy, dL_dx.view(), saved);
    }

    // multiply-accumulates, as the models count them: by what ran
    double macs(const selection& s) {
        route_trace counts;
        trace = &counts;
        run(s, false);
        trace = nullptr;
        const layer_work& w = counts.counts.at(0).work;
        return attention_macs(w.attention_rows, w.key_rows, w.attention_pairs, d, d).total();
    }
};

// T, sequences, share in %, backward, threads
void routed_sub_layer(benchmark::State& state) {
    const bool back = state.range(3) != 0;
    executor_t ex(static_cast<int>(state.range(4)));
    sub_layer layer(ex, state.range(1), state.range(0));
    const selection all = selection::all(layer.map.rows()),
                    some = layer.select(static_cast<double>(state.range(2)) / 100);
    const double share = layer.macs(some) / layer.macs(all);
    layer.run(all, back);
    std::vector<double> dense_times, routed_times, dense_cpu, routed_cpu;
    for (auto _ : state) {
        const double start = seconds(), cpu_start = processor_seconds();
        layer.run(all, back);
        const double middle = seconds(), cpu_middle = processor_seconds();
        layer.run(some, back);
        const double end = seconds();
        dense_cpu.push_back(cpu_middle - cpu_start);
        routed_cpu.push_back(processor_seconds() - cpu_middle);
        dense_times.push_back(middle - start);
        routed_times.push_back(end - middle);
        state.SetIterationTime(end - middle);
    }
    const auto fastest = [](const std::vector<double>& x) { return *std::min_element(x.begin(), x.end()); };
    const double t_dense = fastest(dense_times), t_routed = fastest(routed_times);
    state.counters["dense_ms"] = 1e3 * t_dense;
    state.counters["routed_ms"] = 1e3 * t_routed;
    state.counters["mac_share"] = share;
    state.counters["time_share"] = t_routed / t_dense;
    state.counters["kept"] = (1 - t_routed / t_dense) / (1 - share);
    state.counters["kept_cpu"] = (1 - fastest(routed_cpu) / fastest(dense_cpu)) / (1 - share);
}

BENCHMARK(attention_alone)
    ->ArgNames({"T", "S", "kv", "drop", "back", "threads"})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond)
    ->ArgsProduct({{64}, {64}, {4}, {0}, {0, 1}, {1, 2}})
    ->ArgsProduct({{256}, {16}, {4}, {0}, {0, 1}, {1, 2}})
    ->ArgsProduct({{1024}, {4}, {4, 1}, {0}, {0, 1}, {1, 2}})
    ->ArgsProduct({{1024}, {4}, {4}, {10}, {0, 1}, {1}})
    ->ArgsProduct({{4096}, {1}, {4}, {0}, {0, 1}, {1, 2}});
BENCHMARK(decode)
    ->ArgNames({"S", "keys", "heads", "kv", "threads"})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond)
    ->ArgsProduct({{1, 16}, {4096}, {4}, {4}, {1, 2}})
    ->ArgsProduct({{1, 16}, {4096}, {14}, {2}, {1, 2}})
    ->ArgsProduct({{64}, {128}, {4}, {4}, {1, 2}});
BENCHMARK(routed_sub_layer)
    ->ArgNames({"T", "S", "share", "back", "threads"})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond)
    ->ArgsProduct({{1024}, {4}, {25, 50}, {0, 1}, {1, 2}})
    ->ArgsProduct({{4096}, {1}, {25, 50}, {0, 1}, {1, 2}});

}  // namespace
}  // namespace spectral::bench

int main(int argc, char** argv) {
    benchmark::AddCustomContext("processor", spectral::bench::processor());
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::RunSpecifiedBenchmarks();
}
