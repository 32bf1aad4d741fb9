// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/attention_backward_tensor.hpp: gradients of attention_tensor.hpp
//
// Blocks own keys: they walk through the queries that see them and add up the gradients of keys and values in
// registers. Gradients of queries are sums over such blocks. Where wgmma and registers allow it (Once), another
// warpgroup adds each block's share to them in memory, block after block in a given order, so that sums have the same
// bits in every run. Elsewhere a second kernel owns queries and makes the scores again.
#pragma once
#include <spectral/cuda/detail/attention_fragments.hpp>
#include <spectral/cuda/detail/turns.hpp>

namespace spectral::cuda::detail {

// What backward needs of a query row and head besides its vectors
struct query_statistics {
    float lse_2, delta;  // lse log2 e, dL_dout·out
};

// How blocks of keys add to the gradients of queries, tile by tile of a sequence and head by head: those of the last keys
// first, which the fewest queries see, so that all of them can start at their first tile at once and follow each other.
struct query_turns {
    index tiles = 0;  // that there can be
    int heads_together = 0;  // heads whose blocks run at the same time
    int *blocks, *turn;  // of a tile: how many blocks add to it; of a head and tile: how many have
    float* sums;  // of heads × tiles, in the order of lanes

    template <int Queries>
    static __device__ index number(index first_row, index sequence, index tile) {
        return first_row / Queries + sequence + tile;
    }
    // by one block: of a sequence
    template <int Queries, int Keys>
    __device__ void prepare(const attention_problem<bfloat16>& a, index sequence) const {
        const index begin = a.q_rows.begin[sequence], end = a.q_rows.end[sequence];
        const visible_keys visible(a, sequence);
        for (index b = threadIdx.x; begin + b * Queries < end; b += blockDim.x) {
            const index n = number<Queries>(begin, sequence, b);
            const int keys = visible(a.q_rows.position[min(begin + (b + 1) * Queries, end) - 1]);
            blocks[n] = max((keys + Keys - 1) / Keys, 1);  // the first keys' block comes to every tile
            for (int h = 0; h < a.heads; ++h) turn[h * tiles + n] = 0;
        }
    }
};

// Eight lanes for a row and head; to: heads × rows. Blocks beyond those prepare turns, each of a sequence.
template <int Queries, int Keys>
__global__ void __launch_bounds__(256)
    attention_statistics(attention_problem<bfloat16> a, rows_of<const bfloat16> dL_dout, rows_of<const bfloat16> out,
                         rows_of<const float> lse, query_statistics* to, query_turns turns, unsigned blocks) {
    if (blockIdx.x >= blocks) return turns.prepare<Queries, Keys>(a, blockIdx.x - blocks);
    const index rows = a.query_rows, i = (index{blockIdx.x} * blockDim.x + threadIdx.x) / 8;
    const index n = min(i / a.heads, rows - 1), h = i % a.heads;
    float sum = 0;
    for (int c = threadIdx.x % 8 * 8; c < a.width; c += 64) {
        float g[8], o[8];
        load<8>(dL_dout(n) + h * a.width + c, g);
        load<8>(out(n) + h * a.width + c, o);
#pragma unroll
        for (int k = 0; k < 8; ++k) sum += g[k] * o[k];
    }
    sum = warp_reduce<8>(sum);
    if (threadIdx.x % 8 == 0 && i < rows * a.heads) {
        const float known = lse(n)[h];
        to[h * rows + n] = {known == -INFINITY ? 0 : known * log2_e, sum};  // no key seen: all its scores are hidden
    }
}

// ---- a block that owns queries --------------------------------------------------------------------------------------

template <int D, int Groups, int Keys, int Stages>
constexpr std::size_t attention_backward_queries_shared() {
    return tile_alignment + 2 * tile_layout<64 * Groups, D>::bytes + 2 * Stages * tile_layout<Keys, D>::bytes +
           sizeof(tile_ring<Stages>);
}

template <class Products, int D, int Groups, int Keys, int Stages, int Blocks, bool Dropout>
__global__ void __launch_bounds__(128 * (Groups + 1), Blocks)
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

// ---- a block that owns keys -----------------------------------------------------------------------------------------

template <int Queries>
struct query_columns {  // of a tile: as columns of the transposed scores
    query_statistics known[Queries];
    row_index position[Queries];
};

// Between the warps that add to gradients of queries
struct query_turns_ring {
    tile_ring<2> slopes, turn, added;  // dL_dscores are in shared memory; it is this block's turn; it has added
    int before[2];  // how many blocks had theirs

    __device__ void init(int groups) {
        slopes.init(128 * groups, 128);
        turn.init(1, 128);
        added.init(128, 1);
    }
};

// Threads: 128 for every 64 keys, 128 that load and, if Once, 128 that add to the gradients of queries.
template <int Groups, bool Once>
inline constexpr int attention_backward_keys_threads = 128 * (Groups + 1 + Once);

template <int D, int Groups, int Queries, int Stages, bool Once>
constexpr std::size_t attention_backward_keys_shared() {
    return tile_alignment + 2 * tile_layout<64 * Groups, D>::bytes + 2 * Stages * tile_layout<Queries, D>::bytes +
           (Once ? 2 * tile_layout<64 * Groups, Queries>::bytes : 0) + Stages * sizeof(query_columns<Queries>) +
           sizeof(tile_ring<Stages>) + (Once ? sizeof(query_turns_ring) : 0);
}

// Which tiles of queries see a block's keys, head by head of those that share them
template <int Queries>
struct backward_walk {
    index begin, q_first, q_last;  // rows: of the sequence, of the walk
    index sequence;
    int heads_first, tiles_each, tiles;
    __device__ index row(int i) const { return q_first + i % tiles_each * Queries; }
    __device__ int head(int i) const { return heads_first + i / tiles_each; }
    // of the query's tile among all
    __device__ index number(int i) const {
        return query_turns::number<Queries>(begin, sequence, (row(i) - begin) / Queries);
    }
};

// One lane waits for the turns of a block, which is number `block` of its sequence ...
template <int Queries>
__device__ inline void await_turns(const query_turns& turns, const backward_walk<Queries>& walk, int block,
                                   query_turns_ring* ring) {
    for (int i = 0; i < walk.tiles; ++i) {
        const index n = walk.number(i);
        const int before = turns.blocks[n] - 1 - block;
        ring->turn.wait_empty(i);
        wait_for_turn(turns.turn + walk.head(i) * turns.tiles + n, before);
        ring->before[i % 2] = before;
        ring->turn.full[i % 2].arrive();
    }
}
// ... and another ends them, while the next sums are made.
template <int Queries>
__device__ inline void end_turns(const query_turns& turns, const backward_walk<Queries>& walk, query_turns_ring* ring) {
    for (int i = 0; i < walk.tiles; ++i) {
        ring->added.wait_full(i);
        end_turn(turns.turn + walk.head(i) * turns.tiles + walk.number(i));
        ring->added.lane_done(i);
    }
}

// dL_dq of each tile of the walk: what this block's keys add, after those of the blocks before it. dS: dL_dscores of
// keys × queries.
template <int D, int Keys, int Queries>
__device__ inline void add_query_gradients(const attention_problem<bfloat16>& a, const query_turns& turns,
                                           const backward_walk<Queries>& walk, bool last_turn, const unsigned char* K,
                                           const unsigned char* dS, query_turns_ring* ring, rows_of<const float> rotary,
                                           rows_of<bfloat16> dL_dq) {
    constexpr int bytes = tile_layout<Keys, Queries>::bytes;
    using products = warpgroup_products;
    const int t = threadIdx.x % 128;
    for (int i = 0; i < walk.tiles; ++i) {
        float acc[D / 8][4];
        ring->slopes.wait_full(i);
        products::begin();
        products::template columns<D, Keys, Queries>(acc, dS + i % 2 * bytes, K);
        products::commit();
        ring->turn.wait_full(i);
        const int before = ring->before[i % 2];
        ring->turn.lane_done(i);
        ring->added.wait_empty(i);
        products::template wait<0>(acc);
        ring->slopes.lane_done(i);
        float* sums = turns.sums + (walk.head(i) * turns.tiles + walk.number(i)) * Queries * D + 4 * t;
        if (last_turn) {
            if (before > 0)
#pragma unroll
                for (int j = 0; j < D / 8; ++j) {
                    float sum[4];
                    read_sum(sums + j * 512, sum);
#pragma unroll
                    for (int c = 0; c < 4; ++c) acc[j][c] += sum[c];
                }
            const index row = walk.row(i) + t / 32 * 16 + t % 32 / 4;
            if (rotary.data) turn_back(acc, rotary, a.q_rows.position, row, walk.q_last);
            store_rows<D / 8>(dL_dq, acc, row, walk.q_last, index{walk.head(i)} * a.width, a.width, a.scale, a.scale);
        } else if (before == 0) {
#pragma unroll
            for (int j = 0; j < D / 8; ++j) store<4>(sums + j * 512, acc[j]);
        } else {
#pragma unroll
            for (int j = 0; j < D / 8; ++j) add_to(sums + j * 512, acc[j]);
        }
        ring->added.full[i % 2].arrive();
    }
}

struct key_block {
    int head;
    index number;  // among those of its head
};

// One block for 64 Groups keys of one key/value head; the query heads that share it are added up here.
template <class Products, int D, int Groups, int Queries, int Stages, int Blocks, bool Dropout, bool Once>
__global__ void __launch_bounds__(attention_backward_keys_threads<Groups, Once>, Blocks)
    attention_backward_keys_tensor(attention_problem<bfloat16> a, rows_of<const bfloat16> dL_dout,
                                   const query_statistics* statistics, rows_of<const float> rotary, query_turns turns,
                                   rows_of<bfloat16> dL_dq, rows_of<bfloat16> dL_dk, rows_of<bfloat16> dL_dv) {
    if constexpr (Products::built) {
        constexpr int rows = 64 * Groups, tile_bytes = tile_layout<Queries, D>::bytes;
        constexpr int loading = Once ? 64 : 128;  // threads
        using registers = register_shares<Products, Groups, Blocks, Once>;
        const int kv_heads = a.heads / a.group, group = warpgroup_number();
        const index blocks = gridDim.x / kv_heads;
        const auto [kv_head, number] = [&]() -> key_block {
            if (!Once) return {static_cast<int>(blockIdx.x % kv_heads), blockIdx.x / kv_heads};
            const int heads_before = blockIdx.x / (blocks * turns.heads_together) * turns.heads_together;
            const index within = blockIdx.x - heads_before * blocks;
            const int together = min(turns.heads_together, kv_heads - heads_before);
            return {heads_before + static_cast<int>(within % together), blocks - 1 - within / together};
        }();
        const sequence_tile tile = find_tile(a.k_rows, rows, number);
        if (tile.sequence < 0) {
            clear_outside(a.k_rows, a.key_rows, tile.first, number, blocks, [&](index m) {
                for (const auto& to : {dL_dk, dL_dv}) clear_columns(to(m) + index{kv_head} * a.width, a.width);
            });
            if constexpr (Once)  // no block adds to the queries of a sequence without keys
                clear_outside(
                    a.q_rows, a.query_rows, tile.first, number, blocks,
                    [&](index n) { clear_columns(dL_dq(n) + index{kv_head} * a.group * a.width, a.group * a.width); },
                    &a.k_rows);
            return;
        }
        unsigned char *K = tile_memory(), *V = K + tile_layout<rows, D>::bytes, *Q_dO = V + tile_layout<rows, D>::bytes,
                      *dS = Q_dO + 2 * Stages * tile_bytes;
        auto* columns =
            reinterpret_cast<query_columns<Queries>*>(dS + (Once ? 2 * tile_layout<rows, Queries>::bytes : 0));
        auto* ring = reinterpret_cast<tile_ring<Stages>*>(columns + Stages);
        auto* turns_ring = reinterpret_cast<query_turns_ring*>(ring + 1);
        const index k_first = a.k_rows.begin[tile.sequence], first = tile.first,
                    last = min(first + rows, index{a.k_rows.end[tile.sequence]});
        const row_index* position = a.q_rows.position;
        const backward_walk<Queries> walk = [&] {
            const index begin = a.q_rows.begin[tile.sequence], end = a.q_rows.end[tile.sequence];
            index unseen = 0;  // queries that see none of these keys
            if (a.causal && !(Once && first == k_first))
                unseen = lower_bound(position + begin, end - begin, a.k_rows.position[first]);
            if (Once && begin + unseen < end) unseen -= unseen % Queries;  // tiles are the same for all blocks
            const int each = static_cast<int>((end - begin - unseen + Queries - 1) / Queries);
            return backward_walk<Queries>{begin, begin + unseen, end, tile.sequence, kv_head * a.group,
                                          each,  each * a.group};
        }();
        if (threadIdx.x == 0) {
            ring->init(loading, 128 * Groups);
            if constexpr (Once) turns_ring->init(Groups);
        }
        __syncthreads();
        if (group == Groups) {
            registers::load();
            const int t = threadIdx.x % 128;
            if constexpr (Once) {
                if (t == 64) await_turns(turns, walk, static_cast<int>((first - k_first) / rows), turns_ring);
                if (t == 96) end_turns(turns, walk, turns_ring);
                if (t >= loading) return;
            }
            load_rows<rows, D, loading>(K, a.k, first, last, index{kv_head} * a.width, a.width, t);
            load_rows<rows, D, loading>(V, a.v, first, last, index{kv_head} * a.width, a.width, t);
            for (int i = 0; i < walk.tiles; ++i) {
                const int h = walk.head(i);
                const index n = walk.row(i);
                unsigned char* to = Q_dO + i % Stages * 2 * tile_bytes;
                query_columns<Queries>& column = columns[i % Stages];
                ring->wait_empty(i);
                load_rows<Queries, D, loading>(to, a.q, n, walk.q_last, index{h} * a.width, a.width, t);
                load_rows<Queries, D, loading>(to + tile_bytes, dL_dout, n, walk.q_last, index{h} * a.width, a.width,
                                               t);
                if (t < Queries) {
                    const bool valid = n + t < walk.q_last;
                    copy_async<8>(&column.known[t], valid ? statistics + h * a.query_rows + n + t : statistics, valid);
                    copy_async<4>(&column.position[t], valid ? position + n + t : position, valid);
                }
                ring->announce(i);
            }
        } else if (Once && group > Groups) {
            if constexpr (Once) {
                registers::add();
                add_query_gradients<D, rows>(a, turns, walk, first == k_first, K, dS, turns_ring, rotary, dL_dq);
            }
        } else {
            registers::compute();
            const int lane = threadIdx.x % 32, a_row = 64 * group;
            const int in_block = a_row + threadIdx.x / 32 % 4 * 16 + lane / 4;  // this lane's first key
            const auto seen_from = [&](index m) {  // the first position that sees key row m
                return m >= last ? 0x7FFFFFFF : a.causal ? a.k_rows.position[m] : 0;
            };
            const row_index key[2] = {seen_from(first + in_block), seen_from(first + in_block + 8)};
            const row_index all_from = seen_from(first + a_row + 63);
            const float scale_2 = a.scale * log2_e;
            float s[Queries / 8][4], d[Queries / 8][4], dk[D / 8][4] = {}, dv[D / 8][4] = {};
            float keep[Dropout ? Queries / 8 : 1][4];
            unsigned p[Queries / 16][4], ds[Queries / 16][4];
            const auto Q = [&](int i) { return Q_dO + i % Stages * 2 * tile_bytes; };
            const auto weigh = [&](int i) {
                const query_columns<Queries>& column = columns[i % Stages];
                const bool all_seen = column.position[0] >= all_from;  // by the first query, so by all
#pragma unroll
                for (int b = 0; b < Queries / 8; ++b)
#pragma unroll
                    for (int c = 0; c < 2; ++c) {
                        const int q = 8 * b + 2 * (lane % 4) + c, at = all_seen ? 0x7FFFFFFF : column.position[q];
                        const float lse_2 = column.known[q].lse_2;
#pragma unroll
                        for (int r = 0; r < 2; ++r)
                            s[b][2 * r + c] = key[r] <= at ? exp2_approximate(s[b][2 * r + c] * scale_2 - lse_2) : 0;
                    }
            };
            const auto weights = [&](int i) {
                if constexpr (Dropout)
#pragma unroll
                    for (int b = 0; b < Queries / 8; ++b)
#pragma unroll
                        for (int j = 0; j < 4; ++j)
                            keep[b][j] = a.dropout(walk.row(i) + 8 * b + 2 * (lane % 4) + j % 2, walk.head(i),
                                                   first + in_block + j / 2 * 8);
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
                if constexpr (Once) {
                    turns_ring->slopes.wait_empty(i);
                    store_operand<rows, Queries>(dS + i % 2 * tile_layout<rows, Queries>::bytes, ds, in_block);
                    turns_ring->slopes.written(i);
                }
            };
            if (walk.tiles > 0) {
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
            for (int i = 1; i < walk.tiles; ++i) {  // while tile i is weighed, its other product and tile i - 1's run
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
                ring->lane_done(i - 1);
                weights(i);
                Products::template wait<0>(d);
                slopes(i);
            }
            if (walk.tiles > 0) {
                Products::begin();
                Products::template add<D, Queries>(dv, p, Q(walk.tiles - 1) + tile_bytes);
                Products::template add<D, Queries>(dk, ds, Q(walk.tiles - 1));
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

}  // namespace spectral::cuda::detail
