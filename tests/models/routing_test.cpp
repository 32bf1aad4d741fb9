// SPDX-License-Identifier: Apache-2.0
// tests/models/routing_test.cpp: what a model routes, what it then runs, and that routes can be recorded and replayed
#include "model_test.hpp"

namespace spectral::test::routing_test {

namespace {
const std::vector<index> lengths{7, 2, 11};
constexpr index rows = 20;

template <class Model>
route_trace traced(Model& model, const batch& b, phase ph = phase::evaluation) {
    route_trace trace;
    model.trace = &trace;
    model.run(b, ph);
    model.trace = nullptr;
    return trace;
}

// position + 1 summed over these rows: the pairs of causal queries that see every key
double pairs_of(const std::vector<index>& lengths_, const std::vector<row_index>& op, row_index wanted) {
    double pairs = 0;
    std::size_t n = 0;
    for (index length : lengths_)
        for (index t = 0; t < length; ++t, ++n) pairs += op[n] == wanted ? static_cast<double>(t + 1) : 0;
    return pairs;
}
// the same where only such rows are keys
double routed_pairs_of(const std::vector<index>& lengths_, const std::vector<row_index>& op, row_index wanted) {
    double pairs = 0;
    std::size_t n = 0;
    for (index length : lengths_) {
        double keys = 0;
        for (index t = 0; t < length; ++t, ++n)
            if (op[n] == wanted) pairs += ++keys;
    }
    return pairs;
}
}  // namespace

// Attention does the work of the rows sent to it and no more; with keys of routed rows, fewer keys too.
TEMPLATE_LIST_TEST_CASE("models: routed attention shrinks with its rows", "[models][routing]", model_targets) {
    for (kv_scope keys : {kv_scope::all, kv_scope::routed})
        for (routing_mode m : {routing_mode::threshold, routing_mode::hard, routing_mode::random,
                               routing_mode::attention, routing_mode::dct}) {
            auto c = tiny_config();
            c.kv_scope = keys;
            c.routing_mode = m;
            const batch b = language_batch(lengths, c.vocab_size, 17);
            with_model<TestType>(c, [&](auto& model) {
                const auto trace = traced(model, b);
                INFO(name_of(m) << (keys == kv_scope::all ? ", keys of all" : ", keys of routed"));
                for (index layer : {1, 2}) {
                    const auto& op = trace.layers.at(layer).op;
                    const auto& work = trace.counts.at(layer).work;
                    const auto attention = static_cast<index>(std::count(op.begin(), op.end(), 1));
                    CHECK(work.attention_rows == attention);
                    CHECK(work.dct_rows == rows - attention);
                    CHECK(work.rows == rows);
                    CHECK(work.attention_pairs ==
                          (keys == kv_scope::all ? pairs_of(lengths, op, 1) : routed_pairs_of(lengths, op, 1)));
                    CHECK(work.key_rows == (attention == 0 ? 0 : keys == kv_scope::all ? rows : attention));
                    CHECK(trace.counts.at(layer).routed ==
                          std::vector<double>{static_cast<double>(rows - attention), static_cast<double>(attention)});
                    if (m == routing_mode::attention)
                        CHECK(attention == rows);
                    else
                        CHECK(attention < rows);
                    if (m != routing_mode::dct && m != routing_mode::attention) CHECK(attention > 0);
                }
                CHECK(trace.counts.at(0).work.dct_rows == rows);  // the first layer is DCT only
                CHECK(trace.counts.at(3).work.attention_rows == rows);  // the last is attention only
                CHECK(trace.counts.at(3).work.attention_pairs == 28 + 3 + 66);  // 7·8/2 + 2·3/2 + 11·12/2
            });
        }
}

// With the gate of L1 shut and every token sent to attention, layers 2.. are a full-attention model: values and
// gradients.
TEMPLATE_LIST_TEST_CASE("models: all tokens to attention is full attention", "[models][routing]", model_targets) {
    using Exec = typename TestType::executor;
    using T = typename TestType::scalar;
    for (routing_mode m : {routing_mode::attention, routing_mode::threshold}) {
        auto c = tiny_config();
        c.routing_mode = m;
        c.tau = {-1.0};  // below every entropy
        c.meta_pool = meta_pool::fixed;
        c.meta_gate_value = 0;
        const batch b = language_batch(lengths, c.vocab_size, 17);
        auto baseline_config = c;
        baseline_config.model_type = "full_attention";
        baseline_config.n_layers = c.n_layers - 1;
        auto& ex = TestType::instance();
        chiar_former<Exec, T> routed_model{ex, c};
        full_attention<Exec, T> baseline{ex, baseline_config};
        randomize(routed_model);
        // names of the baseline: attns.N.x is layers.(N+1).attn.x, and so on
        const auto counterpart = [&](const std::string& name) -> parameter<T>& {
            std::string other = name;
            for (const auto& [list, inside] :
                 {std::pair{"attns.", ".attn"}, std::pair{"ffns.", ".ffn"}, std::pair{"ffn_norms.", ".ffn_norm"}})
                if (name.rfind(list, 0) == 0) {
                    const auto digit = std::string(list).size();
                    other = "layers." + std::to_string(name[digit] - '0' + 1) + inside + name.substr(digit + 1);
                }
            for (const auto& [n, p] : routed_model.parameters.named())
                if (n == other) return *p;
            FAIL("no parameter " << other);
            return *routed_model.parameters.named().front().second;
        };
        for (const auto& [name, p] : baseline.parameters.named()) {
            const auto host = to_host(ex, counterpart(name).value);
            ex.copy_from_host(p->value.data, host.data(), host.size() * sizeof(T));
        }
        routed_model.parameters.zero_gradients();
        baseline.parameters.zero_gradients();
        CHECK(routed_model.run(b, phase::training).loss == Approx(baseline.run(b, phase::training).loss).epsilon(1e-5));
        for (const auto& [name, p] : baseline.parameters.named()) {
            const auto got = to_host(ex, counterpart(name).grad), want = to_host(ex, p->grad);
            const std::vector<double> wide(want.begin(), want.end());
            compare({got.begin(), got.end()}, wide, model_tolerance<T>(wide),
                    {"routed model", "gradient of " + name, TestType::executor_name(), scalar_name<T>, name_of(m)});
        }
    }
}

TEMPLATE_LIST_TEST_CASE("models: replayed routes give the same bits", "[models][routing]", model_targets) {
    for (const named_config& entry : causal_configs()) {
        const auto& c = entry.config;
        with_model<TestType>(c, [&](auto& model) {
            INFO(entry.name);
            const auto ids = random_ids(18, c.vocab_size, 6);
            route_trace trace;
            model.trace = &trace;
            const auto recorded = logits_of(model, ids, 2);
            const auto routes = trace.layers;
            trace.how = route_trace::mode::replay;
            CHECK(logits_of(model, ids, 2) == recorded);
            trace.how = route_trace::mode::count;
            CHECK(logits_of(model, ids, 2) == recorded);
            model.trace = nullptr;
            CHECK(logits_of(model, ids, 2) == recorded);
            if (c.baseline() || c.routing_mode == routing_mode::soft || c.routing_mode == routing_mode::attention ||
                c.routing_mode == routing_mode::dct)
                return;
            // a replay of other routes is obeyed
            for (auto& [layer, r] : trace.layers)
                for (row_index& op : r.op) op = 0;
            trace.how = route_trace::mode::replay;
            trace.clear_counts();
            model.trace = &trace;
            CHECK(logits_of(model, ids, 2) != recorded);
            CHECK(trace.counts.at(1).work.attention_rows == 0);
        });
    }
}

// p_chosen scales the chosen operator's output: another function than the papers' hard routing, also at evaluation.
TEMPLATE_LIST_TEST_CASE("models: selected_only is another model", "[models][routing]", model_targets) {
    for (routing_mode m : {routing_mode::hard, routing_mode::budget}) {
        auto c = tiny_config();
        c.routing_mode = m;
        const auto ids = random_ids(18, c.vocab_size, 6);
        std::vector<double> through, selected;
        std::vector<row_index> first_routes, second_routes;
        const auto run = [&](std::vector<double>& logits, std::vector<row_index>& routes) {
            with_model<TestType>(c, [&](auto& model) {
                route_trace trace;
                model.trace = &trace;
                logits = logits_of(model, ids, 2);
                routes = trace.layers.at(1).op;
                for (const auto& [layer, r] : trace.layers)  // either way one operator a token runs
                    CHECK(trace.counts.at(layer).work.attention_rows == std::count(r.op.begin(), r.op.end(), 1));
            });
        };
        run(through, first_routes);
        c.estimator = estimator::selected_only;
        run(selected, second_routes);
        CHECK(first_routes == second_routes);  // of the first routed layer, whose input is the same
        CHECK(through != selected);
    }
}

// Neither neighbours, nor tokens, nor the call: the same row at the same position goes the same way.
TEMPLATE_LIST_TEST_CASE("models: the random router depends on seed, layer and position only", "[models][routing]",
                        model_targets) {
    auto c = tiny_config();
    c.routing_mode = routing_mode::random;
    const auto routes_of = [&](std::uint64_t seed, const std::vector<index>& of, std::uint64_t ids, phase ph) {
        c.random_seed = seed;
        std::map<index, layer_routes> out;
        with_model<TestType>(
            c, [&](auto& model) { out = traced(model, language_batch(of, c.vocab_size, ids), ph).layers; });
        return out;
    };
    const auto one = routes_of(5, {20}, 1, phase::evaluation);
    for (phase ph : {phase::evaluation, phase::training}) {
        const auto other = routes_of(5, {3, 20, 9}, 2, ph);
        for (index layer : {1, 2}) {
            const auto &a = one.at(layer).op, &b = other.at(layer).op;
            CHECK(std::equal(a.begin(), a.end(), b.begin() + 3));
            CHECK(std::equal(b.begin(), b.begin() + 3, a.begin()));
            CHECK(std::equal(b.begin() + 23, b.end(), a.begin()));
        }
    }
    CHECK(one.at(1).op != one.at(2).op);
    CHECK(one.at(1).op != routes_of(6, {20}, 1, phase::evaluation).at(1).op);

    c.max_seq_len = 4000;
    c.vocab_size = 5;
    c.d_model = 4;
    const auto many = routes_of(5, {3000}, 1, phase::evaluation).at(1).op;
    const double share = static_cast<double>(std::count(many.begin(), many.end(), 1)) / 3000;
    CHECK(std::abs(share - c.target_share) < 4 * std::sqrt(0.4 * 0.6 / 3000));  // four standard deviations
}

TEMPLATE_LIST_TEST_CASE("models: hard gating leaves L1 out where the gate is shut", "[models][routing]",
                        model_targets) {
    for (meta_pool pool : {meta_pool::batch, meta_pool::sequence, meta_pool::causal, meta_pool::fixed}) {
        auto c = tiny_config();
        c.meta_pool = pool;
        c.meta_gate_value = 0.5;
        const batch b = language_batch(lengths, c.vocab_size, 17);
        std::vector<double> gates;
        with_model<TestType>(c, [&](auto& model) { gates = traced(model, b).meta_gate; });
        auto sorted = gates;
        std::sort(sorted.begin(), sorted.end());
        const auto run_at = [&](double threshold, phase ph) {
            c.meta_gate_threshold = threshold;
            index ran = 0;
            with_model<TestType>(c, [&](auto& model) { ran = traced(model, b, ph).counts[0].work.dct_rows; });
            return ran;
        };
        const double middle = sorted.size() == 1 ? 0.5 * (sorted[0] + 1)
                                                 : (sorted[sorted.size() / 2 - 1] + sorted[sorted.size() / 2]) / 2;
        index open = 0;
        for (std::size_t g = 0; g < gates.size(); ++g)
            if (gates[g] >= middle)
                open += pool == meta_pool::causal ? 1 : pool == meta_pool::sequence ? lengths[g] : rows;
        CHECK(run_at(0, phase::evaluation) == rows);
        CHECK(run_at(middle, phase::evaluation) == open);
        CHECK(open < rows);
        CHECK(run_at(1, phase::evaluation) == 0);
        CHECK(run_at(1, phase::training) == rows);
    }
}

}  // namespace spectral::test::routing_test
