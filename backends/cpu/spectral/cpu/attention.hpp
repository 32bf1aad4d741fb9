// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/attention.hpp: softmax attention in tiles; scores never leave the cache
//
// Work is cut into tiles: up to 64 rows of one sequence and key/value head, where a row is a query of one of the head's
// H/Hkv query heads: rows in the order (query, head) keep positions ascending. A tile visits the keys that its last row
// sees, 64 at a time, with a running maximum m and sum l per row (Milakov and Gimelshein, arXiv:1805.02867):
//   m' = max(m, max S),  P = exp(S - m'),  l' = l e^(m-m') + Σ P,  O' = O e^(m-m') + P V,   out = O / l,  lse = m + log l.
// Rows lie on vector lanes and positions ascend, so near the causal edge whole vectors of rows drop out: keys
// [lo, hi) are computed for vectors v0, v0+1, ... only. Time is thus proportional to the visible pairs, however thinly a
// routed layer's rows are spread. Few rows against many keys (decoding) are dot products along D instead, with the keys
// cut into spans that are computed apart and joined.
//
// Backward recomputes P from lse, tile by tile: dA = keep ∘ (dO Vᵀ), dS = P ∘ (dA - δ), dV += (P ∘ keep)ᵀ dO,
// dK += dSᵀ Q, dQ += dS K. A thread owns the rows of its tiles, hence dQ, and sums dK and dV of a (sequence, head) by
// itself; where two threads share one, the later keeps its part aside and the parts are added in the order of threads.
//
// Tiles are ordered by (sequence, head, row) and cut into one range a thread of equal cost.
#pragma once
#include <spectral/cpu/detail/attention_tile.hpp>
#include <spectral/cpu/detail/parallel.hpp>
#include <spectral/ops/attention.hpp>
#include <spectral/ops/embedding.hpp>

#include <limits>

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

// --- forward --------------------------------------------------------------------------------------------------------

template <class T>
index forward_scratch(index d, bool dropout) {
    return tile * (2 * d + tile + (dropout ? tile : 0));
}

// One pass of the running softmax over S (n, lanes): P in place, its sums, and the factor of what was summed before.
template <class T>
void online_softmax(const lane_bounds<T>& bounds, index first_key, index n, T* s, T* largest, T* sum, T* shrink) {
    constexpr index w = lanes<T>;
    constexpr T lowest = std::numeric_limits<T>::lowest() / 4;
    for (index v = 0; v < bounds.vectors; ++v) {
        const index keys = bounds.keys_of(v, first_key, n);
        if (keys == 0) continue;
        T* column = s + v * w;
        const bool cut = bounds.cut(v, first_key, keys);
        if (cut) {
            const vec<T> limit = load(bounds.keys + v * w) - static_cast<T>(first_key);
            for (index j = 0; j < keys; ++j)
                store(column + j * tile, splat(static_cast<T>(j)) < limit ? load(column + j * tile) : splat(lowest));
        }
        const vec<T> before = load(largest + v * w);
        vec<T> m0 = before, m1 = before, m2 = before, m3 = before;
        index j = 0;
        for (; j + 4 <= keys; j += 4) {
            m0 = larger(load(column + j * tile), m0);
            m1 = larger(load(column + (j + 1) * tile), m1);
            m2 = larger(load(column + (j + 2) * tile), m2);
            m3 = larger(load(column + (j + 3) * tile), m3);
        }
        for (; j < keys; ++j) m0 = larger(load(column + j * tile), m0);
        m0 = larger(larger(m0, m1), larger(m2, m3));
        vec<T> total{};
        for (j = 0; j < keys; ++j) {
            const vec<T> e = exp(load(column + j * tile) - m0);
            store(column + j * tile, e);
            total += e;
        }
        const vec<T> factor = exp(before - m0);
        store(largest + v * w, m0);
        store(sum + v * w, load(sum + v * w) * factor + total);
        store(shrink + v * w, factor);
    }
}

template <class T>
void forward_tile(const problem<T>& p, const work_unit& u, matrix_view<T> out, matrix_view<statistic<T>> lse,
                  T* scratch) {
    constexpr index w = lanes<T>;
    const index d = p.d;
    const bool dropout = p.options.dropout > 0;
    T *qt = scratch, *o = qt + tile * d, *s = o + tile * d, *keep = s + tile * tile;
    const lane_bounds<T> bounds(p, u);
    alignas(64) T largest[tile], sum[tile], factor[tile];
    const T* from[tile];
    T* to[tile];
    for (index i = 0; i < u.rows; ++i) {
        const index n = p.query(u.sequence, u.first_row + i), column = p.head(u.kv_head, u.first_row + i) * d;
        from[i] = p.q.row(n) + column;
        to[i] = out.row(n) + column;
    }
    load_lanes(from, u.rows, d, static_cast<T>(p.options.scale), qt);
    std::fill_n(largest, tile, std::numeric_limits<T>::lowest() / 4);
    std::fill_n(sum, tile, T(0));

    const index base = p.k_rows.begin[u.sequence], column = u.kv_head * d;
    for (index j = 0; j < u.last_key; j += tile) {
        const index n = std::min(tile, u.last_key - j);
        bounds.for_segments(j, n, [&](index lo, index hi, index v0) {
            product<false>(hi - lo, bounds.vectors - v0, d, p.k.row(base + j + lo) + column, p.k.row_stride,
                           qt + v0 * w, tile, s + lo * tile + v0 * w, tile, start::zero);
        });
        online_softmax(bounds, j, n, s, largest, sum, factor);
        if (dropout) {
            draw_tile(p, u, bounds, j, n, keep);
            for (index v = 0; v < bounds.vectors; ++v)
                for (index i = 0, keys = bounds.keys_of(v, j, n); i < keys; ++i) {
                    T* at = s + i * tile + v * w;
                    store(at, load(at) * load(keep + i * tile + v * w));
                }
        }
        bounds.for_segments(j, n, [&](index lo, index hi, index v0) {
            product<true>(d, bounds.vectors - v0, hi - lo, p.v.row(base + j + lo) + column, p.v.row_stride,
                          s + lo * tile + v0 * w, tile, o + v0 * w, tile,
                          lo > 0   ? start::add
                          : j == 0 ? start::zero
                                   : start::scaled,
                          factor + v0 * w);
        });
    }
    for (index i = 0; i < u.rows; ++i) {
        const bool sees = bounds.keys[i] > 0;
        factor[i] = sees ? 1 / sum[i] : T(0);
        lse(p.query(u.sequence, u.first_row + i), p.head(u.kv_head, u.first_row + i)) =
            sees ? largest[i] + std::log(sum[i]) : -std::numeric_limits<T>::infinity();
    }
    if (u.last_key > 0) store_lanes(o, u.rows, d, factor, to);
    for (index i = 0; i < u.rows && !(bounds.keys[i] > 0); ++i) std::fill_n(to[i], d, T(0));
}

// Few rows: result of a part as D sums, then maximum and sum of weights.
inline constexpr index part_size(index d) { return (d + 2 + 15) / 16 * 16; }

// The scores of up to `lanes` keys: one vector of products per key, transposed and added up.
template <class T>
vec<T> dot_keys(const T* q, const T* k, index k_stride, index n, index d) {
    constexpr index w = lanes<T>;
    vec<T> r[w];
    for (index i = 0; i < w; ++i) r[i] = vec<T>{};
    index c = 0;
    for (; c + w <= d; c += w) {
        const vec<T> x = load(q + c);
        if (n == w)
            for (index i = 0; i < w; ++i) r[i] += x * load(k + i * k_stride + c);
        else
            for (index i = 0; i < n; ++i) r[i] += x * load(k + i * k_stride + c);
    }
    transpose_square<T>(r);
    for (index step = w / 2; step > 0; step /= 2)
        for (index i = 0; i < step; ++i) r[i] += r[i + step];
    for (; c < d; ++c)
        for (index i = 0; i < n; ++i) r[0][i] += q[c] * k[i * k_stride + c];
    return r[0];
}

// A unit's rows lie one below another, queries and weights too, so that from three rows on the scores are a product with
// the transposed keys; the values are one with the keys as they are.
template <class T>
index few_scratch(index d) {
    return few_rows * (d + tile) + tile * d;
}

template <class T>
void forward_few(const problem<T>& p, const work_unit& u, T* part, T* scratch) {
    constexpr index w = lanes<T>;
    constexpr T lowest = std::numeric_limits<T>::lowest() / 4;
    const index d = p.d, base = p.k_rows.begin[u.sequence], column = u.kv_head * d, size = part_size(d);
    T *q = scratch, *weight = q + few_rows * d, *kt = weight + few_rows * tile;
    alignas(64) T keep[tile * tile];
    for (index i = 0; i < u.rows; ++i) {
        const T* from = p.q.row(p.query(u.sequence, i)) + p.head(u.kv_head, i) * d;
        for (index c = 0; c < d; ++c) q[i * d + c] = static_cast<T>(p.options.scale) * from[c];
        T* o = part + i * size;
        std::fill_n(o, d, T(0));
        o[d] = lowest;
        o[d + 1] = 0;
    }
    for (index j = u.first_key; j < u.last_key; j += tile) {
        const index most = std::min(tile, u.last_key - j), vectors = (most + w - 1) / w;
        const T *k = p.k.row(base + j) + column, *v = p.v.row(base + j) + column;
        prefetch_rows(v, p.v.row_stride, most, d);
        if (u.rows > 2) {
            const T* key[tile];
            for (index m = 0; m < most; ++m) key[m] = k + m * p.k.row_stride;
            load_lanes(key, most, d, T(1), kt);
            product<false>(u.rows, vectors, d, q, d, kt, tile, weight, tile, start::zero);
        } else {
            for (index m = 0; m < most; m += w)
                for (index i = 0; i < u.rows; ++i)
                    store(weight + i * tile + m,
                          dot_keys(q + i * d, k + m * p.k.row_stride, p.k.row_stride, std::min(w, most - m), d));
        }
        if (j + tile < u.last_key)
            prefetch_rows(k + tile * p.k.row_stride, p.k.row_stride, std::min(tile, u.last_key - j - tile), d);
        for (index i = 0; i < u.rows; ++i) {
            const index n = std::clamp<index>(p.keys_seen(u.sequence, i) - j, 0, most);
            T *o = part + i * size, *s = weight + i * tile;
            std::fill(s + n, s + vectors * w, lowest);  // weight 0, unless the row has seen no key at all
            vec<T> tops = splat(o[d]), total{};
            for (index m = 0; m < vectors; ++m) tops = larger(load(s + m * w), tops);
            T top = tops[0], sum = 0;
            for (index l = 1; l < w; ++l) top = tops[l] > top ? tops[l] : top;
            for (index m = 0; m < vectors; ++m) {
                const vec<T> e = exp(load(s + m * w) - splat(top));
                store(s + m * w, e);
                total += e;
            }
            for (index l = 0; l < w; ++l) sum += total[l];
            const T factor = exp(splat(o[d] - top))[0];
            if (factor != 1)
                for (index c = 0; c < d; ++c) o[c] *= factor;
            o[d + 1] = o[d + 1] * factor + sum;
            o[d] = top;
            if (p.options.dropout > 0) {
                const index line = p.query(u.sequence, i) * p.options.heads + p.head(u.kv_head, i);
                draw_keep(p.options.draw, static_cast<std::uint64_t>(line * p.k.rows() + base + j), n, p.threshold,
                          p.kept, keep);
                for (index m = 0; m < n; ++m) s[m] *= keep[m * tile];
            }
        }
        product<false>(u.rows, d / w, most, weight, tile, v, p.v.row_stride, part, size, start::add);
        for (index c = d / w * w; c < d; ++c)
            for (index i = 0; i < u.rows; ++i)
                for (index m = 0; m < most; ++m) part[i * size + c] += weight[i * tile + m] * v[m * p.v.row_stride + c];
    }
}

// Joins the parts of one sequence and head, one a row of `part`, into its results.
template <class T>
void join_parts(const problem<T>& p, index s, index kv_head, matrix_view<T> part, matrix_view<T> out,
                matrix_view<statistic<T>> lse) {
    const index d = p.d, rows = p.rows_of(s), size = part_size(d);
    for (index i = 0; i < rows; ++i) {
        const index n = p.query(s, i), head = p.head(kv_head, i);
        T *y = out.row(n) + head * d, top = std::numeric_limits<T>::lowest() / 4, sum = 0;
        std::fill_n(y, d, T(0));
        lse(n, head) = -std::numeric_limits<T>::infinity();
        if (p.keys_seen(s, i) == 0) continue;
        for (index c = 0; c < part.rows(); ++c) top = std::max(top, part.row(c)[i * size + d]);
        for (index c = 0; c < part.rows(); ++c) {
            const T* o = part.row(c) + i * size;
            const T factor = std::exp(o[d] - top);
            sum += factor * o[d + 1];
            for (index e = 0; e < d; ++e) y[e] += factor * o[e];
        }
        for (index e = 0; e < d; ++e) y[e] /= sum;
        lse(n, head) = top + std::log(sum);
    }
}

// --- backward -------------------------------------------------------------------------------------------------------

// Sums of dL_dk and dL_dv of one sequence and head: 2 x (keys, stride), stride = D in whole vectors.
template <class T>
struct key_gradients {
    T* data = nullptr;
    index stride = 0, keys = 0;
    T* k(index j) const { return data + j * stride; }
    T* v(index j) const { return data + (keys + j) * stride; }
    index size() const { return 2 * keys * stride; }
};

template <class T>
index padded(index d) {
    return (d + lanes<T> - 1) / lanes<T> * lanes<T>;
}

template <class T>
index backward_scratch(index d, bool dropout) {
    return tile * (3 * d + 2 * padded<T>(d) + (dropout ? 3 : 2) * tile);
}

// S and dA (n, lanes) become P ∘ keep and dS, in place.
template <class T>
void weight_gradients(const lane_bounds<T>& bounds, index first_key, index n, const T* lse, const T* delta,
                      const T* keep, T* s, T* da) {
    constexpr index w = lanes<T>;
    for (index v = 0; v < bounds.vectors; ++v) {
        const index keys = bounds.keys_of(v, first_key, n);
        const bool cut = bounds.cut(v, first_key, keys);
        const vec<T> l = load(lse + v * w), shift = load(delta + v * w);
        const vec<T> limit = load(bounds.keys + v * w) - static_cast<T>(first_key);
        for (index j = 0; j < keys; ++j) {
            T *at = s + j * tile + v * w, *gradient = da + j * tile + v * w;
            vec<T> p = exp(load(at) - l), g = load(gradient);
            if (cut) p = splat(static_cast<T>(j)) < limit ? p : vec<T>{};
            if (keep) {
                const vec<T> factor = load(keep + j * tile + v * w);
                store(at, p * factor);
                g *= factor;
            } else {
                store(at, p);
            }
            store(gradient, p * (g - shift));
        }
    }
}

template <class T>
void backward_tile(const problem<T>& p, const work_unit& u, const_matrix<T> dL_dout, const_matrix<T> out,
                   const_matrix<statistic<T>> lse, matrix_view<T> dL_dq, const key_gradients<T>& sums, T* scratch) {
    constexpr index w = lanes<T>;
    const index d = p.d, wide = padded<T>(d);
    const bool dropout = p.options.dropout > 0;
    const T scale = static_cast<T>(p.options.scale);
    T *s = scratch, *da = s + tile * tile, *qt = da + tile * tile, *gt = qt + tile * d, *dqt = gt + tile * d;
    T *qn = dqt + tile * d, *gn = qn + tile * wide, *keep = dropout ? gn + tile * wide : nullptr;
    const lane_bounds<T> bounds(p, u);
    alignas(64) T l[tile] = {}, delta[tile] = {}, factor[tile];
    const T *q_from[tile], *g_from[tile];
    T* to[tile];
    for (index i = 0; i < u.rows; ++i) {  // rows of D for dK and dV, below their transposes for S and dA
        const index n = p.query(u.sequence, u.first_row + i), head = p.head(u.kv_head, u.first_row + i);
        q_from[i] = p.q.row(n) + head * d;
        g_from[i] = dL_dout.row(n) + head * d;
        to[i] = dL_dq.row(n) + head * d;
        const T* o = out.row(n) + head * d;
        T *qi = qn + i * wide, *gi = gn + i * wide;
        vec<T> dot{};
        index c = 0;
        for (; c + w <= d; c += w) {
            store(qi + c, load(q_from[i] + c) * scale);
            store(gi + c, load(g_from[i] + c));
            dot += load(g_from[i] + c) * load(o + c);
        }
        for (index e = 0; e < w; ++e) delta[i] += dot[e];
        for (; c < d; ++c) {
            qi[c] = q_from[i][c] * scale;
            gi[c] = g_from[i][c];
            delta[i] += g_from[i][c] * o[c];
        }
        for (; c < wide; ++c) qi[c] = gi[c] = 0;
        if (bounds.keys[i] > 0) l[i] = lse(n, head);  // of a query without keys it is -∞
    }
    load_lanes(q_from, u.rows, d, scale, qt);
    load_lanes(g_from, u.rows, d, T(1), gt);
    std::fill_n(dqt, tile * d, T(0));

    const index base = p.k_rows.begin[u.sequence], column = u.kv_head * d;
    for (index j = 0; j < u.last_key; j += tile) {
        const index n = std::min(tile, u.last_key - j);
        bounds.for_segments(j, n, [&](index lo, index hi, index v0) {
            const index row = base + j + lo, corner = lo * tile + v0 * w, vectors = bounds.vectors - v0;
            product<false>(hi - lo, vectors, d, p.k.row(row) + column, p.k.row_stride, qt + v0 * w, tile, s + corner,
                           tile, start::zero);
            product<false>(hi - lo, vectors, d, p.v.row(row) + column, p.v.row_stride, gt + v0 * w, tile, da + corner,
                           tile, start::zero);
        });
        if (dropout) draw_tile(p, u, bounds, j, n, keep);
        weight_gradients(bounds, j, n, l, delta, keep, s, da);
        bounds.for_segments(j, n, [&](index lo, index hi, index v0) {
            const index row = base + j + lo, corner = lo * tile + v0 * w, vectors = bounds.vectors - v0;
            const index rows = u.rows - v0 * w;
            product<false>(hi - lo, wide / w, rows, s + corner, tile, gn + v0 * w * wide, wide, sums.v(j + lo), wide,
                           start::add);
            product<false>(hi - lo, wide / w, rows, da + corner, tile, qn + v0 * w * wide, wide, sums.k(j + lo), wide,
                           start::add);
            product<true>(d, vectors, hi - lo, p.k.row(row) + column, p.k.row_stride, da + corner, tile, dqt + v0 * w,
                          tile, start::add);
        });
    }
    std::fill_n(factor, tile, scale);
    store_lanes(dqt, u.rows, d, factor, to);
}

template <class T>
void write_key_gradients(const problem<T>& p, index s, index kv_head, const key_gradients<T>& sums, write mode,
                         matrix_view<T> dL_dk, matrix_view<T> dL_dv) {
    const index base = p.k_rows.begin[s], column = kv_head * p.d;
    for (index j = 0; j < sums.keys; ++j) {
        T *dk = dL_dk.row(base + j) + column, *dv = dL_dv.row(base + j) + column;
        const T *k = sums.k(j), *v = sums.v(j);
        for (index c = 0; c < p.d; ++c) {
            dk[c] = mode == write::accumulate ? dk[c] + k[c] : k[c];
            dv[c] = mode == write::accumulate ? dv[c] + v[c] : v[c];
        }
    }
}

}  // namespace spectral::cpu::detail::attention

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
                               matrix_view<T> dL_dq, matrix_view<T> dL_dk, matrix_view<T> dL_dv) {
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
}

}  // namespace spectral::cpu
