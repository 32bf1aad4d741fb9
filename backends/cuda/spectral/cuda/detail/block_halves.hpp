// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/block_halves.hpp: halves of blocks one after another, for a row each of at most 8
// sequences, in one kernel
//
// One block of threads on every multiprocessor stays for the whole chain. Weights depend on nothing, so they never
// wait: a warp that does nothing else asks for them in the order in which they will be used, eight rows at a time into
// a ring in shared memory, far beyond the barriers that results wait at. The other eight warps share the columns of
// such a tile, multiply it with up to eight rows of x on tensor cores, and add up their shares.
//
//   attention half      norm, q/k/v, rotation, append | attention in parts | merge, output projection, residual |
//   feed-forward half   norm, gate and up, SiLU | down, residual |                  | a barrier of all blocks
//
// Weights are bfloat16. A float x is the sum of three bfloat16, whose products are exact: same tiles, no rounding but
// that of the sums. Rows do not meet, attention's parts follow from a sequence's own length, and sums are added in an
// order that depends on shapes and, those of a norm, on the number of rows: what neighbours hold does not reach a row.
#pragma once
#include <spectral/cuda/detail/halves_worker.hpp>

namespace spectral::cuda::detail {

// 1 / (1 + exp(−x)): where the result is rounded to bfloat16 with the fast exponential and division
template <class T>
__device__ inline float logistic(float x) {
    if constexpr (std::is_same_v<T, bfloat16>)
        return __fdividef(1.0f, 1.0f + __expf(-x));
    else
        return 1 / (1 + expf(-x));
}

template <class T>
__global__ void __launch_bounds__(halves_threads, 1) block_halves_chain(const __grid_constant__ halves_job<T> job) {
    using A = float;
    const halves_layout<T> at(job);
    auto* full = reinterpret_cast<shared_barrier*>(shared_bytes + at.barriers);
    auto* empty = full + job.slots;
    auto* steps = reinterpret_cast<half_step<T>*>(shared_bytes + at.steps);
    auto* places = reinterpret_cast<keys_of_row*>(shared_bytes + at.places);
    auto* angles = reinterpret_cast<A*>(shared_bytes + at.rotary);
    const int D = job.D(), half_D = D / 2, rows = job.rows, width = job.width;

    // the list of halves, where a read takes no detour
    for (unsigned i = threadIdx.x; i < job.count * sizeof(half_step<T>) / 4; i += blockDim.x)
        reinterpret_cast<unsigned*>(steps)[i] = reinterpret_cast<const unsigned*>(job.step)[i];
    for (int i = threadIdx.x; i < job.slots; i += blockDim.x) full[i].init(tile_rows), empty[i].init(32 * stream_warps);
    copies_see_barriers();
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * job.count; i += blockDim.x) steps[i / 2].of[i % 2].take(i % 2);
    __syncthreads();
    if (threadIdx.x >= stream_threads) {
        if constexpr (warpgroup_products_built) give_registers<40>();
        if (threadIdx.x < stream_threads + 32) ask_for_weights(job, steps, shared_bytes + at.ring, full, empty);
        return;
    }
    if constexpr (warpgroup_products_built) take_registers<232>();

    // what is small and comes later
    for (int i = threadIdx.x; i < job.count * rows; i += stream_threads) {
        const auto& h = steps[i / rows];
        const row_index s = job.row_sequence[i % rows];
        if (h.attention) places[i] = {h.begin[s], h.end[s], stream_warps * part_steps * (32 * wide<T> >> job.log_D)};
    }
    if (job.rotary.data)
        for (int i = threadIdx.x; i < rows * D; i += stream_threads)
            angles[i] = job.rotary(job.row_position[i >> job.log_D])[i & (D - 1)];
    for (int i = blockIdx.x; i < job.count; i += gridDim.x) {
        const auto nearer = [&](const T* from, int count) {
            for (int c = 128 / sizeof(T) * threadIdx.x; from && c < count; c += 128 / sizeof(T) * stream_threads)
                keep_near(from + c);
        };
        const auto& h = steps[i];
        nearer(h.gamma, width), nearer(h.second_bias, width);
        for (int m = 0; m < 3; ++m) nearer(h.bias[m], (m ? job.kv_heads : job.heads) * D);
    }
    halves_worker<T> worker{job,
                            shared_bytes + at.x,
                            shared_bytes + at.ring,
                            reinterpret_cast<A*>(shared_bytes + at.low),
                            reinterpret_cast<A*>(shared_bytes + at.sums),
                            reinterpret_cast<A*>(shared_bytes + at.scratch),
                            full,
                            empty};
    grid_barrier all(job.arrivals);
    stream_sync();

#pragma unroll 1
    for (int phase = 0; phase < 2 * job.count; ++phase) {
        const half_step<T>& h = steps[phase / 2];
        const bool second = phase % 2;
        if (second && !h.rows) continue;  // keys alone
        const keys_of_row* place = places + phase / 2 * rows;
        const adapter_rows<T>* adapters = second ? h.second_low.of : h.low.of;
        const int adapter_total = second ? h.second_low.total : h.low.total;
        const auto known = [&](int p, int n) -> pair_of<A> {
            if (second) {  // the residual
                if (h.from_packets) return read_pair<T>(worker.at(h.from_packets, n, width, 0), p);
                const T* from = h.from + n * width + 2 * p;
                return {widen(read_one(from)), widen(read_one(from + 1))};
            }
            if (!h.attention) return {0, 0};
            const auto at = job.of_fresh(job.fresh_column(p));
            const T* of = h.bias[at.which];
            return of ? pair_of<A>{widen(of[at.column]), widen(of[at.column + half_D])} : pair_of<A>{0, 0};
        };
        const auto prepare = [&] {
            if (!second) {
                worker.copy_scaled(h, all);
                return worker.low_ranks(h.low, width);
            }
            if (h.attention) {
                all.template wait<true>();
                worker.merge(h, place);
            } else {
                all.wait();
                worker.copy_in(job.hidden, job.inner, all.stamp());
            }
            worker.low_ranks(h.second_low, h.of[1].width);
        };
        const auto finish = [&](int p, int n, const pair_of<A>& early, A a, A b, unsigned lanes, bool wanted) {
            const int column = second ? 2 * p : h.attention ? job.fresh_column(p) : p;
            const auto at = job.of_fresh(column);
            if (adapter_total) {
                const bool fresh = !second && h.attention, gated = !second && !h.attention;
                a += worker.adapted(adapters[fresh ? at.which : 0], adapter_total, fresh ? at.column : column, n);
                b += worker.adapted(adapters[fresh ? at.which : gated], adapter_total,
                                    fresh ? at.column + half_D : column + second, n);
            }
            if (second) {
                if (h.second_bias) a += widen(h.second_bias[column]), b += widen(h.second_bias[column + 1]);
                if (!(h.rows >> n & 1)) a = b = 0;
                if (!wanted) return;
                const A sum[2] = {early.a + a, early.b + b};
                if (h.to) store<2>(h.to + n * width + column, sum);
                packet* to = h.to_packets + n * width / packet_values<T>;
                return write_pair<T>(to, p, sum[0], sum[1], all.next_stamp());
            }
            const A factor = worker.norm_factor(h, n);
            a *= factor, b *= factor;
            if (!h.attention) {
                packet* to = job.hidden + n * job.inner / packet_values<T>;
                return write_column<T>(to, p, a * logistic<T>(a) * b, all.next_stamp(), lanes, wanted);
            }
            // (a, b) -> (a cos − b sin, b cos + a sin)
            a += early.a, b += early.b;
            if (at.which != 2 && job.rotary.data) {
                const int c = column & (half_D - 1);
                const A cos = angles[n * D + c], sin = angles[n * D + half_D + c], before = a;
                a = a * cos - b * sin, b = b * cos + before * sin;
            }
            if (h.rows) {  // keys alone are only kept: the next half has the same barrier before it
                packet* to = job.fresh + n * job.fresh_width() / packet_values<T>;
                write_column<T>(to, column, a, all.next_stamp(), lanes, wanted);
                write_column<T>(to, column + half_D, b, all.next_stamp(), lanes, wanted);
            }
            if (!wanted || at.which == 0 || !(h.keys >> n & 1)) return;
            T* kept = (at.which == 1 ? h.k : h.v) + index{place[n].last} * (job.kv_heads * D) + at.column;
            kept[0] = narrow<T>(a), kept[half_D] = narrow<T>(b);
        };
        worker.product(h.of[second], known, prepare, finish);
        if (!h.rows) {
            stream_sync();
            continue;
        }
        all.arrive();
        if (second || !h.attention) continue;
        worker.attend(h, place, all);
        all.template arrive<true>();
    }
    // every block has read where the sequences ended before it arrived anywhere
    if (blockIdx.x == 0)
        for (int i = threadIdx.x; i < job.count * rows; i += stream_threads) {
            const auto& h = steps[i / rows];
            const int n = i % rows, slot = places[i].last;
            if (!(h.keys >> n & 1)) continue;
            h.position[slot] = job.row_position[n];
            h.end[job.row_sequence[n]] = slot + 1;
        }
}

// A kernel of one block on every multiprocessor, all at once, so that they may wait for each other.
template <class Job>
void launch_everywhere(executor& ex, const char* what, unsigned threads, std::size_t shared, void (*kernel)(Job),
                       const Job& job) {
    checked(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)), what);
    cudaLaunchConfig_t config{};
    config.gridDim = static_cast<unsigned>(ex.multiprocessors());
    config.blockDim = threads;
    config.dynamicSmemBytes = shared;
    config.stream = ex.stream();
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
    ex.queue(what, [&] { checked(cudaLaunchKernelEx(&config, kernel, job), what); });
}

// What the barriers of launches of this size count in, and 2^log_packets packets. Nothing else is ever written there, so
// that a stamp is a barrier's number; of 32 bits, it is another barrier's after 2^25 at least.
struct grid_exchange : kept {
    executor& ex;
    std::size_t bytes;
    unsigned long long* arrivals;
    packet* packets;
    grid_exchange(executor& ex_, int log_packets)
        : ex(ex_),
          bytes(128 + (sizeof(packet) << log_packets)),
          arrivals(static_cast<unsigned long long*>(ex.allocate(bytes))),
          packets(reinterpret_cast<packet*>(arrivals + 128 / sizeof *arrivals)) {
        ex.fill_bytes(arrivals, 0, bytes);
    }
    ~grid_exchange() override { ex.deallocate(arrivals, bytes); }
};

template <class T>
bool run_block_halves(executor& ex, const_matrix<T> x, std::span<const block_half<T>> halves, const row_map& rows,
                      matrix_view<T> y) {
    const char* what = "block_halves_forward";
    const attention_half<T>* attention = nullptr;
    const feed_forward_half<T>* feed_forward = nullptr;
    for (const auto& h : halves) {
        if (!attention) attention = std::get_if<attention_half<T>>(&h.half);
        if (!feed_forward) feed_forward = std::get_if<feed_forward_half<T>>(&h.half);
    }
    const index N = x.rows(), C = x.width();
    if (!attention || N == 0 || N > most_few_rows || ex.architecture() < 90 || !takes_packs(x, y) || !x.contiguous() ||
        !y.contiguous())
        return false;
    halves_job<T> job{};
    job.rows = static_cast<int>(N), job.width = static_cast<int>(C);
    job.inner = feed_forward ? static_cast<int>(feed_forward->up.weight.rows()) : 0;
    job.heads = static_cast<int>(attention->heads), job.kv_heads = static_cast<int>(attention->kv_heads);
    if (C % 32 || job.inner % 32) return false;
    job.per_width = 1 / static_cast<float>(C);
    job.group = job.heads / job.kv_heads;
    const index D = attention->q.weight.rows() / attention->heads, lanes = D / wide<T>;
    if (D % 32 || (lanes != 4 && lanes != 8 && lanes != 16 && lanes != 32)) return false;
    while ((1 << job.log_D) < D) ++job.log_D;
    while ((1 << job.log_rows) < job.rows) ++job.log_rows;
    job.row_position = rows.position.data, job.row_sequence = rows.sequence.data;
    job.rotary = rows_in(attention->rotary);

    arena_scope scratch(ex);
    const auto parts = ex.memory().template vector<compute<T>>(N * job.heads * most_parts * (D + 2));
    job.parts = parts.data;
    std::vector<half_step<T>> steps;
    if (std::none_of(halves.begin(), halves.end(), [](const auto& h) { return h.rows != 0; })) return false;
    const auto fits = [](const projection<T>& p, index out, index in) {
        return p.weight.rows() == out && p.weight.width() == in && takes_projection<T, bfloat16>(p);
    };
    for (std::size_t i = 0; i < halves.size(); ++i) {
        const auto& half = halves[i];
        half_step<T> s{};
        s.rows = half.rows;
        if (const auto* h = std::get_if<attention_half<T>>(&half.half)) {
            const auto& c = half.cache;
            if (h->heads != job.heads || h->kv_heads != job.kv_heads || h->rotary.data != attention->rotary.data ||
                !fits(h->q, job.heads * D, C) || !fits(h->k, job.kv_heads * D, C) || !fits(h->v, job.kv_heads * D, C) ||
                !fits(h->o, C, job.heads * D) || !takes_norm<T>(h->gamma) || !takes_packs(c.k, c.v) ||
                !c.k.contiguous() || !c.v.contiguous())
                return false;
            s.of[0] = {job.width, half.rows ? 0 : (job.heads << job.log_D) / tile_rows, job.fresh_width() / tile_rows};
            s.of[1] = {job.heads << job.log_D, 0, half.rows ? job.width / tile_rows : 0};
            s.attention = true, s.keys = half.keys, s.gamma = h->gamma.data;
            s.eps = static_cast<compute<T>>(h->eps), s.scale = static_cast<compute<T>>(h->scale);
            const projection<T>* maps[] = {&h->q, &h->k, &h->v};
            for (int m = 0; m < 3; ++m) {
                s.first[m] = weight_data<bfloat16>(maps[m]->weight), s.bias[m] = maps[m]->bias.data;
                s.low.of[m] = take_adapter(*maps[m], s.low.total);
            }
            s.second = weight_data<bfloat16>(h->o.weight), s.second_bias = h->o.bias.data;
            s.second_low.of[0] = take_adapter(h->o, s.second_low.total);
            s.k = c.k.data, s.v = c.v.data, s.begin = c.begin.data, s.end = c.end.data, s.position = c.position.data;
        } else {
            const auto& f = std::get<feed_forward_half<T>>(half.half);
            if (!half.rows) continue;
            if (!fits(f.gate, job.inner, C) || !fits(f.up, job.inner, C) || !fits(f.down, C, job.inner) ||
                !takes_norm<T>(f.gamma) || f.gate.bias.data || f.up.bias.data)
                return false;
            s.of[0] = {job.width, 0, 2 * job.inner / tile_rows}, s.of[1] = {job.inner, 0, job.width / tile_rows};
            s.gamma = f.gamma.data, s.eps = static_cast<compute<T>>(f.eps);
            s.first[0] = weight_data<bfloat16>(f.gate.weight), s.first[1] = weight_data<bfloat16>(f.up.weight);
            s.low.of[0] = take_adapter(f.gate, s.low.total), s.low.of[1] = take_adapter(f.up, s.low.total);
            s.second = weight_data<bfloat16>(f.down.weight), s.second_bias = f.down.bias.data;
            s.second_low.of[0] = take_adapter(f.down, s.second_low.total);
        }
        if (!s.rows && !s.keys) continue;
        job.low = std::max({job.low, s.low.total, s.second_low.total});
        steps.push_back(s);
    }
    if (steps.size() > most_halves) return false;
    job.count = static_cast<int>(steps.size());
    const auto bytes = [&] { return halves_layout<T>(job).bytes; };
    for (job.slots = most_slots; job.slots > 2 && bytes() > ex.shared_limit();) --job.slots;
    if (bytes() > ex.shared_limit()) return false;

    // which half reads and writes what: x, two buffers of packets in turn, and at last y besides
    const auto packets = [&](index width) { return N * width / packet_values<T>; };
    int log_packets = 0;
    while ((index{1} << log_packets) < packets(job.fresh_width() + job.inner + 2 * C)) ++log_packets;
    const auto& exchange = ex.keep<grid_exchange>(log_packets, log_packets);
    job.arrivals = exchange.arrivals, job.fresh = exchange.packets;
    job.hidden = job.fresh + packets(job.fresh_width());
    packet *const a = job.hidden + packets(job.inner), *const b = a + packets(C), *from = nullptr;
    half_step<T>* last_with_rows = nullptr;
    for (auto& s : steps) {
        s.from = from ? nullptr : x.data, s.from_packets = from;
        if (s.rows) from = s.to_packets = from == a ? b : a, last_with_rows = &s;
    }
    last_with_rows->to = y.data;
    std::copy(steps.begin(), steps.end(), job.step);
    launch_everywhere(ex, what, halves_threads, bytes(), block_halves_chain<T>, job);
    return true;
}

}  // namespace spectral::cuda::detail
