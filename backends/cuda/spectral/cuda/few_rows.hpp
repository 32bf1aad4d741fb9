// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/few_rows.hpp: the halves of a block for at most 8 rows, each in two or three kernels
//
//   attention half      norm, q/k/v, biases, rotation, append -> attention in parts -> merge, output projection, residual
//   feed-forward half   norm, gate and up, SiLU -> down, residual
//   head                norm, product
#pragma once
#include <spectral/cuda/detail/block_halves.hpp>
#include <spectral/cuda/detail/few_rows.hpp>

namespace spectral::cuda {

namespace detail {

// ---- attention over the cache ---------------------------------------------------------------------------------------

template <class T>
struct cached_keys {
    rows_of<T> k, v;
    row_index *begin, *end, *position;  // of the cache
    const row_index *row_begin, *row_end, *row_position, *row_sequence;  // of the rows at hand
    index sequences;

    cached_keys(const kv_cache<T>& c, const row_map& r)
        : k(rows_in(c.k)),
          v(rows_in(c.v)),
          begin(c.begin.data),
          end(c.end.data),
          position(c.position.data),
          row_begin(r.begin.data),
          row_end(r.end.data),
          row_position(r.position.data),
          row_sequence(r.sequence.data),
          sequences(r.sequences()) {}
    // where row n's key goes. The ends move when attention has read them.
    __device__ index slot(int n) const {
        const row_index s = row_sequence[n];
        return end[s] + (n - row_begin[s]);
    }
};

// A row's query heads of one key/value head against a share of its keys. A key is read by `Lanes` lanes, 16 bytes each,
// so a warp reads 32/Lanes keys at once; every lane keeps sums of its columns for G heads, merged at the end. Result of
// a (row, head, share): D sums; the sum of the weights, the largest score.
inline constexpr int decode_warps = 8, keys_ahead = 4;

template <int Lanes, int G, class T>
__global__ void __launch_bounds__(32 * decode_warps)
    cached_attention_parts(rows_of<const T> q, cached_keys<T> keys, int heads, int group, compute<T> scale,
                           compute<T>* parts) {
    using A = compute<T>;
    constexpr int V = wide<T>, D = Lanes * V, at_once = 32 / Lanes, step = decode_warps * at_once;
    __shared__ A shared[decode_warps][G][D + 2];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = V * (lane % Lanes), slot = lane / Lanes;
    const int passes = (group + G - 1) / G, kv_head = blockIdx.y / passes,
              head = kv_head * group + G * (blockIdx.y % passes);
    const int count = min(G, (kv_head + 1) * group - head);
    const index n = blockIdx.z;
    const row_index s = keys.row_sequence[n], position = keys.row_position[n];
    const index first = keys.begin[s], old = keys.end[s], last = old + (keys.row_end[s] - keys.row_begin[s]);
    const index share = ((last - first + gridDim.x - 1) / gridDim.x + step - 1) / step * step;
    const index begin = first + blockIdx.x * share, end = min(begin + share, last);
    words k[keys_ahead], v[keys_ahead];
    row_index at[keys_ahead];
    const auto read = [&](index base, index from, index to) {  // those of [from, to)
#pragma unroll
        for (int u = 0; u < keys_ahead; ++u) {
            const index m = base + u * step + at_once * warp + slot;
            if (m < from || m >= to) continue;
            k[u] = read_once(keys.k(m) + kv_head * D + column);
            v[u] = read_once(keys.v(m) + kv_head * D + column);
            at[u] = keys.position[m];
        }
    };
    read(begin, begin, min(end, old));  // keys of earlier steps may be read while this step's are made
    wait_for_previous();
    let_next_start();
    read(begin, max(begin, old), end);
    A query[G][V], acc[G][V] = {}, sum[G] = {}, largest[G];
#pragma unroll
    for (int g = 0; g < G; ++g) {
        largest[g] = -INFINITY;
        load_values<V>(q(n) + (head + min(g, count - 1)) * D + column, query[g]);
    }
    for (index base = begin; base < end; base += keys_ahead * step) {
        if (base > begin) read(base, base, end);
#pragma unroll
        for (int u = 0; u < keys_ahead; ++u) {
            const index m = base + u * step + at_once * warp + slot;
            if (base + u * step >= end) break;
            const bool visible = m < end && at[u] <= position;
            A key[V], value[V];
            unpack<T>(k[u], key);
            unpack<T>(v[u], value);
#pragma unroll
            for (int g = 0; g < G; ++g) {
                A score = 0;
#pragma unroll
                for (int i = 0; i < V; ++i) score += query[g][i] * key[i];
                score = warp_reduce<Lanes>(score);
                if (!visible) continue;
                score *= scale;
                const A most = greater{}(largest[g], score), shrink = exp(largest[g] - most),
                        weight = exp(score - most);
                largest[g] = most;
                sum[g] = sum[g] * shrink + weight;
#pragma unroll
                for (int i = 0; i < V; ++i) acc[g][i] = acc[g][i] * shrink + weight * value[i];
            }
        }
    }
    // keys of a warp, then warps
#pragma unroll
    for (int g = 0; g < G; ++g) {
        A most = largest[g];
#pragma unroll
        for (int l = Lanes; l < 32; l *= 2) most = greater{}(most, __shfl_xor_sync(full_warp, most, l));
        const A factor = most == -INFINITY ? A(0) : exp(largest[g] - most);
        sum[g] *= factor;
#pragma unroll
        for (int l = Lanes; l < 32; l *= 2) sum[g] += __shfl_xor_sync(full_warp, sum[g], l);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            acc[g][i] *= factor;
#pragma unroll
            for (int l = Lanes; l < 32; l *= 2) acc[g][i] += __shfl_xor_sync(full_warp, acc[g][i], l);
            if (slot == 0) shared[warp][g][column + i] = acc[g][i];
        }
        if (lane == 0) shared[warp][g][D] = sum[g], shared[warp][g][D + 1] = most;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count * (D + 1); i += 32 * decode_warps) {
        const int g = i / (D + 1), d = i - g * (D + 1);
        A most = -INFINITY, total = 0;
#pragma unroll
        for (int w = 0; w < decode_warps; ++w) most = greater{}(most, shared[w][g][D + 1]);
#pragma unroll
        for (int w = 0; w < decode_warps; ++w)
            total += most == -INFINITY ? A(0) : shared[w][g][d] * exp(shared[w][g][D + 1] - most);
        const index part = (n * heads + head + g) * gridDim.x + blockIdx.x;
        A* totals = parts + index{gridDim.z} * heads * gridDim.x * D;
        if (d < D)
            parts[part * D + d] = total;
        else
            totals[2 * part] = total, totals[2 * part + 1] = most;
    }
}

// The parts of every (row, head) put together: what attention gives; and the ends of the cache move.
inline constexpr int most_shares = 16;

template <class T>
struct merged_inputs {
    using A = compute<T>;
    const A* parts;  // (rows, heads, shares, D), then (rows, heads, shares, 2)
    cached_keys<T> keys;
    int rows, width, heads, shares;
    __host__ __device__ std::size_t shared(int n) const {
        return to_16(sizeof(T) * n * width) + to_16(sizeof(A) * n * heads * shares);
    }
    __device__ void prepare(int, T*) const {}
    template <int N>
    __device__ void fill(std::integral_constant<int, N>, T* to) const {
        constexpr int V = wide<A>, ahead = 8;
        const int D = width / heads, lane = threadIdx.x % 32;
        A* weight = reinterpret_cast<A*>(reinterpret_cast<unsigned char*>(to) + to_16(sizeof(T) * N * width));
        const A* totals = parts + index{rows} * width * shares;
        // what each share counts for, of a warp's (row, head) at a time
        for (int i = threadIdx.x / 32; i < rows * heads; i += few_rows_warps) {
            const A sum = lane < shares ? totals[2 * (i * shares + lane)] : A(0),
                    most = lane < shares ? totals[2 * (i * shares + lane) + 1] : A(-INFINITY);
            const A largest = warp_reduce(most, greater{}), factor = most == -INFINITY ? A(0) : exp(most - largest),
                    total = warp_reduce(factor * sum);
            if (lane < shares) weight[i * shares + lane] = total == 0 ? A(0) : factor / total;
        }
        __syncthreads();
        for (int c = V * threadIdx.x; c < N * width; c += V * few_rows_threads) {
            const int i = c / D;  // (row, head)
            A value[V] = {};
            if (i < rows * heads)
                for (int z0 = 0; z0 < shares; z0 += ahead) {
                    words part[ahead];
#pragma unroll
                    for (int z = 0; z < ahead; ++z)
                        if (z0 + z < shares)
                            part[z] =
                                *reinterpret_cast<const words*>(parts + index{i * shares + z0 + z} * D + (c - i * D));
#pragma unroll
                    for (int z = 0; z < ahead; ++z)
                        if (z0 + z < shares) {
                            A some[V];
                            unpack<A>(part[z], some);
#pragma unroll
                            for (int k = 0; k < V; ++k) value[k] += weight[i * shares + z0 + z] * some[k];
                        }
                }
#pragma unroll
            for (int k = 0; k < V; ++k) to[c + k] = narrow<T>(value[k]);
        }
        if (blockIdx.x == 0)
            for (index s = threadIdx.x; s < keys.sequences; s += few_rows_threads)
                keys.end[s] += keys.row_end[s] - keys.row_begin[s];
    }
};

// ---- outputs --------------------------------------------------------------------------------------------------------

template <class W, class T>
memory_ahead ahead_of(const std::array<weight_view<T>, 3>& next) {
    memory_ahead out;
    for (std::size_t i = 0; i < next.size(); ++i) {
        out.from[i] = reinterpret_cast<const unsigned char*>(weight_data<W>(next[i]));
        const auto bytes = static_cast<std::size_t>(next[i].rows() * next[i].width()) * sizeof(W);
        if (out.from[i]) out.pieces[i] = static_cast<unsigned>(bytes / memory_ahead::piece);
    }
    return out;
}

// A task is R/2 pairs of columns that rotate together, i and i + D/2 of a head, of queries, then keys, then values.
template <int R, class T, class W>
struct query_key_value_outputs {
    using A = compute<T>;
    struct known_type {
        A bias, cos, sin;
    };
    const W* weight_of[3];
    const T* bias_of[3];
    adapter_list<T, 3> adapters{};
    rows_of<T> q;
    cached_keys<T> keys;
    rows_of<const statistic<T>> rotary;
    int rows, width, D, heads, kv_heads;
    memory_ahead ahead{};

    struct place {
        int which, column;
    };  // 0 q, 1 k, 2 v
    __device__ place find(index task, int r) const {
        const int pair = min(static_cast<int>(task) * (R / 2) + r / 2, (heads + 2 * kv_heads) * (D / 2) - 1);
        const int half = D / 2, head = pair / half, i = pair - head * half + r % 2 * half;
        if (head < heads) return {0, head * D + i};
        if (head < heads + kv_heads) return {1, (head - heads) * D + i};
        return {2, (head - heads - kv_heads) * D + i};
    }
    __device__ const W* weight(index task, int r) const {
        const place p = find(task, r);
        return weight_of[p.which] + index{p.column} * width;
    }
    __device__ index output(index task, int r) const { return find(task, r).column; }
    __device__ const adapter_rows<T>& adapter(index task, int r) const { return adapters.of[find(task, r).which]; }
    __device__ known_type known(index task, int n, int r) const {
        const place p = find(task, r);
        known_type out{0, 1, 0};
        if (bias_of[p.which]) out.bias = widen(bias_of[p.which][p.column]);
        if (p.which == 2 || !rotary.data || n >= rows) return out;
        const int i = p.column % (D / 2);
        const statistic<T>* angle = rotary(keys.row_position[n]);
        out.cos = angle[i];
        out.sin = r % 2 == 0 ? -angle[D / 2 + i] : angle[D / 2 + i];
        return out;
    }
    __device__ index early(index task, int n, int r) const {
        return find(task, r).which == 0 || n >= rows ? index{n} : keys.slot(n);
    }
    // (a, b) -> (a cos − b sin, b cos + a sin); the other output of the task came without its bias
    __device__ void finish(index task, int n, int r, const known_type& known, index row, A value, A other) const {
        const place p = find(task, r);  // a last task with pairs to spare repeats the last pair
        value += known.bias;
        if (p.which != 2 && rotary.data) {
            if (bias_of[p.which]) other += widen(bias_of[p.which][find(task, r ^ 1).column]);
            value = value * known.cos + other * known.sin;
        }
        (p.which == 0 ? q(row) : p.which == 1 ? keys.k(row) : keys.v(row))[p.column] = narrow<T>(value);
        if (p.which == 2 && p.column == 0) keys.position[row] = keys.row_position[n];
    }
};

// y = residual + sum + bias; without a residual: sum + bias, or y + that
template <int R, class T, class W>
struct row_outputs {
    using A = compute<T>;
    const W* weights;
    const T* bias;
    adapter_list<T, 1> adapters{};
    rows_of<const T> residual;  // may be empty
    rows_of<T> y;
    int rows, width, outputs;
    __device__ int at(index task, int r) const { return min(static_cast<int>(task) * R + r, outputs - 1); }
    __device__ const W* weight(index task, int r) const { return weights + index{at(task, r)} * width; }
    __device__ index output(index task, int r) const { return at(task, r); }
    __device__ const adapter_rows<T>& adapter(index, int) const { return adapters.of[0]; }
    __device__ A known(index task, int, int r) const { return bias ? widen(bias[at(task, r)]) : A(0); }
    __device__ A early(index task, int n, int r) const {
        return residual.data && n < rows ? widen(residual(n)[at(task, r)]) : A(0);
    }
    __device__ void finish(index task, int n, int r, A known, A early, A value, A) const {
        if (task * R + r < outputs) y(n)[task * R + r] = narrow<T>(early + value + known);
    }
};

// A task is R/2 gates and what they let through:  g σ(g) u
template <int R, class T, class W>
struct gate_outputs {
    using A = compute<T>;
    const W *gate, *up;
    adapter_list<T, 2> adapters{};
    rows_of<T> y;
    int rows, width, outputs;
    __device__ index output(index task, int r) const {
        return min(static_cast<int>(task) * (R / 2) + r / 2, outputs - 1);
    }
    __device__ const W* weight(index task, int r) const { return (r % 2 == 0 ? gate : up) + output(task, r) * width; }
    __device__ const adapter_rows<T>& adapter(index, int r) const { return adapters.of[r % 2]; }
    __device__ nothing known(index, int, int) const { return {}; }
    __device__ nothing early(index, int, int) const { return {}; }
    __device__ void finish(index task, int n, int r, nothing, nothing, A value, A other) const {
        if (r % 2 == 0) y(n)[output(task, r)] = narrow<T>(value / (1 + exp(-value)) * other);
    }
};

template <class T>
row_inputs<T> inputs_of(const_matrix<T> x, const view<const T, 1>& gamma, double eps) {
    return {rows_in(x), static_cast<int>(x.rows()), static_cast<int>(x.width()), gamma.data,
            static_cast<compute<T>>(eps)};
}

// y = residual + W x + b, x made by `in`
template <int S, class T, class W, class In>
void projected_rows(executor& ex, const char* what, const In& in, const projection<T>& p, const_matrix<T> residual,
                    matrix_view<T> y) {
    constexpr int R = 4;
    row_outputs<R, T, W> out{weight_data<W>(p.weight), p.bias.data};
    out.adapters.of[0] = take_adapter(p, out.adapters.total);
    out.residual = rows_in(residual);
    out.y = rows_in(y);
    out.rows = in.rows, out.width = in.width, out.outputs = static_cast<int>(p.weight.rows());
    few_rows_product<R, S, T, W>(ex, what, in, out, divide_up(out.outputs, R), true);
}

}  // namespace detail

template <class T>
bool attention_half_kernel(executor& ex, const_matrix<T> x, const attention_half<T>& half, const row_map& rows,
                           kv_cache<T> cache, matrix_view<T> y) {
    using A = detail::compute<T>;
    const char* what = "attention_half_forward";
    const index N = x.rows(), D = half.q.weight.rows() / half.heads, group = half.heads / half.kv_heads;
    const index lanes = D / detail::wide<T>;
    const bool powers = D % detail::wide<T> == 0 && (lanes == 8 || lanes == 16 || lanes == 32);
    if (N == 0 || N > detail::most_few_rows || !powers || !detail::takes_packs(x, cache.k, cache.v) ||
        !detail::takes_norm<T>(half.gamma))
        return false;
    return detail::with_stored<T>({half.q, half.k, half.v, half.o}, [&](auto stored) {
        using W = decltype(stored);
        arena_scope scratch(ex);
        const auto q = ex.memory().template matrix<T>(N, half.q.weight.rows());
        const detail::cached_keys<T> keys(cache, rows);
        detail::query_key_value_outputs<4, T, W> out{
            {detail::weight_data<W>(half.q.weight), detail::weight_data<W>(half.k.weight),
             detail::weight_data<W>(half.v.weight)},
            {half.q.bias.data, half.k.bias.data, half.v.bias.data},
            {},
            detail::rows_in(q),
            keys,
            detail::rows_in(half.rotary),
            static_cast<int>(N),
            static_cast<int>(x.width()),
            static_cast<int>(D),
            static_cast<int>(half.heads),
            static_cast<int>(half.kv_heads)};
        if (ex.options().read_ahead) out.ahead = detail::ahead_of<W, T>(half.next);
        const projection<T>* maps[] = {&half.q, &half.k, &half.v};
        for (int i = 0; i < 3; ++i) out.adapters.of[i] = detail::take_adapter(*maps[i], out.adapters.total);
        detail::few_rows_product<4, 4, T, W>(ex, what, detail::inputs_of<T>(x, half.gamma, half.eps), out,
                                             detail::divide_up((half.heads + 2 * half.kv_heads) * D / 2, 2), true);

        // heads that read a key together: what shared memory and registers hold
        const index heads_at_once = group == 1              ? 1
                                    : group <= 4 || D > 128 ? 4
                                                            : 8,
                    passes = detail::divide_up(group, heads_at_once);
        const index shares =
            std::clamp<index>(ex.multiprocessors() / (N * half.kv_heads * passes), 1, detail::most_shares);
        auto parts = ex.memory().template vector<A>(N * half.heads * shares * (D + 2));
        const auto attend = [&](auto lanes_each, auto heads_each) {
            detail::launch_overlapping(ex, what,
                                       dim3(static_cast<unsigned>(shares),
                                            static_cast<unsigned>(half.kv_heads * passes), static_cast<unsigned>(N)),
                                       32 * detail::decode_warps, 0, true,
                                       detail::cached_attention_parts<lanes_each(), heads_each(), T>,
                                       detail::rows_in(view<const T, 2>(q)), keys, static_cast<int>(half.heads),
                                       static_cast<int>(group), static_cast<A>(half.scale), parts.data);
        };
        const auto with_heads = [&](auto lanes_each) {
            if (heads_at_once == 1)
                attend(lanes_each, std::integral_constant<int, 1>{});
            else if (heads_at_once == 4)
                attend(lanes_each, std::integral_constant<int, 4>{});
            else if constexpr (lanes_each() * detail::wide<T> <= 128)
                attend(lanes_each, std::integral_constant<int, 8>{});
        };
        if (lanes == 8)
            with_heads(std::integral_constant<int, 8>{});
        else if (lanes == 16)
            with_heads(std::integral_constant<int, 16>{});
        else
            with_heads(std::integral_constant<int, 32>{});

        const detail::merged_inputs<T> merged{parts.data,
                                              keys,
                                              static_cast<int>(N),
                                              static_cast<int>(q.width()),
                                              static_cast<int>(half.heads),
                                              static_cast<int>(shares)};
        detail::projected_rows<4, T, W>(ex, what, merged, half.o, x, y);
    });
}

template <class T>
bool feed_forward_half_kernel(executor& ex, const_matrix<T> x, const feed_forward_half<T>& half, matrix_view<T> y) {
    const char* what = "feed_forward_half_forward";
    const index N = x.rows(), F = half.up.weight.rows();
    if (N == 0 || N > detail::most_few_rows || !detail::takes_packs(x) || !detail::takes_norm<T>(half.gamma) ||
        half.gate.bias.data || half.up.bias.data)
        return false;
    return detail::with_stored<T>({half.gate, half.up, half.down}, [&](auto stored) {
        using W = decltype(stored);
        arena_scope scratch(ex);
        const auto hidden = ex.memory().template matrix<T>(N, F);
        detail::gate_outputs<4, T, W> out{detail::weight_data<W>(half.gate.weight),
                                          detail::weight_data<W>(half.up.weight)};
        out.adapters.of[0] = detail::take_adapter(half.gate, out.adapters.total);
        out.adapters.of[1] = detail::take_adapter(half.up, out.adapters.total);
        out.y = detail::rows_in(hidden);
        out.rows = static_cast<int>(N), out.width = static_cast<int>(x.width()), out.outputs = static_cast<int>(F);
        detail::few_rows_product<4, 1, T, W>(ex, what, detail::inputs_of<T>(x, half.gamma, half.eps), out,
                                             detail::divide_up(F, 2), true);
        detail::projected_rows<8, T, W>(ex, what, detail::inputs_of<T>(hidden, {}, 0), half.down, x, y);
    });
}

template <class T>
bool head_kernel(executor& ex, const_matrix<T> x, const_vector<T> gamma, double eps, const weight_view<T>& weight,
                 matrix_view<T> logits) {
    if (x.rows() == 0 || x.rows() > detail::most_few_rows || !detail::takes_packs(x) || !detail::takes_norm<T>(gamma))
        return false;
    const projection<T> p{weight, {}};
    return detail::with_stored<T>({p}, [&](auto stored) {
        detail::projected_rows<1, T, decltype(stored)>(ex, "head_forward", detail::inputs_of<T>(x, gamma, eps), p, {},
                                                       logits);
    });
}

template <class T>
bool block_halves_kernel(executor& ex, const_matrix<T> x, std::span<const block_half<T>> halves, const row_map& rows,
                         matrix_view<T> y) {
    if constexpr (std::is_same_v<T, float> || std::is_same_v<T, bfloat16>)
        return detail::run_block_halves(ex, x, halves, rows, y);
    else
        return false;
}

}  // namespace spectral::cuda
