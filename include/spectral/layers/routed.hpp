// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/routed.hpp: a router and its operators: the whole of adaptive compute
//
// y[n] = operator_{route(n)}(x)[n]: each operator runs on the rows sent to it and on nothing else. Where the router
// weights its operators (soft, straight-through training) every operator runs (`combine`).
// Operators are numbered as listed, cheapest first; a further operator is one more template argument.
// Throws error where the router's options count other operators, and on a selection that is not all rows.
#pragma once
#include <spectral/layers/router.hpp>
#include <spectral/ops/decision.hpp>
#include <spectral/ops/elementwise.hpp>
#include <spectral/ops/partition.hpp>
#include <spectral/ops/row_scale.hpp>

#include <tuple>
#include <utility>

namespace spectral {

// loss += −λ U, U = −Σ_o q_o ln(q_o + 1e-8), q = mean gate over all rows. The authors' code detaches the gates, so that
// theirs changes the reported loss and trains nothing (`detached`).
struct collapse_regulariser {
    static constexpr double epsilon = 1e-8;
    static double value(const std::vector<double>& q, double lambda) {
        double u = 0;
        for (double v : q) u -= v * std::log(v + epsilon);
        return -lambda * u;
    }
    // d value/dq
    static double slope(double q, double lambda) { return lambda * (std::log(q + epsilon) + q / (q + epsilon)); }
};

template <class Exec, class T, class Router, class... Operators>
struct routed {
    static_assert(sizeof...(Operators) >= 2, "spectral::routed needs at least two operators to choose from");
    static constexpr const char* name = "";  // parameters of its parts follow the layer's prefix directly
    static constexpr std::size_t count = sizeof...(Operators);
    using first_operator = std::tuple_element_t<0, std::tuple<Operators...>>;
    using last_operator = std::tuple_element_t<count - 1, std::tuple<Operators...>>;

    Router router;
    std::tuple<Operators...> operators;
    operator_config<Exec, T> config;
    router_options options;

    routed(Exec& ex, const operator_config<Exec, T>& c, const router_options& o)
        : router(make_router(ex, c, o)), operators(Operators(c)...), config(c), options(o) {
        static_assert(
            (token_operator<Operators, Exec, T> && ...),
            "spectral::routed: an operator lacks forward(pass, x, rows, y, saved), backward(pass, dL_dy, dL_dx, "
            "saved), visit_parameters, name or saved");
        static_assert(
            token_router<Router, Exec, T>,
            "spectral::routed: the router lacks forward(pass, x, route, saved), backward(pass, dL_dweight, dL_dx, "
            "saved), visit_parameters or saved");
        check_equal(o.operators, static_cast<index>(count), "routed", "number of operators of the router's options");
    }

    struct saved {
        routing<T> route;
        std::array<selection, count> rows;  // per operator
        std::array<matrix_view<T>, count> out;  // sum: (N, C) output of each operator
        matrix_view<T> unscaled;  // scale: (N, C)
        matrix_view<statistic<T>> picked;  // scale: (N, 1)
        std::vector<double> mean_gate;  // of the collapse regulariser
        typename Router::saved router;
        std::tuple<typename Operators::saved...> operators;
    };

    void forward(pass<Exec, T>& p, const_matrix<T> x, const selection& all, matrix_view<T> y, saved& s) {
        using combine = typename routing<T>::combine;
        check(all.is_all(), "routed", "a routed layer runs on all rows of its input");
        const index n = x.rows();
        s.route = {};
        bool first_done = false;
        {
            const operator_clock<Exec, T> clock(p, "router");  // with the first operator, where one kernel does both
            first_done = route_with_first(p, x, y, s);
            if (!first_done) router.forward(p, x, s.route, s.router);
        }
        if (s.route.how == combine::sum) {
            s.rows.fill(selection::all(n));
            each(
                [&](auto& op, auto& saved_op, std::size_t o) {
                    s.out[o] = p.matrix(n, x.width());
                    op.forward(p, x, s.rows[o], s.out[o], saved_op);
                    scale_rows(p.ex, s.out[o], s.route.weight.columns(static_cast<index>(o), 1), y,
                               o == 0 ? write::overwrite : write::accumulate);
                },
                s);
        } else if (s.route.how == combine::select && p.repeats()) {
            // the host may not ask how many rows each operator has: the few there are run all, and each takes one
            // result
            if (!first_done) partition(p.ex, s.route.op, s.rows);
            each(
                [&](auto& op, auto& saved_op, std::size_t o) {
                    if (o == 0 && first_done) return;
                    s.out[o] = p.matrix(n, x.width());
                    op.forward(p, x, selection::all(n), s.out[o], saved_op);
                    copy_rows<Exec, T>(p.ex, s.out[o], s.rows[o], y);
                },
                s);
        } else {
            if (!first_done) partition(p.ex, s.route.op, s.rows);
            const bool scaled = s.route.how == combine::scale;
            s.unscaled = scaled ? p.matrix(n, x.width()) : y;
            each(
                [&](auto& op, auto& saved_op, std::size_t o) {
                    if (o > 0 || !first_done) op.forward(p, x, s.rows[o], s.unscaled, saved_op);
                },
                s);
            if (scaled) {
                s.picked = p.statistics(n, 1);
                pick_columns_forward(p.ex, s.route.weight, s.route.op, s.picked);
                scale_rows(p.ex, s.unscaled, s.picked, y);
            }
        }
        if (options.collapse_regulariser && p.training() && n > 0) regularise(p, s);
        if (p.trace) record(p, x, s);
    }

    // adds to dL_dx, or writes it: where each row has one operator, the last goes first and may write, the others add
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s,
                  write mode = write::accumulate) {
        using combine = typename routing<T>::combine;
        arena_scope scratch(p.ex);
        const index n = dL_dy.rows(), K = static_cast<index>(count);
        const bool last_writes = writes_gradient<last_operator, Exec, T> && s.route.how == combine::select;
        if (mode == write::overwrite && !last_writes) p.clear(dL_dx);
        if (s.route.how == combine::select) {
            each_backwards(
                [&](auto& op, auto& saved_op, std::size_t o) {
                    if constexpr (writes_gradient<std::decay_t<decltype(op)>, Exec, T>)
                        op.backward(p, dL_dy, dL_dx, saved_op, o + 1 == count ? mode : write::accumulate);
                    else
                        op.backward(p, dL_dy, dL_dx, saved_op);
                },
                s);
            return;
        }
        auto dL_dweight = p.statistics(n, K);
        auto dL_dout = p.matrix(n, dL_dy.width());
        if (s.route.how == combine::sum) {
            each(
                [&](auto& op, auto& saved_op, std::size_t o) {
                    const auto weight = s.route.weight.columns(static_cast<index>(o), 1);
                    row_dot(p.ex, dL_dy, s.out[o], dL_dweight.columns(static_cast<index>(o), 1));
                    scale_rows(p.ex, dL_dy, weight, dL_dout);
                    op.backward(p, dL_dout, dL_dx, saved_op);
                },
                s);
        } else {
            auto dL_dpicked = p.statistics(n, 1);
            row_dot(p.ex, dL_dy, s.unscaled, dL_dpicked);
            pick_columns_backward(p.ex, dL_dpicked, s.route.op, dL_dweight);
            scale_rows(p.ex, dL_dy, s.picked, dL_dout);
            each([&](auto& op, auto& saved_op, std::size_t) { op.backward(p, dL_dout, dL_dx, saved_op); }, s);
        }
        if (options.collapse_regulariser && !options.collapse_detached && n > 0)
            for (index o = 0; o < K; ++o)
                add_constant(
                    p.ex, dL_dweight.columns(o, 1),
                    p.loss_weight / static_cast<double>(n) *
                        collapse_regulariser::slope(s.mean_gate[static_cast<std::size_t>(o)], options.collapse_lambda));
        router.backward(p, dL_dweight, dL_dx, s.router);
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        router.visit_parameters(f, prefix + "router.");
        std::apply(
            [&](auto&... op) {
                (op.visit_parameters(f, prefix + std::remove_reference_t<decltype(op)>::name + "."), ...);
            },
            operators);
    }

private:
    static Router make_router(Exec& ex, const operator_config<Exec, T>& c, const router_options& o) {
        if constexpr (std::is_constructible_v<Router, Exec&, const operator_config<Exec, T>&, const router_options&>)
            return Router(ex, c, o);
        else
            return Router(c, o);
    }
    // Choice and first operator in one step, where the router's choice is "how many thresholds does the entropy of x
    // exceed" (its entropy_thresholds()) and the operator can make it while it reads x (its routes()); otherwise false,
    // nothing done.
    bool route_with_first(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y, saved& s) {
        auto& first = std::get<0>(operators);
        if constexpr (requires {
                          router.entropy_thresholds();
                          first.routes();
                      }) {
            const std::vector<double>* thresholds = router.entropy_thresholds();
            if (!thresholds || !first.routes()) return false;
            s.route.entropy = p.statistics(x.rows());
            s.route.op = p.row_indices(x.rows());
            const bool given = replay_choice(p, config.layer, s.route.op);
            first.route_forward(p, x, given ? std::span<const double>{} : *thresholds, s.route.entropy, s.route.op,
                                s.rows, y, std::get<0>(s.operators));
            return true;
        } else {
            return false;
        }
    }

    template <class F, std::size_t... O>
    void each(F&& f, saved& s, std::index_sequence<O...>) {
        (f(std::get<O>(operators), std::get<O>(s.operators), O), ...);
    }
    template <class F>
    void each(F&& f, saved& s) {
        each(f, s, std::make_index_sequence<count>{});
    }
    template <class F, std::size_t... O>
    void each_backwards(F&& f, saved& s, std::index_sequence<O...>) {
        (f(std::get<count - 1 - O>(operators), std::get<count - 1 - O>(s.operators), count - 1 - O), ...);
    }
    template <class F>
    void each_backwards(F&& f, saved& s) {
        each_backwards(f, s, std::make_index_sequence<count>{});
    }

    // mean gate of each operator over the rows: of the weights, or of the choices where there are none
    std::vector<double> mean_gate(pass<Exec, T>& p, const saved& s) const {
        std::vector<double> q(count);
        const double n = static_cast<double>(s.route.op.size());
        if (s.route.weight.data) {
            const auto w = to_host(p.ex, s.route.weight);
            for (std::size_t i = 0; i < w.size(); ++i) q[i % count] += w[i] / n;
        } else {
            for (row_index o : to_host(p.ex, s.route.op)) q[static_cast<std::size_t>(o)] += 1 / n;
        }
        return q;
    }
    void regularise(pass<Exec, T>& p, saved& s) {
        s.mean_gate = mean_gate(p, s);
        p.auxiliary_loss += p.loss_weight * collapse_regulariser::value(s.mean_gate, options.collapse_lambda);
    }
    void record(pass<Exec, T>& p, const_matrix<T> x, saved& s) const {
        auto& c = p.trace->counts[config.layer];
        c.routed.resize(count);
        for (row_index o : to_host(p.ex, s.route.op)) c.routed[static_cast<std::size_t>(o)] += 1;
        if (s.route.entropy.data) {  // a router that looks at spectra; gates where it also weighs
            c.work.router_rows += x.rows();
            c.work.gate_outputs = s.route.weight.data ? static_cast<index>(count) : 0;
        }
        if (!s.route.entropy.data && p.trace->how == route_trace::mode::record)
            s.route.entropy = entropy_of(p, x, config.dct_norm);
        const auto entropy = s.route.entropy.data ? to_host(p.ex, s.route.entropy) : std::vector<statistic<T>>{};
        for (auto h : entropy) {
            c.entropy_sum += h;
            c.entropies.add(static_cast<double>(h));
        }
        c.entropy_rows += static_cast<double>(entropy.size());
        if (p.trace->how != route_trace::mode::record) return;
        layer_routes& r = p.trace->layers[config.layer];
        r.operators = static_cast<index>(count);
        r.op = to_host(p.ex, s.route.op);
        r.entropy.assign(entropy.begin(), entropy.end());
        r.gates.assign(r.op.size() * count, 0);
        if (s.route.weight.data) {
            const auto w = to_host(p.ex, s.route.weight);
            r.gates.assign(w.begin(), w.end());
        } else {
            for (std::size_t i = 0; i < r.op.size(); ++i) r.gates[i * count + static_cast<std::size_t>(r.op[i])] = 1;
        }
    }
};

}  // namespace spectral
