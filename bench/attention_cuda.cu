// SPDX-License-Identifier: Apache-2.0
// bench/attention_cuda.cu: attention of the cuda backend in bfloat16: checked against float, then timed
//   nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a --expt-relaxed-constexpr --extended-lambda
//   -diag-suppress=554
//        -Iinclude -Ibackends/cuda bench/attention_cuda.cu -o attention_cuda
//   attention_cuda [check]      bench/peers/torch_attention.py times PyTorch's on the same shapes
// TFLOP/s count visible pairs: 4 D operations forward, 10 D backward. Times are medians of event times of one call.
#include <spectral/cuda/attention.hpp>

#include <cmath>
#include <cstdio>
#include <cstring>

#include "event_timing.hpp"

namespace spectral {
namespace {

using E = cuda::executor;

struct problem {
    std::vector<index> lengths;
    index heads, kv_heads, d;
    double queries = 1, keys = 1;  // shares of the rows, drawn one by one
    bool causal = true;
    double dropout = 0;
};

struct host_rows {
    std::vector<row_index> begin, end, position, sequence;
    host_rows(const problem& p, double share, std::uint64_t seed) {
        const random_stream draw{seed, 1};
        std::uint64_t n = 0;
        for (std::size_t s = 0; s < p.lengths.size(); ++s) {
            begin.push_back(static_cast<row_index>(position.size()));
            for (index t = 0; t < p.lengths[s]; ++t)
                if (draw.uniform(n++) < share)
                    position.push_back(static_cast<row_index>(t)), sequence.push_back(static_cast<row_index>(s));
            end.push_back(static_cast<row_index>(position.size()));
        }
    }
    index rows() const { return static_cast<index>(position.size()); }
};

// A row map on the device, kept alive by its tensors
struct device_rows {
    tensor<E, row_index> begin, end, position, sequence;
    device_rows(E& ex, const host_rows& h)
        : begin(ex, {static_cast<index>(h.begin.size())}),
          end(ex, {static_cast<index>(h.end.size())}),
          position(ex, {h.rows()}),
          sequence(ex, {h.rows()}) {
        begin.assign(h.begin), end.assign(h.end), position.assign(h.position), sequence.assign(h.sequence);
    }
    row_map map() const { return {begin.view(), end.view(), position.view(), sequence.view()}; }
};

template <class T>
tensor<E, T, 2> random(E& ex, index n, index c, std::uint64_t seed) {  // the same numbers, of bfloat16, in every type
    tensor<E, T, 2> t(ex, {n, c});
    T* p = t.data();
    cuda::detail::for_each(ex, "random", n * c, [=] __device__(index i) {
        const random_stream draw{seed, 7};
        const double u =
            draw.uniform(3 * i) + draw.uniform(3 * i + 1) + draw.uniform(3 * i + 2) - 1.5;  // nearly normal
        p[i] = cuda::detail::narrow<T>(cuda::detail::widen(cuda::detail::narrow<bfloat16>(static_cast<float>(2 * u))));
    });
    return t;
}

template <class T>
struct run {
    problem p;
    host_rows hq, hk;
    device_rows dq_rows, dk_rows;
    tensor<E, T, 2> q, k, v, out, dout, dq, dk, dv;
    tensor<E, statistic<T>, 2> lse;
    attention_options o;

    run(E& ex, const problem& p_)
        : p(p_),
          hq(p, p.queries, 1),
          hk(p, p.keys, 2),
          dq_rows(ex, hq),
          dk_rows(ex, hk),
          q(random<T>(ex, hq.rows(), p.heads * p.d, 3)),
          k(random<T>(ex, hk.rows(), p.kv_heads * p.d, 4)),
          v(random<T>(ex, hk.rows(), p.kv_heads * p.d, 5)),
          out(ex, {hq.rows(), p.heads * p.d}),
          dout(random<T>(ex, hq.rows(), p.heads * p.d, 6)),
          dq(ex, {hq.rows(), p.heads * p.d}),
          dk(ex, {hk.rows(), p.kv_heads * p.d}),
          dv(ex, {hk.rows(), p.kv_heads * p.d}),
          lse(ex, {hq.rows(), p.heads}) {
        o.heads = p.heads;
        o.kv_heads = p.kv_heads;
        o.scale = 1 / std::sqrt(static_cast<double>(p.d));
        o.causal = p.causal;
        o.dropout = p.dropout;
        o.draw = {7, 11};
        for (auto* t : {&out, &dq, &dk, &dv})
            ex.fill_bytes(t->data(), 0xFF, static_cast<std::size_t>(t->size()) * sizeof(T));  // NaN
    }
    void forward(E& ex) { attention_forward<E, T>(ex, q, k, v, dq_rows.map(), dk_rows.map(), o, out, lse); }
    void backward(E& ex) {
        attention_backward<E, T>(ex, dout, q, k, v, out, lse, dq_rows.map(), dk_rows.map(), o, dq, dk, dv);
    }
    double pairs(E& ex) {
        return visible_pairs(ex, dq_rows.map(), dk_rows.map(), p.causal) * static_cast<double>(p.heads);
    }
};

template <class T>
std::vector<double> values(const tensor<E, T, 2>& t) {
    std::vector<double> out;
    for (T x : t.to_host()) out.push_back(static_cast<double>(static_cast<float>(x)));
    return out;
}
double difference(const std::vector<double>& got, const std::vector<double>& want) {  // ‖got − want‖ / ‖want‖
    double off = 0, size = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
        if (std::isinf(want[i]) && got[i] == want[i]) continue;
        off += (got[i] - want[i]) * (got[i] - want[i]), size += want[i] * want[i];
    }
    return size == 0 ? std::sqrt(off) : std::sqrt(off / size);
}

bool check_one(E& ex, const problem& p, bool gradients = true) {
    run<bfloat16> narrow(ex, p), again(ex, p);
    run<float> wide(ex, p);
    narrow.forward(ex), again.forward(ex), wide.forward(ex);
    double e[5] = {difference(values(narrow.out), values(wide.out)), difference(values(narrow.lse), values(wide.lse))};
    bool same = values(narrow.out) == values(again.out);
    if (gradients) {
        narrow.backward(ex), again.backward(ex), wide.backward(ex);
        e[2] = difference(values(narrow.dq), values(wide.dq));
        e[3] = difference(values(narrow.dk), values(wide.dk));
        e[4] = difference(values(narrow.dv), values(wide.dv));
        same = same && values(narrow.dq) == values(again.dq) && values(narrow.dk) == values(again.dk) &&
               values(narrow.dv) == values(again.dv);
    }
    bool good = same && e[1] < 1e-3;
    for (double x : e) good = good && x < 1.5e-2;  // a NaN fails
    std::printf(
        "%s heads %2d/%d D %3d queries %.2f keys %.2f %s dropout %.1f: out %.1e lse %.1e dq %.1e dk %.1e dv %.1e%s\n",
        good ? "ok  " : "BAD ", int(p.heads), int(p.kv_heads), int(p.d), p.queries, p.keys,
        p.causal ? "causal" : "full  ", p.dropout, e[0], e[1], e[2], e[3], e[4], same ? "" : " OTHER BITS");
    return good;
}

bool check_all(E& ex) {
    bool good = true;
    const std::vector<index> lengths{1, 2, 17, 63, 64, 65, 0, 130, 300, 777, 1500};
    good &= check_one(ex, {std::vector<index>(70000, 3), 1, 1, 32});  // more tiles than a grid has rows
    for (index d : {32, 64, 96, 128, 256, 40})
        for (bool causal : {true, false}) {
            good &= check_one(ex, {lengths, 4, 2, d, 1, 1, causal}, d <= 128);
            good &= check_one(ex, {lengths, 6, 1, d, 0.3, 1, causal}, d <= 128);
            good &= check_one(ex, {lengths, 2, 2, d, 0.5, 0.5, causal, d == 64 ? 0.1 : 0}, d <= 128);
            good &= check_one(ex, {{1500, 2200}, 4, 2, d, 0.9, 1, causal, d == 32 ? 0.1 : 0}, d <= 128);
        }
    return good;
}

void time_all(E& ex) {
    std::printf("%-34s %9s %9s %9s  TFLOP/s: forward backward both\n", "causal, 16384 rows, heads x D = 1024",
                "forward", "backward", "both ms");
    for (index d : {64, 128})
        for (index time : {256, 512, 1024, 2048, 4096, 16384})
            for (double share : {1.0, 0.5, 0.25}) {
                run<bfloat16> r(ex, {std::vector<index>(static_cast<std::size_t>(16384 / time), time), 1024 / d,
                                     1024 / d, d, share});
                const double pairs = r.pairs(ex), flop = 4 * pairs * static_cast<double>(d);
                const double f = bench::event_ms(
                                 ex, [&] { r.forward(ex); }, 15),
                             b = bench::event_ms(
                                 ex, [&] { r.backward(ex); }, 9);
                std::printf("D %3d, T %5d, %3.0f %% of the queries    %9.4f %9.4f %9.4f  %8.1f %8.1f %8.1f\n", int(d),
                            int(time), 100 * share, f, b, f + b, flop / f / 1e9, 2.5 * flop / b / 1e9,
                            3.5 * flop / (f + b) / 1e9);
            }
}

}  // namespace
}  // namespace spectral

int main(int count, char** arguments) {
    using namespace spectral;
    E ex({.arena_bytes = std::size_t{1} << 30});
    std::printf("%s, sm_%d, products by %s\n", ex.device_name().c_str(), ex.architecture(),
                spectral::cuda::detail::has_warpgroup_products(ex) ? "wgmma" : "mma.sync");
    const bool good = check_all(ex);
    std::printf(good ? "all checked\n" : "SOME CHECKS FAILED\n");
    if (count == 1) time_all(ex);
    return good ? 0 : 1;
}
