// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/attention_backward_tensor.hpp: gradients of attention_tensor.hpp, in two kernels
//
// One owns keys: its blocks walk through the queries that see them and add up the gradients of keys and values. The
// other owns queries. Scores are made in both, nothing is added up between blocks, and no weight leaves registers.
// Where wgmma and registers allow it, detail/attention_one_pass.hpp does both at once.
#pragma once
#include <spectral/cuda/detail/attention_fragments.hpp>

namespace spectral::cuda::detail {

// What backward needs of a query row and head besides its vectors
struct query_statistics {
    float lse_2, delta;  // lse log2 e, dL_dout·out
};

// Of block number `block` of those that share this work. Eight lanes for a row and head; to: heads × rows
__device__ inline void make_statistics(const attention_problem<bfloat16>& a, rows_of<const bfloat16> dL_dout,
                                       rows_of<const bfloat16> out, rows_of<const float> lse, query_statistics* to,
                                       index block) {
    const index rows = a.query_rows, i = (block * blockDim.x + threadIdx.x) / 8;
    const index n = min(i / a.heads, rows - 1), h = i % a.heads;
    const float known = lse(n)[h];
    float sum = 0;
    for (int c = threadIdx.x % 8 * 8; c < a.width; c += 64) {
        float g[8], o[8];
        load<8>(dL_dout(n) + h * a.width + c, g);
        load<8>(out(n) + h * a.width + c, o);
#pragma unroll
        for (int k = 0; k < 8; ++k) sum += g[k] * o[k];
    }
    sum = warp_reduce<8>(sum);
    if (threadIdx.x % 8 == 0 && i < rows * a.heads)
        to[h * rows + n] = {known == -INFINITY ? 0 : known * log2_e, sum};  // no key seen: all its scores are hidden
}
inline constexpr int statistics_threads = 256;
inline unsigned statistics_blocks(const attention_problem<bfloat16>& a) {
    return static_cast<unsigned>(divide_up(a.query_rows * a.heads, statistics_threads / 8));
}
template <int>
__global__ void __launch_bounds__(statistics_threads)
    attention_statistics(attention_problem<bfloat16> a, rows_of<const bfloat16> dL_dout, rows_of<const bfloat16> out,
                         rows_of<const float> lse, query_statistics* to) {
    make_statistics(a, dL_dout, out, lse, to, blockIdx.x);
}

// ---- a block that owns queries --------------------------------------------------------------------------------------

template <int D, int Groups, int Keys, int Stages>
constexpr std::size_t attention_backward_queries_shared() {
    return tile_alignment + 2 * tile_layout<64 * Groups, D>::bytes + 2 * Stages * tile_layout<Keys, D>::bytes +
           sizeof(tile_ring<Stages>);
}

#ifdef __NVCC_DIAG_PRAGMA_SUPPORT__
#pragma nv_diagnostic push
#pragma nv_diag_suppress 549  // nvcc does not see that products set d
#endif
template <class Products, int D, int Groups, int Keys, int Stages, bool Dropout>
__global__ void __launch_bounds__(128 * (Groups + 1), 1)
    attention_backward_queries_tensor(attention_problem<bfloat16> a, rows_of<const bfloat16> dL_dout,
                                      const query_statistics* statistics, rows_of<const float> rotary,
                                      rows_of<bfloat16> dL_dq) {
    if constexpr (Products::built) {
        constexpr int rows = 64 * Groups, tile_bytes = tile_layout<Keys, D>::bytes;
        const int h = blockIdx.x % a.heads, group = warpgroup_number();
        const index blocks = gridDim.x / a.heads, number = blocks - 1 - blockIdx.x / a.heads, q_count = a.query_rows;
        const sequence_tile tile = find_tile(a.q_rows, rows, number);
        if (tile.sequence < 0)
            return clear_outside(a.q_rows, q_count, tile.first, number, blocks,
                                 [&](index n) { clear_columns(dL_dq(n) + index{h} * a.width, a.width); });
        unsigned char *Q = tile_memory(), *dO = Q + tile_layout<rows, D>::bytes, *KV = dO + tile_layout<rows, D>::bytes;
        auto* ring = reinterpret_cast<tile_ring<Stages>*>(KV + 2 * Stages * tile_bytes);
        const index first = tile.first, last = min(first + rows, index{a.q_rows.end[tile.sequence]});
        const index k_first = a.k_rows.begin[tile.sequence], column = index{h / a.group} * a.width;
        const visible_keys visible(a, tile.sequence);
        const row_index* position = a.q_rows.position;
        const int keys = visible(position[last - 1]), tiles = (keys + Keys - 1) / Keys;
        if (threadIdx.x == 0) ring->init(128, 4 * Groups);
        __syncthreads();
        if (group == Groups) {
            register_shares<Products, Groups, 1>::load();
            const int t = threadIdx.x % 128;
            load_rows<rows, D>(Q, a.q, first, last, index{h} * a.width, a.width, t);
            load_rows<rows, D>(dO, dL_dout, first, last, index{h} * a.width, a.width, t);
            for (int j = 0; j < tiles; ++j) {
                unsigned char* to = KV + j % Stages * 2 * tile_bytes;
                ring->wait_empty(j);
                load_rows<Keys, D>(to, a.k, k_first + j * Keys, k_first + keys, column, a.width, t);
                load_rows<Keys, D>(to + tile_bytes, a.v, k_first + j * Keys, k_first + keys, column, a.width, t);
                ring->announce(j);
            }
        } else {
            register_shares<Products, Groups, 1>::compute();
            const int lane = threadIdx.x % 32, a_row = 64 * group;
            const index group_first = first + a_row, warp_first = group_first + threadIdx.x / 32 % 4 * 16,
                        row = warp_first + lane / 4;
            const int limit[2] = {row < last ? visible(position[row]) : 0,
                                  row + 8 < last ? visible(position[row + 8]) : 0};
            const int sure = visible(position[min(warp_first, last - 1)]);
            const int mine =
                group_first < last ? (visible(position[min(group_first + 63, last - 1)]) + Keys - 1) / Keys : 0;
            const float scale_2 = a.scale * log2_e;
            const query_statistics known[2] = {statistics[h * q_count + min(row, last - 1)],
                                               statistics[h * q_count + min(row + 8, last - 1)]};
            float s[Keys / 8][4], d[Keys / 8][4], acc[D / 8][4] = {};
            unsigned p[Keys / 16][4];
            const auto K = [&](int j) { return KV + j % Stages * 2 * tile_bytes; };
            const auto key = [&](int j) { return j * Keys + 2 * (lane % 4); };
            const auto weigh = [&](int j) {
                if ((j + 1) * Keys > sure) hide(s, key(j), limit);
#pragma unroll
                for (int b = 0; b < Keys / 8; ++b)
#pragma unroll
                    for (int i = 0; i < 4; ++i) s[b][i] = exp2_approximate(s[b][i] * scale_2 - known[i / 2].lse_2);
            };
            const auto slopes = [&](int j) {
                round_values<Keys / 8>(p, [&](int b, int i) {
                    float slope = d[b][i];
                    if constexpr (Dropout) slope *= a.dropout(row + i / 2 * 8, h, k_first + key(j) + 8 * b + i % 2);
                    return s[b][i] * (slope - known[i / 2].delta);
                });
            };
            if (mine > 0) {
                ring->wait_full(0);
                Products::begin();
                Products::template scores<D, rows, Keys>(s, Q, a_row, K(0));
                Products::template scores<D, rows, Keys>(d, dO, a_row, K(0) + tile_bytes);
                Products::commit();
                Products::template wait<0>(s, d);
                weigh(0);
                slopes(0);
            }
            for (int j = 1; j < mine; ++j) {  // while tile j is weighed, its other product and tile j - 1's run
                ring->wait_full(j);
                Products::begin();
                Products::template scores<D, rows, Keys>(s, Q, a_row, K(j));
                Products::commit();
                Products::template add<D, Keys>(acc, p, K(j - 1));
                Products::commit();
                Products::template scores<D, rows, Keys>(d, dO, a_row, K(j) + tile_bytes);
                Products::commit();
                Products::template wait<2>(s);
                weigh(j);
                Products::template wait<1>(acc);
                ring->done(j - 1);
                Products::template wait<0>(d);
                slopes(j);
            }
            if (mine > 0) {
                Products::begin();
                Products::template add<D, Keys>(acc, p, K(mine - 1));
                Products::commit();
                Products::template wait<0>(acc);
                ring->done(mine - 1);
            }
            for (int j = mine; j < tiles; ++j) {
                ring->wait_full(j);
                ring->done(j);
            }
            turn_back(acc, rotary, position, row, last);
            store_rows<D / 8>(dL_dq, acc, row, last, index{h} * a.width, a.width, a.scale, a.scale);
        }
    }
}

#ifdef __NVCC_DIAG_PRAGMA_SUPPORT__
#pragma nv_diagnostic pop
#endif

// ---- a block that owns keys -----------------------------------------------------------------------------------------

template <int Queries>
struct query_columns {  // of a tile: as columns of the transposed scores
    float lse_2[Queries], delta[Queries];
    row_index position[Queries];

    // by thread t of those that load: of rows n.. of head h
    __device__ void load(const attention_problem<bfloat16>& a, const query_statistics* statistics, index n, index last,
                         int h, int t) {
        if (t >= Queries) return;
        const bool valid = n + t < last;
        const query_statistics* from = valid ? statistics + h * a.query_rows + n + t : statistics;
        copy_async<4>(&lse_2[t], &from->lse_2, valid);
        copy_async<4>(&delta[t], &from->delta, valid);
        copy_async<4>(&position[t], valid ? a.q_rows.position + n + t : a.q_rows.position, valid);
    }
};

// What the four warps of 64 keys hold: transposed scores, their gradients, and what they add up to.
template <int D, int Queries, bool Dropout>
struct key_sums {
    row_index seen_from[2], all_seen_from;  // the first position that sees this lane's keys, and all 64
    float s[Queries / 8][4], d[Queries / 8][4], dk[D / 8][4], dv[D / 8][4];
    float keep[Dropout ? Queries / 8 : 1][4];
    unsigned p[Queries / 16][4], ds[Queries / 16][4];
    pack<float, 2> known[Queries / 8];  // what this lane's columns have: lse_2, then delta
    bool all_seen;

    // position: of the keys of the block, `keys` of them; first: number of the 64 keys' first, mine: of this lane's
    __device__ void start(bool causal, const row_index* position, int keys, int first, int mine) {
        const auto from = [&](int m) { return m >= keys ? 0x7FFFFFFF : causal ? position[m] : 0; };
        seen_from[0] = from(mine), seen_from[1] = from(mine + 8), all_seen_from = from(first + 63);
#pragma unroll
        for (int j = 0; j < D / 8; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i) dk[j][i] = dv[j][i] = 0;
    }
    // of two neighbouring columns, 8 b + 2 (lane % 4) and the next
    template <class T>
    static __device__ pack<T, 2> columns_of(const T (&values)[Queries], int b) {
        return *reinterpret_cast<const pack<T, 2>*>(values + 8 * b + 2 * (threadIdx.x % 4));
    }
    // What weigh() and slopes() need, read while products run
    __device__ __forceinline__ void read_lse(const query_columns<Queries>& column) {
        all_seen = column.position[0] >= all_seen_from;  // by the first query, so by all
#pragma unroll
        for (int b = 0; b < Queries / 8; ++b) known[b] = columns_of(column.lse_2, b);
    }
    __device__ __forceinline__ void read_delta(const query_columns<Queries>& column) {
#pragma unroll
        for (int b = 0; b < Queries / 8; ++b) known[b] = columns_of(column.delta, b);
    }
    __device__ __forceinline__ void weigh(const query_columns<Queries>& column, float scale_2) {
        const auto weigh_as = [&](auto masked) {
#pragma unroll
            for (int b = 0; b < Queries / 8; ++b) {
                pack<row_index, 2> at{};
                if constexpr (masked()) at = columns_of(column.position, b);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float weight = exp2_approximate(s[b][i] * scale_2 - known[b].value[i % 2]);
                    s[b][i] = !masked() || seen_from[i / 2] <= at.value[i % 2] ? weight : 0;
                }
            }
        };
        if (all_seen)
            weigh_as(std::false_type{});
        else
            weigh_as(std::true_type{});
    }
    // the left operand of dL_dv; n: the first query, row: this lane's first key
    __device__ __forceinline__ void weights(const attention_problem<bfloat16>& a, index n, int h, index row) {
        if constexpr (Dropout)
#pragma unroll
            for (int b = 0; b < Queries / 8; ++b)
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    keep[b][j] = a.dropout(n + 8 * b + 2 * (threadIdx.x % 4) + j % 2, h, row + j / 2 * 8);
        round_values<Queries / 8>(p, [&](int b, int j) {
            if constexpr (Dropout)
                return s[b][j] * keep[b][j];
            else
                return s[b][j];
        });
    }
    // the left operand of dL_dk
    __device__ __forceinline__ void slopes() {
        round_values<Queries / 8>(ds, [&](int b, int j) {
            float slope = d[b][j];
            if constexpr (Dropout) slope *= keep[b][j];
            return s[b][j] * (slope - known[b].value[j % 2]);
        });
    }
    __device__ void store(const attention_problem<bfloat16>& a, rows_of<bfloat16> dL_dk, rows_of<bfloat16> dL_dv,
                          index row, index last, int kv_head) {
        store_rows<D / 8>(dL_dk, dk, row, last, index{kv_head} * a.width, a.width, a.scale, a.scale);
        store_rows<D / 8>(dL_dv, dv, row, last, index{kv_head} * a.width, a.width, 1, 1);
    }
    // the same as floats, where others add to them
    __device__ void store_sums(const attention_problem<bfloat16>& a, rows_of<float> to_dk, rows_of<float> to_dv,
                               index row, index last, int kv_head) {
        const index column = index{kv_head} * a.width + threadIdx.x % 4 * 2;
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int j = 0; j < D / 8; ++j) {
                if (row + 8 * half >= last || 8 * j >= a.width) continue;
                const float k[2] = {dk[j][2 * half] * a.scale, dk[j][2 * half + 1] * a.scale},
                            v[2] = {dv[j][2 * half], dv[j][2 * half + 1]};
                detail::store<2>(to_dk(row + 8 * half) + column + 8 * j, k);
                detail::store<2>(to_dv(row + 8 * half) + column + 8 * j, v);
            }
    }
};

template <int D, int Groups, int Queries, int Stages>
constexpr std::size_t attention_backward_keys_shared() {
    return tile_alignment + 2 * tile_layout<64 * Groups, D>::bytes + 2 * Stages * tile_layout<Queries, D>::bytes +
           Stages * sizeof(query_columns<Queries>) + sizeof(tile_ring<Stages>);
}

// One block for 64 Groups keys of one key/value head; the query heads that share it are added up here.
template <class Products, int D, int Groups, int Queries, int Stages, bool Dropout>
__global__ void __launch_bounds__(128 * (Groups + 1), 1)
    attention_backward_keys_tensor(attention_problem<bfloat16> a, rows_of<const bfloat16> dL_dout,
                                   const query_statistics* statistics, rows_of<const float> rotary,
                                   rows_of<bfloat16> dL_dk, rows_of<bfloat16> dL_dv) {
    if constexpr (Products::built) {
        constexpr int rows = 64 * Groups, tile_bytes = tile_layout<Queries, D>::bytes;
        const int kv_heads = a.heads / a.group, kv_head = blockIdx.x % kv_heads, group = warpgroup_number();
        const index number = blockIdx.x / kv_heads;
        const sequence_tile tile = find_tile(a.k_rows, rows, number);
        if (tile.sequence < 0)
            return clear_outside(a.k_rows, a.key_rows, tile.first, number, gridDim.x / kv_heads, [&](index m) {
                for (const auto& to : {dL_dk, dL_dv}) clear_columns(to(m) + index{kv_head} * a.width, a.width);
            });
        unsigned char *K = tile_memory(), *V = K + tile_layout<rows, D>::bytes, *Q_dO = V + tile_layout<rows, D>::bytes;
        auto* columns = reinterpret_cast<query_columns<Queries>*>(Q_dO + 2 * Stages * tile_bytes);
        auto* ring = reinterpret_cast<tile_ring<Stages>*>(columns + Stages);
        const index first = tile.first, last = min(first + rows, index{a.k_rows.end[tile.sequence]});
        const row_index* position = a.q_rows.position;
        const index q_last = a.q_rows.end[tile.sequence];
        index q_first = a.q_rows.begin[tile.sequence];
        if (a.causal) q_first += lower_bound(position + q_first, q_last - q_first, a.k_rows.position[first]);
        const int tiles_each = static_cast<int>((q_last - q_first + Queries - 1) / Queries),
                  tiles = tiles_each * a.group;
        const auto head = [&](int i) { return kv_head * a.group + i / tiles_each; };
        const auto query = [&](int i) { return q_first + i % tiles_each * Queries; };
        if (threadIdx.x == 0) ring->init(128, 128 * Groups);
        __syncthreads();
        if (group == Groups) {
            register_shares<Products, Groups, 1>::load();
            const int t = threadIdx.x % 128;
            load_rows<rows, D>(K, a.k, first, last, index{kv_head} * a.width, a.width, t);
            load_rows<rows, D>(V, a.v, first, last, index{kv_head} * a.width, a.width, t);
            for (int i = 0; i < tiles; ++i) {
                const index n = query(i), column = index{head(i)} * a.width;
                unsigned char* to = Q_dO + i % Stages * 2 * tile_bytes;
                ring->wait_empty(i);
                load_rows<Queries, D>(to, a.q, n, q_last, column, a.width, t);
                load_rows<Queries, D>(to + tile_bytes, dL_dout, n, q_last, column, a.width, t);
                columns[i % Stages].load(a, statistics, n, q_last, head(i), t);
                ring->announce(i);
            }
        } else {
            register_shares<Products, Groups, 1>::compute();
            const int a_row = 64 * group;
            const index row = first + a_row + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
            const float scale_2 = a.scale * log2_e;
            key_sums<D, Queries, Dropout> x;
            x.start(a.causal, a.k_rows.position + first, static_cast<int>(last - first), a_row,
                    static_cast<int>(row - first));
            const auto Q = [&](int i) { return Q_dO + i % Stages * 2 * tile_bytes; };
            if (tiles > 0) {
                ring->wait_full(0);
                Products::begin();
                Products::template scores<D, rows, Queries>(x.s, K, a_row, Q(0));
                Products::template scores<D, rows, Queries>(x.d, V, a_row, Q(0) + tile_bytes);
                Products::commit();
                x.read_lse(columns[0]);
                Products::template wait<0>(x.s, x.d);
                x.weigh(columns[0], scale_2);
                x.weights(a, query(0), head(0), row);
                x.read_delta(columns[0]);
                x.slopes();
            }
            for (int i = 1; i < tiles; ++i) {  // while tile i is weighed, its other product and tile i - 1's run
                ring->wait_full(i);
                Products::begin();
                Products::template scores<D, rows, Queries>(x.s, K, a_row, Q(i));
                Products::commit();
                Products::template add<D, Queries>(x.dv, x.p, Q(i - 1) + tile_bytes);
                Products::template add<D, Queries>(x.dk, x.ds, Q(i - 1));
                Products::commit();
                Products::template scores<D, rows, Queries>(x.d, V, a_row, Q(i) + tile_bytes);
                Products::commit();
                x.read_lse(columns[i % Stages]);
                Products::template wait<2>(x.s);
                x.weigh(columns[i % Stages], scale_2);
                x.read_delta(columns[i % Stages]);
                Products::template wait<1>(x.dk, x.dv);
                ring->lane_done(i - 1);
                x.weights(a, query(i), head(i), row);
                Products::template wait<0>(x.d);
                x.slopes();
            }
            if (tiles > 0) {
                Products::begin();
                Products::template add<D, Queries>(x.dv, x.p, Q(tiles - 1) + tile_bytes);
                Products::template add<D, Queries>(x.dk, x.ds, Q(tiles - 1));
                Products::commit();
                Products::template wait<0>(x.dk, x.dv);
            }
            turn_back(x.dk, rotary, a.k_rows.position, row, last);
            x.store(a, dL_dk, dL_dv, row, last, kv_head);
        }
    }
}

}  // namespace spectral::cuda::detail
