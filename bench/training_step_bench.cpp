// SPDX-License-Identifier: Apache-2.0
// bench/training_step_bench.cpp: a whole training step of the small model against Eigen's matrix products alone
//
// For each model and number of threads: tokens/s of forward, loss, backward, clipping and AdamW, and
//   of_eigen = time that Eigen alone needs for the step's matrix products on the same shapes / time of the step
// measured in turns in one process, medians. Attention's products are counted on visible pairs only. After the second
// step the executor must not allocate.
//   training_step_bench [batch 32] [time 256] [vocabulary 8192]      prints one JSON object per line
#include "processor.hpp"
#include "timing.hpp"

#include <spectral/cpu.hpp>
#include <spectral/models/chiar_former.hpp>
#include <spectral/models/full_attention.hpp>
#include <spectral/report/flops.hpp>
#include <spectral/train/adamw.hpp>

#include <Eigen/Core>

#include <chrono>
#include <cstdio>
#include <cstdlib>

namespace spectral::bench {
namespace {

using executor_t = cpu::executor;
using rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Eigen's seconds for y = x Wᵀ and its two gradients: (n, in) -> (n, out)
double eigen_linear(index n, index in, index out) {
    // kept: no page is touched for the first time
    static std::map<std::array<index, 3>, std::array<rows, 5>> operands;
    auto& [x, w, y, dx, dw] = operands[{n, in, out}];
    if (x.size() == 0) x = rows::Random(n, in), w = rows::Random(out, in), y = rows::Random(n, out), dx = x, dw = w;
    const double start = seconds();
    y.noalias() = x * w.transpose();
    dx.noalias() = y * w;
    dw.noalias() = y.transpose() * x;
    return seconds() - start;
}

// Eigen's seconds for the products of attention on `pairs` visible pairs of width d: 2 forward, 4 backward (scores are
// not counted twice), from its rate on square tiles
double eigen_attention(index time, index width, double pairs) {
    const rows q = rows::Random(time, width), k = rows::Random(time, width);
    rows s(time, time);
    const double start = seconds();
    for (int i = 0; i < 8; ++i) s.noalias() = q * k.transpose();
    const double rate = 8.0 * static_cast<double>(time * time) * static_cast<double>(width) / (seconds() - start);
    return 6 * pairs * static_cast<double>(width) / rate;
}

struct shape {
    index batch, time, vocabulary;
};

// one optimizer step; the mean loss
template <class Model>
double step(Model& model, adamw<executor_t, float>& optimizer, const batch& b) {
    model.parameters.forget_gradients();
    const double loss = model.run(b, phase::training).loss;
    optimizer.step({}, 1.0);
    return loss;
}

template <class Model>
void measure(const char* name, chiar_config config, const shape& s, int threads, int repeats) {
    executor_t ex(threads);
    Eigen::setNbThreads(threads);
    Model model{ex, config};
    model.parameters.initialize(1);
    adamw<executor_t, float> optimizer(ex, model.parameters);
    batch b;
    b.lengths.assign(static_cast<std::size_t>(s.batch), s.time);
    const random_stream draw{7, 7};
    for (index i = 0; i < s.batch * s.time; ++i) {
        b.ids.push_back(static_cast<row_index>(draw.bits(static_cast<std::uint64_t>(2 * i)) %
                                               static_cast<std::uint32_t>(s.vocabulary)));
        b.targets.push_back(static_cast<row_index>(draw.bits(static_cast<std::uint64_t>(2 * i + 1)) %
                                                   static_cast<std::uint32_t>(s.vocabulary)));
    }
    route_trace trace(route_trace::mode::count);
    model.trace = &trace;
    step(model, optimizer, b);  // the arena grows, plans are made
    model.trace = nullptr;
    step(model, optimizer, b);
    const auto allocations = ex.allocations();

    const index n = s.batch * s.time, d = config.d_model;
    std::vector<double> ours, eigen;
    double share = 0, routed_layers = 0;
    for (int r = 0; r < repeats; ++r) {
        double start = seconds();
        step(model, optimizer, b);
        ours.push_back(seconds() - start);
        double products = eigen_linear(n, d, s.vocabulary);
        share = routed_layers = 0;
        for (const auto& [layer, count] : trace.counts) {
            const layer_work& w = count.work;
            products += eigen_linear(n, d, 4 * d) + eigen_linear(n, 4 * d, d);
            if (w.attention_rows)
                products += 2 * eigen_linear(w.attention_rows, d, d) + eigen_linear(w.key_rows, d, 2 * d);
            products +=
                eigen_attention(s.time, d / config.n_heads, w.attention_pairs * static_cast<double>(config.n_heads));
            if (!count.routed.empty()) share += count.routed.back() / static_cast<double>(n), ++routed_layers;
        }
        eigen.push_back(products);
    }
    check(ex.allocations() == allocations, "training_step_bench", "the executor allocated after the second step");
    const double t = median(ours);
    std::printf(
        "{\"model\": \"%s\", \"threads\": %d, \"batch\": %lld, \"time\": %lld, \"vocabulary\": %lld, "
        "\"attention_share\": %.3f, \"ms\": %.1f, \"tokens_per_s\": %.0f, \"eigen_ms\": %.1f, \"of_eigen\": %.3f, \"processor\": \"%s\"}\n",
        name, threads, static_cast<long long>(s.batch), static_cast<long long>(s.time),
        static_cast<long long>(s.vocabulary), routed_layers ? share / routed_layers : 1.0, 1e3 * t,
        static_cast<double>(n) / t, 1e3 * median(eigen), median(eigen) / t, processor().c_str());
    std::fflush(stdout);
}

}  // namespace
}  // namespace spectral::bench

int main(int argc, char** argv) {
    using namespace spectral;
    const auto argument = [&](int i, spectral::index otherwise) { return argc > i ? std::atoll(argv[i]) : otherwise; };
    const bench::shape s{argument(1, 32), argument(2, 256), argument(3, 8192)};
    chiar_config c = chiar_config::small();
    c.vocab_size = s.vocabulary;
    c.max_seq_len = s.time;
    c.routing_mode = routing_mode::random;
    c.target_share = 0.5;
    for (int threads : {1, 2}) {
        bench::measure<full_attention<cpu::executor, float>>("full_attention", c, s, threads, 7);
        bench::measure<chiar_former<cpu::executor, float>>("chiar_former", c, s, threads, 7);
    }
}
