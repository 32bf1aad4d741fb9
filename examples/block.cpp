// SPDX-License-Identifier: Apache-2.0
// examples/block.cpp: one routed block forward: which tokens went where, and the work against attention alone
//
// Half of the tokens are slow waves across their features, half are noise. Slow waves have little spectral entropy, so
// the router sends them to the DCT mixer; attention runs for the noisy ones.
#include <spectral/core/random.hpp>
#include <spectral/cpu.hpp>
#include <spectral/layers/block.hpp>
#include <spectral/layers/dct_mixer.hpp>
#include <spectral/layers/entropy_threshold.hpp>
#include <spectral/layers/routed.hpp>
#include <spectral/layers/self_attention.hpp>
#include <spectral/report/flops.hpp>

#include <cstdio>

using executor = spectral::cpu::executor;
using mixer = spectral::routed<executor, float, spectral::entropy_threshold<executor, float>,
                               spectral::dct_mixer<executor, float>, spectral::self_attention<executor, float>>;
using block = spectral::block<executor, float, mixer>;

int main() {
    constexpr spectral::index batch = 4, time = 48, width = 64;
    executor ex;

    // the block and its parameters
    const spectral::operator_config<executor, float> config{.width = width, .heads = 4};
    const spectral::router_options options{.thresholds = {0.6}};
    block layer(config, ex, config, options);
    spectral::parameter_store<executor, float> parameters(ex, layer, spectral::gradients::none);
    parameters.initialize(1);

    // a random batch: token n is noise where `noisy` says so, else a wave of a random phase
    const spectral::random_stream draw{7};
    std::vector<float> tokens;
    std::vector<bool> noisy;
    for (std::uint64_t n = 0; n < batch * time; ++n) {
        noisy.push_back(draw.uniform(n) < 0.5);
        for (std::uint64_t c = 0; c < width; ++c)
            tokens.push_back(static_cast<float>(noisy[n] ? draw.normal(n * width + c)
                                                         : std::sin(0.1 * double(c) + 6 * draw.uniform(n))));
    }
    const spectral::tensor<executor, float, 2> x{ex, {batch * time, width}, tokens}, y{ex, {batch * time, width}};

    // forward; the trace notes what ran
    spectral::route_trace trace;
    spectral::arena_scope scratch(ex);
    spectral::pass<executor, float> pass{.ex = ex, .rows = spectral::uniform_rows(ex, batch, time), .trace = &trace};
    block::saved saved;
    layer.forward(pass, x, y, saved);

    std::printf("one line per sequence: '.' a token that was mixed by the DCT, 'A' one that attended\n");
    int as_expected = 0;
    const auto& op = trace.layers[0].op;
    for (std::size_t n = 0; n < op.size(); ++n) {
        std::printf("%s%c%s", n % time == 0 ? "  " : "", op[n] ? 'A' : '.', n % time == time - 1 ? "\n" : "");
        as_expected += (op[n] == 1) == noisy[n];
    }

    const spectral::chiar_widths widths{.d = width, .feed_forward = 4 * width};
    const auto executed = spectral::layer_macs(widths, trace.counts[0].work);
    const auto dense = spectral::layer_macs(widths, spectral::layer_work::all_attention(batch, time));
    std::printf("\nmultiply-accumulates of this forward pass, and of the same block with attention everywhere\n%s",
                spectral::mac_table(executed, &dense).c_str());
    return as_expected == batch * time && executed.total() < dense.total() ? 0 : 1;
}
