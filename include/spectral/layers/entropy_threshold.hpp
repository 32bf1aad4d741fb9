// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/entropy_threshold.hpp: the router of the paper: attention where a token's spectral entropy is
// high
#pragma once
#include <spectral/layers/router.hpp>
#include <spectral/ops/decision.hpp>
#include <spectral/ops/elementwise.hpp>

namespace spectral {

// op = number of thresholds below the row's spectral entropy H (N); no gradient, no parameters. Throws error for other
// than one threshold less than operators.
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

    // see routed.hpp: an operator may choose while it reads x, unless the features are permuted
    const std::vector<double>* entropy_thresholds() const { return order.size() ? nullptr : &thresholds; }

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

}  // namespace spectral
