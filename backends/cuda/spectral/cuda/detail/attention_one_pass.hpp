// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/attention_one_pass.hpp: gradients of attention with scores made once, by wgmma
//
// Every multiprocessor runs one block, which takes pieces of work (128 keys of one head and all queries that see them)
// until there are none. Where that makes too few pieces, the query heads that share a key/value head are shared out too,
// and their parts of the gradients of keys and values are added up in order at the end. Two warpgroups make scores and
// their gradients and add up those of keys and values, as in detail/attention_backward_tensor.hpp; a third multiplies
// what the two wrote to shared memory with the keys and adds that to the gradients of queries in memory, piece after
// piece in a given order, so that sums have the same bits in every run. Of the fourth, two warps load, one waits for
// turns and one ends them. The next piece's keys and queries are on their way before a piece ends, so short sequences
// run like long ones.
#pragma once
#include <spectral/cuda/detail/attention_one_pass_plan.hpp>
#include <spectral/cuda/detail/turns.hpp>

namespace spectral::cuda::detail {

// ---- one block ------------------------------------------------------------------------------------------------------

template <int D, int Stages>
struct one_pass_memory {
    static constexpr int slope_tiles = 4, Keys = one_pass_keys, Queries = one_pass_queries,
                         keys_bytes = tile_layout<Keys, D>::bytes, query_bytes = tile_layout<Queries, D>::bytes,
                         slope_bytes = tile_layout<Keys, Queries>::bytes, loading = 64, scoring = 256,
                         adding = 128;  // threads
    struct rings {
        tile_ring<2> pieces, keys, turn, added;
        tile_ring<Stages> queries;
        tile_ring<slope_tiles> slopes;
        shared_barrier own_slopes[2];  // those of each warpgroup's 64 keys
        piece work[2];
        row_index position[2][Keys];
        int before[2];  // how many pieces had their turn

        __device__ void init() {
            pieces.init(1, loading + scoring + adding + 2);
            keys.init(loading, scoring + adding);
            queries.init(loading, scoring);
            slopes.init(scoring, adding);
            for (auto& barrier : own_slopes) barrier.init(128);
            turn.init(1, adding);
            added.init(adding, 1);
        }
        __device__ piece take(int w) {
            pieces.wait_full(w);
            const piece out = work[w % 2];
            pieces.lane_done(w);
            return out;
        }
    };
    static constexpr std::size_t bytes = tile_alignment + 4 * keys_bytes + 2 * Stages * query_bytes +
                                         slope_tiles * slope_bytes + Stages * sizeof(query_columns<Queries>) +
                                         sizeof(rings);

    unsigned char* tiles = tile_memory();
    query_columns<Queries>* columns = reinterpret_cast<query_columns<Queries>*>(
        tiles + 4 * keys_bytes + 2 * Stages * query_bytes + slope_tiles * slope_bytes);
    rings& ring = *reinterpret_cast<rings*>(columns + Stages);

    __device__ unsigned char* K(int w) const { return tiles + w % 2 * 2 * keys_bytes; }
    __device__ unsigned char* V(int w) const { return K(w) + keys_bytes; }
    __device__ unsigned char* Q(int i) const { return tiles + 4 * keys_bytes + i % Stages * 2 * query_bytes; }
    __device__ unsigned char* dO(int i) const { return Q(i) + query_bytes; }
    __device__ unsigned char* dS(int i) const {
        return tiles + 4 * keys_bytes + 2 * Stages * query_bytes + i % slope_tiles * slope_bytes;
    }
};

// Two warps take pieces and load; t = 0..63
template <int D, int Stages>
__device__ inline void load_pieces(const one_pass_memory<D, Stages>& m, const attention_problem<bfloat16>& a,
                                   const one_pass_plan& plan, rows_of<const bfloat16> dL_dout,
                                   const query_statistics* statistics, int t) {
    constexpr int Keys = one_pass_keys, Queries = one_pass_queries, threads = one_pass_memory<D, Stages>::loading;
    const int kv_heads = a.heads / a.group, pieces = *plan.pieces;
    for (int w = 0, i = 0;; ++w) {
        if (t == 0) {  // not earlier: others wait for pieces with smaller numbers
            m.ring.pieces.wait_empty(w);
            m.ring.work[w % 2] = numbered_piece(plan, kv_heads, a.group, pieces, take_number(plan.taken));
            m.ring.pieces.full[w % 2].arrive();
        }
        const piece now = m.ring.take(w);
        if (now.none()) return;
        m.ring.keys.wait_empty(w);
        load_rows<Keys, D, threads>(m.K(w), a.k, now.first, now.last, index{now.kv_head} * a.width, a.width, t);
        load_rows<Keys, D, threads>(m.V(w), a.v, now.first, now.last, index{now.kv_head} * a.width, a.width, t);
        for (int k = t; k < Keys; k += threads) {
            const bool valid = now.first + k < now.last;
            copy_async<4>(&m.ring.position[w % 2][k], a.k_rows.position + (valid ? now.first + k : 0), valid);
        }
        m.ring.keys.announce(w);
        now.walk([&](int n, int h, int) {
            m.ring.queries.wait_empty(i);
            load_rows<Queries, D, threads>(m.Q(i), a.q, n, now.q_last, index{h} * a.width, a.width, t);
            load_rows<Queries, D, threads>(m.dO(i), dL_dout, n, now.q_last, index{h} * a.width, a.width, t);
            m.columns[i % Stages].load(a, statistics, n, now.q_last, h, t);
            m.ring.queries.announce(i++);
        });
    }
}

// A lane waits for the turns of pieces ...
template <int D, int Stages>
__device__ inline void await_turns(const one_pass_memory<D, Stages>& m, const one_pass_plan& plan) {
    for (int w = 0, i = 0;; ++w) {
        const piece now = m.ring.take(w);
        if (now.none()) return;
        if (now.alone()) continue;
        now.walk([&](int, int h, int tile) {
            const int before = plan.adding[tile] - 1 - now.block;
            m.ring.turn.wait_empty(i);
            wait_for_turn(plan.added + h * plan.tiles + tile, before);
            m.ring.before[i % 2] = before;
            m.ring.turn.full[i++ % 2].arrive();
        });
    }
}
// ... and another ends them, while the next sums are made.
template <int D, int Stages>
__device__ inline void end_turns(const one_pass_memory<D, Stages>& m, const one_pass_plan& plan) {
    for (int w = 0, i = 0;; ++w) {
        const piece now = m.ring.take(w);
        if (now.none()) return;
        if (now.alone()) continue;
        now.walk([&](int, int h, int tile) {
            m.ring.added.wait_full(i);
            end_turn(plan.added + h * plan.tiles + tile);
            m.ring.added.lane_done(i++);
        });
    }
}

// Sums of the 64 queries from n on, in the lanes of a warpgroup, become dL_dq.
template <int D>
__device__ inline void finish_query_gradients(const attention_problem<bfloat16>& a, float (&acc)[D / 8][4], index n,
                                              index last, int h, rows_of<const float> rotary, rows_of<bfloat16> dL_dq,
                                              int t) {
    const index row = n + t / 32 * 16 + t % 32 / 4;
    turn_back(acc, rotary, a.q_rows.position, row, last);
    store_rows<D / 8>(dL_dq, acc, row, last, index{h} * a.width, a.width, a.scale, a.scale);
}

// Where a part's sums of keys or of values lie
__device__ inline rows_of<float> part_of(float* sums, const attention_problem<bfloat16>& a, int part) {
    const index width = index{a.heads / a.group} * a.width;
    return {sums + part * a.key_rows * width, width};
}

// The parts' sums of one head's keys and values of a piece become dL_dk and dL_dv: four columns of a row by a thread, by
// as many blocks as that takes.
template <int D>
inline constexpr int blocks_of_keys = one_pass_keys / 128 * (D / 4);
template <int D>
__device__ inline void finish_key_gradients(const attention_problem<bfloat16>& a, const one_pass_plan& plan,
                                            rows_of<bfloat16> dL_dk, rows_of<bfloat16> dL_dv, int number) {
    const int kv_heads = a.heads / a.group, of_head = number / blocks_of_keys<D>,
              i = number % blocks_of_keys<D> * 128 + threadIdx.x, packs = a.width / 4;
    if (of_head / kv_heads >= *plan.pieces) return;
    const key_work keys = plan.work[of_head / kv_heads];
    if (i >= (keys.last - keys.first) * packs) return;
    const index row = keys.first + i / packs, column = index{of_head % kv_heads} * a.width + i % packs * 4;
    float dk[4] = {}, dv[4] = {};
#pragma unroll 4
    for (int part = 0; part < plan.parts; ++part) {
        float k[4], v[4];
        load<4>(part_of(plan.key_sums, a, part)(row) + column, k);
        load<4>(part_of(plan.value_sums, a, part)(row) + column, v);
#pragma unroll
        for (int j = 0; j < 4; ++j) dk[j] += k[j], dv[j] += v[j];
    }
    store<4>(dL_dk(row) + column, dk);
    store<4>(dL_dv(row) + column, dv);
}

// The sums of what several pieces added to: not the last piece's work, which would take longer and end last. By a block
// for each tile and head, then, where there are parts, by some for each piece and key/value head.
template <int D>
__global__ void __launch_bounds__(128)
    attention_one_pass_finish(attention_problem<bfloat16> a, rows_of<const float> rotary, one_pass_plan plan,
                              rows_of<bfloat16> dL_dq, rows_of<bfloat16> dL_dk, rows_of<bfloat16> dL_dv) {
    const int h = blockIdx.x % a.heads, tile = blockIdx.x / a.heads, t = threadIdx.x;
    if (tile >= plan.tiles)
        return finish_key_gradients<D>(a, plan, dL_dk, dL_dv, static_cast<int>(blockIdx.x - plan.tiles * a.heads));
    if (tile >= *plan.tiles_used || plan.adding[tile] == 1) return;
    const float* sums = plan.sums + (h * plan.tiles + tile) * one_pass_queries * D + 4 * t;
    float acc[D / 8][4];
#pragma unroll
    for (int j = 0; j < D / 8; ++j) load<4>(sums + j * 512, acc[j]);
    finish_query_gradients<D>(a, acc, plan.first[tile], plan.last[tile], h, rotary, dL_dq, t);
}

// A warpgroup multiplies slopes with keys and adds that to dL_dq, t = 0..127
template <int D, int Stages>
__device__ inline void add_query_gradients(const one_pass_memory<D, Stages>& m, const attention_problem<bfloat16>& a,
                                           const one_pass_plan& plan, rows_of<const float> rotary,
                                           rows_of<bfloat16> dL_dq, int t) {
    constexpr int Queries = one_pass_queries;
    using products = warpgroup_products;
    for (int w = 0, i = 0, added = 0;; ++w) {
        const piece now = m.ring.take(w);
        if (now.none()) return;
        m.ring.keys.wait_full(w);  // also of a piece without tiles: two of these must not empty one phase twice
        now.walk([&](int n, int h, int tile) {
            float acc[D / 8][4];
            m.ring.slopes.wait_full(i);
            products::begin();
            products::template columns<D, one_pass_keys, Queries>(acc, m.dS(i), m.K(w));
            products::commit();
            int before = 0;
            if (!now.alone()) {
                m.ring.turn.wait_full(added);
                before = m.ring.before[added % 2];
                m.ring.turn.lane_done(added);
                m.ring.added.wait_empty(added);
            }
            products::template wait<0>(acc);
            m.ring.slopes.lane_done(i++);
            float* sums = plan.sums + (h * plan.tiles + tile) * Queries * D + 4 * t;
            if (now.block == 0 && before == 0) {  // no other adds to it
                finish_query_gradients<D>(a, acc, n, now.q_last, h, rotary, dL_dq, t);
            } else if (before == 0) {
#pragma unroll
                for (int j = 0; j < D / 8; ++j) store<4>(sums + j * 512, acc[j]);
            } else {
#pragma unroll
                for (int j = 0; j < D / 8; ++j) add_to(sums + j * 512, acc[j]);
            }
            if (!now.alone()) m.ring.added.full[added++ % 2].arrive();
        });
        m.ring.keys.lane_done(w);
    }
}

// A warpgroup makes scores of 64 keys of each piece, and the gradients of these keys and values.
template <int D, int Stages, bool Dropout>
__device__ inline void add_key_gradients(const one_pass_memory<D, Stages>& m, const attention_problem<bfloat16>& a,
                                         const one_pass_plan& plan, rows_of<const float> rotary,
                                         rows_of<bfloat16> dL_dk, rows_of<bfloat16> dL_dv, int group) {
    constexpr int Keys = one_pass_keys, Queries = one_pass_queries;
    using products = warpgroup_products;
    const int a_row = 64 * group, in_piece = a_row + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
    const float scale_2 = a.scale * log2_e;
    key_sums<D, Queries, Dropout> x;
    for (int w = 0, i = 0;; ++w) {  // i: the tile of queries at hand
        const piece now = m.ring.take(w);
        if (now.none()) return;
        const int row = now.first + in_piece;
        const unsigned char *K = m.K(w), *V = m.V(w);
        m.ring.keys.wait_full(w);
        x.start(a.causal, m.ring.position[w % 2], now.last - now.first, a_row, in_piece);
        int n = now.q_first, h = now.first_head;
        const int tiles = now.tiles(), end = i + tiles;
        const auto finish_tile = [&] {
            x.read_delta(m.columns[i % Stages]);
            x.weights(a, n, h, row);
            products::template wait<0>(x.d);
            x.slopes();
            m.ring.slopes.wait_empty(i);
            store_operand<Keys, Queries>(m.dS(i), x.ds, in_piece);
            m.ring.slopes.written(i);
            m.ring.own_slopes[group].arrive();
            n += Queries;
            if (n >= now.q_last) n = now.q_first, ++h;
            ++i;
        };
        if (tiles > 0) {
            m.ring.queries.wait_full(i);
            products::begin();
            products::template scores<D, Keys, Queries>(x.s, K, a_row, m.Q(i));
            products::commit();
            products::template scores<D, Keys, Queries>(x.d, V, a_row, m.dO(i));
            products::commit();
            x.read_lse(m.columns[i % Stages]);
            products::template wait<1>(x.s);
            x.weigh(m.columns[i % Stages], scale_2);
            finish_tile();
        }
        while (i < end) {  // while a tile is weighed, its other product and the last tile's run
            m.ring.queries.wait_full(i);
            m.ring.own_slopes[group].wait((i - 1) % 2);
            products::begin();
            products::template scores<D, Keys, Queries>(x.s, K, a_row, m.Q(i));
            products::commit();
            products::template add<D, Queries>(x.dv, x.p, m.dO(i - 1));
            products::template add_rows<D, Keys, Queries>(x.dk, m.dS(i - 1), a_row, m.Q(i - 1));
            products::commit();
            products::template scores<D, Keys, Queries>(x.d, V, a_row, m.dO(i));
            products::commit();
            x.read_lse(m.columns[i % Stages]);
            products::template wait<2>(x.s);
            x.weigh(m.columns[i % Stages], scale_2);
            products::template wait<1>(x.dk, x.dv);
            m.ring.queries.lane_done(i - 1);
            finish_tile();
        }
        row_angles<D / 8> angles;
        const row_index* position = m.ring.position[w % 2] + in_piece;
        if (tiles > 0) {
            m.ring.own_slopes[group].wait((i - 1) % 2);
            products::begin();
            products::template add<D, Queries>(x.dv, x.p, m.dO(i - 1));
            products::template add_rows<D, Keys, Queries>(x.dk, m.dS(i - 1), a_row, m.Q(i - 1));
            products::commit();
            if (rotary.data) angles.load(rotary, position[0], position[8]);
            products::template wait<0>(x.dk, x.dv);
            m.ring.queries.lane_done(i - 1);
            if (rotary.data) turn_back(x.dk, angles);
        }
        m.ring.keys.lane_done(w);
        if (plan.parts == 1)
            x.store(a, dL_dk, dL_dv, row, now.last, now.kv_head);
        else
            x.store_sums(a, part_of(plan.key_sums, a, now.part), part_of(plan.value_sums, a, now.part), row, now.last,
                         now.kv_head);
    }
}

inline constexpr int one_pass_threads = 512;

template <int D, int Stages, bool Dropout>
__global__ void __launch_bounds__(one_pass_threads, 1)
    attention_one_pass(attention_problem<bfloat16> a, rows_of<const bfloat16> dL_dout,
                       const query_statistics* statistics, rows_of<const float> rotary, one_pass_plan plan,
                       rows_of<bfloat16> dL_dq, rows_of<bfloat16> dL_dk, rows_of<bfloat16> dL_dv) {
    if constexpr (warpgroup_products::built) {
        const one_pass_memory<D, Stages> m;
        const int group = warpgroup_number(), t = threadIdx.x % 128;
        if (threadIdx.x == 0) m.ring.init();
        __syncthreads();
        if (group < 2) {
            take_registers<200>();  // 2 · 200 + 72 + 40 = 512 = 65536 / 128
            add_key_gradients<D, Stages, Dropout>(m, a, plan, rotary, dL_dk, dL_dv, group);
        } else if (group == 2) {
            give_registers<72>();
            add_query_gradients(m, a, plan, rotary, dL_dq, t);
        } else {
            give_registers<40>();
            if (t < one_pass_memory<D, Stages>::loading)
                load_pieces(m, a, plan, dL_dout, statistics, t);
            else if (t == 64)
                await_turns(m, plan);
            else if (t == 96)
                end_turns(m, plan);
        }
    }
}

// ---- launches -------------------------------------------------------------------------------------------------------

// Pieces of so many heads run at the same time that what they walk through, a sequence's queries, their gradients and
// sums, 8 bytes a column, stays in the second level cache.
inline constexpr index near_bytes = index{32} << 20;
inline constexpr index pieces_each = 4;  // for a multiprocessor at least, where there are query heads to share out

// Scratch memory: 4 bytes for every column of every query (D columns a head) of sequences of more than 128 keys; where
// query heads are shared out, 8 for every part and column of every key.
template <int D>
void attention_backward_one_pass(executor& ex, const attention_problem<bfloat16>& a, rows_of<const bfloat16> dL_dout,
                                 rows_of<const bfloat16> out, rows_of<const float> lse, rows_of<const float> rotary,
                                 rows_of<bfloat16> dL_dq, rows_of<bfloat16> dL_dk, rows_of<bfloat16> dL_dv) {
    constexpr int stages = 4;
    const index rows = a.query_rows, sequences = a.q_rows.sequences, kv_heads = a.heads / a.group;
    const index pieces = a.key_rows / one_pass_keys + sequences;
    auto& memory = ex.memory();
    query_statistics* statistics = memory.template vector<query_statistics>(rows * a.heads).data;
    const query_statistics* known = statistics;
    one_pass_plan plan;
    plan.work = memory.template vector<key_work>(pieces).data;
    plan.pieces = memory.template vector<int>(3).data;
    plan.taken = plan.pieces + 1, plan.tiles_used = plan.pieces + 2;
    // of the sequences of more than one piece
    plan.tiles = a.key_rows <= one_pass_keys
                     ? 0
                     : rows / one_pass_queries + std::min(sequences, a.key_rows / (one_pass_keys + 1));
    plan.adding = memory.template vector<int>(plan.tiles).data;
    plan.first = memory.template vector<int>(plan.tiles).data;
    plan.last = memory.template vector<int>(plan.tiles).data;
    plan.added = memory.template vector<int>(plan.tiles * a.heads).data;
    plan.sums = memory.template vector<float>(plan.tiles * a.heads * one_pass_queries * D).data;
    const index each = std::max<index>(rows / std::max<index>(sequences, 1), 1);
    // enough pieces for every multiprocessor to take a few, so that none waits long for the last
    plan.parts = static_cast<int>(std::clamp<index>(
        divide_up(pieces_each * ex.multiprocessors(), std::max<index>(pieces * kv_heads, 1)), 1, a.group));
    const index sums = plan.parts > 1 ? plan.parts * a.key_rows * kv_heads * a.width : 0;
    plan.key_sums = memory.template vector<float>(sums).data;
    plan.value_sums = memory.template vector<float>(sums).data;
    plan.together = static_cast<int>(
        std::clamp<index>(near_bytes * plan.parts / (each * D * 8 * a.group), 1, kv_heads * plan.parts));
    const auto planning = static_cast<unsigned>(std::max<index>(sequences, 1)),
               clearing = static_cast<unsigned>(2 * ex.multiprocessors());
    launch(ex, "attention_backward", planning + clearing + statistics_blocks(a), statistics_threads, 0,
           attention_one_pass_plan<0>, a, dL_dout, out, lse, statistics, planning, clearing, plan, dL_dq, dL_dk, dL_dv);
    with_dropout(a.drop_below > 0, [&](auto dropout) {
        launch(ex, "attention_backward",
               static_cast<unsigned>(std::min<index>(pieces * kv_heads * plan.parts, ex.multiprocessors())),
               one_pass_threads, one_pass_memory<D, stages>::bytes, attention_one_pass<D, stages, dropout()>, a,
               dL_dout, known, rotary, plan, dL_dq, dL_dk, dL_dv);
    });
    launch(ex, "attention_backward",
           static_cast<unsigned>(plan.tiles * a.heads + (plan.parts > 1 ? pieces * kv_heads * blocks_of_keys<D> : 0)),
           128, 0, attention_one_pass_finish<D>, a, rotary, plan, dL_dq, dL_dk, dL_dv);
}

}  // namespace spectral::cuda::detail
