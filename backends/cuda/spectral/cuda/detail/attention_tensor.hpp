// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/attention_tensor.hpp: attention of bfloat16 on tensor cores, forward and backward
//
// A block's last warpgroup loads tiles, the others compute, 64 rows each (FlashAttention-3's shape, Shah et al.,
// arXiv:2407.08608); barriers in shared memory are all they share, so that one multiplies while another exponentiates.
// Forward kernels, and backward ones but that of detail/attention_one_pass.hpp, run by mma.sync and by wgmma (Products),
// blocks with most to do first.
#pragma once
#include <spectral/cuda/detail/attention_one_pass.hpp>

namespace spectral::cuda::detail {

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

// Whether short sequences have tiles of their own forward, and up to how many query rows each: by timing
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
    static constexpr int backward_groups = wide || D <= 64 ? 2 : 1, stages = wide ? 3 : 2, keys = 64,
                         queries = wide && D <= 96 ? 64 : 32;
};

// f(Products{}) with the device's
template <class F>
void with_products(const executor& ex, F&& f) {
    if (has_warpgroup_products(ex))
        f(warpgroup_products{});
    else
        f(warp_products{});
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
    arena_scope scratch(ex);
    with_products(ex, [&](auto products) {
        using P = decltype(products);
        if constexpr (std::is_same_v<P, warpgroup_products> && D <= 64) {
            attention_backward_one_pass<D>(ex, a, dL_dout, out, lse, rotary, dL_dq, dL_dk, dL_dv);
        } else {
            const index rows = a.query_rows, sequences = a.q_rows.sequences;
            query_statistics* statistics = ex.memory().template vector<query_statistics>(rows * a.heads).data;
            const query_statistics* known = statistics;
            launch(ex, "attention_backward", statistics_blocks(a), statistics_threads, 0, attention_statistics<0>, a,
                   dL_dout, out, lse, statistics);
            with_dropout(a.drop_below > 0, [&](auto dropout) {
                using size = attention_sizes<P, D, false>;
                constexpr int groups = size::backward_groups, keys = size::keys, queries = size::queries,
                              stages = size::stages;
                launch(ex, "attention_backward",
                       static_cast<unsigned>(a.heads) * sequence_tiles(rows, sequences, 64 * groups),
                       128 * (groups + 1), attention_backward_queries_shared<D, groups, keys, stages>(),
                       attention_backward_queries_tensor<P, D, groups, keys, stages, dropout()>, a, dL_dout, known,
                       rotary, dL_dq);
                launch(ex, "attention_backward",
                       static_cast<unsigned>(a.heads / a.group) * sequence_tiles(a.key_rows, sequences, 64 * groups),
                       128 * (groups + 1), attention_backward_keys_shared<D, groups, queries, stages>(),
                       attention_backward_keys_tensor<P, D, groups, queries, stages, dropout()>, a, dL_dout, known,
                       rotary, dL_dk, dL_dv);
            });
        }
    });
}

}  // namespace spectral::cuda::detail
