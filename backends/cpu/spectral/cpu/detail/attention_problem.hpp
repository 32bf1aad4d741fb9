// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/attention_problem.hpp: a call of attention, cut into tiles
#pragma once
#include <spectral/cpu/detail/attention_tile.hpp>
#include <spectral/ops/attention.hpp>

#include <algorithm>

namespace spectral::cpu::detail::attention {

inline constexpr index few_rows = 8;  // up to so many rows a sequence and head: dot products
inline constexpr index key_span = 1024;  // keys a unit of work of such a sequence takes

// Some rows of one sequence and key/value head, against the keys [first_key, last_key) of the sequence.
struct work_unit {
    index sequence, kv_head, first_row, rows, first_key, last_key;
    index part, parts;  // of the sequence's keys (parts > 1 only for few rows)
    index slot;  // number of the part among all parts of all heads
};

// Everything the kernels share about one call.
template <class T>
struct problem {
    const_matrix<T> q, k, v;
    const row_map &q_rows, &k_rows;
    const attention_options& options;
    vector_view<row_index> visible;  // (Nq) how many keys of its sequence a query sees: the first ones
    index d, group;  // D, query heads per key/value head
    std::uint32_t threshold;  // of dropout
    T kept;  // 1 / (1 - p)

    problem(const_matrix<T> q_, const_matrix<T> k_, const_matrix<T> v_, const row_map& q_rows_, const row_map& k_rows_,
            const attention_options& o, vector_view<row_index> visible_)
        : q(q_),
          k(k_),
          v(v_),
          q_rows(q_rows_),
          k_rows(k_rows_),
          options(o),
          visible(visible_),
          d(q_.width() / o.heads),
          group(o.heads / o.kv_heads),
          threshold(probability_threshold(o.dropout)),
          kept(o.dropout < 1 ? static_cast<T>(1 / (1 - o.dropout)) : T(0)) {
        for (index s = 0; s < q_rows.sequences(); ++s) {
            const row_index* position = k_rows.position.data + k_rows.begin[s];
            const index keys = k_rows.end[s] - k_rows.begin[s];
            index seen = o.causal ? 0 : keys;
            for (index n = q_rows.begin[s]; n < q_rows.end[s]; ++n) {
                if (o.causal) seen = count_up_to(position, keys, seen, q_rows.position[n]);
                visible[n] = static_cast<row_index>(seen);
            }
        }
    }

    // How many of the ascending numbers are ≤ bound, when the first `from` are: steps that double, then halving.
    static index count_up_to(const row_index* position, index n, index from, row_index bound) {
        index step = 1;
        while (from + step <= n && position[from + step - 1] <= bound) {
            from += step;
            step *= 2;
        }
        return std::upper_bound(position + from, position + std::min(n, from + step - 1), bound) - position;
    }

    index rows_of(index s) const { return (q_rows.end[s] - q_rows.begin[s]) * group; }
    index query(index s, index row) const { return q_rows.begin[s] + row / group; }
    index head(index kv_head, index row) const { return kv_head * group + row % group; }
    index keys_seen(index s, index row) const { return visible[query(s, row)]; }
    index most_keys(index s) const { return rows_of(s) > 0 ? keys_seen(s, rows_of(s) - 1) : 0; }
    index parts_of(index s) const { return rows_of(s) <= few_rows ? (most_keys(s) + key_span - 1) / key_span : 1; }

    // Visible pairs, whole vectors, and a constant for what a tile costs besides.
    index cost(index s, index first, index count) const {
        index total = tile * lanes<T>;
        for (index r = 0; r < count; r += lanes<T>)
            total += lanes<T> * keys_seen(s, first + std::min(r + lanes<T>, count) - 1);
        return total;
    }

    // f(unit) for the units whose middle lies in [first, last) of the total cost; returns the total cost.
    template <class F>
    index for_units(bool split_keys, index first, index last, F&& f) const {
        index at = 0, slot = 0;
        for (index s = 0; s < q_rows.sequences(); ++s) {
            const index rows = rows_of(s);
            if (rows == 0) continue;
            const index parts = split_keys ? std::max<index>(parts_of(s), 1) : 1;
            index each = 0;
            for (index r = 0; r < rows; r += tile) each += cost(s, r, std::min(tile, rows - r));
            for (index h = 0; h < options.kv_heads; ++h) {
                if (at + each <= first || at >= last) {  // this head is another thread's
                    at += each;
                    slot += parts > 1 ? parts : 0;
                    continue;
                }
                if (parts > 1) {
                    const index keys = most_keys(s);
                    for (index p = 0; p < parts; ++p) {
                        const index middle = at + each * (2 * p + 1) / (2 * parts);
                        if (middle >= first && middle < last)
                            f(work_unit{s, h, 0, rows, keys * p / parts, keys * (p + 1) / parts, p, parts, slot + p});
                    }
                    at += each;
                } else {
                    for (index r = 0; r < rows; r += tile) {
                        const index n = std::min(tile, rows - r), c = cost(s, r, n), middle = at + c / 2;
                        if (middle >= first && middle < last)
                            f(work_unit{s, h, r, n, 0, keys_seen(s, r + n - 1), 0, 1, 0});
                        at += c;
                    }
                }
                slot += parts > 1 ? parts : 0;
            }
        }
        return at;
    }
    index total_cost() const {
        return for_units(false, 0, 0, [](const work_unit&) {});
    }
};

inline constexpr index cost_grain = tile * tile * 4;  // less is not worth waking a thread

// Per lane: the rows' keys, and for each vector how many keys its last row sees.
template <class T>
struct lane_bounds {
    alignas(64) T keys[tile] = {};
    index last[tile];
    index vectors;

    lane_bounds(const problem<T>& p, const work_unit& u) : vectors((u.rows + lanes<T> - 1) / lanes<T>) {
        for (index i = 0; i < vectors * lanes<T>; ++i)  // lanes after the last row: as the last row, results unused
            keys[i] = static_cast<T>(p.keys_seen(u.sequence, u.first_row + std::min(i, u.rows - 1)));
        for (index v = 0; v < vectors; ++v) last[v] = static_cast<index>(keys[(v + 1) * lanes<T> - 1]);
    }
    index keys_of(index v, index first_key, index n) const { return std::clamp<index>(last[v] - first_key, 0, n); }
    bool cut(index v, index first_key, index n) const { return static_cast<index>(keys[v * lanes<T>]) < first_key + n; }

    // f(lo, hi, v0): keys first_key + [lo, hi) are seen from the vectors v0 and up
    template <class F>
    void for_segments(index first_key, index n, F&& f) const {
        index lo = 0;
        for (index v = 0; v < vectors && lo < n; ++v) {
            const index hi = keys_of(v, first_key, n);
            if (hi <= lo) continue;
            f(lo, hi, v);
            lo = hi;
        }
    }
};

// The dropout factors of a tile, (keys, lanes)
template <class T>
void draw_tile(const problem<T>& p, const work_unit& u, const lane_bounds<T>& bounds, index first_key, index n,
               T* keep) {
    const index key_row = p.k_rows.begin[u.sequence] + first_key;
    for (index i = 0; i < bounds.vectors * lanes<T>; ++i) {
        const index row = u.first_row + std::min(i, u.rows - 1);
        const index line = p.query(u.sequence, row) * p.options.heads + p.head(u.kv_head, row);
        draw_keep(p.options.draw, static_cast<std::uint64_t>(line * p.k.rows() + key_row), n, p.threshold, p.kept,
                  keep + i);
    }
}

}  // namespace spectral::cpu::detail::attention
