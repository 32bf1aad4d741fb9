// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/token_operator.hpp: the shape of every operator that a router can send tokens to
//
// An operator computes y[rows] = Operator(x)[rows] and writes no other row of y. Attention reads keys and values beyond
// its rows, the others do not. The backward pass reads dL_dy[rows] and adds to dL_dx. The dense model is the operator
// on all rows.
#pragma once
#include <spectral/layers/pass.hpp>
#include <spectral/ops/dct.hpp>
#include <spectral/ops/rotary.hpp>

#include <memory>

namespace spectral {

// whose keys and values a routed attention reads: every token's, or the routed ones'
enum class kv_scope { all, routed };

// Everything an operator or router may want to know about its model and its place in it.
template <executor Exec, class T>
struct operator_config {
    index width = 0, heads = 1, layer = 0;
    double dropout = 0;
    spectral::dct_norm dct_norm = dct_norm::ortho;
    spectral::kv_scope kv_scope = kv_scope::all;
    // (positions, D) table shared by all layers; null without rotation
    std::shared_ptr<tensor<Exec, statistic<T>, 2>> rotary = nullptr;
    bool own_feed_forward = false;  // v1: the DCT and RBF mixers have a feed-forward inside
    bool causal = true, rbf_causal = true;
    double rbf_gamma = 1;
    index n_random_features = 64;
};

template <class Op, class Exec, class T>
concept token_operator = requires(Op& op, pass<Exec, T>& p, const_matrix<T> x, const selection& rows, matrix_view<T> y,
                                  typename Op::saved& s, void (*visitor)(const std::string&, parameter<T>&)) {
    { Op::name } -> std::convertible_to<const char*>;  // its parameters' prefix in files
    op.forward(p, x, rows, y, s);
    op.backward(p, x, y, s);
    op.visit_parameters(visitor, std::string{});
};

// whether backward of an operator can write dL_dx, every row of it, as well as add to its own
template <class Op, class Exec, class T>
inline constexpr bool writes_gradient = requires(Op& op, pass<Exec, T>& p, matrix_view<T> v, typename Op::saved& s) {
    op.backward(p, v, v, s, write::overwrite);
};

}  // namespace spectral
