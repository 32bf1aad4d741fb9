// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/attention.hpp: softmax attention in tiles; scores never leave the cache
//
// Work is cut into tiles: up to 64 rows of one sequence and key/value head, where a row is a query of one of the head's
// H/Hkv query heads: rows in the order (query, head) keep positions ascending. A tile visits the keys that its last row
// sees, 64 at a time, with a running maximum m and sum l per row (Milakov and Gimelshein, arXiv:1805.02867):
//   m' = max(m, max S),  P = exp(S - m'),  l' = l e^(m-m') + Σ P,  O' = O e^(m-m') + P V,   out = O / l,
//   lse = m + log l.
// Rows lie on vector lanes and positions ascend, so near the causal edge whole vectors of rows drop out: keys [lo, hi)
// are computed for vectors v0, v0+1, ... only. Time is thus proportional to the visible pairs, however thinly a routed
// layer's rows are spread. Few rows against many keys (decoding) are dot products along D instead, with the keys cut
// into spans that are computed apart and joined.
//
// Backward recomputes P from lse, tile by tile: dA = keep ∘ (dO Vᵀ), dS = P ∘ (dA - δ), dV += (P ∘ keep)ᵀ dO,
// dK += dSᵀ Q, dQ += dS K. A thread owns the rows of its tiles, hence dQ, and sums dK and dV of a (sequence, head) by
// itself; where two threads share one, the later keeps its part aside and the parts are added in the order of threads.
//
// Tiles are ordered by (sequence, head, row) and cut into one range a thread of equal cost.
#pragma once
#include <spectral/cpu/detail/attention_backward.hpp>
#include <spectral/cpu/detail/attention_forward.hpp>
#include <spectral/cpu/detail/parallel.hpp>
#include <spectral/cpu/rotary.hpp>
#include <spectral/ops/embedding.hpp>

namespace spectral::cpu {

template <class T>
void attention_forward_kernel(executor& ex, const_matrix<T> q, const_matrix<T> k, const_matrix<T> v,
                              const row_map& q_rows, const row_map& k_rows, const attention_options& options,
                              matrix_view<T> out, matrix_view<statistic<T>> lse) {
    using namespace detail::attention;
    arena_scope scope(ex);
    const problem<T> p(q, k, v, q_rows, k_rows, options, ex.memory().template vector<row_index>(q.rows()));
    index covered = 0, slots = 0;
    for (index s = 0; s < q_rows.sequences(); ++s) {
        covered += q_rows.end[s] - q_rows.begin[s];
        if (p.parts_of(s) > 1) slots += options.kv_heads * p.parts_of(s);
    }
    if (covered < q.rows())
        for (index n = 0; n < q.rows(); ++n) {
            std::fill_n(out.row(n), out.width(), T(0));
            std::fill_n(lse.row(n), options.heads, -std::numeric_limits<T>::infinity());
        }

    const index few = few_rows * part_size(p.d);
    const index each = std::max(few + few_scratch<T>(p.d), forward_scratch<T>(p.d, options.dropout > 0));
    auto scratch = ex.memory().template matrix<T>(ex.threads(), each);
    auto part = ex.memory().template matrix<T>(slots, few);
    detail::parallel_ranges(ex, p.total_cost(), cost_grain, [&](index first, index last, int thread) {
        p.for_units(true, first, last, [&](const work_unit& u) {
            const matrix_view<T> own = scratch.slice(thread, 1);
            if (p.rows_of(u.sequence) > few_rows) return forward_tile(p, u, out, lse, own.data);
            if (u.parts > 1) return forward_few(p, u, part.row(u.slot), own.data);
            forward_few(p, u, own.data, own.data + few);
            join_parts(p, u.sequence, u.kv_head, own, out, lse);
        });
    });
    for (index s = 0, slot = 0; s < q_rows.sequences() && slots > 0; ++s)
        if (const index parts = p.parts_of(s); parts > 1)
            for (index h = 0; h < options.kv_heads; ++h, slot += parts)
                join_parts(p, s, h, part.slice(slot, parts), out, lse);
}

template <class T>
void attention_backward_kernel(executor& ex, const_matrix<T> dL_dout, const_matrix<T> q, const_matrix<T> k,
                               const_matrix<T> v, const_matrix<T> out, const_matrix<statistic<T>> lse,
                               const row_map& q_rows, const row_map& k_rows, const attention_options& options,
                               const_matrix<statistic<T>> rotary, matrix_view<T> dL_dq, matrix_view<T> dL_dk,
                               matrix_view<T> dL_dv) {
    using namespace detail::attention;
    arena_scope scope(ex);
    const problem<T> p(q, k, v, q_rows, k_rows, options, ex.memory().template vector<row_index>(q.rows()));
    index covered = 0, most_keys = 0;
    for (index s = 0; s < q_rows.sequences(); ++s) {
        covered += q_rows.end[s] - q_rows.begin[s];
        most_keys = std::max(most_keys, p.most_keys(s));
    }
    if (covered < q.rows())
        for (index n = 0; n < q.rows(); ++n) std::fill_n(dL_dq.row(n), dL_dq.width(), T(0));
    detail::parallel_ranges(ex, k.rows(), 256, [&](index first, index last, int) {  // keys that nobody sees get nothing
        for (index m = first; m < last; ++m) {
            std::fill_n(dL_dk.row(m), dL_dk.width(), T(0));
            std::fill_n(dL_dv.row(m), dL_dv.width(), T(0));
        }
    });

    // A thread may come into a (sequence, head) in its middle: only at the start of its range, so one place is enough.
    struct late_part {
        index sequence, kv_head;
        key_gradients<T> sums;
    };
    const index wide = padded<T>(p.d), each = 2 * most_keys * wide;
    auto scratch = ex.memory().template matrix<T>(ex.threads(), backward_scratch<T>(p.d, options.dropout > 0));
    auto own = ex.memory().template matrix<T>(ex.threads(), each);
    auto late = ex.memory().template matrix<T>(ex.threads() > 1 ? ex.threads() : 0, each);
    auto late_parts = ex.memory().template vector<late_part>(ex.threads());
    for (int t = 0; t < ex.threads(); ++t) late_parts[t] = {};

    detail::parallel_ranges(ex, p.total_cost(), cost_grain, [&](index first, index last, int thread) {
        index s = -1, h = -1;
        key_gradients<T> sums;
        bool is_late = false;
        const auto finish = [&] {
            if (s >= 0 && !is_late) write_key_gradients(p, s, h, sums, write::overwrite, dL_dk, dL_dv);
        };
        p.for_units(false, first, last, [&](const work_unit& u) {
            if (u.sequence != s || u.kv_head != h) {
                finish();
                s = u.sequence;
                h = u.kv_head;
                is_late = u.first_row > 0;
                sums = {is_late ? late.row(thread) : own.row(thread), wide, p.most_keys(s)};
                std::fill_n(sums.data, sums.size(), T(0));
                if (is_late) late_parts[thread] = {s, h, sums};
            }
            backward_tile(p, u, dL_dout, out, lse, dL_dq, sums, scratch.row(thread));
        });
        finish();
    });
    for (int t = 0; t < ex.threads(); ++t)
        if (const late_part& l = late_parts[t]; l.sums.data)
            write_key_gradients(p, l.sequence, l.kv_head, l.sums, write::accumulate, dL_dk, dL_dv);
    if (rotary.data) {
        rotary_kernel<T>(ex, dL_dq, q_rows.position, rotary, rotation::inverse);
        rotary_kernel<T>(ex, dL_dk, k_rows.position, rotary, rotation::inverse);
    }
}

}  // namespace spectral::cpu
