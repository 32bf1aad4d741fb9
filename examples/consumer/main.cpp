// SPDX-License-Identifier: Apache-2.0
// examples/consumer/main.cpp: a routed model in a program of your own: trained on a melody, then looked at
#include <spectral/cpu.hpp>
#include <spectral/models/chiar_former.hpp>
#include <spectral/report/flops.hpp>
#include <spectral/train/adamw.hpp>

#include <cstdio>

// A melody that repeats: each sequence starts somewhere in it, and the next note depends on several before it.
spectral::batch melody(spectral::index sequences, std::uint64_t number) {
    constexpr spectral::row_index notes[] = {0, 4, 7, 4, 0, 5, 9, 5, 0, 4, 7, 11, 7, 4, 2, 7};
    const spectral::random_stream draw{1, number};
    spectral::batch b;
    for (spectral::index s = 0; s < sequences; ++s) {
        const auto start = draw.bits(s);
        for (std::uint32_t t = 0; t < 24; ++t) {
            b.ids.push_back(notes[(start + t) % 16]);
            b.targets.push_back(notes[(start + t + 1) % 16]);
        }
        b.lengths.push_back(24);
    }
    return b;
}

int main() {
    // the model: DCT mixing, two routed layers, attention
    using executor = spectral::cpu::executor;
    executor ex{1};  // one thread: a model of this size keeps no more busy
    spectral::chiar_config config;
    config.vocab_size = 12;
    config.d_model = 32;
    config.n_heads = 2;
    config.n_layers = 4;
    config.max_seq_len = 32;
    config.dropout = 0;
    config.tau = {0.8};  // tokens above this spectral entropy attend, the others are mixed by the DCT
    config.meta_pool = spectral::meta_pool::causal;
    spectral::chiar_former<executor, float> model{ex, config};
    model.parameters.initialize(1);

    // training
    spectral::adamw<executor, float> optimizer(ex, model.parameters);
    double loss = 0;
    for (std::uint64_t step = 0; step <= 150; ++step) {
        model.parameters.zero_gradients();
        loss = model.run(melody(16, step), spectral::phase::training).loss;
        optimizer.step({.learning_rate = 3e-3}, 1.0);  // clipped to norm 1
        if (step % 50 == 0) std::printf("step %3d  loss %.3f (chance: 2.485)\n", static_cast<int>(step), loss);
    }

    // what ran for one more batch: the route of every token, and the work
    spectral::route_trace trace;
    model.trace = &trace;
    model.run(melody(1, 1000), spectral::phase::evaluation);
    bool both = false;
    for (const auto& [layer, routes] : trace.layers) {
        std::printf("layer %d  ", static_cast<int>(layer));
        int attended = 0;
        for (auto op : routes.op) {
            std::putchar(op ? 'A' : '.');
            attended += op;
        }
        std::printf("  %d of %d tokens attended\n", attended, static_cast<int>(routes.op.size()));
        both = both || (attended > 0 && attended < static_cast<int>(routes.op.size()));
    }
    const spectral::chiar_widths widths{.d = 32, .feed_forward = 128};
    double executed = 0;
    for (const auto& [layer, count] : trace.counts) executed += layer_macs(widths, count.work).total();
    const double dense = 4 * layer_macs(widths, spectral::layer_work::all_attention(1, 24)).total();
    std::printf("multiply-accumulates in the layers: %.0f %% of attention everywhere\n", 100 * executed / dense);
    return loss < 0.6 && both ? 0 : 1;
}
