// SPDX-License-Identifier: Apache-2.0
// examples/own_operator.cpp: an operator of your own in one file: its gradient, the check of it, a model that trains
//
// The operator: y[n] = LN(x[n] + w ⊙ x[n−1]), a token meets the one before it.
// The task: sequences of digits where each is the sum of the two before it, modulo 10.
#include <spectral/cpu.hpp>
#include <spectral/models/chiar_former.hpp>
#include <spectral/models/generate.hpp>
#include <spectral/train/adamw.hpp>
#include <spectral/train/gradient_check.hpp>

#include <cstdio>

namespace mine {

using executor = spectral::cpu::executor;
using spectral::const_matrix, spectral::index, spectral::matrix_view, spectral::row_index;

// ---- the operator. Its loops read memory that the host can read; library operators would run on any executor. ----
template <class T>
struct token_shift {
    static constexpr const char* name = "shift";  // of its parameters in files
    spectral::parameter<T> w;
    spectral::layer_norm<executor, T> norm;
    index layer;

    explicit token_shift(const spectral::operator_config<executor, T>& c)
        : w({c.width}, spectral::initializer::constant(0.5)), norm(c.width), layer(c.layer) {}

    struct saved {  // what backward reads
        const_matrix<T> x;
        spectral::selection rows;
        typename spectral::layer_norm<executor, T>::saved norm;
    };

    // y of the selected rows, and of no other
    void forward(spectral::pass<executor, T>& p, const_matrix<T> x, const spectral::selection& rows, matrix_view<T> y,
                 saved& s) {
        const index n = selected_rows(p.ex, rows), width = x.width();
        s = {x, rows, {}};
        const_matrix<T> seen = x;
        spectral::row_map map = p.rows;
        if (p.decode) {  // generation: the row before may belong to an earlier call
            auto cache = p.decode->features[static_cast<std::size_t>(layer)].view();
            kv_append<executor, T>(p.ex, x, x, p.rows, cache);
            seen = cache.k;
            map = cache.map();
        }
        auto own = p.matrix(n, width), shifted = p.matrix(n, width), out = p.matrix(n, width);
        gather_rows(p.ex, x, rows, own);
        for (index i = 0; i < n; ++i) {
            const index b = before(p.rows, rows.row(i), map);
            for (index c = 0; c < width; ++c) shifted(i, c) = b < 0 ? T(0) : w.vector()[c] * seen(b, c);
        }
        norm.forward_add(p, own, shifted, out, s.norm);
        scatter_rows<executor, T>(p.ex, out, rows, y, spectral::write::overwrite);
    }

    // reads the selected rows of dL_dy; adds to dL_dx and to the parameters' gradients
    void backward(spectral::pass<executor, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s) {
        spectral::arena_scope scratch(p.ex);
        const index n = selected_rows(p.ex, s.rows), width = dL_dy.width();
        auto dL_dout = p.matrix(n, width), dL_dsum = p.matrix(n, width);
        gather_rows(p.ex, dL_dy, s.rows, dL_dout);
        norm.backward(p, dL_dout, dL_dsum, s.norm);
        scatter_rows<executor, T>(p.ex, dL_dsum, s.rows, dL_dx, spectral::write::accumulate);
        for (index i = 0; i < n; ++i) {
            const index b = before(p.rows, s.rows.row(i), p.rows);
            if (b < 0) continue;
            for (index c = 0; c < width; ++c) {
                dL_dx(b, c) += w.vector()[c] * dL_dsum(i, c);
                w.grad_vector()[c] += s.x(b, c) * dL_dsum(i, c);
            }
        }
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        f(prefix + "w", w);
        norm.visit_parameters(f, prefix + "norm.");
    }

    // generation keeps every row of x
    index cache_width() const { return w.size(); }
    static constexpr auto cache = &spectral::decode_state<executor, T>::features;

private:
    // where `map` keeps the row before row n of this call; -1 at the start of a sequence
    static index before(const spectral::row_map& call, index n, const spectral::row_map& map) {
        const row_index s = call.sequence[n];
        const index b = map.end[s] - (call.end[s] - n) - 1;
        return b < map.begin[s] ? -1 : b;
    }
};

// ---- a model with it: one more template argument ----
template <class T>
using shift_or_attention = spectral::routed<executor, T, spectral::entropy_threshold<executor, T>, token_shift<T>,
                                            spectral::self_attention<executor, T>>;
template <class T>
using model = spectral::chiar_former<executor, T, shift_or_attention<T>>;

spectral::chiar_config config(index width) {
    spectral::chiar_config c;
    c.vocab_size = 10;
    c.d_model = width;
    c.n_heads = 2;
    c.n_layers = 3;  // token_shift, routed, attention
    c.max_seq_len = 16;
    c.dropout = 0;
    c.tau = {0.8};
    c.use_meta_router = false;
    return c;
}

// Sequences of 12 digits from random beginnings; the second digit cannot be known and is no target.
spectral::batch digits(index sequences, std::uint64_t number) {
    spectral::batch b;
    const spectral::random_stream draw{1, number};
    for (index s = 0; s < sequences; ++s) {
        row_index last = draw.bits(2 * s) % 10, now = draw.bits(2 * s + 1) % 10;
        for (index t = 0; t < 12; ++t) {
            b.ids.push_back(last);
            b.targets.push_back(t == 0 ? -1 : now);
            last = std::exchange(now, (last + now) % 10);
        }
        b.lengths.push_back(12);
    }
    return b;
}

// The worst of all gradients of a small model, in double. Recorded routes are replayed, so that no difference jumps.
spectral::gradient_check_result check_gradients() {
    executor ex{1};
    model<double> m{ex, config(8)};
    m.parameters.initialize(1);
    m.parameters.zero_gradients();
    spectral::route_trace routes;
    m.trace = &routes;
    const auto b = digits(2, 0);
    m.run(b, spectral::phase::training);
    routes.how = spectral::route_trace::mode::replay;
    return check_parameter_gradients(ex, m.parameters, [&] { return m.run(b, spectral::phase::evaluation).loss; },
                                     {.most = 16});
}

}  // namespace mine

int main() {
    const auto worst = mine::check_gradients();
    std::printf("gradients: worst of %lld elements is off by %.1e (%s)\n", static_cast<long long>(worst.checked),
                worst.error, worst.name.c_str());

    mine::executor ex;
    mine::model<float> model{ex, mine::config(32)};
    model.parameters.initialize(1);
    spectral::adamw<mine::executor, float> optimizer(ex, model.parameters);
    double loss = 0;
    for (std::uint64_t step = 0; step <= 300; ++step) {
        model.parameters.zero_gradients();
        loss = model.run(mine::digits(32, step), spectral::phase::training).loss;
        optimizer.step({.learning_rate = 3e-3}, 1.0);
        if (step % 60 == 0) std::printf("step %3d  loss %.3f (chance: 2.303)\n", static_cast<int>(step), loss);
    }

    const std::vector<spectral::row_index> expected{5, 8, 3, 1, 4, 5, 9, 4};
    const auto answer = spectral::generate(model, {{2, 3}}, {.max_new_tokens = 8, .sampling = {.temperature = 0}})[0];
    std::printf("2 3 |");
    for (auto digit : answer) std::printf(" %d", digit);
    std::printf(answer == expected ? "   (right)\n" : "   (wrong)\n");
    return worst.error < 1e-6 && loss < 0.3 && answer == expected ? 0 : 1;
}
