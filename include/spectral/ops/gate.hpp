// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/gate.hpp: what routers and gates compute per row
//   token_gate:   s = softmax(W [x; H] + b)                 x (N, d), H (N), W (K, d+1), b (K), s (N, K)
//   sigmoid_gate: g = σ(p u + b)                            p (G, d), u (1, d), b (1), g (G)
//   blend:        y = g a + (1 − g) x                       one gate per group of rows: batch, sequence or row
//   scale_rows:   y = c[n] x[n]  (or y += …);   row_dot: d[n] = a[n]·b[n];   argmax_rows;
//   pick_columns: s[n, op[n]];   random_rows: a coin by position;   threshold_rows: number of thresholds exceeded
#pragma once
#include <spectral/core/random.hpp>
#include <spectral/ops/embedding.hpp>
#include <spectral/ops/pool.hpp>

#include <span>

namespace spectral {

inline constexpr index max_gate_operators = 8;  // kernels keep a row's logits on the stack

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

// c is a column of a (N, K) matrix: element n at c.row(n)
template <executor Exec, class T>
void scale_rows(Exec& ex, const_matrix<T> x, const_matrix<statistic<T>> c, matrix_view<T> y,
                write mode = write::overwrite) {
    check_shape(c, {x.rows(), 1}, "scale_rows", "c");
    check_shape(y, {x.rows(), x.width()}, "scale_rows", "y");
    SPECTRAL_CALL_KERNEL(scale_rows_kernel, ex, x, c, y, mode);
}

template <executor Exec, class T>
void row_dot(Exec& ex, deduced_matrix<T> a, const_matrix<T> b, matrix_view<statistic<T>> d) {
    check_shape(b, {a.rows(), a.width()}, "row_dot", "b");
    check_shape(d, {a.rows(), 1}, "row_dot", "d");
    SPECTRAL_CALL_KERNEL(row_dot_kernel, ex, view<const T, 2>(a), b, d);
}

// op[n] = the first index of the largest s[n,·]
template <executor Exec, class T>
void argmax_rows(Exec& ex, matrix_view<T> s, vector_view<row_index> op) {
    check_shape(op, {s.rows()}, "argmax_rows", "op");
    SPECTRAL_CALL_KERNEL(argmax_rows_kernel, ex, s, op);
}

// picked[n] = s[n, op[n]];  and its gradient: dL_ds[n,o] = dL_dpicked[n] if o = op[n], else 0 (overwritten)
template <executor Exec, class T>
void pick_columns_forward(Exec& ex, const_matrix<T> s, const_vector<row_index> op, matrix_view<T> picked) {
    check_shape(op, {s.rows()}, "pick_columns_forward", "op");
    check_shape(picked, {s.rows(), 1}, "pick_columns_forward", "picked");
    SPECTRAL_CALL_KERNEL(pick_columns_forward_kernel, ex, s, op, picked);
}
template <executor Exec, class T>
void pick_columns_backward(Exec& ex, const_matrix<T> dL_dpicked, const_vector<row_index> op, matrix_view<T> dL_ds) {
    check_shape(op, {dL_ds.rows()}, "pick_columns_backward", "op");
    check_shape(dL_dpicked, {dL_ds.rows(), 1}, "pick_columns_backward", "dL_dpicked");
    SPECTRAL_CALL_KERNEL(pick_columns_backward_kernel, ex, dL_dpicked, op, dL_ds);
}

// y[n, o] = 1 if o = op[n], else 0
template <executor Exec, class T>
void one_hot_rows(Exec& ex, const_vector<row_index> op, matrix_view<T> y) {
    check_shape(op, {y.rows()}, "one_hot_rows", "op");
    SPECTRAL_CALL_KERNEL(one_hot_rows_kernel, ex, op, y);
}

// op[n] = 1 if draw.bits(position[n]) < probability_threshold(share), else 0
template <executor Exec>
void random_rows(Exec& ex, const_vector<row_index> position, random_stream draw, double share,
                 vector_view<row_index> op) {
    check(share >= 0 && share <= 1, "random_rows", "share must be in [0, 1], found ", share);
    check_shape(op, {position.size()}, "random_rows", "op");
    SPECTRAL_CALL_KERNEL(random_rows_kernel, ex, position, draw, share, op);
}

// op[n] = number of thresholds that value[n] exceeds: strictly greater, so a tie stays below
template <executor Exec, class T>
void threshold_rows(Exec& ex, vector_view<T> value, std::span<const double> ascending, vector_view<row_index> op) {
    check_shape(op, {value.size()}, "threshold_rows", "op");
    check(!ascending.empty() && ascending.size() <= 3, "threshold_rows", "1 to 3 thresholds, found ", ascending.size());
    SPECTRAL_CALL_KERNEL(threshold_rows_kernel, ex, value, ascending, op);
}

}  // namespace spectral
