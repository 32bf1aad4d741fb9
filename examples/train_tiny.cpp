// SPDX-License-Identifier: Apache-2.0
// examples/train_tiny.cpp: a tiny CHIAR-Former trained on bytes in a loop of your own, and a line that it writes
#include <spectral/cpu.hpp>
#include <spectral/models/chiar_former.hpp>
#include <spectral/models/generate.hpp>
#include <spectral/train/adamw.hpp>
#include <spectral/train/schedule.hpp>

#include <cstdio>
#include <string_view>

constexpr std::string_view text =
    "light falls on the wall and the wall gives it back. shadow falls beside it and gives nothing.\n"
    "the painter looks at both. where the light is plain she paints it with one broad stroke.\n"
    "where the shadow is deep she stays, and looks again, and takes the small brush.\n"
    "most of the wall is plain. most of the evening goes to the corner where it is not.\n";

// Four pieces of the text from random beginnings; the target of a byte is the next one.
spectral::batch random_batch(spectral::index step) {
    constexpr std::size_t pieces = 4, length = 64;
    const spectral::random_stream draw{1, static_cast<std::uint64_t>(step)};
    spectral::batch b;
    for (std::size_t i = 0; i < pieces; ++i) {
        const auto piece = text.substr(draw.bits(i) % (text.size() - length), length + 1);
        b.ids.insert(b.ids.end(), piece.begin(), piece.end() - 1);
        b.targets.insert(b.targets.end(), piece.begin() + 1, piece.end());
        b.lengths.push_back(length);
    }
    return b;
}

int main() {
    using executor = spectral::cpu::executor;
    executor ex;

    spectral::chiar_config config;
    config.vocab_size = 128;  // ASCII
    config.d_model = 64;
    config.max_seq_len = 96;
    config.dropout = 0;
    config.tau = {0.8};  // tokens above this spectral entropy attend
    config.meta_pool = spectral::meta_pool::causal;
    spectral::chiar_former<executor, float> model{ex, config};
    model.parameters.initialize(1);
    std::printf("%lld parameters, %zu bytes of text\n", static_cast<long long>(count_parameters(model)), text.size());

    const spectral::learning_rate_schedule rate{.peak = 3e-3, .last = 1e-4, .warmup = 20, .steps = 300};
    spectral::adamw<executor, float> optimizer(ex, model.parameters);

    double first = 0, last = 0;
    for (spectral::index step = 0; step < rate.steps; ++step) {
        model.parameters.zero_gradients();
        last = model.run(random_batch(step), spectral::phase::training).loss;  // loss, and gradients
        optimizer.step({.learning_rate = rate.at(step)}, 1.0);  // clipped to norm 1
        if (step == 0) first = last;
        if (step % 50 == 0 || step + 1 == rate.steps)
            std::printf("step %3lld  loss %.3f\n", static_cast<long long>(step), last);
    }

    const std::string_view prompt = "the painter ";
    std::printf("%.*s|", static_cast<int>(prompt.size()), prompt.data());
    spectral::generate(model, {{prompt.begin(), prompt.end()}}, {.max_new_tokens = 70, .sampling = {.temperature = 0}},
                       [](spectral::index, spectral::row_index byte) { return std::putchar(byte) != '\n'; });
    std::printf("\n");
    return last < first / 4 ? 0 : 1;
}
