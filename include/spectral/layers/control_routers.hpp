// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/control_routers.hpp: routers that look at nothing: what a choice by content has to beat
#pragma once
#include <spectral/layers/router.hpp>
#include <spectral/ops/decision.hpp>

namespace spectral {

// The last operator by lot at a given share: the same rows in every batch and on every executor. Throws error for other
// than two operators.
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

}  // namespace spectral
