// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/gate.hpp: gates of learned routers, of the MetaRouter and of LayerRoute, and what a gate blends
// (CHIAR-Former, arXiv:2606.08327; LayerRoute, arXiv:2606.01838)
//   token_gate:   s = softmax(W [x; H] + b)                 x (N, d), H (N), W (K, d+1), b (K), s (N, K)
//   sigmoid_gate: g = σ(p u + b)                            p (G, d), u (1, d), b (1), g (G)
//   hard_gate:    g = [s > threshold], straight through;    s, g (G)
//                 or hard concrete: g = clip(1.2 v − 0.1, 0, 1), v = σ((logit u + logit s)/β), β = 2/3, u = draw(G)
//                 (Louizos et al., arXiv:1712.01312)
//   blend:        y = g a + (1 − g) x                       one gate per group of rows: batch, sequence or row
// Throws error for other shapes and for more than max_gate_operators operators.
#pragma once
#include <spectral/core/random.hpp>
#include <spectral/ops/embedding.hpp>
#include <spectral/ops/pool.hpp>

#include <cmath>

namespace spectral {

inline constexpr index max_gate_operators = 8;  // kernels keep a row's logits on the stack

// How gates are made of their probabilities: a hard gate with the soft one's gradient, or noisy gates that harden.
enum class gate_kind { straight_through, hard_concrete };

// A gate and its derivative by s as backward takes it, for every executor: hard_gate's definition.
struct hard_gate {
    gate_kind kind;
    double threshold;
    random_stream draw;
    struct value {
        double gate, slope;
    };
    // of gate number g; the noise of a probability near 0 or 1 is that of 1e-6 from it
    SPECTRAL_HOST_DEVICE value operator()(double soft, index g) const {
        if (kind == gate_kind::straight_through) return {soft > threshold ? 1.0 : 0.0, 1};
        const double beta = 2.0 / 3, u = inside(draw.uniform(static_cast<std::uint64_t>(g))), s = inside(soft),
                     v = 1 / (1 + std::exp(-(std::log(u / (1 - u)) + std::log(s / (1 - s))) / beta)), z = 1.2 * v - 0.1;
        return {z < 0 ? 0 : z > 1 ? 1 : z, z > 0 && z < 1 ? 1.2 * v * (1 - v) / beta / (s * (1 - s)) : 0};
    }

private:
    SPECTRAL_HOST_DEVICE static double inside(double p) { return p < 1e-6 ? 1e-6 : p > 1 - 1e-6 ? 1 - 1e-6 : p; }
};

template <executor Exec, class T>
void token_gate_forward(Exec& ex, deduced_matrix<T> x, const_vector<statistic<T>> entropy, const_matrix<T> w,
                        const_vector<T> b, matrix_view<statistic<T>> s) {
    check_shape(entropy, {x.rows()}, "token_gate_forward", "entropy");
    check_shape(w, {s.width(), x.width() + 1}, "token_gate_forward", "w");
    check_shape(b, {s.width()}, "token_gate_forward", "b");
    check_equal(s.rows(), x.rows(), "token_gate_forward", "rows of s");
    check(s.width() <= max_gate_operators, "token_gate_forward", "at most ", max_gate_operators, " operators, found ",
          s.width());
    SPECTRAL_CALL_KERNEL(token_gate_forward_kernel, ex, view<const T, 2>(x), entropy, w, b, s);
}

// z = the logits: dL_dz_o = s_o (dL_ds_o − Σ_j s_j dL_ds_j); dL_dx and the parameters' gradients accumulate,
// dL_dentropy is overwritten.
template <executor Exec, class T>
void token_gate_backward(Exec& ex, const_matrix<statistic<T>> dL_ds, const_matrix<statistic<T>> s, const_matrix<T> x,
                         const_vector<statistic<T>> entropy, const_matrix<T> w, matrix_view<T> dL_dx,
                         out_vector<statistic<T>> dL_dentropy, matrix_view<statistic<T>> dL_dw,
                         out_vector<statistic<T>> dL_db) {
    check_shape(dL_ds, {s.rows(), s.width()}, "token_gate_backward", "dL_ds");
    check_shape(dL_dx, {x.rows(), x.width()}, "token_gate_backward", "dL_dx");
    check_shape(s, {x.rows(), w.rows()}, "token_gate_backward", "s");
    check_shape(entropy, {x.rows()}, "token_gate_backward", "entropy");
    check_shape(dL_dentropy, {x.rows()}, "token_gate_backward", "dL_dentropy");
    check_shape(w, {s.width(), x.width() + 1}, "token_gate_backward", "w");
    check_shape(dL_dw, {s.width(), x.width() + 1}, "token_gate_backward", "dL_dw");
    check_shape(dL_db, {s.width()}, "token_gate_backward", "dL_db");
    SPECTRAL_CALL_KERNEL(token_gate_backward_kernel, ex, dL_ds, s, x, entropy, w, dL_dx, dL_dentropy, dL_dw, dL_db);
}

template <executor Exec, class T>
void sigmoid_gate_forward(Exec& ex, deduced_matrix<T> pooled, const_matrix<T> u, const_vector<T> b,
                          vector_view<statistic<T>> gate) {
    check_shape(u, {1, pooled.width()}, "sigmoid_gate_forward", "u");
    check_shape(b, {1}, "sigmoid_gate_forward", "b");
    check_shape(gate, {pooled.rows()}, "sigmoid_gate_forward", "gate");
    SPECTRAL_CALL_KERNEL(sigmoid_gate_forward_kernel, ex, view<const T, 2>(pooled), u, b, gate);
}

// dL_dz = dL_dgate g (1 − g);  dL_dpooled = dL_dz u (overwritten);  dL_du += Σ dL_dz p;  dL_db += Σ dL_dz
template <executor Exec, class T>
void sigmoid_gate_backward(Exec& ex, const_vector<statistic<T>> dL_dgate, const_vector<statistic<T>> gate,
                           const_matrix<T> pooled, const_matrix<T> u, matrix_view<T> dL_dpooled,
                           matrix_view<statistic<T>> dL_du, out_vector<statistic<T>> dL_db) {
    check_shape(dL_dgate, {pooled.rows()}, "sigmoid_gate_backward", "dL_dgate");
    check_shape(dL_dpooled, {pooled.rows(), pooled.width()}, "sigmoid_gate_backward", "dL_dpooled");
    check_shape(gate, {pooled.rows()}, "sigmoid_gate_backward", "gate");
    check_shape(u, {1, pooled.width()}, "sigmoid_gate_backward", "u");
    check_shape(dL_du, {1, pooled.width()}, "sigmoid_gate_backward", "dL_du");
    check_shape(dL_db, {1}, "sigmoid_gate_backward", "dL_db");
    SPECTRAL_CALL_KERNEL(sigmoid_gate_backward_kernel, ex, dL_dgate, gate, pooled, u, dL_dpooled, dL_du, dL_db);
}

// slope (G): dg/ds as backward takes it: 1 straight through. In double, as few as they are.
template <executor Exec, class A>
void hard_gate_forward(Exec& ex, const_vector<A> soft, const hard_gate& how, vector_view<A> gate,
                       out_vector<double> slope) {
    check_shape(soft, {gate.size()}, "hard_gate_forward", "soft");
    check_shape(slope, {gate.size()}, "hard_gate_forward", "slope");
    SPECTRAL_CALL_KERNEL(hard_gate_forward_kernel, ex, soft, how, gate, slope);
}

// dL_dsoft = slope dL_dgate + wanted; wanted (G) or empty: what else is asked of s. dL_dsoft may be the memory of dL_dgate.
template <executor Exec, class A>
void hard_gate_backward(Exec& ex, const_vector<A> dL_dgate, const_vector<double> slope, const_vector<double> wanted,
                        vector_view<A> dL_dsoft) {
    check_shape(dL_dgate, {dL_dsoft.size()}, "hard_gate_backward", "dL_dgate");
    check_shape(slope, {dL_dsoft.size()}, "hard_gate_backward", "slope");
    if (wanted.data) check_shape(wanted, {dL_dsoft.size()}, "hard_gate_backward", "wanted");
    SPECTRAL_CALL_KERNEL(hard_gate_backward_kernel, ex, dL_dgate, slope, wanted, dL_dsoft);
}

// gate has one value per pooled row of `scope`
template <executor Exec, class T>
void blend_forward(Exec& ex, const_matrix<T> a, const_matrix<T> x, const_vector<statistic<T>> gate, const row_map& map,
                   pool_scope scope, matrix_view<T> y) {
    check_shape(a, {x.rows(), x.width()}, "blend_forward", "a");
    check_shape(y, {x.rows(), x.width()}, "blend_forward", "y");
    check_shape(gate, {pooled_rows(map, scope)}, "blend_forward", "gate");
    SPECTRAL_CALL_KERNEL(blend_forward_kernel, ex, a, x, gate, map, scope, y);
}

// dL_da = g dL_dy, dL_dx = (1 − g) dL_dy, dL_dgate = Σ over its rows of dL_dy·(a − x): all overwritten
template <executor Exec, class T>
void blend_backward(Exec& ex, const_matrix<T> dL_dy, const_matrix<T> a, const_matrix<T> x,
                    const_vector<statistic<T>> gate, const row_map& map, pool_scope scope, matrix_view<T> dL_da,
                    matrix_view<T> dL_dx, out_vector<statistic<T>> dL_dgate) {
    check_shape(dL_dy, {x.rows(), x.width()}, "blend_backward", "dL_dy");
    check_shape(a, {x.rows(), x.width()}, "blend_backward", "a");
    check_shape(dL_da, {x.rows(), x.width()}, "blend_backward", "dL_da");
    check_shape(dL_dx, {x.rows(), x.width()}, "blend_backward", "dL_dx");
    check_shape(gate, {pooled_rows(map, scope)}, "blend_backward", "gate");
    check_shape(dL_dgate, {pooled_rows(map, scope)}, "blend_backward", "dL_dgate");
    SPECTRAL_CALL_KERNEL(blend_backward_kernel, ex, dL_dy, a, x, gate, map, scope, dL_da, dL_dx, dL_dgate);
}

}  // namespace spectral
