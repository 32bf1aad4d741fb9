// SPDX-License-Identifier: Apache-2.0
// tests/ops/few_rows_test.cpp: the halves of a block as one operator, where an executor has them, against small
// operators
#include <spectral/ops/activation.hpp>
#include <spectral/ops/attention.hpp>
#include <spectral/ops/elementwise.hpp>
#include <spectral/ops/few_rows.hpp>
#include <spectral/ops/norm.hpp>
#include <spectral/ops/rotary.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::few_rows_test {

namespace {
struct half_case {
    index rows = 3, width = 64, inner = 96, heads = 4, kv_heads = 2, head_width = 64;
    index rank = 0;  // of adapters; 0: none
    bool norm = true, bias = true, rotary = true, narrow = false;
};
std::string describe(const half_case& c) {
    return std::to_string(c.rows) + " rows, width " + std::to_string(c.width) + ", " + std::to_string(c.heads) +
           " heads of " + std::to_string(c.head_width) + " over " + std::to_string(c.kv_heads) +
           (c.rank ? ", adapters" : "") + (c.norm ? "" : ", no norm") + (c.bias ? "" : ", no bias") +
           (c.narrow ? ", narrow" : "");
}
const std::vector<half_case> cases{
    {},
    {.rows = 1, .rank = 2},
    {.rows = 8, .width = 136, .inner = 1100, .heads = 7, .kv_heads = 1, .narrow = true},
    {.rows = 5, .width = 2080, .heads = 2, .kv_heads = 2, .rank = 40, .narrow = true},
    {.rows = 4, .heads = 9, .kv_heads = 1, .norm = false, .rotary = false},
    {.rows = 2, .bias = false},
};

// Tensors of one executor, of values rounded to bfloat16, so that narrow weights hold them.
template <class Target>
struct hands {
    using Exec = typename Target::executor;
    using T = typename Target::scalar;
    Exec& ex = Target::instance();
    half_case c;
    std::vector<tensor<Exec, T, 2>> wide;
    std::vector<tensor<Exec, bfloat16, 2>> narrow;
    std::uint64_t seed = 1;

    explicit hands(const half_case& c_) : c(c_) { wide.reserve(64), narrow.reserve(64); }
    view<const T, 2> values(index n, index m, double scale = 1, double offset = 0) {
        std::vector<T> host;
        for (double v : rounded_normals(n * m, seed++))
            host.push_back(static_cast<T>(static_cast<float>(bfloat16(static_cast<float>(offset + scale * v)))));
        return wide.emplace_back(ex, std::array<index, 2>{n, m}, host).view();
    }
    view<const T, 1> vector(index n, double offset = 0) { return {values(1, n, 0.3, offset).data, {n}}; }
    projection<T> map(index out, index in, bool bias) {
        projection<T> p;
        const auto w = values(out, in, 1 / std::sqrt(static_cast<double>(in)));
        p.weight = w;
        if (c.narrow) {
            std::vector<bfloat16> host;
            for (T v : to_host(ex, w)) host.push_back(bfloat16(static_cast<float>(v)));
            p.weight = narrow.emplace_back(ex, std::array<index, 2>{out, in}, host).view();
        }
        if (bias) p.bias = vector(out);
        if (c.rank)
            p.a = values(c.rank, in, 1 / std::sqrt(static_cast<double>(in))), p.b = values(out, c.rank), p.scale = 0.5;
        return p;
    }
    matrix_view<T> matrix(index n, index m) { return ex.memory().template matrix<T>(n, m); }
    vector_view<statistic<T>> statistics(index n) { return ex.memory().template vector<statistic<T>>(n); }
    std::vector<double> read(view<const T, 2> m) {
        const auto host = to_host(ex, m);
        std::vector<double> out;
        for (T v : host) {
            if constexpr (std::is_same_v<T, bfloat16>)
                out.push_back(static_cast<float>(v));
            else
                out.push_back(static_cast<double>(v));
        }
        return out;
    }

    // ---- the same by small operators ----
    const_matrix<T> normed(const_matrix<T> x, const view<const T, 1>& gamma, double eps) {
        if (!gamma.data) return x;
        auto y = matrix(x.rows(), x.width());
        rms_norm_forward<Exec, T>(ex, x, gamma, eps, y, statistics(x.rows()));
        return y;
    }
    matrix_view<T> mapped(const_matrix<T> x, const projection<T>& p) {
        auto y = matrix(x.rows(), p.weight.rows());
        linear_forward<Exec, T>(ex, x, p.weight, p.bias, y);
        if (!p.a.data) return y;
        auto low = matrix(x.rows(), p.a.rows());
        linear_forward<Exec, T>(ex, x, p.a, {}, low, {}, p.scale);
        linear_forward<Exec, T>(ex, low, p.b, {}, y, y);
        return y;
    }
};

// outputs of the half on an executor; asks the fused operator first
template <class Target>
std::vector<std::vector<double>> attention_outputs(const half_case& c) {
    using T = typename Target::scalar;
    using Exec = typename Target::executor;
    hands<Target> h(c);
    auto& ex = h.ex;
    arena_scope scratch(ex);
    const index D = c.head_width;
    attention_half<T> half;
    if (c.norm) half.gamma = h.vector(c.width, 1);
    half.eps = 1e-6;
    half.q = h.map(c.heads * D, c.width, c.bias);
    half.k = h.map(c.kv_heads * D, c.width, c.bias);
    half.v = h.map(c.kv_heads * D, c.width, c.bias);
    half.o = h.map(c.width, c.heads * D, c.bias);
    half.heads = c.heads, half.kv_heads = c.kv_heads, half.scale = 0.2;
    tensor<Exec, statistic<T>, 2> table(ex, {64, D}, rotary_table<statistic<T>>(64, D, 100));
    if (c.rotary) half.rotary = table.view();
    // three sequences: the first has most of the rows, the second has none; then each one more
    const index S = 3, capacity = 40;
    kv_cache<T> cache;
    std::vector<row_index> first;
    for (index s = 0; s < S; ++s) first.push_back(static_cast<row_index>(s * capacity));
    tensor<Exec, T, 2> k(ex, {S * capacity, c.kv_heads * D}), v(ex, {S * capacity, c.kv_heads * D});
    tensor<Exec, row_index> begin(ex, {S}, first), end(ex, {S}, first), position(ex, {S * capacity});
    cache = {k.view(), v.view(), begin.view(), end.view(), position.view(), capacity};
    std::vector<std::vector<double>> out;
    std::vector<index> seen{0, 0, 0};
    for (int call = 0; call < 3; ++call) {
        const index last = c.rows > 1 ? 1 : 0;
        const std::vector<index> lengths{call == 1 ? 0 : c.rows - last, 0, call == 1 ? c.rows : last};
        const auto rows = pack_rows(ex, lengths, seen);
        for (index s = 0; s < S; ++s) seen[static_cast<std::size_t>(s)] += lengths[static_cast<std::size_t>(s)];
        const auto x = h.values(c.rows, c.width);
        auto y = h.matrix(c.rows, c.width);
        const bool fused = attention_half_forward<Exec, T>(ex, x, half, rows, cache, y);
        CHECK(fused == on_cuda(ex));
        if (!fused) {
            const auto in = h.normed(x, half.gamma, half.eps);
            auto q = h.mapped(in, half.q), key = h.mapped(in, half.k), value = h.mapped(in, half.v),
                 seen_by = h.matrix(c.rows, c.heads * D);
            if (c.rotary) {
                rotary(ex, q, rows.position, half.rotary, rotation::forward);
                rotary(ex, key, rows.position, half.rotary, rotation::forward);
            }
            kv_append<Exec, T>(ex, key, value, rows, cache);
            auto lse = ex.memory().template matrix<statistic<T>>(c.rows, c.heads);
            attention_forward<Exec, T>(ex, q, cache.k, cache.v, rows, cache.map(),
                                       {.heads = c.heads, .kv_heads = c.kv_heads, .scale = half.scale}, seen_by, lse);
            copy<Exec, T>(ex, h.mapped(seen_by, half.o), y);
            add<Exec, T>(ex, x, y);
        }
        out.push_back(h.read(y));
        const auto ends = to_host(ex, cache.end);
        out.emplace_back(ends.begin(), ends.end());
    }
    return out;
}

template <class Target>
std::vector<std::vector<double>> feed_forward_outputs(const half_case& c) {
    using T = typename Target::scalar;
    using Exec = typename Target::executor;
    hands<Target> h(c);
    auto& ex = h.ex;
    arena_scope scratch(ex);
    feed_forward_half<T> half;
    const index F = (c.inner + 7) / 8 * 8;
    if (c.norm) half.gamma = h.vector(c.width, 1);
    half.eps = 1e-6;
    half.gate = h.map(F, c.width, false);
    half.up = h.map(F, c.width, false);
    half.down = h.map(c.width, F, c.bias);
    const auto head = h.map(c.inner, c.width, false);
    const auto x = h.values(c.rows, c.width);
    auto y = h.matrix(c.rows, c.width), logits = h.matrix(c.rows, c.inner);
    const bool fused = feed_forward_half_forward<Exec, T>(ex, x, half, y) &&
                       head_forward<Exec, T>(ex, y, half.gamma, half.eps, head.weight, logits);
    CHECK(fused == on_cuda(ex));
    if (!fused) {
        const auto in = h.normed(x, half.gamma, half.eps);
        auto hidden = h.matrix(c.rows, F);
        silu_gate_forward<Exec, T>(ex, h.mapped(in, half.gate), h.mapped(in, half.up), hidden);
        copy<Exec, T>(ex, h.mapped(hidden, half.down), y);
        add<Exec, T>(ex, x, y);
        linear_forward<Exec, T>(ex, h.normed(y, half.gamma, half.eps), head.weight, {}, logits);
    }
    return {h.read(y), h.read(logits)};
}

template <class Target>
void compare_halves(const std::vector<std::vector<double>>& got, const std::vector<std::vector<double>>& want,
                    const char* op, const half_case& c) {
    using T = typename Target::scalar;
    REQUIRE(got.size() == want.size());
    for (std::size_t i = 0; i < got.size(); ++i)
        compare(got[i], want[i], allowed<T>(static_cast<double>(c.width + c.inner), std::max(4.0, largest(want[i]))),
                {op, "output " + std::to_string(i), Target::executor_name(), scalar_name<T>, describe(c)});
}

// ---- halves one after another ----
// one token of each of `rows` sequences through seven halves, of which each leaves some rows out
struct chain_case {
    index rows = 3, width = 64, inner = 96, heads = 4, kv_heads = 2, head_width = 64, rank = 0;
    bool bias = true, keys_around = false;  // keys_around: keys alone before, between and after
};
std::string describe(const chain_case& c) {
    return std::to_string(c.rows) + " rows, widths " + std::to_string(c.width) + " and " + std::to_string(c.inner) +
           ", " + std::to_string(c.heads) + " heads of " + std::to_string(c.head_width) + " over " +
           std::to_string(c.kv_heads) + (c.rank ? ", adapters" : "") + (c.bias ? "" : ", no bias") +
           (c.keys_around ? ", keys around" : "");
}
const std::vector<chain_case> chains{
    {},
    {.rows = 1, .rank = 3},
    {.rows = 2, .width = 96, .inner = 160, .heads = 3, .kv_heads = 3, .head_width = 32, .bias = false},
    {.rows = 5, .width = 256, .inner = 1120, .heads = 14, .kv_heads = 2, .rank = 8},
    {.rows = 8, .width = 1088, .inner = 2080, .heads = 8, .kv_heads = 1, .head_width = 128, .rank = 40},
    {.rows = 8, .width = 32, .inner = 32, .heads = 1, .kv_heads = 1},
    {.rows = 2, .keys_around = true},
    {.rows = 7, .heads = 3, .kv_heads = 1, .keys_around = true},
    {.rows = 5, .width = 256, .inner = 4608},  // more than a pass of items
    {.rows = 1, .width = 512, .inner = 9216, .heads = 2, .kv_heads = 1, .head_width = 256},
    {.rows = 3, .width = 896, .inner = 4608, .heads = 14, .kv_heads = 2},  // five chunks of columns
};

// The chain on an executor: fused where it takes it.
template <class Target>
struct chain {
    using Exec = typename Target::executor;
    using T = typename Target::scalar;
    static constexpr index capacity = 700;
    chain_case c;
    hands<Target> h;
    Exec& ex = h.ex;
    std::vector<block_half<T>> halves;
    std::vector<tensor<Exec, T, 2>> kept;
    std::vector<tensor<Exec, row_index>> ends, positions;
    tensor<Exec, row_index> begin;
    tensor<Exec, statistic<T>, 2> table;
    std::vector<index> seen;

    explicit chain(const chain_case& c_)
        : c(c_),
          h({.rows = c.rows, .width = c.width, .rank = c.rank, .narrow = true}),
          begin(ex, {c.rows}, firsts()),
          table(ex, {capacity, c.head_width}, rotary_table<statistic<T>>(capacity, c.head_width, 1000)) {
        kept.reserve(16), ends.reserve(8), positions.reserve(8);
        for (index n = 0; n < c.rows; ++n) seen.push_back(std::array<index, 8>{0, 5, 17, 300, 1, 64, 690, 33}[n]);
        const std::uint32_t all = (1u << c.rows) - 1;
        if (c.keys_around) attention(0, all);
        attention(all, all), feed_forward(all);
        attention(all & 0x5b, all);  // some rows append their keys and are otherwise left out
        attention(0, all & 0x6d);  // keys alone
        feed_forward(all & 0x35);
        if (c.keys_around) attention(0, all), attention(0, all & 0x55);
        attention(all & 0x93, all & 0x93), feed_forward(all & 0xfb);
        if (c.keys_around) attention(0, all);
    }
    std::vector<row_index> firsts() const {
        std::vector<row_index> out;
        for (index n = 0; n < c.rows; ++n) out.push_back(static_cast<row_index>(n * capacity));
        return out;
    }
    void attention(std::uint32_t rows, std::uint32_t keys) {
        const index D = c.head_width, C = c.width, Ckv = c.kv_heads * D;
        attention_half<T> half;
        half.gamma = h.vector(C, 1), half.eps = 1e-6;
        half.q = h.map(c.heads * D, C, c.bias), half.k = h.map(Ckv, C, c.bias), half.v = h.map(Ckv, C, c.bias);
        half.o = h.map(C, c.heads * D, false);
        half.rotary = table.view();
        half.heads = c.heads, half.kv_heads = c.kv_heads, half.scale = 1 / std::sqrt(static_cast<double>(D));
        // what earlier tokens left: `seen` keys of each sequence
        std::vector<row_index> last = firsts(), position(static_cast<std::size_t>(c.rows * capacity));
        for (std::size_t n = 0; n < last.size(); ++n) {
            for (index t = 0; t < seen[n]; ++t)
                position[n * capacity + static_cast<std::size_t>(t)] = static_cast<row_index>(t);
            last[n] += static_cast<row_index>(seen[n]);
        }
        const auto cached = [&] {
            std::vector<T> host;
            for (double v : rounded_normals(c.rows * capacity * Ckv, 900 + kept.size()))
                host.push_back(T(static_cast<float>(v)));
            return kept.emplace_back(ex, std::array<index, 2>{c.rows * capacity, Ckv}, host).view();
        };
        const auto k = cached(), v = cached();
        halves.push_back(
            {half,
             rows,
             keys,
             {k, v, begin.view(), ends.emplace_back(ex, std::array<index, 1>{c.rows}, last).view(),
              positions.emplace_back(ex, std::array<index, 1>{c.rows * capacity}, position).view(), capacity}});
    }
    void feed_forward(std::uint32_t rows) {
        halves.push_back({feed_forward_half<T>{h.vector(c.width, 1), 1e-6, h.map(c.inner, c.width, false),
                                               h.map(c.inner, c.width, false), h.map(c.width, c.inner, false)},
                          rows});
    }
    // row n through one half by small operators; y is its row
    void apply(const attention_half<T>& half, const block_half<T>& part, index n, const_matrix<T> x, matrix_view<T> y) {
        std::vector<index> lengths(static_cast<std::size_t>(c.rows));
        lengths[static_cast<std::size_t>(n)] = 1;
        const auto rows = pack_rows(ex, lengths, seen);
        const auto in = h.normed(x, half.gamma, half.eps);
        auto q = h.mapped(in, half.q), k = h.mapped(in, half.k), v = h.mapped(in, half.v), out = h.matrix(1, q.width());
        rotary(ex, q, rows.position, half.rotary, rotation::forward);
        rotary(ex, k, rows.position, half.rotary, rotation::forward);
        kv_append<Exec, T>(ex, k, v, rows, part.cache);
        if (!(part.rows >> n & 1)) return copy<Exec, T>(ex, x, y);
        attention_forward<Exec, T>(ex, q, part.cache.k, part.cache.v, rows, part.cache.map(),
                                   {.heads = c.heads, .kv_heads = c.kv_heads, .scale = half.scale}, out,
                                   ex.memory().template matrix<statistic<T>>(1, c.heads));
        copy<Exec, T>(ex, h.mapped(out, half.o), y);
        add<Exec, T>(ex, x, y);
    }
    void apply(const feed_forward_half<T>& half, const block_half<T>&, index, const_matrix<T> x, matrix_view<T> y) {
        const auto in = h.normed(x, half.gamma, half.eps);
        auto hidden = h.matrix(1, c.inner);
        silu_gate_forward<Exec, T>(ex, h.mapped(in, half.gate), h.mapped(in, half.up), hidden);
        copy<Exec, T>(ex, h.mapped(hidden, half.down), y);
        add<Exec, T>(ex, x, y);
    }
    void compose(const_matrix<T> x, matrix_view<T> y) {
        for (index n = 0; n < c.rows; ++n) {
            const_matrix<T> at = x.slice(n, 1);
            for (const auto& part : halves) {
                if (!((part.rows | (part.cache.capacity ? part.keys : 0)) >> n & 1)) continue;
                auto next = h.matrix(1, c.width);
                std::visit([&](const auto& half) { apply(half, part, n, at, next); }, part.half);
                at = next;
            }
            copy<Exec, T>(ex, at, y.slice(n, 1));
        }
    }

    // of three tokens each: outputs; ends of the caches; and every key and value that was appended
    std::vector<std::vector<double>> run() {
        arena_scope scratch(ex);
        std::vector<std::vector<double>> out;
        for (int token = 0; token < 3; ++token) {
            const auto x = h.values(c.rows, c.width);
            auto y = h.matrix(c.rows, c.width);
            const auto rows = pack_rows(ex, std::vector<index>(seen.size(), 1), seen);
            if (!block_halves_forward<Exec, T>(ex, x, halves, rows, y)) {
                CHECK_FALSE(expected());
                compose(x, y);
            } else
                CHECK(expected());
            out.push_back(h.read(y));
            for (const auto& part : halves) {
                if (!part.cache.capacity) continue;
                const auto end = to_host(ex, part.cache.end);
                out.emplace_back(end.begin(), end.end());
                for (std::size_t n = 0; n < seen.size(); ++n) {
                    if (!(part.keys >> n & 1)) continue;
                    out.push_back(h.read(part.cache.k.slice(end[n] - 1, 1)));
                    out.push_back(h.read(part.cache.v.slice(end[n] - 1, 1)));
                }
            }
            for (index& t : seen) ++t;
        }
        return out;
    }
    // whether one kernel takes the chain: a head is at most a warp's 32 packs of 16 bytes wide
    bool expected() const {
        if constexpr (requires(Exec & e) { e.architecture(); })
            return !std::is_same_v<T, double> && ex.architecture() >= 90 &&
                   c.head_width * static_cast<index>(sizeof(T)) <= 32 * 16 &&
                   ex.device_name() != "host";  // tests/cuda_on_host has no such kernel
        else
            return false;
    }
};
}  // namespace

TEMPLATE_LIST_TEST_CASE("few rows: halves of a block", "[ops][few_rows]", targets) {
    for (const auto& c : cases) {
        compare_halves<TestType>(attention_outputs<TestType>(c), attention_outputs<oracle>(c), "attention_half_forward",
                                 c);
        compare_halves<TestType>(feed_forward_outputs<TestType>(c), feed_forward_outputs<oracle>(c),
                                 "feed_forward_half_forward", c);
    }
}

TEMPLATE_LIST_TEST_CASE("few rows: a chain of halves, each for some rows", "[ops][few_rows]", targets) {
    using T = typename TestType::scalar;
    for (const auto& c : chains) {
        if (c.inner > 2000 && !on_cuda(TestType::instance()))
            continue;  // small operators against themselves, at length
        DYNAMIC_SECTION(describe(c)) {  // by its name a sanitizer can run a short one
            const auto got = chain<TestType>(c).run(), want = chain<oracle>(c).run();
            REQUIRE(got.size() == want.size());
            // seven halves, each a sum over a row and one over the columns inside; bfloat16 is rounded to only where a
            // half keeps something: q, k, v or hidden, attention's result, x
            const double terms =
                7.0 *
                (std::is_same_v<T, bfloat16> ? 4.0 : static_cast<double>(c.width + c.inner + c.heads * c.head_width));
            for (std::size_t i = 0; i < got.size(); ++i)
                compare(got[i], want[i], allowed<T>(terms, std::max(1.0, largest(want[i]))),
                        {"block_halves_forward", "output " + std::to_string(i), TestType::executor_name(),
                         scalar_name<T>, describe(c)});
        }
    }
}

// A row's result does not depend on how many rows there are.
TEMPLATE_LIST_TEST_CASE("few rows: a row alone has the same bits", "[ops][few_rows]", targets) {
    using Exec = typename TestType::executor;
    using T = typename TestType::scalar;
    hands<TestType> h({.width = 104});
    arena_scope scratch(h.ex);
    const auto gamma = h.vector(104, 1);
    const auto weight = h.values(70, 104), x = h.values(8, 104);
    auto all = h.matrix(8, 70), alone = h.matrix(1, 70);
    if (!head_forward<Exec, T>(h.ex, x, gamma, 1e-6, weight, all)) return;
    const auto together = h.read(all);
    for (index n = 0; n < 8; ++n) {
        head_forward<Exec, T>(h.ex, x.slice(n, 1), gamma, 1e-6, weight, alone);
        CHECK(h.read(alone) == std::vector<double>(together.begin() + 70 * n, together.begin() + 70 * (n + 1)));
    }
}

}  // namespace spectral::test::few_rows_test
