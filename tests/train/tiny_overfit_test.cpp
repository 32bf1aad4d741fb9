// SPDX-License-Identifier: Apache-2.0
// tests/train/tiny_overfit_test.cpp: a tiny model learns one batch by heart, however it routes; the budget holds its
// share
#include <spectral/models/chiar_former.hpp>
#include <spectral/train/adamw.hpp>
#include <support/operator_test.hpp>

namespace spectral::test {

namespace {
chiar_config overfit_config(routing_mode m, estimator e = estimator::straight_through) {
    chiar_config c;
    c.vocab_size = 50;
    c.d_model = 32;
    c.n_heads = 2;
    c.n_layers = 3;
    c.max_seq_len = 16;
    c.dropout = 0;
    c.routing_mode = m;
    c.estimator = e;
    c.tau_low = c.tau_high = 0.81;  // about the median entropy of 32 normal values
    return c;
}

// Mostly a function of the id before. First ids differ, so that every target has a prefix of its own: no nats need
// remain.
batch task_batch(std::uint64_t seed, const std::vector<index>& lengths) {
    batch b;
    b.lengths = lengths;
    const random_stream draw{31, seed};
    std::uint64_t n = 0;
    row_index first = static_cast<row_index>(seed % 50);
    for (index length : lengths) {
        row_index id = first = (first + 6) % 50;
        for (index t = 0; t < length; ++t) {
            b.ids.push_back(id);
            id = static_cast<row_index>(draw.bits(n++) % 3 ? (id * 7 + 3) % 50 : (id * 11 + t) % 50);
            b.targets.push_back(id);
        }
    }
    return b;
}

// the fastest target of float, one thread
#if SPECTRAL_TEST_CPU
using trained = std::tuple<target<cpu::executor, float, 1>>;
#else
using trained = std::tuple<target<reference::executor, float>>;
#endif
}  // namespace

TEMPLATE_LIST_TEST_CASE("overfit: one batch by heart", "[train][overfit]", trained) {
    using Exec = typename TestType::executor;
    const std::pair<routing_mode, estimator> cases[] = {
        {routing_mode::threshold, estimator::straight_through}, {routing_mode::soft, estimator::straight_through},
        {routing_mode::hard, estimator::straight_through},      {routing_mode::hard, estimator::selected_only},
        {routing_mode::budget, estimator::straight_through},    {routing_mode::budget, estimator::selected_only},
        {routing_mode::random, estimator::straight_through}};
    auto& ex = TestType::instance();
    const batch b = task_batch(1, {12, 7, 16});
    for (const auto& [mode, e] : cases) {
        chiar_former<Exec, float> model{ex, overfit_config(mode, e)};
        model.parameters.initialize(1);
        adamw<Exec, float> optimizer(ex, model.parameters);
        route_trace trace;
        trace.how = route_trace::mode::count;
        double first = 0, nats = 0;
        for (int step = 0; step < 120; ++step) {
            model.step = static_cast<std::uint64_t>(step);
            model.parameters.zero_gradients();
            trace.clear_counts();
            model.trace = &trace;
            const auto r = model.run(b, phase::training);
            nats = r.nats / static_cast<double>(r.targets);
            if (step == 0) first = nats;
            optimizer.step({.learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0}, 1.0);
        }
        INFO("mode " << static_cast<int>(mode) << ", estimator " << static_cast<int>(e) << ": " << nats
                     << " nats a token");
        CHECK(std::abs(first - std::log(50.0)) < 0.5);  // knows nothing at first
        CHECK(nats < 0.02);
        const auto r = model.run(b, phase::evaluation);  // without dropout the same function, but for random ties
        CHECK(r.nats / static_cast<double>(r.targets) < 0.03);
        const auto& routed = trace.counts.at(1).routed;
        if (mode == routing_mode::threshold || mode == routing_mode::random) CHECK(std::min(routed[0], routed[1]) > 0);
    }
}

// New batches all the time: the share of attention settles at the target, whatever it is, and stays.
TEMPLATE_LIST_TEST_CASE("budget: the share settles at its target", "[train][overfit]", trained) {
    using Exec = typename TestType::executor;
    auto& ex = TestType::instance();
#if SPECTRAL_TEST_SANITIZED
    const std::vector<double> target_shares{0.25};  // the same code for each, and a minute for each
#else
    const std::vector<double> target_shares{0.25, 0.5, 0.75};
#endif
    for (estimator e : {estimator::straight_through, estimator::selected_only})
        for (double target_share : target_shares) {
            auto c = overfit_config(routing_mode::budget, e);
            c.target_share = target_share;
            chiar_former<Exec, float> model{ex, c};
            model.parameters.initialize(2);
            adamw<Exec, float> optimizer(ex, model.parameters);
            route_trace trace;
            trace.how = route_trace::mode::count;
            model.trace = &trace;
            std::vector<double> shares;
            const std::vector<index> lengths(8, 16);
            for (std::uint64_t step = 0; step < 400; ++step) {
                model.step = step;
                model.parameters.zero_gradients();
                trace.clear_counts();
                model.run(task_batch(100 + step, lengths), phase::training);
                const auto& routed = trace.counts.at(1).routed;
                shares.push_back(routed[1] / (routed[0] + routed[1]));
                optimizer.step({.learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.01},
                               1.0);
            }
            double mean = 0, off = 0;
            for (std::size_t i = shares.size() - 100; i < shares.size(); ++i) {
                mean += shares[i] / 100;
                off = std::max(off, std::abs(shares[i] - target_share));
            }
            INFO("estimator " << static_cast<int>(e) << ", target " << target_share << ": mean share " << mean
                              << ", worst " << off);
            CHECK(std::abs(mean - target_share) < 0.05);
            CHECK(off < 0.2);  // of a batch of 128 tokens: chance alone gives 0.13 at three standard deviations
        }
}

}  // namespace spectral::test
