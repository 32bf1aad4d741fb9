// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/attention.hpp: softmax attention of packed queries against packed keys, tile by tile
//
// Forward: a block takes 64 query rows of one sequence and one head (32 in double) and walks through the keys they see, 32
// at a time, with a running maximum and sum (Dao et al., arXiv:2205.14135). Positions ascend, so the last query's position
// ends the walk: time follows visible pairs, also for a routed subset of queries. Backward recomputes the weights from
// lse, once for the queries' gradients and once, walking over queries, for those of keys and values: no atomics, and the
// same bits in every run. Few queries a sequence (decoding): the keys are split among blocks whose results are merged.
// How many rows a sequence has is known on the device alone: blocks find their sequence and tile themselves.
#pragma once
#include <spectral/cuda/gate.hpp>
#include <spectral/cuda/partition.hpp>
#include <spectral/ops/attention.hpp>

namespace spectral::cuda {

namespace detail {

struct attention_rows {
    const row_index *begin, *end, *position, *sequence;
    index sequences;
    attention_rows(const row_map& m)
        : begin(m.begin.data), end(m.end.data), position(m.position.data), sequence(m.sequence.data), sequences(m.sequences()) {}
};

template <class T>
struct attention_problem {
    rows_of<const T> q, k, v;
    attention_rows q_rows, k_rows;
    int heads, group, width;              // query heads, query heads of one key/value head, D
    index key_rows;                       // Nk: numbers the elements of the dropout mask
    bool causal;
    compute<T> scale;
    std::uint32_t drop_below;             // bits below this: dropped; 0: no dropout
    compute<T> kept;                      // 1/(1−p)
    random_stream draw;

    // the factor of weight (query row n, head h, key row m)
    __device__ compute<T> dropout(index n, index h, index m) const {
        if (drop_below == 0) return 1;
        return draw.bits(static_cast<std::uint64_t>((n * heads + h) * key_rows + m)) < drop_below ? compute<T>(0) : kept;
    }
    __device__ bool sees(row_index query, row_index key) const { return !causal || key <= query; }
};

// Tile number `tile` of all sequences' rows cut into tiles of `size`: which sequence, and the tile's first row.
struct sequence_tile {
    index sequence = -1, first = 0;
};
__device__ inline sequence_tile find_tile(const attention_rows& rows, int size, index tile) {
    const int lane = threadIdx.x % 32;
    for (index base = 0; base < rows.sequences; base += 32) {
        const index s = base + lane;
        const int tiles = s < rows.sequences ? (rows.end[s] - rows.begin[s] + size - 1) / size : 0;
        int before = tiles;   // inclusive sum
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const int other = __shfl_up_sync(full_warp, before, step);
            if (lane >= step) before += other;
        }
        const int total = __shfl_sync(full_warp, before, 31);
        if (tile < total) {
            const int found = __ffs(__ballot_sync(full_warp, before > tile)) - 1;
            const int skipped = __shfl_sync(full_warp, before - tiles, found);
            return {base + found, rows.begin[base + found] + (tile - skipped) * size};
        }
        tile -= total;
    }
    return {};
}

inline constexpr int tile_keys = 32;
inline constexpr int attention_threads = 256;   // 16 lanes across keys or columns, 16 down the rows

// A tile of rows in shared memory: rows × (16 · Columns), an odd stride against bank conflicts, zeros outside.
template <int Rows, int Columns, class A, class T>
__device__ inline void load_tile(A* to, rows_of<const T> from, index first, index last, index column, int width) {
    constexpr int stride = 16 * Columns + 1;
    for (int i = threadIdx.x; i < Rows * 16 * Columns; i += attention_threads) {
        const int r = i / (16 * Columns), c = i % (16 * Columns);
        to[r * stride + c] = first + r < last && c < width ? widen(from(first + r)[column + c]) : A(0);
    }
}
template <int Rows>
__device__ inline void load_positions(row_index* to, const row_index* from, index first, index last) {
    for (int i = threadIdx.x; i < Rows; i += attention_threads) to[i] = first + i < last ? from[first + i] : 0;
}

// s[r][j] = a[row r of this thread] · b[key tx + 16 j]
template <int R, int Columns, class A>
__device__ inline void tile_products(const A* a, const A* b, A (&s)[R][2]) {
    constexpr int stride = 16 * Columns + 1;
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
    for (int r = 0; r < R; ++r) s[r][0] = s[r][1] = 0;
#pragma unroll 8
    for (int d = 0; d < 16 * Columns; ++d) {
        const A b0 = b[tx * stride + d], b1 = b[(tx + 16) * stride + d];
#pragma unroll
        for (int r = 0; r < R; ++r) {
            const A value = a[(ty * R + r) * stride + d];
            s[r][0] += value * b0;
            s[r][1] += value * b1;
        }
    }
}

template <int Columns, int R, class A>
constexpr std::size_t attention_shared(int row_tiles, int key_tiles, int weights) {
    const std::size_t stride = 16 * Columns + 1, rows = 16 * R;
    return sizeof(A) * ((row_tiles * rows + key_tiles * tile_keys) * stride + weights * rows * (tile_keys + 1)) +
           sizeof(row_index) * (rows + tile_keys);
}

template <int Columns, int R, class T>
__global__ void __launch_bounds__(attention_threads) attention_forward_tiles(attention_problem<T> a, rows_of<T> out, rows_of<compute<T>> lse) {
    using A = compute<T>;
    constexpr int rows = 16 * R, stride = 16 * Columns + 1;
    const sequence_tile tile = find_tile(a.q_rows, rows, blockIdx.x);
    if (tile.sequence < 0) return;
    A *Q = reinterpret_cast<A*>(shared_bytes), *K = Q + rows * stride, *V = K + tile_keys * stride, *P = V + tile_keys * stride;
    auto *q_position = reinterpret_cast<row_index*>(P + rows * (tile_keys + 1)), *k_position = q_position + rows;
    const int h = blockIdx.y, D = a.width, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const index first = tile.first, last = min(first + rows, index{a.q_rows.end[tile.sequence]});
    const index k_first = a.k_rows.begin[tile.sequence];
    index k_last = a.k_rows.end[tile.sequence];
    if (a.causal) k_last = k_first + lower_bound(a.k_rows.position + k_first, k_last - k_first, index{a.q_rows.position[last - 1]} + 1);
    load_tile<rows, Columns>(Q, a.q, first, last, index{h} * D, D);
    load_positions<rows>(q_position, a.q_rows.position, first, last);
    A sum[R] = {}, largest[R], acc[R][Columns] = {};
#pragma unroll
    for (int r = 0; r < R; ++r) largest[r] = -INFINITY;
    for (index k0 = k_first; k0 < k_last; k0 += tile_keys) {
        __syncthreads();
        load_tile<tile_keys, Columns>(K, a.k, k0, k_last, index{h / a.group} * D, D);
        load_tile<tile_keys, Columns>(V, a.v, k0, k_last, index{h / a.group} * D, D);
        load_positions<tile_keys>(k_position, a.k_rows.position, k0, k_last);
        __syncthreads();
        A s[R][2];
        tile_products<R, Columns>(Q, K, s);
#pragma unroll
        for (int r = 0; r < R; ++r) {
            A most = largest[r];
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const index m = k0 + tx + 16 * j;
                const bool visible = m < k_last && a.sees(q_position[ty * R + r], k_position[tx + 16 * j]);
                s[r][j] = visible ? s[r][j] * a.scale : A(-INFINITY);
                most = greater{}(most, s[r][j]);
            }
            most = warp_reduce<16>(most, greater{});
            const A shrink = most == -INFINITY ? A(1) : exp(largest[r] - most);   // nothing seen yet: nothing to shrink
            A here = 0;
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const A weight = s[r][j] == -INFINITY ? A(0) : exp(s[r][j] - most);
                here += weight;
                P[(ty * R + r) * (tile_keys + 1) + tx + 16 * j] =
                    weight == 0 ? A(0) : weight * a.dropout(first + ty * R + r, h, k0 + tx + 16 * j);
            }
            sum[r] = sum[r] * shrink + warp_reduce<16>(here);
            largest[r] = most;
#pragma unroll
            for (int c = 0; c < Columns; ++c) acc[r][c] *= shrink;
        }
        __syncwarp();   // a row of P is written and read by the same 16 lanes
#pragma unroll 4
        for (int m = 0; m < tile_keys; ++m) {
            A value[Columns];
#pragma unroll
            for (int c = 0; c < Columns; ++c) value[c] = V[m * stride + tx + 16 * c];
#pragma unroll
            for (int r = 0; r < R; ++r) {
                const A weight = P[(ty * R + r) * (tile_keys + 1) + m];
#pragma unroll
                for (int c = 0; c < Columns; ++c) acc[r][c] += weight * value[c];
            }
        }
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
        const index n = first + ty * R + r;
        if (n >= last) continue;
        const A share = sum[r] == 0 ? A(0) : 1 / sum[r];
#pragma unroll
        for (int c = 0; c < Columns; ++c)
            if (tx + 16 * c < D) out(n)[index{h} * D + tx + 16 * c] = narrow<T>(acc[r][c] * share);
        if (tx == 0) lse(n)[h] = sum[r] == 0 ? A(-INFINITY) : largest[r] + log(sum[r]);
    }
}

// The weights of a tile and the gradients of its scores:  P = W keep,  S = W (keep dA − δ)
template <int R, int Columns, class T>
__device__ inline void tile_gradients(const attention_problem<T>& a, const compute<T>* Q, const compute<T>* dO, const compute<T>* K,
                                      const compute<T>* V, const row_index* q_position, const row_index* k_position,
                                      const compute<T> (&lse)[R], const compute<T> (&delta)[R], index first, index last, index k0,
                                      index k_last, int h, compute<T>* P, compute<T>* S) {
    using A = compute<T>;
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    A s[R][2], da[R][2];
    tile_products<R, Columns>(Q, K, s);
    tile_products<R, Columns>(dO, V, da);
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const index n = first + ty * R + r, m = k0 + tx + 16 * j;
            const bool visible = n < last && m < k_last && a.sees(q_position[ty * R + r], k_position[tx + 16 * j]);
            const A weight = visible ? exp(s[r][j] * a.scale - lse[r]) : A(0);
            const A keep = visible ? a.dropout(n, h, m) : A(0);
            const int at = (ty * R + r) * (tile_keys + 1) + tx + 16 * j;
            if (P) P[at] = weight * keep;
            S[at] = visible ? weight * (keep * da[r][j] - delta[r]) : A(0);
        }
}

template <int Columns, int R, class T>
__global__ void __launch_bounds__(attention_threads)
    attention_backward_queries(attention_problem<T> a, rows_of<const T> dL_dout, rows_of<const compute<T>> lse, const compute<T>* delta, rows_of<T> dL_dq) {
    using A = compute<T>;
    constexpr int rows = 16 * R, stride = 16 * Columns + 1;
    const sequence_tile tile = find_tile(a.q_rows, rows, blockIdx.x);
    if (tile.sequence < 0) return;
    A *Q = reinterpret_cast<A*>(shared_bytes), *dO = Q + rows * stride, *K = dO + rows * stride, *V = K + tile_keys * stride,
      *S = V + tile_keys * stride;
    auto *q_position = reinterpret_cast<row_index*>(S + rows * (tile_keys + 1)), *k_position = q_position + rows;
    const int h = blockIdx.y, D = a.width, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const index first = tile.first, last = min(first + rows, index{a.q_rows.end[tile.sequence]});
    const index k_first = a.k_rows.begin[tile.sequence];
    index k_last = a.k_rows.end[tile.sequence];
    if (a.causal) k_last = k_first + lower_bound(a.k_rows.position + k_first, k_last - k_first, index{a.q_rows.position[last - 1]} + 1);
    load_tile<rows, Columns>(Q, a.q, first, last, index{h} * D, D);
    load_tile<rows, Columns>(dO, dL_dout, first, last, index{h} * D, D);
    load_positions<rows>(q_position, a.q_rows.position, first, last);
    A row_lse[R], row_delta[R], acc[R][Columns] = {};
#pragma unroll
    for (int r = 0; r < R; ++r) {
        const index n = min(first + ty * R + r, last - 1);
        row_lse[r] = lse(n)[h];
        row_delta[r] = delta[n * a.heads + h];
    }
    for (index k0 = k_first; k0 < k_last; k0 += tile_keys) {
        __syncthreads();
        load_tile<tile_keys, Columns>(K, a.k, k0, k_last, index{h / a.group} * D, D);
        load_tile<tile_keys, Columns>(V, a.v, k0, k_last, index{h / a.group} * D, D);
        load_positions<tile_keys>(k_position, a.k_rows.position, k0, k_last);
        __syncthreads();
        tile_gradients<R, Columns, T>(a, Q, dO, K, V, q_position, k_position, row_lse, row_delta, first, last, k0, k_last, h, nullptr, S);
        __syncwarp();
#pragma unroll 4
        for (int m = 0; m < tile_keys; ++m) {
            A key[Columns];
#pragma unroll
            for (int c = 0; c < Columns; ++c) key[c] = K[m * stride + tx + 16 * c];
#pragma unroll
            for (int r = 0; r < R; ++r) {
                const A slope = S[(ty * R + r) * (tile_keys + 1) + m];
#pragma unroll
                for (int c = 0; c < Columns; ++c) acc[r][c] += slope * key[c];
            }
        }
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
        const index n = first + ty * R + r;
        if (n >= last) continue;
#pragma unroll
        for (int c = 0; c < Columns; ++c)
            if (tx + 16 * c < D) dL_dq(n)[index{h} * D + tx + 16 * c] = narrow<T>(acc[r][c] * a.scale);
    }
}

// One block for 32 keys of one key/value head; the query heads that share it are added up here.
template <int Columns, int R, class T>
__global__ void __launch_bounds__(attention_threads)
    attention_backward_keys(attention_problem<T> a, rows_of<const T> dL_dout, rows_of<const compute<T>> lse, const compute<T>* delta, rows_of<T> dL_dk,
                            rows_of<T> dL_dv) {
    using A = compute<T>;
    constexpr int rows = 16 * R, stride = 16 * Columns + 1;
    const sequence_tile tile = find_tile(a.k_rows, tile_keys, blockIdx.x);
    if (tile.sequence < 0) return;
    A *Q = reinterpret_cast<A*>(shared_bytes), *dO = Q + rows * stride, *K = dO + rows * stride, *V = K + tile_keys * stride,
      *S = V + tile_keys * stride, *P = S + rows * (tile_keys + 1);
    auto *q_position = reinterpret_cast<row_index*>(P + rows * (tile_keys + 1)), *k_position = q_position + rows;
    const int kv_head = blockIdx.y, D = a.width, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const index k0 = tile.first, k_last = min(k0 + tile_keys, index{a.k_rows.end[tile.sequence]});
    index q_first = a.q_rows.begin[tile.sequence];
    const index q_last = a.q_rows.end[tile.sequence];
    load_tile<tile_keys, Columns>(K, a.k, k0, k_last, index{kv_head} * D, D);
    load_tile<tile_keys, Columns>(V, a.v, k0, k_last, index{kv_head} * D, D);
    load_positions<tile_keys>(k_position, a.k_rows.position, k0, k_last);
    if (a.causal) q_first += lower_bound(a.q_rows.position + q_first, q_last - q_first, a.k_rows.position[k0]);
    A dk[2][Columns] = {}, dv[2][Columns] = {};
    for (int h = kv_head * a.group; h < (kv_head + 1) * a.group; ++h)
        for (index first = q_first; first < q_last; first += rows) {
            const index last = min(first + rows, q_last);
            __syncthreads();
            load_tile<rows, Columns>(Q, a.q, first, last, index{h} * D, D);
            load_tile<rows, Columns>(dO, dL_dout, first, last, index{h} * D, D);
            load_positions<rows>(q_position, a.q_rows.position, first, last);
            A row_lse[R], row_delta[R];
#pragma unroll
            for (int r = 0; r < R; ++r) {
                const index n = min(first + ty * R + r, last - 1);
                row_lse[r] = lse(n)[h];
                row_delta[r] = delta[n * a.heads + h];
            }
            __syncthreads();
            tile_gradients<R, Columns, T>(a, Q, dO, K, V, q_position, k_position, row_lse, row_delta, first, last, k0, k_last, h, P, S);
            __syncthreads();
            const int tile_rows = static_cast<int>(last - first);
            for (int n = 0; n < tile_rows; ++n)
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    const A weight = P[n * (tile_keys + 1) + ty + 16 * j], slope = S[n * (tile_keys + 1) + ty + 16 * j];
#pragma unroll
                    for (int c = 0; c < Columns; ++c) {
                        dv[j][c] += weight * dO[n * stride + tx + 16 * c];
                        dk[j][c] += slope * Q[n * stride + tx + 16 * c];
                    }
                }
        }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        const index m = k0 + ty + 16 * j;
        if (m >= k_last) continue;
#pragma unroll
        for (int c = 0; c < Columns; ++c)
            if (tx + 16 * c < D) {
                dL_dk(m)[index{kv_head} * D + tx + 16 * c] = narrow<T>(dk[j][c] * a.scale);
                dL_dv(m)[index{kv_head} * D + tx + 16 * c] = narrow<T>(dv[j][c]);
            }
    }
}

// ---- few queries a sequence ---------------------------------------------------------------------------------------------

// One block for (query row, head, share of its keys); a warp takes every fourth 32 keys. Result: D sums, the sum of the
// weights, the largest score.
template <int Columns, class T>   // Columns of 32
__global__ void attention_decode_parts(attention_problem<T> a, compute<T>* parts) {
    using A = compute<T>;
    constexpr int warps = 4;
    __shared__ A shared[warps][32 * Columns + 2];
    const index n = blockIdx.x, s = a.q_rows.sequence[n];
    const int h = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32, D = a.width;
    index keys = 0, k_first = 0;
    if (s >= 0) {
        k_first = a.k_rows.begin[s];
        keys = a.k_rows.end[s] - k_first;
        if (a.causal) keys = lower_bound(a.k_rows.position + k_first, keys, index{a.q_rows.position[n]} + 1);
    }
    const index share = (keys + gridDim.z - 1) / gridDim.z;
    const index first = k_first + blockIdx.z * share, last = min(first + share, k_first + keys);
    const T* query = a.q(n) + index{h} * D;
    const index column = index{h / a.group} * D;
    A largest = -INFINITY, sum = 0, acc[Columns] = {};
    for (index base = first + 32 * warp; base < last; base += 32 * warps) {
        const index m = base + lane;
        A score = -INFINITY;
        if (m < last) {
            const T* key = a.k(m) + column;
            score = 0;
#pragma unroll 8
            for (int d = 0; d < D; ++d) score += widen(query[d]) * widen(key[d]);
            score *= a.scale;
        }
        const A most = greater{}(largest, warp_reduce(score, greater{}));
        const A shrink = most == -INFINITY ? A(1) : exp(largest - most);
        A weight = score == -INFINITY ? A(0) : exp(score - most);
        sum = sum * shrink + warp_reduce(weight);
        largest = most;
        if (weight != 0) weight *= a.dropout(n, h, m);
#pragma unroll
        for (int c = 0; c < Columns; ++c) acc[c] *= shrink;
        const int here = static_cast<int>(min(index{32}, last - base));
        for (int i = 0; i < here; ++i) {
            const A w = __shfl_sync(full_warp, weight, i);
            const T* value = a.v(base + i) + column;
#pragma unroll
            for (int c = 0; c < Columns; ++c)
                if (lane + 32 * c < D) acc[c] += w * widen(value[lane + 32 * c]);
        }
    }
#pragma unroll
    for (int c = 0; c < Columns; ++c) shared[warp][lane + 32 * c] = acc[c];
    if (lane == 0) shared[warp][32 * Columns] = sum, shared[warp][32 * Columns + 1] = largest;
    __syncthreads();
    A most = -INFINITY, total = 0;
    for (int w = 0; w < warps; ++w) most = greater{}(most, shared[w][32 * Columns + 1]);
    A* out = parts + ((n * a.heads + h) * gridDim.z + blockIdx.z) * (D + 2);
    const auto factor = [&](int w) { return most == -INFINITY ? A(0) : exp(shared[w][32 * Columns + 1] - most); };
    for (int w = 0; w < warps; ++w) total += shared[w][32 * Columns] * factor(w);
    for (int d = threadIdx.x; d < D; d += blockDim.x) {
        A value = 0;
        for (int w = 0; w < warps; ++w) value += shared[w][d] * factor(w);
        out[d] = value;
    }
    if (threadIdx.x == 0) out[D] = total, out[D + 1] = most;
}

// The parts of (n, h) put together.
template <class T>
void merge_decode_parts(executor& ex, index rows, int heads, int D, index parts_each, const compute<T>* parts, matrix_view<T> out, matrix_view<statistic<T>> lse) {
    using A = compute<T>;
    const auto to = rows_in(out);
    const auto to_lse = rows_in(lse);
    for_each_element(ex, "attention_forward", rows * heads, D, [=] __device__(index i, index d) {
        const A* mine = parts + i * parts_each * (D + 2);
        A most = -INFINITY, total = 0, value = 0;
        for (index z = 0; z < parts_each; ++z) most = greater{}(most, mine[z * (D + 2) + D + 1]);
        for (index z = 0; z < parts_each && most != -INFINITY; ++z) {
            const A factor = exp(mine[z * (D + 2) + D + 1] - most);
            total += factor * mine[z * (D + 2) + D];
            value += factor * mine[z * (D + 2) + d];
        }
        const index n = i / heads, h = i % heads;
        to(n)[h * D + d] = narrow<T>(total == 0 ? A(0) : value / total);
        if (d == 0) to_lse(n)[h] = total == 0 ? A(-INFINITY) : most + log(total);
    });
}

template <class T>
attention_problem<T> make_problem(const_matrix<T> q, const_matrix<T> k, const_matrix<T> v, const row_map& q_rows, const row_map& k_rows,
                                  const attention_options& o) {
    using A = compute<T>;
    const bool all = o.dropout >= 1;
    return {rows_in(q), rows_in(k), rows_in(v), q_rows, k_rows, static_cast<int>(o.heads), static_cast<int>(o.heads / o.kv_heads),
            static_cast<int>(q.width() / o.heads), k.rows(), o.causal, static_cast<A>(o.scale),
            all ? 0xFFFFFFFFu : o.dropout > 0 ? probability_threshold(o.dropout) : 0u, static_cast<A>(all ? 0 : 1 / (1 - std::max(o.dropout, 0.0))),
            o.draw};
}

// f(integral_constant<int, width>) with the narrowest compiled width that holds D
template <class F>
void with_columns(const char* what, index D, F&& f) {
    check(D <= 256, what, "head widths up to 256 are supported on cuda, found ", D);
    if (D <= 32) f(std::integral_constant<int, 32>{});
    else if (D <= 64) f(std::integral_constant<int, 64>{});
    else if (D <= 128) f(std::integral_constant<int, 128>{});
    else f(std::integral_constant<int, 256>{});
}

// rows of a tile to a thread: double has half the room
template <class T> inline constexpr int tile_lines = std::is_same_v<T, double> ? 2 : 4;

inline unsigned sequence_tiles(index rows, index sequences, index size) { return static_cast<unsigned>(rows / size + sequences); }

}  // namespace detail

template <class T>
void attention_forward_kernel(executor& ex, const_matrix<T> q, const_matrix<T> k, const_matrix<T> v, const row_map& q_rows,
                              const row_map& k_rows, const attention_options& o, matrix_view<T> out, matrix_view<statistic<T>> lse) {
    using A = detail::compute<T>;
    const index N = q.rows(), S = q_rows.sequences(), D = q.width() / o.heads;
    if (N == 0) return;
    const auto problem = detail::make_problem<T>(q, k, v, q_rows, k_rows, o);
    detail::with_columns("attention_forward", D, [&](auto width) {
        if (N <= 2 * S && q_rows.sequence.data) {   // decoding: keys are split among blocks
            const index split = std::clamp<index>(detail::divide_up(k.rows(), 512 * std::max<index>(S, 1)), 1, 64);
            arena_scope scratch(ex);
            auto parts = ex.memory().template vector<A>(N * o.heads * split * (D + 2));
            detail::launch(ex, "attention_forward", dim3(static_cast<unsigned>(N), static_cast<unsigned>(o.heads), static_cast<unsigned>(split)),
                           128, 0, detail::attention_decode_parts<width() / 32, T>, problem, parts.data);
            detail::merge_decode_parts<T>(ex, N, static_cast<int>(o.heads), static_cast<int>(D), split, parts.data, out, lse);
            return;
        }
        detail::fill<T>(ex, "attention_forward", out, 0);   // rows of no sequence: no tile reaches them
        detail::fill<A>(ex, "attention_forward", lse, A(-INFINITY));
        constexpr int R = detail::tile_lines<T>, columns = width() / 16;
        detail::launch(ex, "attention_forward", dim3(detail::sequence_tiles(N, S, 16 * R), static_cast<unsigned>(o.heads)),
                       detail::attention_threads, detail::attention_shared<columns, R, A>(1, 2, 1),
                       detail::attention_forward_tiles<columns, R, T>, problem, detail::rows_in(out), detail::rows_in(lse));
    });
}

template <class T>
void attention_backward_kernel(executor& ex, const_matrix<T> dL_dout, const_matrix<T> q, const_matrix<T> k, const_matrix<T> v,
                               const_matrix<T> out, const_matrix<statistic<T>> lse, const row_map& q_rows, const row_map& k_rows,
                               const attention_options& o, matrix_view<T> dL_dq, matrix_view<T> dL_dk, matrix_view<T> dL_dv) {
    using A = detail::compute<T>;
    const index N = q.rows(), S = q_rows.sequences(), D = q.width() / o.heads, heads = o.heads;
    for (const auto& m : {dL_dq, dL_dk, dL_dv}) detail::fill<T>(ex, "attention_backward", m, 0);   // rows of no sequence
    if (N == 0 || k.rows() == 0) return;
    const auto problem = detail::make_problem<T>(q, k, v, q_rows, k_rows, o);
    arena_scope scratch(ex);
    auto deltas = ex.memory().template vector<A>(N * heads);
    const auto gradient = detail::rows_in(dL_dout), value = detail::rows_in(out);
    const auto lse_rows = detail::rows_in(lse);
    A* delta = deltas.data;
    detail::row_sums<A>(
        ex, "attention_backward", N * heads, D,
        [=] __device__(index i, index d) {
            const index n = i / heads, c = i % heads * D + d;
            return detail::widen(gradient(n)[c]) * detail::widen(value(n)[c]);
        },
        [=] __device__(index i, A sum) { delta[i] = sum; });
    detail::with_columns("attention_backward", D, [&](auto width) {
        constexpr int R = detail::tile_lines<T>, columns = width() / 16;
        const A* known = deltas.data;
        detail::launch(ex, "attention_backward", dim3(detail::sequence_tiles(N, S, 16 * R), static_cast<unsigned>(heads)),
                       detail::attention_threads, detail::attention_shared<columns, R, A>(2, 2, 1),
                       detail::attention_backward_queries<columns, R, T>, problem, gradient, lse_rows, known, detail::rows_in(dL_dq));
        detail::launch(ex, "attention_backward", dim3(detail::sequence_tiles(k.rows(), S, detail::tile_keys), static_cast<unsigned>(o.kv_heads)),
                       detail::attention_threads, detail::attention_shared<columns, R, A>(2, 2, 2),
                       detail::attention_backward_keys<columns, R, T>, problem, gradient, lse_rows, known, detail::rows_in(dL_dk),
                       detail::rows_in(dL_dv));
    });
}

}  // namespace spectral::cuda
