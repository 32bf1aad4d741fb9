// SPDX-License-Identifier: Apache-2.0
// tests/layers/grouped_attention_test.cpp: Qwen2's attention: gradients for every grouping of heads, causality,
// decoding
#include <spectral/layers/grouped_attention.hpp>
#include "layer_test.hpp"

namespace spectral::test::grouped_attention_test {

namespace {
struct grouping {
    index heads = 4, kv_heads = 2, head_width = 6;  // H·D = 24 differs from the width
    bool adapters = false;  // they alone train, as in LayerRoute
};

template <class Exec, class T>
struct attention_of : grouped_attention<Exec, T> {
    attention_of(Exec& ex, const layer_case& c, const grouping& g)
        : grouped_attention<Exec, T>(c.width, g.heads, g.kv_heads, g.head_width, 1e-6, c.layer, table(ex, g)) {
        if (!g.adapters) return;
        this->visit_parameters([](const std::string&, parameter<T>& p) { p.trainable = false; }, "");
        for (auto [map, name] : {std::pair{&this->q_proj, "q_proj"},
                                 {&this->k_proj, "k_proj"},
                                 {&this->v_proj, "v_proj"},
                                 {&this->o_proj, "o_proj"}})
            map->adapt({.rank = 2, .alpha = 3, .dropout = c.dropout}, name);
    }
    static std::shared_ptr<tensor<Exec, T, 2>> table(Exec& ex, const grouping& g) {
        return std::make_shared<tensor<Exec, T, 2>>(ex, std::array<index, 2>{32, g.head_width},
                                                    rotary_table<T>(32, g.head_width, 100));
    }
};

std::string describe(const grouping& g, const layer_case& c) {
    return std::to_string(g.heads) + " heads, " + std::to_string(g.kv_heads) + " of keys" +
           (g.adapters ? ", adapters with dropout " + std::to_string(c.dropout) : "");
}

template <class Target>
struct attention_rig : layer_rig<Target, attention_of<typename Target::executor, typename Target::scalar>> {
    using layer_type = attention_of<typename Target::executor, typename Target::scalar>;
    using saved = typename layer_type::saved;
    explicit attention_rig(const layer_case& c, const grouping& g = {})
        : layer_rig<Target, layer_type>(c, Target::instance(), c, g) {}
    void run() {
        layer_calls<attention_rig> calls{*this};
        this->template loss<saved>(calls);
    }
};
}  // namespace

TEMPLATE_LIST_TEST_CASE("grouped_attention: values and gradients", "[layers][grouped_attention]", targets) {
    const auto check = [](const layer_case& c, const grouping& g) {
        compare_with_oracle<TestType>("grouped_attention", describe(g, c), [&]<class On>() {
            attention_rig<On> rig(c, g);
            return rig.template results<typename decltype(rig)::saved>(layer_calls<attention_rig<On>>{rig});
        });
        if constexpr (std::is_same_v<TestType, oracle>) {
            attention_rig<oracle> rig(c, g);
            rig.require_gradients<attention_rig<oracle>::saved>(layer_calls<attention_rig<oracle>>{rig},
                                                                "grouped_attention, " + describe(g, c));
        }
    };
    for (index kv_heads : {1, 2, 4}) check({}, {.kv_heads = kv_heads});
    check({}, {.heads = 1, .kv_heads = 1, .head_width = 2});
    for (double dropout : {0.0, 0.3}) check({.dropout = dropout}, {.adapters = true});
}

// The definition, with plain loops: every query against the keys of its group, up to its own position.
TEMPLATE_LIST_TEST_CASE("grouped_attention: the definition", "[layers][grouped_attention]", targets) {
    using T = typename TestType::scalar;
    const layer_case c;
    const grouping g;
    attention_rig<TestType> rig(c, g);
    rig.run();
    auto& l = rig.layer;
    const auto x = rig.wide(rig.x.view()), gamma = rig.wide(l.norm.weight.value);
    const index C = c.width, D = g.head_width;
    const auto map = [&](auto& m, const std::vector<double>& from, index row, index out) {
        const auto w = rig.wide(m.weight.value), b = m.bias.used() ? rig.wide(m.bias.value) : std::vector<double>{};
        double sum = b.empty() ? 0 : b[static_cast<std::size_t>(out)];
        for (index i = 0; i < m.in(); ++i)
            sum += w[static_cast<std::size_t>(out * m.in() + i)] * from[static_cast<std::size_t>(row * m.in() + i)];
        return sum;
    };
    std::vector<double> x_hat = x;
    for (index n = 0; n < c.rows(); ++n) {
        double squares = 0;
        for (index i = 0; i < C; ++i) squares += std::pow(x[static_cast<std::size_t>(n * C + i)], 2);
        for (index i = 0; i < C; ++i)
            x_hat[static_cast<std::size_t>(n * C + i)] *=
                gamma[static_cast<std::size_t>(i)] / std::sqrt(squares / static_cast<double>(C) + 1e-6);
    }
    // element i of a head is turned with element i ± D/2 by position · 100^(−2i/D)
    const auto turned = [&](auto& m, index row, index head, index position) {
        std::vector<double> v, out;
        for (index i = 0; i < D; ++i) v.push_back(map(m, x_hat, row, head * D + i));
        for (index i = 0; i < D; ++i) {
            const index pair = i % (D / 2);
            const double angle = static_cast<double>(position) *
                                 std::pow(100.0, -2.0 * static_cast<double>(pair) / static_cast<double>(D));
            const double low = v[static_cast<std::size_t>(pair)], high = v[static_cast<std::size_t>(pair + D / 2)];
            out.push_back(i < D / 2 ? low * std::cos(angle) - high * std::sin(angle)
                                    : high * std::cos(angle) + low * std::sin(angle));
        }
        return out;
    };
    std::vector<double> out;
    index first = 0;
    for (index length : c.lengths) {
        for (index t = 0; t < length; ++t)
            for (index h = 0; h < g.heads; ++h) {
                const index group = h / (g.heads / g.kv_heads);
                const auto q = turned(l.q_proj, first + t, h, t);
                std::vector<double> weight, mixed(static_cast<std::size_t>(D));
                double total = 0;
                for (index m = 0; m <= t; ++m) {
                    const auto k = turned(l.k_proj, first + m, group, m);
                    double score = 0;
                    for (std::size_t i = 0; i < k.size(); ++i) score += q[i] * k[i];
                    weight.push_back(std::exp(score / std::sqrt(static_cast<double>(D))));
                    total += weight.back();
                }
                for (index m = 0; m <= t; ++m)
                    for (index i = 0; i < D; ++i)
                        mixed[static_cast<std::size_t>(i)] += weight[static_cast<std::size_t>(m)] / total *
                                                              map(l.v_proj, x_hat, first + m, group * D + i);
                out.insert(out.end(), mixed.begin(), mixed.end());
            }
        first += length;
    }
    std::vector<double> want;
    for (index n = 0; n < c.rows(); ++n)
        for (index i = 0; i < C; ++i) want.push_back(x[static_cast<std::size_t>(n * C + i)] + map(l.o_proj, out, n, i));
    compare(rig.y, want, allowed<T>(256, std::max(4.0, largest(want))),
            {"grouped_attention", "y", TestType::executor_name(), scalar_name<T>, "(10, 8)"});
}

TEMPLATE_LIST_TEST_CASE("grouped_attention: no position sees a later one or another sequence",
                        "[layers][grouped_attention]", targets) {
    const layer_case c;
    attention_rig<TestType> rig(c);
    rig.run();
    const auto before = rig.y;
    auto x = rig.wide(rig.x.view());
    const index changed = 7;  // second row of the third sequence
    for (index i = 0; i < c.width; ++i) x[static_cast<std::size_t>(changed * c.width + i)] += 1;
    rig.put(rig.x.view(), x);
    rig.run();
    for (index n = 0; n < c.rows(); ++n) {
        bool same = true;
        for (index i = n * c.width; i < (n + 1) * c.width; ++i)
            same = same && rig.y[static_cast<std::size_t>(i)] == before[static_cast<std::size_t>(i)];
        INFO("row " << n);
        CHECK(same == (n < changed));
    }
}

// Sequences in pieces of different lengths, one of them through write_keys: later rows see the same keys.
TEMPLATE_LIST_TEST_CASE("grouped_attention: a cache continues as the whole would", "[layers][grouped_attention]",
                        targets) {
    using Exec = typename TestType::executor;
    using T = typename TestType::scalar;
    // the second and third have widths that fused kernels for few rows take
    for (const auto& [width, g] : {std::pair{index{8}, grouping{}},
                                   {32, {.head_width = 32}},
                                   {64, {.heads = 6, .kv_heads = 1, .head_width = 64, .adapters = true}}}) {
        const layer_case c{.lengths = {6, 3, 5}, .width = width, .phase = phase::evaluation};
        attention_rig<TestType> rig(c, g);
        rig.run();
        const auto whole = rig.y, x = rig.wide(rig.x.view());
        auto& ex = rig.ex;
        decode_state<Exec, T> state;
        state.layers.resize(static_cast<std::size_t>(c.layer + 1));  // the layer makes its own room
        state.capacity = 6;
        route_trace trace(route_trace::mode::count);
        const std::vector<index> start{0, 6, 9};
        std::vector<index> seen{0, 0, 0};
        const auto call = [&](const std::vector<index>& lengths, bool keys_only) {
            std::vector<double> part, want;
            for (std::size_t s = 0; s < 3; ++s)
                for (index i = (start[s] + seen[s]) * c.width; i < (start[s] + seen[s] + lengths[s]) * c.width; ++i) {
                    part.push_back(x[static_cast<std::size_t>(i)]);
                    want.push_back(whole[static_cast<std::size_t>(i)]);
                }
            arena_scope scratch(ex);
            pass<Exec, T> p{.ex = ex, .rows = pack_rows(ex, lengths, seen), .trace = &trace, .decode = &state};
            auto in = p.matrix(p.rows.rows(), c.width), y = p.matrix(p.rows.rows(), c.width);
            rig.put(in, part);
            typename attention_rig<TestType>::saved s;
            if (keys_only)
                rig.layer.write_keys(p, in);
            else
                rig.layer.forward(p, in, y, s);
            for (std::size_t i = 0; i < 3; ++i) seen[i] += lengths[i];
            if (!keys_only)
                compare(rig.wide(y), want, allowed<T>(256, std::max(4.0, largest(want))),
                        {"grouped_attention", "decoded", TestType::executor_name(), scalar_name<T>,
                         std::to_string(p.rows.rows()) + " rows"});
        };
        call({3, 0, 1}, false);
        call({1, 1, 0}, false);
        call({1, 1, 2}, true);
        call({1, 1, 2}, false);
        const auto& work = trace.counts.at(c.layer).work;
        CHECK(work.attention_rows == 10);
        CHECK(work.key_rows == 14);
        CHECK(work.attention_pairs == (1 + 2 + 3 + 1) + (4 + 1) + (6 + 3 + 4 + 5));  // by call
    }
}

}  // namespace spectral::test::grouped_attention_test
