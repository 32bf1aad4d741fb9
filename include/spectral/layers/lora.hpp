// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/lora.hpp: low-rank adapter of a linear map
//   y += scale · B A dropout(x),   A (r, I), B (O, r),   scale = α/r, or α/√r (rsLoRA)      (Hu et al.,
//   arXiv:2106.09685)
// Throws error for a rank below 1, a scale that is not finite and a dropout outside [0, 1).
// A starts uniform in ±1/√I (Kaiming with a = √5), B at 0, so that a new adapter changes nothing.
#pragma once
#include <spectral/layers/pass.hpp>
#include <spectral/ops/dropout.hpp>
#include <spectral/ops/elementwise.hpp>
#include <spectral/ops/linear.hpp>

namespace spectral {

// PEFT's options of the same names.
struct lora_options {
    index rank = 8;
    double alpha = 16, dropout = 0.05;
    bool rank_stabilized = false;

    double scale() const {
        return alpha / (rank_stabilized ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
    }
};

template <executor Exec, class T>
struct lora {
    parameter<T> a, b;  // (r, I), (O, r)
    double scale, drop;
    std::uint64_t site;  // names its dropout

    lora(index in, index out, const lora_options& o, const std::string& name)
        : a({o.rank, in}, initializer::uniform(1 / std::sqrt(static_cast<double>(in)))),
          b({out, o.rank}, initializer::zeros()),
          scale(o.scale()),
          drop(o.dropout),
          site(stream_of(name)) {
        check(o.rank >= 1, name, "rank of the adapter: expected at least 1, found ", o.rank);
        check(std::isfinite(o.scale()), name, "alpha of the adapter: expected a finite number, found ", o.alpha);
        check(o.dropout >= 0 && o.dropout < 1, name, "dropout of the adapter: expected a number in [0, 1), found ",
              o.dropout);
    }

    // adds to y the outputs [first, first + y.width())
    void forward(pass<Exec, T>& p, index first, const_matrix<T> x, matrix_view<T> y) {
        arena_scope scratch(p.ex);
        linear_forward<Exec, T>(p.ex, low_rank(p, dropped(p, x)), b.matrix().slice(first, y.width()), {}, y, y);
    }

    // adds to dL_dx (may be empty); A x is recomputed, not kept: a thin product
    void backward(pass<Exec, T>& p, index first, const_matrix<T> dL_dy, const_matrix<T> x, matrix_view<T> dL_dx) {
        arena_scope scratch(p.ex);
        const auto seen = dropped(p, x);
        auto dL_dlow = p.matrix(x.rows(), a.shape[0]);
        linear_backward_input<Exec, T>(p.ex, dL_dy, b.matrix().slice(first, dL_dy.width()), dL_dlow, write::overwrite,
                                       scale);
        if (b.grad.data) {
            linear_backward_weight(p.ex, dL_dy, low_rank(p, seen), b.grad.slice(first, dL_dy.width()), {});
            linear_backward_weight(p.ex, dL_dlow, seen, a.grad, {});
        }
        if (!dL_dx.data) return;
        if (!drops(p)) return linear_backward_input<Exec, T>(p.ex, dL_dlow, a.matrix(), dL_dx, write::accumulate);
        auto dL_dseen = p.matrix(x.rows(), x.width());
        linear_backward_input<Exec, T>(p.ex, dL_dlow, a.matrix(), dL_dseen);
        dropout<Exec, T>(p.ex, dL_dseen, drop, draw(p), dL_dseen);
        add<Exec, T>(p.ex, dL_dseen, dL_dx);
    }

    // W += scale · B A
    void merge_into(Exec& ex, matrix_view<T> weight) {
        arena_scope scratch(ex);
        auto transposed = ex.memory().template zeros<T, 2>({a.shape[1], a.shape[0]});
        const auto host = to_host(ex, a);
        std::vector<T> columns(host.size());
        for (index r = 0; r < a.shape[0]; ++r)
            for (index i = 0; i < a.shape[1]; ++i)
                columns[static_cast<std::size_t>(i * a.shape[0] + r)] =
                    static_cast<T>(scale * host[static_cast<std::size_t>(r * a.shape[1] + i)]);
        ex.copy_from_host(transposed.data, columns.data(), columns.size() * sizeof(T));
        linear_forward<Exec, T>(ex, b.matrix(), transposed, {}, weight, weight);  // B (scale Aᵀ)ᵀ
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        f(prefix + "lora_A.weight", a);
        f(prefix + "lora_B.weight", b);
    }

private:
    bool drops(const pass<Exec, T>& p) const { return p.training() && drop > 0; }
    random_stream draw(const pass<Exec, T>& p) const {
        return {p.seed, substream(stream_of("lora dropout", p.step + 1), site)};
    }
    const_matrix<T> dropped(pass<Exec, T>& p, const_matrix<T> x) const {
        if (!drops(p)) return x;
        auto out = p.matrix(x.rows(), x.width());
        dropout<Exec, T>(p.ex, x, drop, draw(p), out);
        return out;
    }
    // scale · A x
    matrix_view<T> low_rank(pass<Exec, T>& p, const_matrix<T> x) {
        auto low = p.matrix(x.rows(), a.shape[0]);
        linear_forward<Exec, T>(p.ex, x, a.matrix(), {}, low, {}, scale);
        return low;
    }
};

}  // namespace spectral
