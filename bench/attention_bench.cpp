// SPDX-License-Identifier: Apache-2.0
// bench/attention_bench.cpp: attention alone against Eigen's matrix product, decoding, and what routing saves of a
// sub-layer
//
// Attention alone: GFLOP/s counted on visible pairs, 4 D each forward and 10 D backward; of_sgemm divides by the rate
// of Eigen's product measured in the same run. Sub-layer (norm and residual left out): gather, q projection of the
// routed rows, k and v of all, attention, output projection, scatter. Its "kept" is the saved time as a share of the
// saved multiplications: (t_dense - t_routed) / t_dense / (1 - executed share). Dense and routed runs alternate; the
// fastest of each counts; kept_cpu is the same of processor time.
#include "processor.hpp"

#include <spectral/cpu/attention.hpp>
#include <spectral/cpu/linear.hpp>
#include <spectral/cpu/partition.hpp>

#include <spectral/core/tensor.hpp>
#include <spectral/ops/linear.hpp>
#include <spectral/ops/partition.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <chrono>
#include <ctime>

namespace spectral::bench {
namespace {

using executor_t = cpu::executor;
using matrix = tensor<executor_t, float, 2>;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

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

// Everything of one attention sub-layer, d 256, 4 heads; q, k, v have matrices of their own.
struct sub_layer {
    static constexpr index d = 256, heads = 4;
    executor_t& ex;
    index n;
    matrix x, wq, wkv, wo, q, kv, a, lse, y, packed_x, packed_y, g, packed_g, da, dq, dkv, dx, packed_dx, dwq, dwkv,
        dwo;
    tensor<executor_t, row_index> rows, count;
    attention_options o = options_of(heads, heads, d / heads, 0);

    sub_layer(executor_t& e, index n_)
        : ex(e),
          n(n_),
          x(normals(e, n_, d, 1)),
          wq(normals(e, d, d, 2, 0.06)),
          wkv(normals(e, 2 * d, d, 3, 0.06)),
          wo(normals(e, d, d, 4, 0.06)),
          q(e, {n_, d}),
          kv(e, {n_, 2 * d}),
          a(e, {n_, d}),
          lse(e, {n_, heads}),
          y(e, {n_, d}),
          packed_x(e, {n_, d}),
          packed_y(e, {n_, d}),
          g(normals(e, n_, d, 5)),
          packed_g(e, {n_, d}),
          da(e, {n_, d}),
          dq(e, {n_, d}),
          dkv(e, {n_, 2 * d}),
          dx(e, {n_, d}),
          packed_dx(e, {n_, d}),
          dwq(e, {d, d}),
          dwkv(e, {2 * d, d}),
          dwo(e, {d, d}),
          rows(e, {n_}),
          count(e, {1}) {}

    selection select(double share) {
        if (share >= 1) return selection::all(n);
        const auto host = random_rows(n, share);
        std::copy(host.begin(), host.end(), rows.data());
        count.data()[0] = static_cast<row_index>(host.size());
        return {rows.data(), count.data(), n};
    }

    void run(const selection& s, const row_map& k_rows, bool back) {
        using E = executor_t;
        arena_scope scope(ex);
        const bool dense = s.is_all();
        const row_map q_rows = select_rows(ex, k_rows, s);
        const index m = q_rows.rows();
        const auto top = [m](const matrix& t) { return t.view().slice(0, m); };
        const auto keys = kv.view().columns(0, d), values = kv.view().columns(d, d);
        const matrix_view<float> in = dense ? x.view() : top(packed_x), result = dense ? y.view() : top(packed_y);
        if (!dense) gather_rows<E, float>(ex, x, s, in);
        linear_forward<E, float>(ex, in, wq, {}, top(q));
        linear_forward<E, float>(ex, x, wkv, {}, kv.view());
        attention_forward<E, float>(ex, top(q), keys, values, q_rows, k_rows, o, top(a), top(lse));
        linear_forward<E, float>(ex, top(a), wo, {}, result);
        if (!dense) scatter_rows<E, float>(ex, result, s, y.view(), write::overwrite);
        if (!back) return;
        const matrix_view<float> gradient = dense ? g.view() : top(packed_g),
                                 dL_din = dense ? dx.view() : top(packed_dx);
        if (!dense) gather_rows<E, float>(ex, g, s, gradient);
        linear_backward_weight<E, float>(ex, gradient, top(a), dwo.view(), {});
        linear_backward_input<E, float>(ex, gradient, wo, top(da));
        attention_backward<E, float>(ex, top(da), top(q), keys, values, top(a), top(lse), q_rows, k_rows, o, top(dq),
                                     dkv.view().columns(0, d), dkv.view().columns(d, d));
        linear_backward_weight<E, float>(ex, dkv, x, dwkv.view(), {});
        linear_backward_input<E, float>(ex, dkv, wkv, dx.view());
        linear_backward_weight<E, float>(ex, top(dq), in, dwq.view(), {});
        linear_backward_input<E, float>(ex, top(dq), wq, dL_din, dense ? write::accumulate : write::overwrite);
        if (!dense) scatter_rows<E, float>(ex, dL_din, s, dx.view(), write::accumulate);
    }
};

// T, sequences, share in %, backward, threads
void routed_sub_layer(benchmark::State& state) {
    const index time = state.range(0), sequences = state.range(1), n = time * sequences, d = sub_layer::d;
    const bool back = state.range(3) != 0;
    executor_t ex(static_cast<int>(state.range(4)));
    const row_map map = uniform_rows(ex, sequences, time);
    sub_layer layer(ex, n);
    const selection all = layer.select(1), some = layer.select(static_cast<double>(state.range(2)) / 100);
    const row_map q_rows = select_rows(ex, map, some);
    const double dd = static_cast<double>(d * d), attend = 2.0 * static_cast<double>(d), factor = back ? 3 : 1,
                 scores = back ? 3.5 : 1;
    const double rows = static_cast<double>(n), routed = static_cast<double>(q_rows.rows());
    const double macs = factor * 4 * dd * rows + scores * attend * visible_pairs(map, map);
    const double share = (factor * 2 * dd * (rows + routed) + scores * attend * visible_pairs(q_rows, map)) / macs;
    layer.run(all, map, back);
    std::vector<double> dense_times, routed_times, dense_cpu, routed_cpu;
    for (auto _ : state) {
        const double start = seconds(), cpu_start = processor_seconds();
        layer.run(all, map, back);
        const double middle = seconds(), cpu_middle = processor_seconds();
        layer.run(some, map, back);
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
