// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/attention.hpp: softmax attention of packed queries against packed keys
//   out[n,h] = Σ_m A[n,h,m] v[m, h·Hkv/H],   A = dropout(softmax_m(scale · q[n,h]·k[m, h·Hkv/H]))
// over the keys m of the query's own sequence, with position(m) ≤ position(n) if causal. Queries and keys have row maps
// of their own over the same sequences: queries may be any subset of a sequence's rows (a routed layer), keys may be
// all rows, a subset, or a cache. Positions ascend inside a sequence. A query that sees no key yields 0.
// A is never stored (Dao et al., arXiv:2205.14135); Hkv < H shares keys (Ainslie et al., arXiv:2305.13245).
// Shapes: q, out (Nq, H·D); k, v (Nk, Hkv·D), H a multiple of Hkv; lse (Nq, H) = log Σ_m exp(score), for backward.
// Throws error for other shapes, a width that is no multiple of H, H that is none of Hkv, row maps that do not fit.
#pragma once
#include <spectral/core/random.hpp>
#include <spectral/core/rows.hpp>
#include <spectral/core/tensor.hpp>
#include <spectral/ops/rotary.hpp>

namespace spectral {

// Heads, scale, mask and dropout of one call.
struct attention_options {
    index heads = 1, kv_heads = 1;
    double scale = 1;
    bool causal = true;
    double dropout = 0;  // on the weights, after softmax
    random_stream draw{};  // element ((query row · H + head) · Nk + key row)
};

// Number of (query, key) pairs that attention looks at: for reports; copies the maps to the host.
template <executor Exec>
double visible_pairs(Exec& ex, const row_map& q_rows, const row_map& k_rows, bool causal) {
    const auto q_begin = to_host(ex, q_rows.begin), q_end = to_host(ex, q_rows.end), q = to_host(ex, q_rows.position);
    const auto k_begin = to_host(ex, k_rows.begin), k_end = to_host(ex, k_rows.end), k = to_host(ex, k_rows.position);
    double pairs = 0;
    for (std::size_t s = 0; s < q_begin.size(); ++s) {
        row_index key = k_begin[s];  // positions ascend on both sides
        for (row_index n = q_begin[s]; n < q_end[s]; ++n) {
            while (key < k_end[s] && (!causal || k[static_cast<std::size_t>(key)] <= q[static_cast<std::size_t>(n)]))
                ++key;
            pairs += key - k_begin[s];
        }
    }
    return pairs;
}

namespace detail {
template <class T>
void check_attention(const_matrix<T> q, const_matrix<T> k, const_matrix<T> v, const row_map& q_rows,
                     const row_map& k_rows, const attention_options& o, const char* where) {
    check(o.heads > 0 && o.kv_heads > 0 && o.heads % o.kv_heads == 0, where, "heads (", o.heads,
          ") must be a multiple of key/value heads (", o.kv_heads, ")");
    check(q.width() % o.heads == 0, where, "width of q: expected a multiple of ", o.heads, " heads, found ", q.width());
    check_equal(k.width(), q.width() / o.heads * o.kv_heads, where, "width of k");
    check_shape(v, {k.rows(), k.width()}, where, "v");
    check_equal(q_rows.rows(), q.rows(), where, "rows of q against its row map");
    check_equal(k_rows.sequences(), q_rows.sequences(), where, "sequences of the keys against those of the queries");
}
}  // namespace detail

template <executor Exec, class T>
void attention_forward(Exec& ex, const_matrix<T> q, const_matrix<T> k, const_matrix<T> v, const row_map& q_rows,
                       const row_map& k_rows, const attention_options& options, matrix_view<T> out,
                       matrix_view<statistic<T>> lse) {
    detail::check_attention<T>(q, k, v, q_rows, k_rows, options, "attention_forward");
    check_shape(out, {q.rows(), q.width()}, "attention_forward", "out");
    check_shape(lse, {q.rows(), options.heads}, "attention_forward", "lse");
    SPECTRAL_CALL_KERNEL(attention_forward_kernel, ex, q, k, v, q_rows, k_rows, options, out, lse);
}

// Overwrites dL_dq (Nq, H·D), dL_dk and dL_dv (Nk, Hkv·D); rows of no sequence get 0. With a table, q and k were rotated
// by it (rotary.hpp), and dL_dq and dL_dk are those of what they were before; then every row has a position in the table.
template <executor Exec, class T>
void attention_backward(Exec& ex, const_matrix<T> dL_dout, const_matrix<T> q, const_matrix<T> k, const_matrix<T> v,
                        const_matrix<T> out, const_matrix<statistic<T>> lse, const row_map& q_rows,
                        const row_map& k_rows, const attention_options& options, matrix_view<T> dL_dq,
                        matrix_view<T> dL_dk, matrix_view<T> dL_dv, const_matrix<statistic<T>> rotary_table = {}) {
    constexpr const char* where = "attention_backward";
    detail::check_attention<T>(q, k, v, q_rows, k_rows, options, where);
    check_shape(dL_dout, {q.rows(), q.width()}, where, "dL_dout");
    check_shape(dL_dq, {q.rows(), q.width()}, where, "dL_dq");
    check_shape(dL_dk, {k.rows(), k.width()}, where, "dL_dk");
    check_shape(dL_dv, {k.rows(), k.width()}, where, "dL_dv");
    if (rotary_table.data)
        check_equal(rotary_table.width(), q.width() / options.heads, where, "width of the rotary table");
    SPECTRAL_CALL_KERNEL(attention_backward_kernel, ex, dL_dout, q, k, v, out, lse, q_rows, k_rows, options,
                         rotary_table, dL_dq, dL_dk, dL_dv);
}

}  // namespace spectral
