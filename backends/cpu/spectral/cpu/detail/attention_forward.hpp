// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/attention_forward.hpp: a tile of running softmax, and dot products for few rows
#pragma once
#include <spectral/cpu/detail/attention_problem.hpp>

#include <limits>

namespace spectral::cpu::detail::attention {

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

// A unit's rows lie one below another, queries and weights too, so that from three rows on the scores are a product
// with the transposed keys; the values are one with the keys as they are.
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

}  // namespace spectral::cpu::detail::attention
