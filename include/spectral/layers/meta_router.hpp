// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/meta_router.hpp: a learned gate on the first spectral layer
//   g = σ(u · mean(x) + b);   y = g L1(x) + (1 − g) x
// The mean is over the batch (the reference: results then depend on neighbours and on later tokens), over each
// sequence, or over the rows so far (causal); or g is a fixed number. At inference a gate below `skip_below` leaves L1
// out.
#pragma once
#include <spectral/layers/pass.hpp>
#include <spectral/ops/elementwise.hpp>
#include <spectral/ops/gate.hpp>
#include <spectral/ops/partition.hpp>

namespace spectral {

// What the gate's mean is taken over; `fixed`: there is none. Only causal and fixed keep a position from seeing later
// ones.
enum class meta_pool { batch, sequence, causal, fixed };

// How the gate is made and used.
struct meta_options {
    meta_pool pool = meta_pool::batch;
    double fixed_gate = 1;  // of meta_pool::fixed
    double skip_below = 0;  // hard gating at evaluation; 0: never skip
};

template <executor Exec, class T>
struct meta_router {
    parameter<T> weight, bias;  // gate_proj: u (1, C), b (1); unused with a fixed gate
    meta_options options;

    meta_router(index width, const meta_options& o) : options(o) {
        if (o.pool == meta_pool::fixed) return;
        weight = parameter<T>({1, width}, initializer::zeros());
        bias = parameter<T>({1}, initializer::constant(2));
    }

    template <class Layer>
    struct saved {
        const_matrix<T> x;
        matrix_view<T> inner, pooled;  // L1(x) (N, C), mean (G, C)
        vector_view<statistic<T>> gate;  // (G)
        typename Layer::saved layer;
    };

    template <class Layer>
    void forward(pass<Exec, T>& p, Layer& first, const_matrix<T> x, matrix_view<T> y, saved<Layer>& s) {
        s.x = x;
        s.inner = p.matrix(x.rows(), x.width());
        make_gate(p, x, s.pooled, s.gate);
        if (!p.training() && options.skip_below > 0)
            forward_open_rows(p, first, x, s);
        else
            first.forward(p, x, s.inner, s.layer);
        blend_forward(p.ex, s.inner, x, s.gate, p.rows, scope(), y);
    }

    // adds to dL_dx
    template <class Layer>
    void backward(pass<Exec, T>& p, Layer& first, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved<Layer>& s) {
        arena_scope scratch(p.ex);
        auto dL_dinner = p.matrix(dL_dy.rows(), dL_dy.width()), direct = p.matrix(dL_dy.rows(), dL_dy.width());
        auto dL_dgate = p.statistics(s.gate.size());
        blend_backward(p.ex, dL_dy, s.inner, s.x, s.gate, p.rows, scope(), dL_dinner, direct, dL_dgate);
        add(p.ex, direct, dL_dx);
        if (options.pool != meta_pool::fixed) {
            auto dL_dpooled = p.matrix(s.pooled.rows(), s.pooled.width());
            sigmoid_gate_backward(p.ex, dL_dgate, s.gate, s.pooled, weight.matrix(), dL_dpooled, p.gradient_of(weight),
                                  p.gradient_vector_of(bias));
            mean_pool_backward(p.ex, dL_dpooled, p.rows, scope(), dL_dx);
        }
        first.backward(p, dL_dinner, dL_dx, s.layer);
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        f(prefix + "gate_proj.weight", weight);
        f(prefix + "gate_proj.bias", bias);
    }

private:
    pool_scope scope() const {
        return options.pool == meta_pool::causal     ? pool_scope::causal
               : options.pool == meta_pool::sequence ? pool_scope::sequence
                                                     : pool_scope::batch;
    }

    void make_gate(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T>& pooled, vector_view<statistic<T>>& gate) {
        const operator_clock<Exec, T> clock(p, "router");
        gate = p.statistics(pooled_rows(p.rows, scope()));
        if (options.pool == meta_pool::fixed) {
            const auto g = static_cast<statistic<T>>(options.fixed_gate);
            p.ex.copy_from_host(gate.data, &g, sizeof g);
        } else if (p.decode && options.pool != meta_pool::causal && p.decode->prefilled()) {
            gate = p.decode->frozen_gate.view();  // fixed at prefill: an answer cannot change its own prompt's gate
        } else {
            pooled = p.matrix(gate.size(), x.width());
            const bool continues = p.decode && options.pool == meta_pool::causal;
            mean_pool_forward(p.ex, x, p.rows, scope(), pooled,
                              continues ? p.decode->pool_history.view() : out_matrix<statistic<T>>{});
            sigmoid_gate_forward(p.ex, pooled, weight.matrix(), bias.vector(), gate);
            if (p.decode && !continues) p.decode->freeze(p.ex, to_host(p.ex, gate));
        }
        if (!p.trace) return;
        const auto host = to_host(p.ex, gate);
        for (auto g : host) p.trace->gate_sum += g;
        p.trace->gate_count += static_cast<double>(host.size());
        p.trace->meta_gate.assign(host.begin(), host.end());
    }

    // L1 on the rows whose gate is open; the others keep x, so that the blend returns x for them
    template <class Layer>
    void forward_open_rows(pass<Exec, T>& p, Layer& first, const_matrix<T> x, saved<Layer>& s) {
        copy(p.ex, x, s.inner);
        arena_scope scratch(p.ex);
        const auto gate = to_host(p.ex, s.gate);
        const auto sequence = to_host(p.ex, p.rows.sequence);
        std::vector<row_index> open;
        for (index n = 0; n < x.rows(); ++n) {
            const index g = scope() == pool_scope::batch      ? 0
                            : scope() == pool_scope::sequence ? sequence[static_cast<std::size_t>(n)]
                                                              : n;
            if (gate[static_cast<std::size_t>(g)] >= options.skip_below) open.push_back(static_cast<row_index>(n));
        }
        if (open.empty()) return;
        const auto count = static_cast<index>(open.size());
        const selection rows = select_list(p.ex, open, x.rows());

        pass<Exec, T> part = p;
        part.rows = select_rows(p.ex, p.rows, rows);
        part.lengths = {};
        auto packed = p.matrix(count, x.width()), out = p.matrix(count, x.width());
        gather_rows(p.ex, x, rows, packed);
        first.forward(part, packed, out, s.layer);
        scatter_rows<Exec, T>(p.ex, out, rows, s.inner, write::overwrite);
    }
};

}  // namespace spectral
