// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/router.hpp: what a router returns, and what it must offer
//
// A router reads a layer's input and gives every token to one operator (or weights to all). Policies of this library:
//   entropy_threshold.hpp  operator = number of thresholds below the token's spectral entropy (ties go down: to DCT);
//                          `permuted` reads the features in a fixed random order: a control that destroys the spectrum
//   learned_gate.hpp       s = softmax(W [x; H] + b):  soft    y = Σ s_o operator_o(x)
//                                                      hard    onehot(argmax s), straight-through gradient to s
//                                                      budget  hard, with the last operator's share held to a target
//   control_routers.hpp    random_share: the last operator with a given probability, by position; constant_choice
//   any_router.hpp         one of these, chosen at run time from a configuration
// A router of your own needs forward, backward, visit_parameters and `saved`; see examples/own_router.cpp.
#pragma once
#include <spectral/layers/token_operator.hpp>
#include <spectral/ops/spectral_entropy.hpp>

#include <vector>

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

// A recorded choice in place of the router's own, where the pass replays a trace (true). Throws error where the trace
// lacks the layer or has another number of rows.
template <executor Exec, class T>
bool replay_choice(pass<Exec, T>& p, index layer, vector_view<row_index> op) {
    if (!p.trace || p.trace->how != route_trace::mode::replay) return false;
    const auto found = p.trace->layers.find(layer);
    check(found != p.trace->layers.end(), "route_trace", "no routes recorded for layer ", layer);
    check_equal(static_cast<index>(found->second.op.size()), op.size(), "route_trace", "recorded rows");
    p.ex.copy_from_host(op.data, found->second.op.data(), found->second.op.size() * sizeof(row_index));
    return true;
}

}  // namespace spectral
