// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/router.hpp: what a router returns, and the routers of this library
//
// A router reads a layer's input and gives every token to one operator (or weights to all). Policies:
//   entropy_threshold  operator = number of thresholds below the token's spectral entropy (ties go down: to DCT);
//                      `permuted` reads the features in a fixed random order: a control that destroys the spectrum
//   learned_gate       s = softmax(W [x; H] + b):  soft    y = Σ s_o operator_o(x)
//                                                  hard    onehot(argmax s), straight-through gradient to s
//                                                  budget  hard, with the last operator's share held to a target
//   random_share       the last operator with a given probability, a function of (seed, layer, position): a control
//   constant_choice    everything to one operator
//   any_router         one of these, chosen at run time from a configuration
// A router of your own needs forward, backward, visit_parameters and `saved`; see examples/own_router.cpp.
#pragma once
#include <spectral/layers/token_operator.hpp>
#include <spectral/ops/elementwise.hpp>
#include <spectral/ops/gate.hpp>
#include <spectral/ops/partition.hpp>
#include <spectral/ops/spectral_entropy.hpp>

#include <optional>
#include <variant>

namespace spectral {

// The policies that a configuration can name.
enum class routing_mode { threshold, hard, soft, budget, random, permuted, attention, dct };
// how a hard choice is trained
enum class estimator { straight_through, selected_only };

// What a router returns: an operator for every row, or weights.
template <class T>
struct routing {
    enum class combine {
        select,  // each row runs its operator
        scale,  // each row runs its operator and is multiplied by weight[n, op[n]]
        sum  // every operator runs on every row: y = Σ_o weight[n, o] operator_o(x)[n]
    } how = combine::select;
    vector_view<row_index> op;  // (N) the chosen operator
    vector_view<statistic<T>> entropy;  // (N), empty if nobody asked
    matrix_view<statistic<T>> weight;  // (N, K), empty for select
};

// What a routed layer tells its router.
struct router_options {
    routing_mode mode = routing_mode::threshold;
    spectral::estimator estimator = estimator::straight_through;
    index operators = 2;
    std::vector<double> thresholds;  // ascending, one fewer than operators
    double target_share = 0.5;  // of the last operator: random, budget
    std::uint64_t random_seed = 0;
    bool collapse_regulariser = false, collapse_detached = false;
    double collapse_lambda = 0.01;
};

// spectral entropy of every row, in the arena
template <executor Exec, class T>
vector_view<statistic<T>> entropy_of(pass<Exec, T>& p, const_matrix<T> x, dct_norm norm) {
    auto h = p.statistics(x.rows());
    spectral_entropy_forward(p.ex, x, norm, h);
    return h;
}

// The shape of every router. forward sets route.op of every row, and route.how and route.weight if it weighs operators;
// backward takes dL_dweight (not called for combine::select) and adds to dL_dx.
template <class Router, class Exec, class T>
concept token_router = requires(Router& r, pass<Exec, T>& p, const_matrix<T> x, routing<T>& route, matrix_view<T> dL_dx,
                                const_matrix<statistic<T>> dL_dweight, typename Router::saved& s,
                                void (*visitor)(const std::string&, parameter<T>&)) {
    r.forward(p, x, route, s);
    r.backward(p, dL_dweight, dL_dx, s);
    r.visit_parameters(visitor, std::string{});
};

// A recorded choice in place of the router's own, where the pass replays a trace (true).
template <executor Exec, class T>
bool replay_choice(pass<Exec, T>& p, index layer, vector_view<row_index> op) {
    if (!p.trace || p.trace->how != route_trace::mode::replay) return false;
    const auto found = p.trace->layers.find(layer);
    check(found != p.trace->layers.end(), "route_trace", "no routes recorded for layer ", layer);
    check_equal(static_cast<index>(found->second.op.size()), op.size(), "route_trace", "recorded rows");
    p.ex.copy_from_host(op.data, found->second.op.data(), found->second.op.size() * sizeof(row_index));
    return true;
}

// op = number of thresholds below the row's spectral entropy H (N); no gradient, no parameters.
template <executor Exec, class T>
struct entropy_threshold {
    operator_config<Exec, T> config;
    std::vector<double> thresholds;
    tensor<Exec, row_index> order;  // feature order of the permuted control; empty otherwise

    entropy_threshold(const operator_config<Exec, T>& c, const router_options& o, Exec* ex = nullptr)
        : config(c), thresholds(o.thresholds) {
        check_equal(static_cast<index>(thresholds.size()), o.operators - 1, "entropy_threshold",
                    "number of thresholds");
        if (o.mode != routing_mode::permuted) return;
        std::vector<row_index> shuffled(static_cast<std::size_t>(c.width));
        const random_stream draw{o.random_seed, stream_of("feature order")};
        for (std::size_t i = 0; i < shuffled.size(); ++i) shuffled[i] = static_cast<row_index>(i);
        for (std::size_t i = shuffled.size(); i > 1; --i) std::swap(shuffled[i - 1], shuffled[draw.bits(i) % i]);
        order = tensor<Exec, row_index>(*ex, {c.width}, shuffled);
    }

    // this, where the choice is by the entropy of x itself, so that an operator may make it while it reads x
    entropy_threshold* plain() { return order.size() ? nullptr : this; }

    struct saved {};
    void forward(pass<Exec, T>& p, const_matrix<T> x, routing<T>& route, saved&) {
        const_matrix<T> seen = x;
        if (order.size()) {
            auto shuffled = p.matrix(x.rows(), x.width());
            permute_columns(p.ex, x, order.view(), shuffled);
            seen = shuffled;
        }
        route.entropy = entropy_of(p, seen, config.dct_norm);
        route.op = p.row_indices(x.rows());
        threshold_rows(p.ex, route.entropy, thresholds, route.op);
        replay_choice(p, config.layer, route.op);
    }
    void backward(pass<Exec, T>&, const_matrix<statistic<T>>, matrix_view<T>, saved&) {}  // a threshold has no gradient
    template <class F>
    void visit_parameters(F&&, const std::string&) {}
};

// The last operator by lot at a given share: the same rows in every batch and on every executor.
template <executor Exec, class T>
struct random_share {
    operator_config<Exec, T> config;
    double share;
    index last;
    random_stream draw;

    random_share(const operator_config<Exec, T>& c, const router_options& o)
        : config(c),
          share(o.target_share),
          last(o.operators - 1),
          draw{o.random_seed, substream(stream_of("random_share"), static_cast<std::uint64_t>(c.layer))} {
        check_equal(o.operators, index{2}, "random_share", "number of operators");
    }
    struct saved {};
    void forward(pass<Exec, T>& p, const_matrix<T> x, routing<T>& route, saved&) {
        route.op = p.row_indices(x.rows());
        random_rows(p.ex, p.rows.position, draw, share, route.op);
        replay_choice(p, config.layer, route.op);
    }
    void backward(pass<Exec, T>&, const_matrix<statistic<T>>, matrix_view<T>, saved&) {}
    template <class F>
    void visit_parameters(F&&, const std::string&) {}
};

// Every row to the first operator (`dct`) or to the last (`attention`).
template <executor Exec, class T>
struct constant_choice {
    index choice;

    constant_choice(const operator_config<Exec, T>&, const router_options& o)
        : choice(o.mode == routing_mode::attention ? o.operators - 1 : 0) {}
    struct saved {};
    void forward(pass<Exec, T>& p, const_matrix<T> x, routing<T>& route, saved&) {
        route.op = p.row_indices(x.rows());
        const std::vector<row_index> all(static_cast<std::size_t>(x.rows()), static_cast<row_index>(choice));
        p.ex.copy_from_host(route.op.data, all.data(), all.size() * sizeof(row_index));
    }
    void backward(pass<Exec, T>&, const_matrix<statistic<T>>, matrix_view<T>, saved&) {}
    template <class F>
    void visit_parameters(F&&, const std::string&) {}
};

// s = softmax(W [x; H] + b): soft, hard and budget routing, with the collapse regulariser.
template <executor Exec, class T>
struct learned_gate {
    parameter<T> weight, bias;  // gate_proj: (K, C + 1), (K)
    parameter<T> multiplier;  // μ of the budget, raised by its own ascent, not by the optimizer
    operator_config<Exec, T> config;
    router_options options;

    learned_gate(const operator_config<Exec, T>& c, const router_options& o)
        : weight({o.operators, c.width + 1}, initializer::normal(0.02)),
          bias({o.operators}, initializer::zeros()),
          config(c),
          options(o) {
        if (o.mode == routing_mode::budget) multiplier = parameter<T>({1}, initializer::zeros());
        multiplier.trainable = false;
    }

    struct saved {
        const_matrix<T> x;
        vector_view<statistic<T>> entropy;
        matrix_view<statistic<T>> s;  // (N, K) softmax
        double pressure = 0;  // budget: d penalty / d share of the last operator
    };

    void forward(pass<Exec, T>& p, const_matrix<T> x, routing<T>& route, saved& s) {
        using combine = typename routing<T>::combine;
        s.x = x;
        route.entropy = s.entropy = entropy_of(p, x, config.dct_norm);
        s.s = p.statistics(x.rows(), options.operators);
        token_gate_forward(p.ex, x, s.entropy, weight.matrix(), bias.vector(), s.s);
        route.op = p.row_indices(x.rows());
        argmax_rows(p.ex, s.s, route.op);
        if (options.mode == routing_mode::soft) {
            route.how = combine::sum;
            route.weight = s.s;
            return;
        }
        replay_choice(p, config.layer, route.op);
        if (options.estimator == estimator::selected_only) {
            route.how = combine::scale;
            route.weight = s.s;
        } else if (p.training()) {  // value onehot, gradient to s through every operator's output
            route.how = combine::sum;
            route.weight = p.statistics(x.rows(), options.operators);
            one_hot_rows(p.ex, route.op, route.weight);
        }
        if (options.mode == routing_mode::budget && p.training()) hold_share(p, route.op, s);
    }

    void backward(pass<Exec, T>& p, const_matrix<statistic<T>> dL_dweight, matrix_view<T> dL_dx, saved& s) {
        arena_scope scratch(p.ex);
        const index n = s.s.rows(), K = s.s.width();
        auto dL_ds = p.statistics(n, K);
        copy(p.ex, dL_dweight, dL_ds);
        if (options.mode == routing_mode::budget && n > 0)
            add_constant(p.ex, dL_ds.columns(K - 1, 1), p.loss_weight * s.pressure / static_cast<double>(n));
        auto dL_dentropy = p.statistics(n);
        token_gate_backward(p.ex, dL_ds, s.s, s.x, s.entropy, weight.matrix(), dL_dx, dL_dentropy,
                            p.gradient_of(weight), p.gradient_vector_of(bias));
        spectral_entropy_backward(p.ex, dL_dentropy, s.x, config.dct_norm, dL_dx);
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        f(prefix + "gate_proj.weight", weight);
        f(prefix + "gate_proj.bias", bias);
        f(prefix + "multiplier", multiplier);
    }

private:
    // The augmented Lagrangian of "share = target": loss += μ (share − t) + c/2 (share − t)², μ ← μ + η (share − t).
    // The quadratic term damps the oscillation of a bare multiplier.
    static constexpr double ascent_rate = 0.01, damping = 1.0;

    void hold_share(pass<Exec, T>& p, vector_view<row_index> op, saved& s) {
        const auto chosen = to_host(p.ex, op);
        s.pressure = 0;
        if (chosen.empty()) return;
        double share = 0;
        for (row_index o : chosen) share += o == options.operators - 1;
        const double off = share / static_cast<double>(chosen.size()) - options.target_share;
        double& mu = multiplier_of(p);
        s.pressure = mu + damping * off;  // of the multiplier that this pass's loss holds
        p.auxiliary_loss += p.loss_weight * (mu * off + damping / 2 * off * off);
        mu += ascent_rate * p.loss_weight * off;
        const T stored = static_cast<T>(static_cast<statistic<T>>(mu));
        p.ex.copy_from_host(multiplier.value.data, &stored, sizeof stored);
        if (!std::is_same_v<T, bfloat16>) mu_.reset();
    }
    // In bfloat16 the multiplier would stand still, its increments being less than half a unit: a copy in double goes on.
    double& multiplier_of(pass<Exec, T>& p) {
        if (!mu_) mu_ = widen<double>(to_host(p.ex, multiplier.value)[0]);
        return *mu_;
    }
    std::optional<double> mu_;
};

// A router chosen by a configuration.
template <executor Exec, class T>
struct any_router {
    using choices = std::variant<entropy_threshold<Exec, T>, learned_gate<Exec, T>, random_share<Exec, T>,
                                 constant_choice<Exec, T>>;
    choices router;

    any_router(Exec& ex, const operator_config<Exec, T>& c, const router_options& o) : router(make(ex, c, o)) {}

    entropy_threshold<Exec, T>* plain() {
        auto* r = std::get_if<entropy_threshold<Exec, T>>(&router);
        return r ? r->plain() : nullptr;
    }

    using saved = typename learned_gate<Exec, T>::saved;  // the others keep nothing
    void forward(pass<Exec, T>& p, const_matrix<T> x, routing<T>& route, saved& s) {
        std::visit([&](auto& r) { with_saved(r, s, [&](auto& its) { r.forward(p, x, route, its); }); }, router);
    }
    void backward(pass<Exec, T>& p, const_matrix<statistic<T>> dL_dweight, matrix_view<T> dL_dx, saved& s) {
        std::visit([&](auto& r) { with_saved(r, s, [&](auto& its) { r.backward(p, dL_dweight, dL_dx, its); }); },
                   router);
    }
    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        std::visit([&](auto& r) { r.visit_parameters(f, prefix); }, router);
    }

private:
    template <class Router, class F>
    static void with_saved(Router&, saved& s, F&& f) {
        if constexpr (std::is_same_v<typename Router::saved, saved>) {
            f(s);
        } else {
            typename Router::saved nothing;
            f(nothing);
        }
    }
    static choices make(Exec& ex, const operator_config<Exec, T>& c, const router_options& o) {
        switch (o.mode) {
            case routing_mode::threshold:
            case routing_mode::permuted: return entropy_threshold<Exec, T>(c, o, &ex);
            case routing_mode::random: return random_share<Exec, T>(c, o);
            case routing_mode::attention:
            case routing_mode::dct: return constant_choice<Exec, T>(c, o);
            default: return learned_gate<Exec, T>(c, o);
        }
    }
};

}  // namespace spectral
