// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/attention.hpp: softmax attention, one query row and head at a time
//   score_m = scale · q·k_m,  W = softmax(score),  A_m = W_m · keep_m / (1-p),  out = Σ_m A_m v_m,
//   lse = log Σ_m exp(score_m)
// The visible keys of a query are the first ones of its sequence, since positions ascend. No query row outside a
// sequence and no query without keys yields anything: out = 0, lse = -∞.
#pragma once
#include <spectral/ops/attention.hpp>
#include <spectral/reference/executor.hpp>
#include <spectral/reference/rotary.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace spectral::reference {

// How many keys of sequence s a query at `position` sees: keys begin[s] .. begin[s] + visible_keys - 1.
inline index visible_keys(const row_map& k_rows, index s, row_index position, bool causal) {
    const row_index *first = k_rows.position.data + k_rows.begin[s], *last = k_rows.position.data + k_rows.end[s];
    return causal ? std::upper_bound(first, last, position) - first : last - first;
}

// The factor of a weight: 1 without dropout, else 1/(1-p) or 0.
inline double dropout_factor(const attention_options& o, index q_row, index head, index key_row, index key_rows) {
    if (o.dropout <= 0) return 1;
    const auto element = static_cast<std::uint64_t>((q_row * o.heads + head) * key_rows + key_row);
    if (o.dropout >= 1 || o.draw.bits(element) < probability_threshold(o.dropout)) return 0;
    return 1 / (1 - o.dropout);
}

// Σ a b over n elements, in double
template <class T>
double dot(const T* a, const T* b, index n) {
    double sum = 0;
    for (index i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    return sum;
}

template <class T>
void attention_forward_kernel(executor& ex, const_matrix<T> q, const_matrix<T> k, const_matrix<T> v,
                              const row_map& q_rows, const row_map& k_rows, const attention_options& o,
                              matrix_view<T> out, matrix_view<statistic<T>> lse) {
    const index d = q.width() / o.heads, group = o.heads / o.kv_heads;
    arena_scope scope(ex);
    auto weight = ex.memory().template vector<double>(k.rows());
    for (index n = 0; n < q.rows(); ++n) {
        std::fill_n(out.row(n), out.width(), T(0));
        std::fill_n(lse.row(n), o.heads, -std::numeric_limits<T>::infinity());
    }
    for (index s = 0; s < q_rows.sequences(); ++s)
        for (index n = q_rows.begin[s]; n < q_rows.end[s]; ++n) {
            const index keys = visible_keys(k_rows, s, q_rows.position[n], o.causal), first = k_rows.begin[s];
            if (keys == 0) continue;
            for (index h = 0; h < o.heads; ++h) {
                const index column = h / group * d;  // of this head's keys and values
                double largest = -std::numeric_limits<double>::infinity(), sum = 0;
                for (index m = 0; m < keys; ++m) {
                    weight[m] = o.scale * dot(q.row(n) + h * d, k.row(first + m) + column, d);
                    largest = std::max(largest, weight[m]);
                }
                for (index m = 0; m < keys; ++m) sum += weight[m] = std::exp(weight[m] - largest);
                for (index m = 0; m < keys; ++m) weight[m] *= dropout_factor(o, n, h, first + m, k.rows()) / sum;
                for (index c = 0; c < d; ++c) {
                    double value = 0;
                    for (index m = 0; m < keys; ++m) value += weight[m] * static_cast<double>(v(first + m, column + c));
                    out(n, h * d + c) = static_cast<T>(value);
                }
                lse(n, h) = static_cast<T>(largest + std::log(sum));
            }
        }
}

// With dA_m = dL_dout·v_m · keep_m/(1-p) and δ = Σ_m W_m dA_m = dL_dout·out:
//   dscore_m = W_m (dA_m - δ),  dL_dq = scale Σ_m dscore_m k_m,  dL_dk_m = scale Σ_n dscore q_n,  dL_dv_m = Σ_n A
//   dL_dout_n
template <class T>
void attention_backward_kernel(executor& ex, const_matrix<T> dL_dout, const_matrix<T> q, const_matrix<T> k,
                               const_matrix<T> v, const_matrix<T> out, const_matrix<statistic<T>> lse,
                               const row_map& q_rows, const row_map& k_rows, const attention_options& o,
                               const_matrix<statistic<T>> rotary, matrix_view<T> dL_dq, matrix_view<T> dL_dk,
                               matrix_view<T> dL_dv) {
    const index d = q.width() / o.heads, group = o.heads / o.kv_heads;
    arena_scope scope(ex);  // sums over queries (keys) run over many loops: kept in double until the end
    auto dq = ex.memory().template zeros<double, 2>({q.rows(), q.width()});
    auto dk = ex.memory().template zeros<double, 2>({k.rows(), k.width()});
    auto dv = ex.memory().template zeros<double, 2>({k.rows(), k.width()});
    for (index s = 0; s < q_rows.sequences(); ++s)
        for (index n = q_rows.begin[s]; n < q_rows.end[s]; ++n) {
            const index keys = visible_keys(k_rows, s, q_rows.position[n], o.causal), first = k_rows.begin[s];
            for (index h = 0; h < o.heads; ++h) {
                const index column = h / group * d;
                const T *query = q.row(n) + h * d, *gradient = dL_dout.row(n) + h * d;
                const double delta = dot(gradient, out.row(n) + h * d, d);
                for (index m = first; m < first + keys; ++m) {
                    const double keep = dropout_factor(o, n, h, m, k.rows());
                    const double w =
                        std::exp(o.scale * dot(query, k.row(m) + column, d) - static_cast<double>(lse(n, h)));
                    const double dscore = w * (keep * dot(gradient, v.row(m) + column, d) - delta);
                    for (index c = 0; c < d; ++c) {
                        dq(n, h * d + c) += o.scale * dscore * static_cast<double>(k(m, column + c));
                        dk(m, column + c) += o.scale * dscore * static_cast<double>(query[c]);
                        dv(m, column + c) += w * keep * static_cast<double>(gradient[c]);
                    }
                }
            }
        }
    for (index n = 0; n < q.rows(); ++n)
        for (index c = 0; c < q.width(); ++c) dL_dq(n, c) = static_cast<T>(dq(n, c));
    for (index m = 0; m < k.rows(); ++m)
        for (index c = 0; c < k.width(); ++c) {
            dL_dk(m, c) = static_cast<T>(dk(m, c));
            dL_dv(m, c) = static_cast<T>(dv(m, c));
        }
    if (rotary.data) {
        rotary_kernel<T>(ex, dL_dq, q_rows.position, rotary, rotation::inverse);
        rotary_kernel<T>(ex, dL_dk, k_rows.position, rotary, rotation::inverse);
    }
}

}  // namespace spectral::reference
