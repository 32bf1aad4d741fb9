// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/attention_fragments.hpp: tiles, products and softmax of attention_tensor.hpp
//
// A group of four warps owns 64 rows, a warp 16 of them. Of a product's sums a lane holds rows l / 4 and l / 4 + 8 and,
// of every eight columns, 2 (l % 4) and the next: the layout in which sums, rounded, are the left operand of the next
// product. So scores become weights and weights become results without leaving registers, by mma.sync and by wgmma
// alike.
#pragma once
#include <spectral/cuda/detail/attention_problem.hpp>
#include <spectral/cuda/detail/warpgroup.hpp>

namespace spectral::cuda::detail {

inline constexpr float log2_e = 1.4426950408889634f, ln_2 = 0.6931471805599453f;

// ---- tiles in shared memory -----------------------------------------------------------------------------------------

// Rows × D values in panels of 64 columns (32 where D is no multiple of 64). The 16-byte chunks of a panel's row are
// exchanged by bits of the row number, so that neither eight rows of one chunk nor a row hits a bank twice; wgmma reads
// this layout too. A tile starts at a multiple of 1024 bytes.
template <int Rows, int D>
struct tile_layout {
    static constexpr int columns = D % 64 == 0 ? 64 : 32, line = 2 * columns, chunks = columns / 8, panel = Rows * line,
                         bytes = Rows * D * 2;
    static __device__ int offset(int row, int chunk) {  // in bytes; chunk: column / 8
        const int turn = columns == 64 ? row & 7 : row >> 1 & 3;
        return chunk / chunks * panel + row * line + ((chunk % chunks ^ turn) * 16);
    }
};

inline constexpr std::size_t tile_alignment = 1024;  // asked for besides the tiles
__device__ inline unsigned char* tile_memory() {
    return shared_bytes + (0u - shared_address(shared_bytes)) % tile_alignment;
}

// Asks for rows first.. of the columns of a head; zeros after row `last` and beyond `width`. By Threads threads, t = 0..
template <int Rows, int D, int Threads = 128>
__device__ inline void load_rows(unsigned char* tile, rows_of<const bfloat16> from, index first, index last,
                                 index column, int width, int t) {
    using layout = tile_layout<Rows, D>;
    constexpr int chunks = D / 8, step = Threads / chunks;
    if constexpr (Threads % chunks == 0 &&
                  step % 8 == 0) {  // a thread keeps its chunk, and what rows of eight exchange it for
        const int r = t / chunks, c = t % chunks, rows = 8 * c < width ? static_cast<int>(last - first) - r : 0;
        const bfloat16* source = from(first + r) + column + 8 * c;
        unsigned char* to = tile + layout::offset(r, c);
#pragma unroll
        for (int i = 0; i < Rows; i += step, source += step * from.stride)
            copy_async(to + i * layout::line, source, i < rows);
    } else {
#pragma unroll
        for (int i = t; i < Rows * chunks; i += Threads) {
            const int r = i / chunks, c = i % chunks;
            const bool valid = first + r < last && 8 * c < width;
            copy_async(tile + layout::offset(r, c), valid ? from(first + r) + column + 8 * c : from.data, valid);
        }
    }
}

// Tiles, or what else threads hand over, on their way from those that make it to those that use it, Stages at a time, by
// number 0, 1, ...
template <int Stages>
struct tile_ring {
    shared_barrier full[Stages], empty[Stages];

    __device__ void init(unsigned announcements, unsigned readers) {  // readers: warps, or lanes with lane_done()
        for (int s = 0; s < Stages; ++s) full[s].init(announcements), empty[s].init(readers);
    }
    __device__ void wait_empty(int i) { empty[i % Stages].wait(i / Stages % 2 ^ 1); }  // a fresh ring is empty
    __device__ void announce(int i) { copy_async_arrive(full[i % Stages]); }  // by every loading thread
    __device__ void wait_full(int i) {
        full[i % Stages].wait(i / Stages % 2);
        products_see_shared();
    }
    __device__ void done(int i) {  // by a whole warp
        __syncwarp();
        if (threadIdx.x % 32 == 0) empty[i % Stages].arrive();
    }
    // For tiles that lanes write and read themselves: by every lane
    __device__ void written(int i) {
        products_see_shared();
        full[i % Stages].arrive();
    }
    __device__ void lane_done(int i) { empty[i % Stages].arrive(); }
};

// Which four warps of the block this is, the same in all lanes as far as the compiler can see.
__device__ inline int warpgroup_number() { return __shfl_sync(full_warp, static_cast<int>(threadIdx.x / 128), 0); }

// ---- products -------------------------------------------------------------------------------------------------------

// Both have: scores, S (64 × N) = A Bᵀ for 64 rows of tile A from a_row on and all rows of tile B; add, R (64 × D) += P
// B with P (64 × K) in registers; begin, commit and wait around them, which say when registers belong to a product.

struct warp_products {  // by mma.sync: at once
    static constexpr bool built = warp_products_built;
    static __device__ void begin() {}
    static __device__ void commit() {}
    template <int Pending, class... Sums>
    static __device__ void wait(Sums&...) {}

    template <int D, int ARows, int N>
    static __device__ __forceinline__ void scores(float (&s)[N / 8][4], const unsigned char* a, int a_row,
                                                  const unsigned char* b) {
        const int lane = threadIdx.x % 32, row = a_row + threadIdx.x / 32 % 4 * 16 + lane % 16;
#pragma unroll
        for (int j = 0; j < N / 8; ++j) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0;
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
            unsigned left[4], right[4];
            load_matrices(left, a + tile_layout<ARows, D>::offset(row, 2 * d + lane / 16));
#pragma unroll
            for (int j = 0; j < N / 16; ++j) {
                load_matrices(right,
                              b + tile_layout<N, D>::offset(16 * j + lane % 8 + lane / 16 * 8, 2 * d + lane / 8 % 2));
                multiply_add(s[2 * j], left, right[0], right[1]);
                multiply_add(s[2 * j + 1], left, right[2], right[3]);
            }
        }
    }
    template <int D, int K>
    static __device__ __forceinline__ void add(float (&r)[D / 8][4], const unsigned (&p)[K / 16][4],
                                               const unsigned char* b) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int k = 0; k < K / 16; ++k)
#pragma unroll
            for (int j = 0; j < D / 16; ++j) {
                unsigned right[4];
                load_matrices_transposed(right, b + tile_layout<K, D>::offset(16 * k + lane % 16, 2 * j + lane / 16));
                multiply_add(r[2 * j], p[k], right[0], right[1]);
                multiply_add(r[2 * j + 1], p[k], right[2], right[3]);
            }
    }
};

struct warpgroup_products {  // by wgmma: between commit() and wait() its registers are its own
    static constexpr bool built = warpgroup_products_built;
    static __device__ void begin() { warpgroup_begin(); }
    static __device__ void commit() { warpgroup_commit(); }
    template <int Pending, class... Sums>  // sums of products that have ended, all but the last Pending ones
    static __device__ __forceinline__ void wait(Sums&... sums) {
        warpgroup_wait<Pending>();
        (settle(sums), ...);
    }

    template <int D, int ARows, int N>
    static __device__ __forceinline__ void scores(float (&s)[N / 8][4], const unsigned char* a, int a_row,
                                                  const unsigned char* b) {
        using A = tile_layout<ARows, D>;
        using B = tile_layout<N, D>;
        const auto left = matrix_descriptor<A::line>(shared_address(a) + a_row * A::line),
                   right = matrix_descriptor<B::line>(shared_address(b));
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
            const int panel = d / (A::columns / 16), within = d % (A::columns / 16) * 32;
            warpgroup_multiply<N>(s, behind(left, panel * A::panel + within), behind(right, panel * B::panel + within),
                                  d > 0);
        }
    }
    template <int D, int K>
    static __device__ __forceinline__ void add(float (&r)[D / 8][4], const unsigned (&p)[K / 16][4],
                                               const unsigned char* b) {
        using B = tile_layout<K, D>;
        const auto right = matrix_descriptor<B::line>(shared_address(b));
#pragma unroll
        for (int k = 0; k < K / 16; ++k)
#pragma unroll
            for (int panel = 0; panel < D / B::columns; ++panel)
                warpgroup_multiply<B::columns, 1>(r + panel * (B::columns / 8), p[k],
                                                  behind(right, panel * B::panel + k * 16 * B::line), 1);
    }
    // R (64 × D) += 64 rows, from a_row on, of tile A (ARows × K) times tile B (K × D)
    template <int D, int ARows, int K>
    static __device__ __forceinline__ void add_rows(float (&r)[D / 8][4], const unsigned char* a, int a_row,
                                                    const unsigned char* b) {
        using A = tile_layout<ARows, K>;
        using B = tile_layout<K, D>;
        static_assert(K == 64 && D / B::columns == 1);
        const auto left = matrix_descriptor<A::line>(shared_address(a) + a_row * A::line),
                   right = matrix_descriptor<B::line>(shared_address(b));
#pragma unroll
        for (int k = 0; k < K / 16; ++k)
            warpgroup_multiply<B::columns, 0, 1>(r, behind(left, k * 32), behind(right, k * 16 * B::line), 1);
    }
    // R (64 × D) = Pᵀ B for tile P (K × 64) and tile B (K × D)
    template <int D, int K, int Columns>
    static __device__ __forceinline__ void columns(float (&r)[D / 8][4], const unsigned char* p,
                                                   const unsigned char* b) {
        using A = tile_layout<K, Columns>;
        using B = tile_layout<K, D>;
        static_assert(Columns == 64 && D / B::columns == 1);
        const auto left = matrix_descriptor<A::line>(shared_address(p)),
                   right = matrix_descriptor<B::line>(shared_address(b));
#pragma unroll
        for (int k = 0; k < K / 16; ++k)
            warpgroup_multiply<B::columns, 1>(r, behind(left, k * 16 * A::line), behind(right, k * 16 * B::line),
                                              k > 0);
    }
};

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

// ---- softmax --------------------------------------------------------------------------------------------------------

// Scores of keys that a row does not see. key: number of this lane's first column; limit: how many keys its two rows
// see.
template <int N>
__device__ inline void hide(float (&s)[N][4], int key, const int (&limit)[2]) {
#pragma unroll
    for (int j = 0; j < N; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (key + 8 * j + i % 2 >= limit[i / 2]) s[j][i] = -INFINITY;
}

// Over the four lanes of a row
template <class Op>
__device__ inline float row_reduce(float value, Op op) {
    value = op(value, __shfl_xor_sync(full_warp, value, 1));
    return op(value, __shfl_xor_sync(full_warp, value, 2));
}

// The running maximum and (this lane's share of) the running sum of two rows, and what earlier sums are to be
// multiplied by.
struct softmax_rows {
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {}, shrink[2];

    // scores become weights exp(scale s - largest); scale_2: scale log2 e
    template <int N>
    __device__ void weigh(float (&s)[N][4], float scale_2) {
        const auto more = [](float a, float b) { return fmaxf(a, b); };
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float most[2] = {s[0][2 * r], s[0][2 * r + 1]};
#pragma unroll
            for (int j = 1; j < N; ++j)
                most[0] = fmaxf(most[0], s[j][2 * r]), most[1] = fmaxf(most[1], s[j][2 * r + 1]);
            const float now = fmaxf(largest[r], row_reduce(fmaxf(most[0], most[1]), more));
            const float base = now == -INFINITY ? 0 : now * scale_2;  // nothing seen yet: weights are 0
            shrink[r] = exp2_approximate(largest[r] * scale_2 - base);
            largest[r] = now;
            float here[2] = {};
#pragma unroll
            for (int j = 0; j < N; ++j)
#pragma unroll
                for (int i = 0; i < 2; ++i)
                    here[i] += s[j][2 * r + i] = exp2_approximate(s[j][2 * r + i] * scale_2 - base);
            sum[r] = sum[r] * shrink[r] + (here[0] + here[1]);
        }
    }
    __device__ float total(int r) const {
        return row_reduce(sum[r], [](float a, float b) { return a + b; });
    }
};

template <int N>
__device__ inline void scale_rows(float (&r)[N][4], float first, float second) {
#pragma unroll
    for (int j = 0; j < N; ++j) r[j][0] *= first, r[j][1] *= first, r[j][2] *= second, r[j][3] *= second;
}

// value(j, i) for sum i of columns 8 j.., rounded: the left operand of a product
template <int N, class F>
__device__ __forceinline__ void round_values(unsigned (&p)[N / 2][4], F value) {
#pragma unroll
    for (int k = 0; k < N / 2; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i)
            p[k][i] = pack_bfloat16(value(2 * k + i / 2, i % 2 * 2), value(2 * k + i / 2, i % 2 * 2 + 1));
}
template <int N>
__device__ inline void round_sums(unsigned (&p)[N / 2][4], const float (&s)[N][4]) {
    round_values<N>(p, [&](int j, int i) { return s[j][i]; });
}

// A left operand to shared memory, as the columns of a tile: this lane's row `row` and the one 8 later
template <int Rows, int K>
__device__ inline void store_operand(unsigned char* tile, const unsigned (&p)[K / 16][4], int row) {
    tile += 4 * (threadIdx.x % 4);
#pragma unroll
    for (int k = 0; k < K / 16; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i)
            *reinterpret_cast<unsigned*>(tile + tile_layout<Rows, K>::offset(row + i % 2 * 8, 2 * k + i / 2)) = p[k][i];
}

// Of four words that each of four neighbouring lanes holds, the lane with number q among them gets word q of each.
__device__ inline void transpose_words(unsigned (&w)[4]) {
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2) {
        const bool upper = threadIdx.x & bit;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            if (k & bit) continue;
            const unsigned got = __shfl_xor_sync(full_warp, upper ? w[k] : w[k + bit], bit);
            if (upper)
                w[k] = got;
            else
                w[k + bit] = got;
        }
    }
}

// Rows of sums times `by` to global memory, 16 bytes to a lane: this lane's row from `row` on and the one 8 later, below
// `last`.
template <int N>
__device__ inline void store_rows(rows_of<bfloat16> to, const float (&r)[N][4], index row, index last, index column,
                                  int width, float by_first, float by_second) {
    static_assert(N % 4 == 0);
    const int q = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float by = half ? by_second : by_first;
        bfloat16* line = to(row + 8 * half) + column;
#pragma unroll
        for (int j = 0; j < N; j += 4) {
            pack<unsigned, 4> words;
#pragma unroll
            for (int k = 0; k < 4; ++k)
                words.value[k] = pack_bfloat16(r[j + k][2 * half] * by, r[j + k][2 * half + 1] * by);
            transpose_words(words.value);
            if (row + 8 * half < last && 8 * (j + q) < width)
                *reinterpret_cast<pack<unsigned, 4>*>(line + 8 * (j + q)) = words;
        }
    }
}

// What the rotation (ops/rotary.hpp) turns a lane's columns of its two rows by, of a head of 8 N columns
template <int N>
struct row_angles {
    pack<float, 2> cos[2][N / 2], sin[2][N / 2];

    __device__ void load(rows_of<const float> table, row_index first, row_index second) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float* angle = table(half ? second : first) + 2 * (threadIdx.x % 4);
#pragma unroll
            for (int j = 0; j < N / 2; ++j) {
                cos[half][j] = *reinterpret_cast<const pack<float, 2>*>(angle + 8 * j);
                sin[half][j] = *reinterpret_cast<const pack<float, 2>*>(angle + 4 * N + 8 * j);
            }
        }
    }
};

// The inverse rotation of sums, rows as in store_rows
template <int N>
__device__ inline void turn_back(float (&r)[N][4], const row_angles<N>& angles) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int j = 0; j < N / 2; ++j)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const float c = angles.cos[half][j].value[i], s = angles.sin[half][j].value[i];
                float &a = r[j][2 * half + i], &b = r[j + N / 2][2 * half + i];
                const float before = a;
                a = a * c + b * s;
                b = b * c - before * s;
            }
}

// The same of rows that lie at these positions; nothing without a table
template <int N>
__device__ inline void turn_back(float (&r)[N][4], rows_of<const float> table, const row_index* position, index row,
                                 index last) {
    if (!table.data) return;
    row_angles<N> angles;
    angles.load(table, position[min(row, last - 1)], position[min(row + 8, last - 1)]);
    turn_back(r, angles);
}

}  // namespace spectral::cuda::detail
