// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/attention_tensor.hpp: attention of bfloat16 on tensor cores, forward and backward
//
// A block's last warpgroup loads tiles, the others compute, 64 rows each (FlashAttention-3's shape, Shah et al.,
// arXiv:2407.08608); barriers in shared memory are all they share, so that one multiplies while another exponentiates.
// The same kernels run by mma.sync and by wgmma (Products). Blocks with most to do start first. Backward is two
// kernels, one that owns queries and one that owns keys: scores are made twice, nothing is added up between blocks, and
// no weight leaves registers.
#pragma once
#include <spectral/cuda/detail/attention_fragments.hpp>

namespace spectral::cuda::detail {

// A multiprocessor's 65536 registers, of Blocks blocks: fewer for the 128 threads that load, more for the 128 Groups that
// compute.
template <class Products, int Groups, int Blocks>
struct register_shares {
    static constexpr bool uneven = std::is_same_v<Products, warpgroup_products>;
    static constexpr int all = 65536 / (128 * (Groups + 1) * Blocks) / 8 * 8 * (Groups + 1),
                         loading = all > 504 || all < 256 ? 32 : 40, computing = (all - loading) / Groups / 8 * 8;
    static __device__ void load() {
        if constexpr (uneven) give_registers<loading>();
    }
    static __device__ void compute() {
        if constexpr (uneven) take_registers<computing>();
    }
};

// ---- forward --------------------------------------------------------------------------------------------------------

template <int D, int Groups, int Keys>
constexpr std::size_t attention_forward_shared() {
    return tile_alignment + tile_layout<64 * Groups, D>::bytes + 4 * tile_layout<Keys, D>::bytes +
           2 * sizeof(tile_ring<2>);
}

template <class Products, int D, int Groups, int Keys, int Blocks, bool Dropout>
__global__ void __launch_bounds__(128 * (Groups + 1), Blocks)
    attention_forward_tensor(attention_problem<bfloat16> a, rows_of<bfloat16> out, rows_of<float> lse) {
    if constexpr (Products::built) {
        constexpr int rows = 64 * Groups, tile_bytes = tile_layout<Keys, D>::bytes;
        const int h = blockIdx.x % a.heads, group = warpgroup_number();
        const index blocks = gridDim.x / a.heads, number = blocks - 1 - blockIdx.x / a.heads;
        const sequence_tile tile = find_tile(a.q_rows, rows, number);
        if (tile.sequence < 0)
            return clear_outside(a.q_rows, a.query_rows, tile.first, number, blocks, [&](index n) {
                clear_columns(out(n) + index{h} * a.width, a.width);
                if (threadIdx.x % 32 == 0) lse(n)[h] = -INFINITY;
            });
        unsigned char *Q = tile_memory(), *K = Q + tile_layout<rows, D>::bytes, *V = K + 2 * tile_bytes;
        auto *k_ring = reinterpret_cast<tile_ring<2>*>(V + 2 * tile_bytes), *v_ring = k_ring + 1;
        const index first = tile.first, last = min(first + rows, index{a.q_rows.end[tile.sequence]});
        const index k_first = a.k_rows.begin[tile.sequence], column = index{h / a.group} * a.width;
        const visible_keys visible(a, tile.sequence);
        const row_index* position = a.q_rows.position;
        const int keys = visible(position[last - 1]), tiles = (keys + Keys - 1) / Keys;
        if (threadIdx.x == 0) k_ring->init(128, 4 * Groups), v_ring->init(128, 4 * Groups);
        __syncthreads();
        if (group == Groups) {
            register_shares<Products, Groups, Blocks>::load();
            const int t = threadIdx.x % 128;
            load_rows<rows, D>(Q, a.q, first, last, index{h} * a.width, a.width, t);
            for (int j = 0; j < tiles; ++j) {
                k_ring->wait_empty(j);
                load_rows<Keys, D>(K + j % 2 * tile_bytes, a.k, k_first + j * Keys, k_first + keys, column, a.width, t);
                k_ring->announce(j);
                v_ring->wait_empty(j);
                load_rows<Keys, D>(V + j % 2 * tile_bytes, a.v, k_first + j * Keys, k_first + keys, column, a.width, t);
                v_ring->announce(j);
            }
        } else {
            register_shares<Products, Groups, Blocks>::compute();
            const int lane = threadIdx.x % 32, a_row = 64 * group;
            const index group_first = first + a_row, warp_first = group_first + threadIdx.x / 32 % 4 * 16,
                        row = warp_first + lane / 4;
            const int limit[2] = {row < last ? visible(position[row]) : 0,
                                  row + 8 < last ? visible(position[row + 8]) : 0};
            const int sure = visible(position[min(warp_first, last - 1)]);  // keys that all rows of this warp see
            const int mine =
                group_first < last ? (visible(position[min(group_first + 63, last - 1)]) + Keys - 1) / Keys : 0;
            const float scale_2 = a.scale * log2_e;
            float s[Keys / 8][4], acc[D / 8][4] = {};
            unsigned p[Keys / 16][4];
            softmax_rows softmax;
            const auto weigh = [&](int j) {
                const int key = j * Keys + 2 * (lane % 4);
                if ((j + 1) * Keys > sure) hide(s, key, limit);
                softmax.weigh(s, scale_2);
                if constexpr (Dropout)
#pragma unroll
                    for (int b = 0; b < Keys / 8; ++b)
#pragma unroll
                        for (int i = 0; i < 4; ++i)
                            s[b][i] *= a.dropout(row + i / 2 * 8, h, k_first + key + 8 * b + i % 2);
            };
            if (mine > 0) {
                k_ring->wait_full(0);
                Products::begin();
                Products::template scores<D, rows, Keys>(s, Q, a_row, K);
                Products::commit();
                Products::template wait<0>(s);
                k_ring->done(0);
                weigh(0);
                round_sums<Keys / 8>(p, s);
            }
            for (int j = 1; j < mine; ++j) {  // the products of tile j - 1 with values run while tile j is weighed
                k_ring->wait_full(j);
                Products::begin();
                Products::template scores<D, rows, Keys>(s, Q, a_row, K + j % 2 * tile_bytes);
                Products::commit();
                v_ring->wait_full(j - 1);
                Products::template add<D, Keys>(acc, p, V + (j - 1) % 2 * tile_bytes);
                Products::commit();
                Products::template wait<1>(s);
                k_ring->done(j);
                weigh(j);
                Products::template wait<0>(acc);
                v_ring->done(j - 1);
                scale_rows(acc, softmax.shrink[0], softmax.shrink[1]);
                round_sums<Keys / 8>(p, s);
            }
            if (mine > 0) {
                v_ring->wait_full(mine - 1);
                Products::begin();
                Products::template add<D, Keys>(acc, p, V + (mine - 1) % 2 * tile_bytes);
                Products::commit();
                Products::template wait<0>(acc);
                v_ring->done(mine - 1);
            }
            for (int j = mine; j < tiles; ++j) {  // seen by other groups alone
                k_ring->wait_full(j);
                k_ring->done(j);
                v_ring->wait_full(j);
                v_ring->done(j);
            }
            const float total[2] = {softmax.total(0), softmax.total(1)};
            store_rows<D / 8>(out, acc, row, last, index{h} * a.width, a.width, total[0] == 0 ? 0 : 1 / total[0],
                              total[1] == 0 ? 0 : 1 / total[1]);
#pragma unroll
            for (int r = 0; r < 2; ++r)
                if (lane % 4 == 0 && row + 8 * r < last)
                    lse(row + 8 * r)[h] = total[r] == 0 ? -INFINITY : softmax.largest[r] * a.scale + log(total[r]);
        }
    }
}

// ---- backward -------------------------------------------------------------------------------------------------------

// What backward needs of a query row and head besides its vectors
struct query_statistics {
    float lse_2, delta;  // lse log2 e, dL_dout·out
};

// Eight lanes for a row and head; out: heads × rows
template <int>
__global__ void __launch_bounds__(256)
    attention_statistics(index rows, int heads, int width, rows_of<const bfloat16> dL_dout, rows_of<const bfloat16> out,
                         rows_of<const float> lse, query_statistics* to) {
    const index i = (index{blockIdx.x} * blockDim.x + threadIdx.x) / 8;
    const index n = min(i / heads, rows - 1), h = i % heads;
    float sum = 0;
    for (int c = threadIdx.x % 8 * 8; c < width; c += 64) {
        float g[8], o[8];
        load<8>(dL_dout(n) + h * width + c, g);
        load<8>(out(n) + h * width + c, o);
#pragma unroll
        for (int k = 0; k < 8; ++k) sum += g[k] * o[k];
    }
    sum = warp_reduce<8>(sum);
    if (threadIdx.x % 8 == 0 && i < rows * heads) {
        const float known = lse(n)[h];
        to[h * rows + n] = {known == -INFINITY ? 0 : known * log2_e, sum};  // no key seen: all its scores are hidden
    }
}

template <int D, int Groups, int Keys, int Stages>
constexpr std::size_t attention_backward_queries_shared() {
    return tile_alignment + 2 * tile_layout<64 * Groups, D>::bytes + 2 * Stages * tile_layout<Keys, D>::bytes +
           sizeof(tile_ring<Stages>);
}

template <class Products, int D, int Groups, int Keys, int Stages, int Blocks, bool Dropout>
__global__ void __launch_bounds__(128 * (Groups + 1), Blocks)
    attention_backward_queries_tensor(attention_problem<bfloat16> a, rows_of<const bfloat16> dL_dout,
                                      const query_statistics* statistics, rows_of<const float> rotary,
                                      rows_of<bfloat16> dL_dq, int* limits) {
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
            register_shares<Products, Groups, Blocks>::load();
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
            register_shares<Products, Groups, Blocks>::compute();
            const int lane = threadIdx.x % 32, a_row = 64 * group;
            const index group_first = first + a_row, warp_first = group_first + threadIdx.x / 32 % 4 * 16,
                        row = warp_first + lane / 4;
            const int limit[2] = {row < last ? visible(position[row]) : 0,
                                  row + 8 < last ? visible(position[row + 8]) : 0};
            const int sure = visible(position[min(warp_first, last - 1)]);
            const int mine =
                group_first < last ? (visible(position[min(group_first + 63, last - 1)]) + Keys - 1) / Keys : 0;
            if (h == 0 && lane % 4 == 0)  // for the kernel that owns keys
#pragma unroll
                for (int r = 0; r < 2; ++r)
                    if (row + 8 * r < last) limits[row + 8 * r] = limit[r];
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
            if (rotary.data) turn_back(acc, rotary, position, row, last);
            store_rows<D / 8>(dL_dq, acc, row, last, index{h} * a.width, a.width, a.scale, a.scale);
        }
    }
}

template <int Queries>
struct query_columns {  // of a tile: as columns of the transposed scores
    query_statistics known[Queries];
    int limit[Queries];  // how many keys each sees
};

template <int D, int Groups, int Queries, int Stages>
constexpr std::size_t attention_backward_keys_shared() {
    return tile_alignment + 2 * tile_layout<64 * Groups, D>::bytes + 2 * Stages * tile_layout<Queries, D>::bytes +
           Stages * sizeof(query_columns<Queries>) + sizeof(tile_ring<Stages>);
}

// One block for 64 Groups keys of one key/value head; the query heads that share it are added up here.
template <class Products, int D, int Groups, int Queries, int Stages, int Blocks, bool Dropout>
__global__ void __launch_bounds__(128 * (Groups + 1), Blocks)
    attention_backward_keys_tensor(attention_problem<bfloat16> a, rows_of<const bfloat16> dL_dout,
                                   const query_statistics* statistics, const int* limits, rows_of<const float> rotary,
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
        const index k_first = a.k_rows.begin[tile.sequence], first = tile.first,
                    last = min(first + rows, index{a.k_rows.end[tile.sequence]});
        const int key_first = static_cast<int>(first - k_first);  // number in its sequence
        const row_index* position = a.q_rows.position;
        const index q_last = a.q_rows.end[tile.sequence];
        index q_first = a.q_rows.begin[tile.sequence];
        if (a.causal) q_first += lower_bound(position + q_first, q_last - q_first, a.k_rows.position[first]);
        const int tiles_each = static_cast<int>((q_last - q_first + Queries - 1) / Queries),
                  tiles = tiles_each * a.group;
        if (threadIdx.x == 0) ring->init(128, 4 * Groups);
        __syncthreads();
        if (group == Groups) {
            register_shares<Products, Groups, Blocks>::load();
            const int t = threadIdx.x % 128;
            load_rows<rows, D>(K, a.k, first, last, index{kv_head} * a.width, a.width, t);
            load_rows<rows, D>(V, a.v, first, last, index{kv_head} * a.width, a.width, t);
            for (int i = 0; i < tiles; ++i) {
                const int h = kv_head * a.group + i / tiles_each;
                const index n = q_first + i % tiles_each * Queries;
                unsigned char* to = Q_dO + i % Stages * 2 * tile_bytes;
                query_columns<Queries>& column = columns[i % Stages];
                ring->wait_empty(i);
                load_rows<Queries, D>(to, a.q, n, q_last, index{h} * a.width, a.width, t);
                load_rows<Queries, D>(to + tile_bytes, dL_dout, n, q_last, index{h} * a.width, a.width, t);
                if (t < Queries) {
                    const bool valid = n + t < q_last;
                    copy_async<8>(&column.known[t], valid ? statistics + h * a.query_rows + n + t : statistics, valid);
                    copy_async<4>(&column.limit[t], valid ? limits + n + t : limits, valid);
                }
                ring->announce(i);
            }
        } else {
            register_shares<Products, Groups, Blocks>::compute();
            const int lane = threadIdx.x % 32, a_row = 64 * group;
            const int in_block = a_row + threadIdx.x / 32 % 4 * 16 + lane / 4;  // this lane's first key
            const int key[2] = {key_first + in_block, key_first + in_block + 8};
            const float scale_2 = a.scale * log2_e;
            float s[Queries / 8][4], d[Queries / 8][4], dk[D / 8][4] = {}, dv[D / 8][4] = {};
            float keep[Dropout ? Queries / 8 : 1][4];
            unsigned p[Queries / 16][4], ds[Queries / 16][4];
            const auto Q = [&](int i) { return Q_dO + i % Stages * 2 * tile_bytes; };
            const auto weigh = [&](int i) {
                const query_columns<Queries>& column = columns[i % Stages];
                const bool all_seen = column.limit[0] >= key_first + a_row + 64;  // by the first query, so by all
#pragma unroll
                for (int b = 0; b < Queries / 8; ++b)
#pragma unroll
                    for (int c = 0; c < 2; ++c) {
                        const int q = 8 * b + 2 * (lane % 4) + c, limit = all_seen ? 0x7FFFFFFF : column.limit[q];
                        const float lse_2 = column.known[q].lse_2;
#pragma unroll
                        for (int r = 0; r < 2; ++r)
                            s[b][2 * r + c] = key[r] < limit ? exp2_approximate(s[b][2 * r + c] * scale_2 - lse_2) : 0;
                    }
            };
            const auto weights = [&](int i) {
                if constexpr (Dropout)
#pragma unroll
                    for (int b = 0; b < Queries / 8; ++b)
#pragma unroll
                        for (int j = 0; j < 4; ++j)
                            keep[b][j] = a.dropout(q_first + i % tiles_each * Queries + 8 * b + 2 * (lane % 4) + j % 2,
                                                   kv_head * a.group + i / tiles_each, k_first + key[j / 2]);
                round_values<Queries / 8>(p, [&](int b, int j) {
                    if constexpr (Dropout)
                        return s[b][j] * keep[b][j];
                    else
                        return s[b][j];
                });
            };
            const auto slopes = [&](int i) {
                const query_statistics* known = columns[i % Stages].known;
                round_values<Queries / 8>(ds, [&](int b, int j) {
                    float slope = d[b][j];
                    if constexpr (Dropout) slope *= keep[b][j];
                    return s[b][j] * (slope - known[8 * b + 2 * (lane % 4) + j % 2].delta);
                });
            };
            if (tiles > 0) {
                ring->wait_full(0);
                Products::begin();
                Products::template scores<D, rows, Queries>(s, K, a_row, Q(0));
                Products::template scores<D, rows, Queries>(d, V, a_row, Q(0) + tile_bytes);
                Products::commit();
                Products::template wait<0>(s, d);
                weigh(0);
                weights(0);
                slopes(0);
            }
            for (int i = 1; i < tiles; ++i) {  // while tile i is weighed, its other product and tile i - 1's run
                ring->wait_full(i);
                Products::begin();
                Products::template scores<D, rows, Queries>(s, K, a_row, Q(i));
                Products::commit();
                Products::template add<D, Queries>(dv, p, Q(i - 1) + tile_bytes);
                Products::template add<D, Queries>(dk, ds, Q(i - 1));
                Products::commit();
                Products::template scores<D, rows, Queries>(d, V, a_row, Q(i) + tile_bytes);
                Products::commit();
                Products::template wait<2>(s);
                weigh(i);
                Products::template wait<1>(dk, dv);
                ring->done(i - 1);
                weights(i);
                Products::template wait<0>(d);
                slopes(i);
            }
            if (tiles > 0) {
                Products::begin();
                Products::template add<D, Queries>(dv, p, Q(tiles - 1) + tile_bytes);
                Products::template add<D, Queries>(dk, ds, Q(tiles - 1));
                Products::commit();
                Products::template wait<0>(dk, dv);
            }
            const index row = first + in_block;
            if (rotary.data) turn_back(dk, rotary, a.k_rows.position, row, last);
            store_rows<D / 8>(dL_dk, dk, row, last, index{kv_head} * a.width, a.width, a.scale, a.scale);
            store_rows<D / 8>(dL_dv, dv, row, last, index{kv_head} * a.width, a.width, 1, 1);
        }
    }
}

// ---- launches -------------------------------------------------------------------------------------------------------

template <int>
__global__ void warpgroup_products_probe() {
    if constexpr (warpgroup_products_built) {
        __shared__ volatile int here;  // tells the host which of the two was compiled for the device
        here = 0;
    }
}
inline bool has_warpgroup_products(const executor& ex) {
    if (ex.architecture() / 10 != 9) return false;
    static const bool built = [] {
        cudaFuncAttributes about{};
        checked(cudaFuncGetAttributes(&about, warpgroup_products_probe<0>), "cudaFuncGetAttributes");
        return about.sharedSizeBytes > 0;
    }();
    return built;
}

// Whether short sequences have tiles of their own, and up to how many query rows each: by timing
// (bench/results/cuda/attention_short_h100.txt).
template <class Products, int D>
inline constexpr bool has_short = std::is_same_v<Products, warpgroup_products>&& D <= 64;
inline constexpr index most_short_rows = 1024;

// Tile sizes by products and width: chosen by timing for wgmma; for mma.sync, to fit in the 99 KB of sm_86. Blocks: of
// one multiprocessor at a time. In short sequences a block has few tiles to walk through and mostly waits for its
// first: smaller ones, of which more are under way, are faster.
template <class Products, int D, bool Short>
struct attention_sizes {
    static constexpr bool wide = std::is_same_v<Products, warpgroup_products>, small = Short && has_short<Products, D>;
    static constexpr int forward_groups = small      ? 1
                                          : wide     ? D <= 64 ? 3 : 2
                                          : D == 256 ? 1
                                                     : 2,
                         forward_keys = small      ? 64
                                        : D == 256 ? (wide ? 64 : 32)
                                        : wide     ? 128
                                                   : 64,
                         forward_blocks = small ? 3 : 1;
    static constexpr int backward_groups = small             ? 1
                                           : wide || D <= 64 ? 2
                                                             : 1,
                         backward_blocks = small ? 2 : 1, stages = wide && !small ? 3 : 2;
    static constexpr int keys = wide && D <= 64 && !small ? 128 : 64, queries = wide && D <= 96 ? 64 : 32;
};

// f(Products{}) with the device's
template <class F>
void with_products(const executor& ex, F&& f) {
    if (has_warpgroup_products(ex))
        f(warpgroup_products{});
    else
        f(warp_products{});
}
template <class F>
void with_dropout(bool dropout, F&& f) {
    if (dropout)
        f(std::true_type{});
    else
        f(std::false_type{});
}

// f(true_type) where sequences of `rows` rows together are short and have tiles of their own
template <class Products, int D, class F>
void with_length(index rows, index sequences, F&& f) {
    if constexpr (has_short<Products, D>)
        if (rows <= most_short_rows * sequences) return f(std::true_type{});
    f(std::false_type{});
}

template <int D>
void attention_forward_products(executor& ex, const attention_problem<bfloat16>& a, rows_of<bfloat16> out,
                                rows_of<float> lse) {
    const index rows = a.query_rows, sequences = a.q_rows.sequences;
    with_products(ex, [&](auto products) {
        using P = decltype(products);
        with_length<P, D>(rows, sequences, [&](auto is_short) {
            with_dropout(a.drop_below > 0, [&](auto dropout) {
                using size = attention_sizes<P, D, is_short()>;
                constexpr int groups = size::forward_groups, keys = size::forward_keys;
                launch(ex, "attention_forward",
                       static_cast<unsigned>(a.heads) * sequence_tiles(rows, sequences, 64 * groups),
                       128 * (groups + 1), attention_forward_shared<D, groups, keys>(),
                       attention_forward_tensor<P, D, groups, keys, size::forward_blocks, dropout()>, a, out, lse);
            });
        });
    });
}

// rotary: null, or the table by which the gradients of q and k are turned back
template <int D>
void attention_backward_products(executor& ex, const attention_problem<bfloat16>& a, rows_of<const bfloat16> dL_dout,
                                 rows_of<const bfloat16> out, rows_of<const float> lse, rows_of<const float> rotary,
                                 rows_of<bfloat16> dL_dq, rows_of<bfloat16> dL_dk, rows_of<bfloat16> dL_dv) {
    const index rows = a.query_rows, sequences = a.q_rows.sequences;
    arena_scope scratch(ex);
    query_statistics* statistics = ex.memory().template vector<query_statistics>(rows * a.heads).data;
    const query_statistics* known = statistics;
    int* limits = ex.memory().template vector<int>(rows).data;  // how many keys each query sees
    launch(ex, "attention_backward", static_cast<unsigned>(divide_up(rows * a.heads, 32)), 256, 0,
           attention_statistics<0>, rows, a.heads, a.width, dL_dout, out, lse, statistics);
    with_products(ex, [&](auto products) {
        using P = decltype(products);
        with_length<P, D>(rows, sequences, [&](auto is_short) {
            with_dropout(a.drop_below > 0, [&](auto dropout) {
                using size = attention_sizes<P, D, is_short()>;
                constexpr int groups = size::backward_groups, keys = size::keys, queries = size::queries,
                              stages = size::stages, blocks = size::backward_blocks;
                launch(ex, "attention_backward",
                       static_cast<unsigned>(a.heads) * sequence_tiles(rows, sequences, 64 * groups),
                       128 * (groups + 1), attention_backward_queries_shared<D, groups, keys, stages>(),
                       attention_backward_queries_tensor<P, D, groups, keys, stages, blocks, dropout()>, a, dL_dout,
                       known, rotary, dL_dq, limits);
                launch(ex, "attention_backward",
                       static_cast<unsigned>(a.heads / a.group) * sequence_tiles(a.key_rows, sequences, 64 * groups),
                       128 * (groups + 1), attention_backward_keys_shared<D, groups, queries, stages>(),
                       attention_backward_keys_tensor<P, D, groups, queries, stages, blocks, dropout()>, a, dL_dout,
                       known, limits, rotary, dL_dk, dL_dv);
            });
        });
    });
}

}  // namespace spectral::cuda::detail
