// SPDX-License-Identifier: Apache-2.0
// bench/finetune_cuda.cu: a LoRA training step of Qwen2.5-0.5B's shape, random weights, on a GPU in bfloat16
//   finetune_cuda [--batch 4] [--time 512] [--blocks 24] [--gates] [--dropout 0] [--steps 10] [--tune] [--operators]
//   [--recompute]
// Adapters of rank 8 on q, k, v and o, as in the program this is compared with; --gates adds LayerRoute's skip gates.
// One JSON line: median milliseconds and tokens/s, memory, and the matrix operations that the step asks for: the frozen
// backbone takes two products a weight (forward, and gradients of inputs): at the rate of a bare product, the floor.
//   nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a --expt-relaxed-constexpr --extended-lambda \
//       -Iinclude -Ibackends/cuda bench/finetune_cuda.cu -lcublasLt -lcufft
#include <spectral/cuda.hpp>
#include <spectral/models/qwen2.hpp>
#include <spectral/train/adamw.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>

namespace {

using spectral::index;
using T = spectral::bfloat16;
using executor = spectral::cuda::executor;
using model_t = spectral::qwen2<executor, T>;

struct options {
    bool gates = false, operators = false, tune = false, recompute = false;
    index batch = 4, time = 512, blocks = 24, steps = 10;
    double dropout = 0;
};

spectral::layer_route_model shape(const options& o) {
    spectral::layer_route_model m{.backbone = spectral::qwen2_config::half_billion(), .route = {}};
    m.backbone.num_hidden_layers = o.blocks;
    m.route.lora = spectral::lora_options{.rank = 8, .alpha = 16, .dropout = o.dropout};
    if (o.gates) m.route.gates = spectral::skip_gate_options{};
    return m;
}

// every token predicts the next one of its sequence
spectral::batch random_batch(const options& o, index vocabulary) {
    spectral::batch b;
    b.lengths.assign(static_cast<std::size_t>(o.batch), o.time);
    const spectral::random_stream draw{1, 1};
    for (index i = 0; i < o.batch * o.time; ++i)
        b.ids.push_back(static_cast<spectral::row_index>(draw.bits(i) % static_cast<std::uint32_t>(vocabulary)));
    for (index i = 0; i < o.batch * o.time; ++i)
        b.targets.push_back((i + 1) % o.time ? b.ids[static_cast<std::size_t>(i + 1)] : -1);
    return b;
}

// multiplications and additions of one step: products with frozen weights twice, attention's scores and sums forward
// and 2.5 times that backward; adapters are left out (0.4 %)
double operations(const spectral::qwen2_config& c, index batch, index time) {
    const double C = c.hidden_size, kv = c.num_key_value_heads * c.head_width(), F = c.intermediate_size,
                 rows = batch * time, pairs = 0.5 * time * (time + 1) * batch;
    const double block = 2 * C * C + 2 * C * kv + 3 * C * F;
    return 4 * rows * (c.num_hidden_layers * block + c.vocab_size * C) + 3.5 * 4 * pairs * C * c.num_hidden_layers;
}

// normal draws of the initial size, from a pool: half a billion of their own would take longer than the bench
void fill(model_t& model) {
    std::vector<float> pool(1 << 20);
    const spectral::random_stream draw{1, 2};
    for (std::size_t i = 0; i < pool.size(); ++i) pool[i] = static_cast<float>(0.02 * draw.normal(i));
    model.parameters.initialize(0, true);
    for (const auto& [name, p] : model.parameters.named()) {
        if (p->trainable) continue;
        std::vector<T> host(static_cast<std::size_t>(p->size()));
        for (std::size_t i = 0; i < host.size(); ++i)
            host[i] = p->init.how == spectral::initializer::kind::constant
                          ? T(static_cast<float>(p->init.scale))
                          : T(pool[(i * 7 + i / pool.size() * 13 + host.size()) & (pool.size() - 1)]);
        model.parameters.assign(*p, std::span<const T>(host));
    }
}

void run(executor& ex, const options& o) {
    const auto m = shape(o);
    model_t model{ex, m};
    fill(model);
    model.recompute = o.recompute;
    spectral::adamw<executor, T> optimizer{ex, model.parameters};
    const auto b = random_batch(o, m.backbone.vocab_size);
    double loss = 0;
    const auto step = [&] {
        loss = model.run(b, spectral::phase::training).loss;
        optimizer.step({.learning_rate = 2e-4}, 1.0);
        model.parameters.forget_gradients();
    };
    for (int i = 0; i < 4; ++i) step();
    ex.synchronize();
    const auto allocations = ex.allocations();
    std::vector<double> ms;
    for (index i = 0; i < o.steps; ++i) {
        const auto start = std::chrono::steady_clock::now();
        step();
        ex.synchronize();
        ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    }
    std::sort(ms.begin(), ms.end());
    const double median = ms[ms.size() / 2], tokens = static_cast<double>(o.batch * o.time);
    std::size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    std::printf(
        "{\"model\": \"qwen2.5-0.5b lora\", \"blocks\": %lld, \"gates\": %s, \"recompute\": %s, \"tune\": %s, \"dropout\": %g, \"batch\": %lld, \"time\": %lld, "
        "\"ms\": %.3f, \"fastest_ms\": %.3f, \"tokens_per_s\": %.0f, \"tflop\": %.2f, \"tflop_per_s\": %.0f, \"loss\": %.4f, "
        "\"trained\": %lld, \"gib\": %.2f, \"allocations_in_steps\": %lld, \"device\": \"%s\"}\n",
        static_cast<long long>(o.blocks), o.gates ? "true" : "false", o.recompute ? "true" : "false",
        o.tune ? "true" : "false", o.dropout, static_cast<long long>(o.batch), static_cast<long long>(o.time), median,
        ms.front(), tokens / median * 1e3, operations(m.backbone, o.batch, o.time) / 1e12,
        operations(m.backbone, o.batch, o.time) / median / 1e9, loss,
        static_cast<long long>(model.parameters.masters().size()), static_cast<double>(total - free) / (1u << 30),
        static_cast<long long>(ex.allocations() - allocations), ex.device_name().c_str());
    if (!o.operators) return;
    ex.time_by_operator();
    for (int i = 0; i < 3; ++i) step();
    std::vector<std::pair<double, std::string>> rows;
    for (const auto& [what, t] : ex.time_by_operator())
        rows.push_back({t.first / 3, what + ", " + std::to_string(t.second / 3) + " kernels"});
    std::sort(rows.rbegin(), rows.rend());
    for (const auto& [time, what] : rows) std::printf("  %8.3f ms  %s\n", time, what.c_str());
}

}  // namespace

int main(int count, char** arguments) {
    options o;
    for (int i = 1; i < count; ++i) {
        const auto is = [&](const char* name) { return std::strcmp(arguments[i], name) == 0; };
        const auto next = [&] { return i + 1 < count ? arguments[++i] : "0"; };
        if (is("--batch"))
            o.batch = std::atoll(next());
        else if (is("--time"))
            o.time = std::atoll(next());
        else if (is("--blocks"))
            o.blocks = std::atoll(next());
        else if (is("--steps"))
            o.steps = std::atoll(next());
        else if (is("--dropout"))
            o.dropout = std::atof(next());
        else if (is("--gates"))
            o.gates = true;
        else if (is("--tune"))
            o.tune = true;
        else if (is("--operators"))
            o.operators = true;
        else if (is("--recompute"))
            o.recompute = true;
        else
            return std::fprintf(stderr, "finetune_cuda: unknown option %s\n", arguments[i]), 2;
    }
    try {
        executor ex{{.tune = o.tune, .timings = o.operators}};
        run(ex, o);
    } catch (const std::exception& e) {
        return std::fprintf(stderr, "finetune_cuda: %s\n", e.what()), 1;
    }
}
