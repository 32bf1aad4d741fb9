// SPDX-License-Identifier: Apache-2.0
// bench/training_cuda.cu: a whole training step (forward, loss, backward, clip, AdamW) on a GPU in bfloat16
//   training_cuda [--model full|chiar] [--batch 32] [--time 256] [--vocab 50304] [--small] [--steps 10] [--share 0.5]
//       [--tune] [--operators] [--recompute] [--fused-bias]
// One JSON line: median milliseconds and tokens/s, of every step milliseconds and how many products it had to choose,
// memory, and for CHIAR the shares of the tokens and of the visible pairs of tokens that attention got. Each threshold is
// set to the quantile of its own layer's entropies that gives the share asked for, as `calibrate` does, and every five
// steps again, between steps that are timed: entropies drift. The shares printed are what they have become by then.
// --recompute: backward computes activations again; --fused-bias: gradients of biases from the products that make the
// weights'.
#include <spectral/cuda.hpp>
#include <spectral/models/chiar_former.hpp>
#include <spectral/models/full_attention.hpp>
#include <spectral/train/adamw.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>

namespace {

using spectral::index;
using T = spectral::bfloat16;
using executor = spectral::cuda::executor;

inline constexpr index steps_calibrated = 5;

struct options {
    bool chiar = false, small = false, operators = false, tune = false, recompute = false, fused_bias = false;
    index batch = 32, time = 256, steps = 10, vocab = 50304;
    double share = 0.5;
};

spectral::batch random_batch(const options& o, std::uint64_t seed) {
    spectral::batch b;
    b.lengths.assign(static_cast<std::size_t>(o.batch), o.time);
    const spectral::random_stream draw{seed, 1};
    for (index i = 0; i < o.batch * o.time; ++i) {
        b.ids.push_back(static_cast<spectral::row_index>(draw.bits(2 * i) % static_cast<std::uint32_t>(o.vocab)));
        b.targets.push_back(
            static_cast<spectral::row_index>(draw.bits(2 * i + 1) % static_cast<std::uint32_t>(o.vocab)));
    }
    return b;
}

// the threshold of every routed layer, one after another: what a layer sees depends on those below
template <class Model>
void calibrate(Model& model, const spectral::batch& b, double share) {
    if constexpr (requires { model.stack.middle; })
        for (std::size_t l = 0; l < model.stack.middle.size(); ++l) {
            spectral::route_trace trace;
            trace.how = spectral::route_trace::mode::record;
            model.trace = &trace;
            model.run(b, spectral::phase::evaluation);
            model.trace = nullptr;
            auto& entropy = trace.layers.at(static_cast<index>(l + 1)).entropy;
            const auto at =
                entropy.begin() + static_cast<std::ptrdiff_t>((1 - share) * static_cast<double>(entropy.size()));
            std::nth_element(entropy.begin(), at, entropy.end());
            std::get<spectral::entropy_threshold<executor, T>>(model.stack.middle[l].mix.router.router).thresholds = {
                *at};
        }
}
// What attention of the routed layers gets: of the tokens, and of the pairs of a query and a key that it sees, which
// depends on where the tokens lie.
struct routed_share {
    double tokens = 0, pairs = 0;
};
template <class Model>
routed_share share_of(Model& model, const options& o, const spectral::batch& b) {
    spectral::route_trace trace;
    model.trace = &trace;
    model.run(b, spectral::phase::evaluation);
    model.trace = nullptr;
    double attention = 0, all = 0, pairs = 0, all_pairs = 0;
    for (const auto& [layer, counts] : trace.counts) {
        if (counts.routed.size() != 2) continue;
        attention += counts.routed[1], all += counts.routed[0] + counts.routed[1];
        pairs += counts.work.attention_pairs;
        all_pairs += static_cast<double>(o.batch) * static_cast<double>(o.time) * static_cast<double>(o.time + 1) / 2;
    }
    return all > 0 ? routed_share{attention / all, pairs / all_pairs} : routed_share{1, 1};
}

// initial values from a pool of draws: hundreds of millions of their own would take longer than the bench
template <class Model>
void fill(Model& model) {
    std::vector<float> pool(1 << 20), host;
    const spectral::random_stream draw{1, 2};
    for (std::size_t i = 0; i < pool.size(); ++i) pool[i] = static_cast<float>(draw.normal(i));
    for (const auto& [name, p] : model.parameters.named()) {
        host.resize(static_cast<std::size_t>(p->size()));
        const auto scale = static_cast<float>(p->init.scale);
        const bool constant = p->init.how == spectral::initializer::kind::constant;
        for (std::size_t i = 0; i < host.size(); ++i)
            host[i] = constant ? scale : scale * pool[(i * 7 + i / pool.size() * 13 + host.size()) & (pool.size() - 1)];
        model.parameters.assign(*p, std::span<const float>(host));
    }
}

template <class Model>
void run(executor& ex, const options& o) {
    auto config = o.small ? spectral::chiar_config::small() : spectral::chiar_config::large();
    config.vocab_size = o.vocab;
    config.max_seq_len = o.time;
    config.dropout = 0;  // as in the programs this is compared with
    config.model_type = o.chiar ? "chiar_former" : "full_attention";
    Model model{ex, config};
    fill(model);
    model.recompute = o.recompute;
    spectral::adamw<executor, T> optimizer{ex, model.parameters};
    const spectral::adamw_options adam{.learning_rate = 1e-4};
    const auto b = random_batch(o, 1);
    double loss = 0;
    const auto step = [&] {
        loss = model.run(b, spectral::phase::training).loss;
        optimizer.step(adam, 1.0);
        model.parameters.forget_gradients();
    };
    for (int i = 0; i < 3; ++i) step();
    calibrate(model, b, o.share);
    step();
    ex.synchronize();
    decltype(ex.allocations()) allocations = 0;  // in steps: the evaluations between them have their own
    std::vector<double> ms;
    std::string shares;  // before and after every five steps: of tokens, of pairs
    routed_share became;  // after them, added up
    index looks = 0;
    const auto look = [&](bool after) {
        const routed_share now = share_of(model, o, b);
        shares += (shares.empty() ? "[" : ", [") + std::to_string(now.tokens) + ", " + std::to_string(now.pairs) + "]";
        if (after) became.tokens += now.tokens, became.pairs += now.pairs, ++looks;
        ex.synchronize();
    };
    look(false);
    std::string each;  // milliseconds of every step, in order, and how many classes of products it had to choose for
    for (index i = 0; i < o.steps; ++i) {
        if (i > 0 && i % steps_calibrated == 0) {
            look(true);
            calibrate(model, b, o.share);
            look(false);
        }
        const auto before = ex.allocations();
        const auto chosen = spectral::cuda::products_chosen(ex).size();
        const auto start = std::chrono::steady_clock::now();
        step();
        ex.synchronize();
        allocations += ex.allocations() - before;
        ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
        each += (i ? ", [" : "[") + std::to_string(ms.back()) + ", " +
                std::to_string(spectral::cuda::products_chosen(ex).size() - chosen) + "]";
    }
    look(true);
    std::sort(ms.begin(), ms.end());
    const double median = ms[ms.size() / 2], tokens = static_cast<double>(o.batch * o.time);
    std::size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    std::printf(
        "{\"model\": \"%s\", \"recompute\": %s, \"fused_bias\": %s, \"tune\": %s, \"vocab\": %lld, \"batch\": %lld, \"time\": %lld, \"ms\": %.3f, \"fastest_ms\": %.3f, \"tokens_per_s\": %.0f, \"loss\": %.4f, "
        "\"attention_share\": %.3f, \"pairs_share\": %.3f, \"gib\": %.2f, \"activations_gib\": %.2f, \"allocations_in_steps\": %lld, \"each_ms_and_choices\": [%s], \"shares_around_five_steps\": [%s], \"device\": \"%s\"}\n",
        o.chiar ? "chiar" : "full_attention", o.recompute ? "true" : "false", o.fused_bias ? "true" : "false",
        o.tune ? "true" : "false", static_cast<long long>(o.vocab), static_cast<long long>(o.batch),
        static_cast<long long>(o.time), median, ms.front(), tokens / median * 1e3, loss,
        became.tokens / static_cast<double>(looks), became.pairs / static_cast<double>(looks),
        static_cast<double>(total - free) / (1u << 30), static_cast<double>(ex.memory().peak()) / (1u << 30),
        static_cast<long long>(allocations), each.c_str(), shares.c_str(), ex.device_name().c_str());
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
        if (is("--model"))
            o.chiar = std::strcmp(next(), "chiar") == 0;
        else if (is("--batch"))
            o.batch = std::atoll(next());
        else if (is("--time"))
            o.time = std::atoll(next());
        else if (is("--vocab"))
            o.vocab = std::atoll(next());
        else if (is("--steps"))
            o.steps = std::atoll(next());
        else if (is("--share"))
            o.share = std::atof(next());
        else if (is("--small"))
            o.small = true;
        else if (is("--tune"))
            o.tune = true;
        else if (is("--operators"))
            o.operators = true;
        else if (is("--recompute"))
            o.recompute = true;
        else if (is("--fused-bias"))
            o.fused_bias = true;
        else
            return std::fprintf(stderr, "training_cuda: unknown option %s\n", arguments[i]), 2;
    }
    try {
        executor ex{{.fused_bias_gradient = o.fused_bias, .tune = o.tune, .timings = o.operators}};
        if (o.chiar)
            run<spectral::chiar_former<executor, T>>(ex, o);
        else
            run<spectral::full_attention<executor, T>>(ex, o);
    } catch (const std::exception& e) {
        return std::fprintf(stderr, "training_cuda: %s\n", e.what()), 1;
    }
}
