// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/next_token.hpp: the next token, rows that move on
#pragma once
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/ops/next_token.hpp>

#include <cub/block/block_scan.cuh>
#include <cub/device/device_radix_sort.cuh>

namespace spectral::cuda {

namespace detail {

// A logit as a number that grows with it; a NaN is larger than all.
__device__ inline unsigned order_of(float value) {
    const unsigned bits = __float_as_uint(value + 0.f);  // of the two zeros one
    return value != value ? 0xFFFFFFFFu : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline float in_order(unsigned order) {
    return __uint_as_float(order & 0x80000000u ? order & 0x7FFFFFFFu : ~order);
}
// The same above the complement of an id: the largest is the first of the largest logits.
__device__ inline std::uint64_t ranked(float logit, index id) {
    return std::uint64_t{order_of(logit)} << 32 | (0xFFFFFFFFu - static_cast<unsigned>(id));
}
// The logits of a sequence in float, those of marked ids after the penalty
template <class T>
struct penalised_logits {
    rows_of<const T> z;
    rows_of<const unsigned char> marks;  // or none
    double penalty;
    __device__ float operator()(index s, index v) const {
        const float logit = static_cast<float>(widen(z(s)[v]));
        return marks.data && marks(s)[v] ? penalised(logit, penalty) : logit;
    }
};

template <class T>
__global__ void choose_parts(penalised_logits<T> z, index known, const row_index* sequence, std::uint64_t* parts) {
    const index s = sequence[blockIdx.y];
    std::uint64_t best = 0;
    for (index v = index{blockIdx.x} * blockDim.x + threadIdx.x; v < known; v += index{gridDim.x} * blockDim.x)
        best = greater{}(best, ranked(z(s, v), v));
    best = block_reduce(best, greater{});
    if (threadIdx.x == 0) parts[index{blockIdx.y} * gridDim.x + blockIdx.x] = best;
}

template <int>
__global__ void choose_from_parts(index count, const std::uint64_t* parts, const row_index* sequence,
                                  const row_index* position, row_index* ids, rows_of<row_index> chosen,
                                  rows_of<unsigned char> seen) {
    std::uint64_t best = 0;
    for (index i = threadIdx.x; i < count; i += 32) best = greater{}(best, parts[blockIdx.x * count + i]);
    best = warp_reduce(best, greater{});
    if (threadIdx.x != 0) return;
    const bool broken = best >> 32 == 0xFFFFFFFFu;
    const auto id = static_cast<row_index>(0xFFFFFFFFu - static_cast<unsigned>(best));
    ids[blockIdx.x] = broken ? 0 : id;
    chosen(blockIdx.x)[position[blockIdx.x]] = broken ? -1 : id;
    if (seen.data) seen(sequence[blockIdx.x])[broken ? 0 : id] = 1;
}

// Doubles are compared as floats: of logits that differ less, the first.
template <class T>
void choose_largest(executor& ex, const penalised_logits<T>& z, index known, const_vector<row_index> sequence,
                    const_vector<row_index> position, rows_of<unsigned char> seen, vector_view<row_index> ids,
                    matrix_view<row_index> chosen) {
    if (ids.empty()) return;
    const index blocks = std::min<index>(divide_up(known, 1024), 128);
    arena_scope scratch(ex);
    auto parts = ex.memory().template vector<std::uint64_t>(ids.size() * blocks);
    launch(ex, "choose_tokens", dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(ids.size())), 256, 0,
           choose_parts<T>, z, known, sequence.data, parts.data);
    launch(ex, "choose_tokens", static_cast<unsigned>(ids.size()), 32, 0, choose_from_parts<0>, blocks,
           static_cast<const std::uint64_t*>(parts.data), sequence.data, position.data, ids.data, rows_in(chosen),
           seen);
}

// What draw_rows draws from: sorted keys of a row, which hold the order of its logits, upside down, and their ids.
struct sorted_logits {
    const std::uint64_t* keys;
    const row_index* ids;
    index known;
    __device__ float operator()(index row, index i) const {
        return in_order(~static_cast<unsigned>(keys[row * known + i]));
    }
};
// sampling_options of rows of `candidates` logits
struct draw_options {
    double temperature, top_p, min_p;
    index candidates;
    bool restricts;
    random_stream draws;
};

// A block draws the next token of a row. Candidates come by tiles, the most likely first: the first tile is mostly all.
inline constexpr int draw_threads = 1024;
inline constexpr index most_sorted = index{1} << 22;  // logits at a time: 24 bytes each, and what CUB needs
template <int>
__global__ void __launch_bounds__(draw_threads)
    draw_rows(sorted_logits z, draw_options how, const row_index* sequence, const row_index* position, row_index* ids,
              rows_of<row_index> chosen, rows_of<unsigned char> seen) {
    using scan = cub::BlockScan<double, draw_threads, cub::BLOCK_SCAN_WARP_SCANS>;
    __shared__ typename scan::TempStorage memory;
    const index n = blockIdx.x;
    const int thread = static_cast<int>(threadIdx.x);
    const double largest = z(n, 0);
    const auto chance = [&](index i, index end) {  // over the largest's
        return i < end ? exp((z(n, i) - largest) / how.temperature) : 0.0;
    };
    double total = 0;
    for (index i = thread; i < how.candidates; i += draw_threads) total += chance(i, how.candidates);
    total = block_reduce(total);
    index kept = how.candidates;
    double mass = total;
    if (how.restricts) {  // those before which the mass does not reach top-p, none of them below min-p
        mass = 0;
        for (index tile = 0; tile < how.candidates; tile += draw_threads) {
            const double p = chance(tile + thread, how.candidates);
            double before, sum;
            scan(memory).ExclusiveSum(p, before, sum);
            const bool stays = tile + thread < how.candidates &&
                               (tile + thread == 0 || (mass + before < how.top_p * total && p >= how.min_p));
            const int count = block_reduce(stays ? 1 : 0);
            mass += block_reduce(stays ? p : 0.0);
            kept = tile + count;
            if (count < draw_threads) break;
        }
    }
    index drawn = 0;
    double at = how.draws.uniform(draw_number(sequence[n], position[n] + 1)) * mass;
    for (index tile = 0; tile < kept; tile += draw_threads) {
        const double p = chance(tile + thread, kept);
        double before, sum;
        scan(memory).ExclusiveSum(p, before, sum);
        const int passed = block_reduce(tile + thread < kept && before + p <= at ? 1 : 0);
        drawn = tile + passed;
        if (passed < draw_threads) break;
        at -= sum;
    }
    drawn = min(drawn, kept - 1);  // by rounding of the sums
    if (thread != 0) return;
    const bool broken = largest != largest;
    const row_index id = broken ? 0 : z.ids[n * z.known + drawn];
    ids[n] = id;
    chosen(n)[position[n]] = broken ? -1 : id;
    if (seen.data) seen(sequence[n])[id] = 1;
}

}  // namespace detail

template <class T>
void choose_tokens_kernel(executor& ex, view<const T, 2> logits, index known, const_vector<row_index> sequence,
                          const_vector<row_index> position, out_vector<row_index> ids, out_matrix<row_index> chosen) {
    detail::choose_largest<T>(ex, {detail::rows_in(logits), {}, 1}, known, sequence, position, {}, ids, chosen);
}

// Rows are sorted together, by row and then by logit (CUB's radix sort is stable: equals by id); many rows in turns, so
// that memory stays bounded.
template <class T>
void draw_tokens_kernel(executor& ex, view<const T, 2> logits, index known, const_vector<row_index> sequence,
                        const_vector<row_index> position, const sampling_options& how, matrix_view<unsigned char> seen,
                        out_vector<row_index> ids, out_matrix<row_index> chosen) {
    const auto marks = detail::rows_in(seen);
    const detail::penalised_logits<T> z{detail::rows_in(logits), {seen.data, seen.row_stride}, how.repetition_penalty};
    if (how.temperature == 0) return detail::choose_largest<T>(ex, z, known, sequence, position, marks, ids, chosen);
    const index at_once = std::max<index>(1, detail::most_sorted / known);
    for (index first = 0; first < ids.size(); first += at_once) {
        const index rows = std::min(at_once, ids.size() - first), count = rows * known;
        arena_scope scratch(ex);
        auto keys = ex.memory().template vector<std::uint64_t>(count),
             sorted = ex.memory().template vector<std::uint64_t>(count);
        auto order = ex.memory().template vector<row_index>(count),
             sorted_ids = ex.memory().template vector<row_index>(count);
        const row_index* of = sequence.data + first;
        std::uint64_t* key = keys.data;
        row_index* id = order.data;
        detail::for_each_element(ex, "choose_tokens", rows, known, [=] __device__(index n, index v) {
            key[n * known + v] = static_cast<std::uint64_t>(n) << 32 | (0xFFFFFFFFu - detail::order_of(z(of[n], v)));
            id[n * known + v] = static_cast<row_index>(v);
        });
        int bits = 32;
        while ((rows - 1) >> (bits - 32)) ++bits;
        std::size_t bytes = 0;
        const auto sort = [&](void* temporary) {
            detail::checked(
                cub::DeviceRadixSort::SortPairs(temporary, bytes, keys.data, sorted.data, order.data, sorted_ids.data,
                                                static_cast<int>(count), 0, bits, ex.stream()),
                "choose_tokens");
        };
        sort(nullptr);
        void* temporary = ex.memory().template vector<std::byte>(static_cast<index>(bytes)).data;
        ex.queue("choose_tokens", [&] { sort(temporary); });
        detail::launch(ex, "choose_tokens", static_cast<unsigned>(rows), detail::draw_threads, 0, detail::draw_rows<0>,
                       detail::sorted_logits{sorted.data, sorted_ids.data, known},
                       detail::draw_options{how.temperature, how.top_p, how.min_p, how.candidates(known),
                                            how.restricts(), how.draws()},
                       of, position.data + first, ids.data + first, detail::rows_in(chosen.slice(first, rows)), marks);
    }
}

inline void advance_rows_kernel(executor& ex, vector_view<row_index> position) {
    row_index* at = position.data;
    detail::for_each(ex, "advance_rows", position.size(), [=] __device__(index n) { at[n] += 1; });
}

}  // namespace spectral::cuda
