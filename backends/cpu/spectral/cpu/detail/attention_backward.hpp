// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/attention_backward.hpp: a tile's gradients, from the weights recomputed out of lse
#pragma once
#include <spectral/cpu/detail/attention_problem.hpp>
#include <spectral/ops/embedding.hpp>

namespace spectral::cpu::detail::attention {

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
