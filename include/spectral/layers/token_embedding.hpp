// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/token_embedding.hpp: token table, with a table of learned positions in v1 and v2, and dropout
//   x[n] = dropout(token_emb[ids[n]] (+ pos_emb[position[n]]))
#pragma once
#include <spectral/layers/pass.hpp>
#include <spectral/ops/dropout.hpp>
#include <spectral/ops/embedding.hpp>

namespace spectral {

template <executor Exec, class T>
struct token_embedding {
    parameter<T> tokens;  // (V, C), tied with the output head
    parameter<T> positions;  // (max T, C) or unused
    double drop;

    token_embedding(index vocabulary, index width, index learned_positions, double dropout)
        : tokens({vocabulary, width}, {}), drop(dropout) {
        if (learned_positions) positions = parameter<T>({learned_positions, width}, {});
    }

    void forward(pass<Exec, T>& p, const_vector<row_index> ids, matrix_view<T> x) {
        embedding_forward(p.ex, ids, tokens.matrix(), x);
        if (positions.used()) embedding_forward(p.ex, p.rows.position, positions.matrix(), x, write::accumulate);
        if (p.training()) dropout(p.ex, x, drop, p.draw(-1, 0), x);
    }
    // dL_dx is used as scratch
    void backward(pass<Exec, T>& p, const_vector<row_index> ids, matrix_view<T> dL_dx) {
        dropout(p.ex, dL_dx, drop, p.draw(-1, 0), dL_dx);
        if (positions.grad.data) embedding_backward(p.ex, p.rows.position, dL_dx, positions.grad);
        if (tokens.grad.data) embedding_backward(p.ex, ids, dL_dx, tokens.grad);
    }
    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        f(prefix + "token_emb.weight", tokens);
        f(prefix + "pos_emb.weight", positions);
    }
};

}  // namespace spectral
