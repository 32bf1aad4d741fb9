// SPDX-License-Identifier: Apache-2.0
// examples/model.cpp: a whole CHIAR-Former of the published small shape, and its logits
#include <spectral/cpu.hpp>
#include <spectral/models/chiar_former.hpp>

#include <cstdio>

using executor = spectral::cpu::executor;  // the one word that says who computes

int main() {
    executor ex;
    spectral::chiar_config config = spectral::chiar_config::small();
    config.routing_mode = spectral::routing_mode::threshold;
    spectral::chiar_former<executor, float> model{ex, config};
    model.parameters.initialize(1);

    const std::vector<spectral::row_index> ids(2 * 16, 7);  // two sequences of 16 tokens
    auto logits = model.forward(ids, 2);  // ids (B·T) -> (B, T, V)

    std::printf("%lld parameters, logits (%lld, %lld, %lld)\n", static_cast<long long>(count_parameters(model)),
                static_cast<long long>(logits.shape[0]), static_cast<long long>(logits.shape[1]),
                static_cast<long long>(logits.shape[2]));
    return logits.shape[2] == config.vocab_size ? 0 : 1;
}
