// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/learned_gate.hpp: a router with weights of its own, trained through a softmax
#pragma once
#include <spectral/layers/router.hpp>
#include <spectral/ops/decision.hpp>
#include <spectral/ops/elementwise.hpp>
#include <spectral/ops/gate.hpp>

#include <optional>

namespace spectral {

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
        if (options.mode == routing_mode::budget && p.training() && !p.again) hold_share(p, route.op, s);
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
    // In bfloat16 the multiplier would stand still, its increments being less than half a unit: a copy in double goes
    // on.
    double& multiplier_of(pass<Exec, T>& p) {
        if (!mu_) mu_ = widen<double>(to_host(p.ex, multiplier.value)[0]);
        return *mu_;
    }
    std::optional<double> mu_;
};

}  // namespace spectral
