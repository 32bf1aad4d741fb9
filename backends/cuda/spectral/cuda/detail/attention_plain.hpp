// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/attention_plain.hpp: attention in ordinary arithmetic, any type and width
//
// Forward: a block takes 64 query rows of one sequence and one head (32 in double) and walks through the keys they see,
// 32 at a time, with a running maximum and sum (Dao et al., arXiv:2205.14135). Backward recomputes the weights from
// lse, once for the queries' gradients and once, walking over queries (16 at a time in double beyond width 128), for
// those of keys and values.
#pragma once
#include <spectral/cuda/detail/attention_problem.hpp>
#include <spectral/cuda/detail/reduce.hpp>

namespace spectral::cuda::detail {

inline constexpr int tile_keys = 32;
inline constexpr int attention_threads = 256;  // 16 lanes across keys or columns, 16 down the rows

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
__global__ void __launch_bounds__(attention_threads)
    attention_forward_tiles(attention_problem<T> a, rows_of<T> out, rows_of<compute<T>> lse) {
    using A = compute<T>;
    constexpr int rows = 16 * R, stride = 16 * Columns + 1;
    const sequence_tile tile = find_tile(a.q_rows, rows, blockIdx.x);
    if (tile.sequence < 0)
        return clear_outside(a.q_rows, a.query_rows, tile.first, blockIdx.x, gridDim.x, [&](index n) {
            clear_columns(out(n) + index{blockIdx.y} * a.width, a.width);
            if (threadIdx.x % 32 == 0) lse(n)[blockIdx.y] = -INFINITY;
        });
    A *Q = reinterpret_cast<A*>(shared_bytes), *K = Q + rows * stride, *V = K + tile_keys * stride,
      *P = V + tile_keys * stride;
    auto *q_position = reinterpret_cast<row_index*>(P + rows * (tile_keys + 1)), *k_position = q_position + rows;
    const int h = blockIdx.y, D = a.width, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const index first = tile.first, last = min(first + rows, index{a.q_rows.end[tile.sequence]});
    const index k_first = a.k_rows.begin[tile.sequence];
    index k_last = a.k_rows.end[tile.sequence];
    if (a.causal)
        k_last = k_first +
                 lower_bound(a.k_rows.position + k_first, k_last - k_first, index{a.q_rows.position[last - 1]} + 1);
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
            const A shrink = most == -INFINITY ? A(1) : exp(largest[r] - most);  // nothing seen yet: nothing to shrink
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
        __syncwarp();  // a row of P is written and read by the same 16 lanes
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
__device__ inline void tile_gradients(const attention_problem<T>& a, const compute<T>* Q, const compute<T>* dO,
                                      const compute<T>* K, const compute<T>* V, const row_index* q_position,
                                      const row_index* k_position, const compute<T> (&lse)[R],
                                      const compute<T> (&delta)[R], index first, index last, index k0, index k_last,
                                      int h, compute<T>* P, compute<T>* S) {
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
    attention_backward_queries(attention_problem<T> a, rows_of<const T> dL_dout, rows_of<const compute<T>> lse,
                               const compute<T>* delta, rows_of<T> dL_dq) {
    using A = compute<T>;
    constexpr int rows = 16 * R, stride = 16 * Columns + 1;
    const sequence_tile tile = find_tile(a.q_rows, rows, blockIdx.x);
    if (tile.sequence < 0)
        return clear_outside(a.q_rows, a.query_rows, tile.first, blockIdx.x, gridDim.x,
                             [&](index n) { clear_columns(dL_dq(n) + index{blockIdx.y} * a.width, a.width); });
    A *Q = reinterpret_cast<A*>(shared_bytes), *dO = Q + rows * stride, *K = dO + rows * stride,
      *V = K + tile_keys * stride, *S = V + tile_keys * stride;
    auto *q_position = reinterpret_cast<row_index*>(S + rows * (tile_keys + 1)), *k_position = q_position + rows;
    const int h = blockIdx.y, D = a.width, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const index first = tile.first, last = min(first + rows, index{a.q_rows.end[tile.sequence]});
    const index k_first = a.k_rows.begin[tile.sequence];
    index k_last = a.k_rows.end[tile.sequence];
    if (a.causal)
        k_last = k_first +
                 lower_bound(a.k_rows.position + k_first, k_last - k_first, index{a.q_rows.position[last - 1]} + 1);
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
        tile_gradients<R, Columns, T>(a, Q, dO, K, V, q_position, k_position, row_lse, row_delta, first, last, k0,
                                      k_last, h, nullptr, S);
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
    attention_backward_keys(attention_problem<T> a, rows_of<const T> dL_dout, rows_of<const compute<T>> lse,
                            const compute<T>* delta, rows_of<T> dL_dk, rows_of<T> dL_dv) {
    using A = compute<T>;
    constexpr int rows = 16 * R, stride = 16 * Columns + 1;
    const sequence_tile tile = find_tile(a.k_rows, tile_keys, blockIdx.x);
    if (tile.sequence < 0)
        return clear_outside(a.k_rows, a.key_rows, tile.first, blockIdx.x, gridDim.x, [&](index n) {
            clear_columns(dL_dk(n) + index{blockIdx.y} * a.width, a.width);
            clear_columns(dL_dv(n) + index{blockIdx.y} * a.width, a.width);
        });
    A *Q = reinterpret_cast<A*>(shared_bytes), *dO = Q + rows * stride, *K = dO + rows * stride,
      *V = K + tile_keys * stride, *S = V + tile_keys * stride, *P = S + rows * (tile_keys + 1);
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
            tile_gradients<R, Columns, T>(a, Q, dO, K, V, q_position, k_position, row_lse, row_delta, first, last, k0,
                                          k_last, h, P, S);
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

// ---- launches -------------------------------------------------------------------------------------------------------

// rows of a tile to a thread: double has half the room
template <class T>
inline constexpr int tile_lines = std::is_same_v<T, double> ? 2 : 4;

template <int Width, class T>
void attention_forward_plain(executor& ex, const attention_problem<T>& problem, index rows, rows_of<T> out,
                             rows_of<statistic<T>> lse) {
    constexpr int R = tile_lines<T>, columns = Width / 16;
    launch(ex, "attention_forward",
           dim3(sequence_tiles(rows, problem.q_rows.sequences, 16 * R), static_cast<unsigned>(problem.heads)),
           attention_threads, attention_shared<columns, R, compute<T>>(1, 2, 1), attention_forward_tiles<columns, R, T>,
           problem, out, lse);
}

template <int Width, class T>
void attention_backward_plain(executor& ex, const attention_problem<T>& problem, index rows, rows_of<const T> dL_dout,
                              rows_of<const T> out, rows_of<const statistic<T>> lse, rows_of<T> dL_dq, rows_of<T> dL_dk,
                              rows_of<T> dL_dv) {
    using A = compute<T>;
    // heads of more than 128 doubles: 16 queries to a tile, so that 206 of Hopper's 227 KB hold four tiles
    constexpr int R = std::is_same_v<A, double> && Width > 128 ? 1 : tile_lines<T>, columns = Width / 16;
    const int heads = problem.heads, D = problem.width;
    arena_scope scratch(ex);
    A* delta = ex.memory().template vector<A>(rows * heads).data;
    const A* known = delta;
    row_sums<A>(
        ex, "attention_backward", rows * heads, D,
        [=] __device__(index i, index d) {
            const index n = i / heads, c = i % heads * D + d;
            return widen(dL_dout(n)[c]) * widen(out(n)[c]);
        },
        [=] __device__(index i, A sum) { delta[i] = sum; });
    launch(ex, "attention_backward",
           dim3(sequence_tiles(rows, problem.q_rows.sequences, 16 * R), static_cast<unsigned>(heads)),
           attention_threads, attention_shared<columns, R, A>(2, 2, 1), attention_backward_queries<columns, R, T>,
           problem, dL_dout, lse, known, dL_dq);
    launch(ex, "attention_backward",
           dim3(sequence_tiles(problem.key_rows, problem.q_rows.sequences, tile_keys),
                static_cast<unsigned>(heads / problem.group)),
           attention_threads, attention_shared<columns, R, A>(2, 2, 2), attention_backward_keys<columns, R, T>, problem,
           dL_dout, lse, known, dL_dk, dL_dv);
}

}  // namespace spectral::cuda::detail
