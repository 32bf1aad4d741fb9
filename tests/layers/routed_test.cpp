// SPDX-License-Identifier: Apache-2.0
// tests/layers/routed_test.cpp: every routing mode, both estimators, two and three operators: what runs, and its
// gradients
//
// A hard choice is a kink, so gradients are held against finite differences of the function they are defined as:
//   chosen operator alone (threshold, random, ...)   the layer itself, with its routes replayed
//   selected_only       p_chosen operator_chosen     the layer itself, with its routes replayed
//   soft                Σ s_o operator_o             the layer itself
//   straight_through    Σ (onehot_o + s_o − s_o(x0)) operator_o, onehot and s(x0) held fixed: written out below
// The budget's pressure and the regulariser's slope at one-hot gates enter that last surrogate as linear terms in s.
#include <spectral/layers/any_router.hpp>
#include <spectral/layers/dct_mixer.hpp>
#include <spectral/layers/identity_mixer.hpp>
#include <spectral/layers/rbf_mixer.hpp>
#include <spectral/layers/routed.hpp>
#include <spectral/layers/self_attention.hpp>
#include "layer_test.hpp"

namespace spectral::test::routed_test {

namespace {
template <class Exec, class T>
using two = routed<Exec, T, any_router<Exec, T>, dct_mixer<Exec, T>, self_attention<Exec, T>>;
template <class Exec, class T>
using control = routed<Exec, T, any_router<Exec, T>, identity_mixer<Exec, T>, self_attention<Exec, T>>;
template <class Exec, class T>
using three = routed<Exec, T, any_router<Exec, T>, dct_mixer<Exec, T>, rbf_mixer<Exec, T>, self_attention<Exec, T>>;

constexpr index count_of(auto&& layer) { return static_cast<index>(std::remove_reference_t<decltype(layer)>::count); }

// Thresholds inside the range of the entropies of normal values of width 8; rows land on every side.
router_options options_of(routing_mode mode, index operators, estimator e = estimator::straight_through) {
    return {.mode = mode,
            .estimator = e,
            .operators = operators,
            .thresholds = operators == 2 ? std::vector<double>{0.75} : std::vector<double>{0.70, 0.80},
            .target_share = 0.4,
            .random_seed = 9};
}

std::string describe(const router_options& o) {
    static const char* modes[] = {"threshold", "hard", "soft", "budget", "random", "permuted", "attention", "dct"};
    return std::string(modes[static_cast<int>(o.mode)]) +
           (o.estimator == estimator::selected_only ? ", selected_only" : "") + ", " + std::to_string(o.operators) +
           " operators" +
           (o.collapse_regulariser ? o.collapse_detached ? ", regularised (detached)" : ", regularised" : "");
}

// every combination of router, estimator and phase
std::vector<router_options> all_options(index operators) {
    std::vector<router_options> out;
    for (routing_mode m : {routing_mode::threshold, routing_mode::permuted, routing_mode::attention, routing_mode::dct,
                           routing_mode::random, routing_mode::soft, routing_mode::hard, routing_mode::budget}) {
        if (m == routing_mode::random && operators != 2) continue;
        out.push_back(options_of(m, operators));
        if (m == routing_mode::hard || m == routing_mode::budget)
            out.push_back(options_of(m, operators, estimator::selected_only));
    }
    return out;
}

template <class Layer>
using rig_of = layer_rig<oracle, Layer>;

// The learned gate of a rig's layer, if it has one.
template <class Rig>
auto* gate_of(Rig& rig) {
    return std::get_if<learned_gate<typename Rig::executor, typename Rig::T>>(&rig.layer.router.router);
}
// Every pass starts from this multiplier: a pass of the budget raises it.
template <class Rig>
void hold_multiplier(Rig& rig, double mu) {
    rig.before = [&rig, mu] {
        if (auto* gate = gate_of(rig); gate && gate->multiplier.used()) rig.put(gate->multiplier.value, {mu});
    };
}

struct soft_choice {
    std::vector<double> s;  // (N, K)
    std::vector<row_index> op;  // its largest
};
// softmax(W [x; H] + b) as the layer's gate computes it, and the values of every operator on every row
template <class Rig>
soft_choice choice_of(Rig& rig) {
    using Exec = typename Rig::executor;
    arena_scope scratch(rig.ex);
    pass<Exec, double> p{.ex = rig.ex, .rows = pack_rows(rig.ex, std::span<const index>(rig.c.lengths))};
    auto* gate = gate_of(rig);
    auto entropy = p.statistics(rig.c.rows());
    spectral_entropy_forward<Exec, double>(rig.ex, rig.x.view(), rig.c.norm, entropy);
    auto s = p.statistics(rig.c.rows(), count_of(rig.layer));
    token_gate_forward<Exec, double>(rig.ex, rig.x.view(), entropy, gate->weight.matrix(), gate->bias.vector(), s);
    auto op = rig.ex.memory().template vector<row_index>(rig.c.rows());
    argmax_rows(rig.ex, s, op);
    return {to_host(rig.ex, s), to_host(rig.ex, op)};
}

// Σ_o Σ_n weight[n,o] (dL_dy[n] · operator_o(x)[n])
template <class Rig>
double weighted_outputs(Rig& rig, const std::vector<double>& weight) {
    using Exec = typename Rig::executor;
    arena_scope scratch(rig.ex);
    pass<Exec, double> p{.ex = rig.ex,
                         .rows = pack_rows(rig.ex, std::span<const index>(rig.c.lengths)),
                         .phase = rig.c.phase,
                         .seed = rig.c.seed,
                         .step = rig.c.step};
    const index K = count_of(rig.layer), N = rig.c.rows(), C = rig.c.width;
    double sum = 0;
    index o = 0;
    std::apply(
        [&](auto&... op) {
            (
                [&] {
                    typename std::remove_reference_t<decltype(op)>::saved s;
                    auto y = p.matrix(N, C);
                    op.forward(p, rig.x.view(), selection::all(N), y, s);
                    for (index n = 0; n < N; ++n)
                        for (index i = 0; i < C; ++i)
                            sum += weight[static_cast<std::size_t>(n * K + o)] *
                                   rig.dL_dy[static_cast<std::size_t>(n * C + i)] * y(n, i);
                    ++o;
                }(),
                ...);
        },
        rig.layer.operators);
    return sum;
}

// The straight-through gradient, and the linear terms in the mean of s that budget and regulariser add.
template <class Layer>
void check_straight_through(const layer_case& c, const router_options& o) {
    const auto config = operator_config_of<oracle>(c);
    rig_of<Layer> rig(c, oracle::instance(), config, o);
    const double mu = 0.35;
    hold_multiplier(rig, mu);
    const soft_choice at = choice_of(rig);
    const index K = o.operators, N = c.rows();
    std::vector<double> share(static_cast<std::size_t>(K)), slope(static_cast<std::size_t>(K));
    for (row_index op : at.op) share[static_cast<std::size_t>(op)] += 1.0 / static_cast<double>(N);
    CHECK(*std::max_element(share.begin(), share.end()) < 1);  // the case is of use: more than one operator is chosen
    if (o.mode == routing_mode::budget)
        slope.back() += mu + 1.0 * (share.back() - o.target_share);  // the damping of hold_share is 1
    if (o.collapse_regulariser && !o.collapse_detached)
        for (std::size_t k = 0; k < slope.size(); ++k)
            slope[k] += o.collapse_lambda * (std::log(share[k] + 1e-8) + share[k] / (share[k] + 1e-8));
    const auto surrogate = [&] {
        const soft_choice now = choice_of(rig);
        auto weight = now.s;
        double linear = 0;
        for (std::size_t i = 0; i < weight.size(); ++i) {
            const auto n = i / static_cast<std::size_t>(K), k = i % static_cast<std::size_t>(K);
            linear += slope[k] * weight[i] / static_cast<double>(N);
            weight[i] += (at.op[n] == static_cast<row_index>(k)) - at.s[i];
        }
        return weighted_outputs(rig, weight) + c.loss_weight * linear;
    };
    rig.template require_gradients_of<typename Layer::saved>(operator_calls<rig_of<Layer>>{rig}, surrogate,
                                                             describe(o));
}

// The gradient of what ran, with the routes of the first pass held.
template <class Layer>
void check_held_routes(const layer_case& c, const router_options& o) {
    rig_of<Layer> rig(c, oracle::instance(), operator_config_of<oracle>(c), o);
    hold_multiplier(rig, 0.35);
    route_trace trace;
    rig.trace = &trace;
    operator_calls<rig_of<Layer>> calls{rig};
    rig.template loss<typename Layer::saved>(calls);
    trace.how = route_trace::mode::replay;
    if (o.mode != routing_mode::budget)
        return rig.template require_gradients<typename Layer::saved>(calls, describe(o));
    // the budget's value is a function of the choices, which are held; its gradient is that of pressure · mean(s_last)
    double share = 0;
    for (row_index op : trace.layers.at(c.layer).op)
        share += (op == static_cast<row_index>(o.operators - 1)) / static_cast<double>(c.rows());
    const double pressure = 0.35 + 1.0 * (share - o.target_share);
    rig.template require_gradients_of<typename Layer::saved>(
        calls,
        [&] {
            const auto s = choice_of(rig).s;
            double mean = 0;
            for (std::size_t i = static_cast<std::size_t>(o.operators - 1); i < s.size();
                 i += static_cast<std::size_t>(o.operators))
                mean += s[i] / static_cast<double>(c.rows());
            return rig.template loss<typename Layer::saved>(calls) + c.loss_weight * pressure * mean;
        },
        describe(o));
}

template <class Layer>
void check_gradients(const layer_case& c, const router_options& o) {
    const bool learned = o.mode == routing_mode::hard || o.mode == routing_mode::budget;
    if (learned && o.estimator == estimator::straight_through)
        check_straight_through<Layer>(c, o);
    else
        check_held_routes<Layer>(c, o);
}

template <template <class, class> class Layer>
void check_all_gradients(const layer_case& c) {
    using L = Layer<reference::executor, double>;
    for (auto o : all_options(static_cast<index>(L::count))) {
        check_gradients<L>(c, o);
        if (o.mode != routing_mode::soft && o.mode != routing_mode::hard) continue;
        o.collapse_regulariser = true;
        o.collapse_lambda = 0.7;
        check_gradients<L>(c, o);
    }
}
}  // namespace

TEST_CASE("routed: gradients of two operators", "[layers][routed]") {
    for (kv_scope keys : {kv_scope::all, kv_scope::routed}) check_all_gradients<two>({.keys = keys});
}
TEST_CASE("routed: gradients of three operators", "[layers][routed]") {
    check_all_gradients<three>({.own_feed_forward = true});
    check_all_gradients<three>({.keys = kv_scope::routed, .rbf_causal = false});
}
TEST_CASE("routed: gradients of the identity control", "[layers][routed]") { check_all_gradients<control>({}); }
TEST_CASE("routed: gradients with dropout and a share of the step's loss", "[layers][routed]") {
    check_all_gradients<two>({.dropout = 0.3, .loss_weight = 0.25});
    check_all_gradients<three>({.dropout = 0.3, .own_feed_forward = true, .loss_weight = 0.25});
}

// The authors' code detaches the gates: the loss changes, no gradient does.
TEST_CASE("routed: the detached regulariser trains nothing", "[layers][routed]") {
    using L = two<reference::executor, double>;
    for (routing_mode m : {routing_mode::soft, routing_mode::hard}) {
        const layer_case c;
        auto o = options_of(m, 2);
        const auto run = [&] {
            rig_of<L> rig(c, oracle::instance(), operator_config_of<oracle>(c), o);
            operator_calls<rig_of<L>> calls{rig};
            const double loss = rig.loss<L::saved>(calls);
            return std::pair(loss, rig.results<L::saved>(calls));
        };
        const auto plain = run();
        o.collapse_regulariser = o.collapse_detached = true;
        o.collapse_lambda = 0.5;
        const auto detached = run();
        CHECK(plain.second == detached.second);
        CHECK(detached.first < plain.first);  // −λ U, U > 0
        o.collapse_detached = false;
        const auto attached = run();
        CHECK(attached.first == detached.first);
        CHECK(attached.second != detached.second);
    }
}

TEMPLATE_LIST_TEST_CASE("routed: values and gradients on every executor", "[layers][routed]", targets) {
    const auto check = [&]<template <class, class> class Layer>(index operators, const layer_case& c) {
        for (const auto& o : all_options(operators)) {
            // routes of the oracle, replayed: rounding may not choose another operator
            route_trace trace;
            {
                layer_rig<oracle, Layer<reference::executor, double>> rig(c, oracle::instance(),
                                                                          operator_config_of<oracle>(c), o);
                rig.trace = &trace;
                operator_calls<decltype(rig)> calls{rig};
                rig.template loss<typename Layer<reference::executor, double>::saved>(calls);
            }
            trace.how = route_trace::mode::replay;
            compare_with_oracle<TestType>(
                "routed", describe(o),
                [&]<class On>() {
                    using L = Layer<typename On::executor, typename On::scalar>;
                    layer_rig<On, L> rig(c, On::instance(), operator_config_of<On>(c), o);
                    hold_multiplier(rig, 0.35);
                    rig.trace = &trace;
                    return rig.template results<typename L::saved>(operator_calls<decltype(rig)>{rig});
                },
                4096);
        }
    };
    check.template operator()<two>(2, {.dropout = 0.2});
    check.template operator()<three>(3, {.keys = kv_scope::routed, .own_feed_forward = true});
}

// what runs in training and at evaluation
TEST_CASE("routed: what runs when", "[layers][routed]") {
    using L = three<reference::executor, double>;
    for (const auto& o : all_options(3))
        for (phase ph : {phase::training, phase::evaluation}) {
            const layer_case c{.phase = ph};
            rig_of<L> rig(c, oracle::instance(), operator_config_of<oracle>(c), o);
            route_trace trace;
            rig.trace = &trace;
            operator_calls<rig_of<L>> calls{rig};
            rig.loss<L::saved>(calls);
            const bool learned = o.mode == routing_mode::hard || o.mode == routing_mode::budget;
            const bool everything = o.mode == routing_mode::soft ||
                                    (learned && ph == phase::training && o.estimator == estimator::straight_through);
            std::array<index, 3> rows{};
            for (row_index op : trace.layers.at(3).op) ++rows[static_cast<std::size_t>(op)];
            const auto& work = trace.counts.at(3).work;
            INFO(describe(o) << (ph == phase::training ? ", training" : ", evaluation"));
            CHECK(work.dct_rows == (everything ? c.rows() : rows[0]));
            CHECK(work.rbf_rows == (everything ? c.rows() : rows[1]));
            CHECK(work.attention_rows == (everything ? c.rows() : rows[2]));
            CHECK(rows[0] + rows[1] + rows[2] == c.rows());
        }
}

// Straight-through training has the values of evaluation: it differs in its gradient alone. selected_only is another
// model.
TEMPLATE_LIST_TEST_CASE("routed: values of training and of evaluation", "[layers][routed]", targets) {
    using T = typename TestType::scalar;
    using L = two<typename TestType::executor, T>;
    const auto y_of = [](const router_options& o, phase ph) {
        const layer_case c{.phase = ph};
        layer_rig<TestType, L> rig(c, TestType::instance(), operator_config_of<TestType>(c), o);
        operator_calls<decltype(rig)> calls{rig};
        rig.template loss<typename L::saved>(calls);
        return rig.y;
    };
    for (const auto& o : all_options(2))
        compare(y_of(o, phase::training), y_of(o, phase::evaluation), allowed<T>(256, 4),
                {"routed", "y", TestType::executor_name(), scalar_name<T>, describe(o)});
    CHECK(y_of(options_of(routing_mode::hard, 2), phase::evaluation) !=
          y_of(options_of(routing_mode::hard, 2, estimator::selected_only), phase::evaluation));
}

TEST_CASE("routed: a tie with the threshold goes to the cheaper operator", "[layers][routed]") {
    using L = two<reference::executor, double>;
    const layer_case c;
    auto o = options_of(routing_mode::threshold, 2);
    const auto routes_at = [&](double tau) {
        o.thresholds = {tau};
        rig_of<L> rig(c, oracle::instance(), operator_config_of<oracle>(c), o);
        route_trace trace;
        rig.trace = &trace;
        operator_calls<rig_of<L>> calls{rig};
        rig.loss<L::saved>(calls);
        return trace.layers.at(3);
    };
    const double tie = routes_at(0.5).entropy[4];
    CHECK(routes_at(tie).op[4] == 0);
    CHECK(routes_at(std::nextafter(tie, 0.0)).op[4] == 1);
}

TEST_CASE("routed: the budget's multiplier climbs by the share's excess", "[layers][routed]") {
    using L = two<reference::executor, double>;
    const layer_case c{.loss_weight = 0.5};
    auto o = options_of(routing_mode::budget, 2);
    rig_of<L> rig(c, oracle::instance(), operator_config_of<oracle>(c), o);
    auto& ex = rig.ex;
    CHECK(!gate_of(rig)->multiplier.trainable);
    L::saved s;  // as in a model: one for all passes
    double mu = 0;
    rig.put(gate_of(rig)->multiplier.value, {mu});
    for (int pass_number = 0; pass_number < 3; ++pass_number) {
        arena_scope scratch(ex);
        route_trace trace;
        pass<reference::executor, double> p{.ex = ex,
                                            .rows = pack_rows(ex, std::span<const index>(c.lengths)),
                                            .phase = phase::training,
                                            .loss_weight = c.loss_weight,
                                            .trace = &trace};
        auto y = p.matrix(c.rows(), c.width);
        rig.layer.forward(p, rig.x.view(), selection::all(c.rows()), y, s);
        double share = 0;
        for (row_index op : trace.layers.at(3).op) share += op / static_cast<double>(c.rows());
        const double off = share - o.target_share;
        CHECK(p.auxiliary_loss == Approx(0.5 * (mu * off + off * off / 2)).epsilon(1e-12));
        const double before = mu;
        mu = rig.wide(gate_of(rig)->multiplier.value)[0];
        CHECK((mu - before) * off > 0);  // towards the target
        CHECK(std::abs(mu - before) < std::abs(off));  // in small steps
    }
    const double held = mu;
    rig.c.phase = phase::evaluation;
    operator_calls<rig_of<L>> calls{rig};
    rig.loss<L::saved>(calls);
    CHECK(rig.wide(gate_of(rig)->multiplier.value)[0] == held);
}

TEST_CASE("routed: the permuted control reads a permutation of the features", "[layers][routed]") {
    const layer_case c{.width = 64, .heads = 1};
    const auto order_of = [&](std::uint64_t seed) {
        auto o = options_of(routing_mode::permuted, 2);
        o.random_seed = seed;
        return entropy_threshold<reference::executor, double>(operator_config_of<oracle>(c), o, &oracle::instance())
            .order.to_host();
    };
    auto order = order_of(9);
    CHECK(order == order_of(9));
    CHECK(order != order_of(10));
    CHECK(!std::is_sorted(order.begin(), order.end()));
    std::sort(order.begin(), order.end());
    for (row_index i = 0; i < 64; ++i) CHECK(order[static_cast<std::size_t>(i)] == i);
}

TEST_CASE("routed: sentences", "[layers][routed]") {
    using L = two<reference::executor, double>;
    auto& ex = oracle::instance();
    const layer_case c;
    const auto config = operator_config_of<oracle>(c);
    check_throws([&] { L(ex, config, options_of(routing_mode::soft, 3)); },
                 {"routed", "number of operators", "expected 2", "found 3"});
    auto o = options_of(routing_mode::threshold, 2);
    o.thresholds = {0.1, 0.2};
    check_throws([&] { L(ex, config, o); }, {"entropy_threshold", "number of thresholds", "expected 1", "found 2"});

    rig_of<L> rig(c, ex, config, options_of(routing_mode::threshold, 2));
    operator_calls<rig_of<L>> calls{rig};
    route_trace trace;
    trace.how = route_trace::mode::replay;
    rig.trace = &trace;
    check_throws([&] { rig.loss<L::saved>(calls); }, {"route_trace", "no routes recorded for layer 3"});
    trace.layers[3].op = {0, 1};
    check_throws([&] { rig.loss<L::saved>(calls); }, {"route_trace", "recorded rows", "expected 10", "found 2"});
}

}  // namespace spectral::test::routed_test
