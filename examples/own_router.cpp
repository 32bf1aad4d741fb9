// SPDX-License-Identifier: Apache-2.0
// examples/own_router.cpp: a router of your own in one file, in a model that trains
//
// The router: a token whose energy lies above the middle of its spectrum attends, the others are mixed by the DCT.
// Library operators compute it, so it runs on every executor; it reads one token at a time, so the model stays causal.
#include <spectral/cpu.hpp>
#include <spectral/models/chiar_former.hpp>
#include <spectral/train/adamw.hpp>

#include <cstdio>

namespace mine {

using spectral::const_matrix, spectral::index, spectral::matrix_view, spectral::row_index;

template <class Exec, class T>
struct band_router {
    index layer;

    band_router(const spectral::operator_config<Exec, T>& c, const spectral::router_options& o) : layer(c.layer) {
        spectral::check_equal(o.operators, index{2}, "band_router", "number of operators");
    }

    struct saved {};  // nothing: the choice has no gradient

    // route.op[n] = 1 if the upper half of the spectrum of x[n] holds more energy than the lower half, else 0
    void forward(spectral::pass<Exec, T>& p, const_matrix<T> x, spectral::routing<T>& route, saved&) {
        const index n = x.rows(), low = x.width() / 2;
        auto spectrum = p.matrix(n, x.width()), flipped = p.matrix(n, x.width());
        auto balance = p.statistics(n);
        dct_forward(p.ex, x, spectral::dct_norm::ortho, spectrum);
        copy(p.ex, spectrum, flipped);
        add(p.ex, spectrum.columns(0, low), flipped.columns(0, low), -2);  // lower half: sign changed
        row_dot(p.ex, spectrum, flipped,
                matrix_view<spectral::statistic<T>>{balance.data, {n, 1}});  // upper energy − lower energy
        route.op = p.row_indices(n);
        const double zero[] = {0};
        threshold_rows(p.ex, balance, zero, route.op);
        replay_choice(p, layer, route.op);
    }
    void backward(spectral::pass<Exec, T>&, const_matrix<spectral::statistic<T>>, matrix_view<T>, saved&) {}
    template <class F>
    void visit_parameters(F&&, const std::string&) {}
};

// A melody that repeats: each sequence starts somewhere in it, and the next note depends on several before it.
spectral::batch melody(index sequences, std::uint64_t number) {
    constexpr row_index notes[] = {0, 4, 7, 4, 0, 5, 9, 5, 0, 4, 7, 11, 7, 4, 2, 7};
    const spectral::random_stream draw{1, number};
    spectral::batch b;
    for (index s = 0; s < sequences; ++s) {
        const auto start = draw.bits(s);
        for (std::uint32_t t = 0; t < 24; ++t) {
            b.ids.push_back(notes[(start + t) % 16]);
            b.targets.push_back(notes[(start + t + 1) % 16]);
        }
        b.lengths.push_back(24);
    }
    return b;
}

}  // namespace mine

int main() {
    using executor = spectral::cpu::executor;
    using routed = spectral::routed<executor, float, mine::band_router<executor, float>,
                                    spectral::dct_mixer<executor, float>, spectral::self_attention<executor, float>>;
    executor ex;
    spectral::chiar_config config;
    config.vocab_size = 12;
    config.d_model = 32;
    config.n_heads = 2;
    config.max_seq_len = 32;
    config.dropout = 0;
    spectral::chiar_former<executor, float, routed> model{ex, config};
    model.parameters.initialize(1);

    spectral::adamw<executor, float> optimizer(ex, model.parameters);
    spectral::route_trace trace(spectral::route_trace::mode::count);
    model.trace = &trace;
    double first = 0, loss = 0;
    for (std::uint64_t step = 0; step <= 200; ++step) {
        trace.clear_counts();
        model.parameters.zero_gradients();
        loss = model.run(mine::melody(16, step), spectral::phase::training).loss;
        optimizer.step({.learning_rate = 3e-3}, 1.0);
        if (step == 0) first = loss;
        if (step % 40) continue;
        std::printf("step %3d  loss %.3f  attention:", static_cast<int>(step), loss);
        for (const auto& [layer, count] : trace.counts)
            if (!count.routed.empty())
                std::printf("  layer %d %3.0f %%", static_cast<int>(layer),
                            100 * count.routed[1] / (count.routed[0] + count.routed[1]));
        std::printf("\n");
    }

    double rows[2] = {};  // of the last step, by operator
    for (const auto& [layer, count] : trace.counts)
        for (std::size_t o = 0; o < count.routed.size(); ++o) rows[o] += count.routed[o];
    return rows[0] > 0 && rows[1] > 0 && loss < first / 4 ? 0 : 1;
}
