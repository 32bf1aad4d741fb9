// SPDX-License-Identifier: Apache-2.0
// tests/models/layer_route_test.cpp: Qwen2 with gates forced open or shut and adapters switched off: what equals what
#include <spectral/train/layer_route_runner.hpp>
#include "gated_qwen2.hpp"

namespace spectral::test::layer_route_test {

using namespace gated_qwen2;

namespace {
// the gates of these blocks open and the others shut, by weight 0 and bias ±100
template <class Model>
void set_gates(Model& model, const std::vector<char>& open) {
    using T = typename Model::scalar;
    for (std::size_t l = 0; l < open.size(); ++l) {
        auto& gate = model.stack.gates[l];
        const std::vector<T> weight(static_cast<std::size_t>(gate.weight.size()));
        const T bias = open[l] ? T(100) : T(-100);
        model.ex.copy_from_host(gate.weight.value.data, weight.data(), weight.size() * sizeof(T));
        model.ex.copy_from_host(gate.bias.value.data, &bias, sizeof bias);
    }
}

std::vector<std::vector<char>> masks() {
    std::vector<std::vector<char>> out;
    for (unsigned bits = 0; bits < 1u << blocks; ++bits) {
        out.emplace_back();
        for (unsigned l = 0; l < blocks; ++l) out.back().push_back(static_cast<char>(bits >> l & 1));
    }
    return out;
}
std::string describe(const std::vector<char>& mask) {
    std::string out = "open ";
    for (char c : mask) out += c ? '1' : '0';
    return out;
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("layer_route: forced open is the model without gates", "[models][layer_route]", model_targets) {
    made<TestType> plain(tiny());
    const auto want = plain.logits();
    for (gate_scope scope : scopes) {
        INFO(name_of(scope));
        made<TestType> m(gated(scope));
        set_gates(m.model, {0, 0, 0});
        CHECK(m.logits() != want);  // the gates close
        m.stack().forced_open = {1, 1, 1};
        CHECK(m.logits() == want);
        m.stack().forced_open.clear();
        CHECK(m.logits() != want);
    }
}

TEMPLATE_LIST_TEST_CASE("layer_route: forced blocks are those that gates open and close", "[models][layer_route]",
                        model_targets) {
    for (gate_scope scope : scopes) {
        made<TestType> forced(gated(scope)), decided(gated(scope));
        std::set<std::vector<double>> different;
        for (const auto& mask : masks()) {
            INFO(name_of(scope) << ", " << describe(mask));
            forced.stack().forced_open = mask;
            set_gates(decided.model, mask);
            const auto got = forced.logits();
            CHECK(got == decided.logits());
            different.insert(got);
        }
        CHECK(different.size() == masks().size());
    }
}

TEMPLATE_LIST_TEST_CASE("layer_route: a model without gates can be forced as well", "[models][layer_route]",
                        model_targets) {
    made<TestType> plain(tiny()), with_gates(gated());
    for (const auto& mask : masks()) {
        INFO(describe(mask));
        plain.stack().forced_open = with_gates.stack().forced_open = mask;
        CHECK(plain.logits() == with_gates.logits());
    }
    // every block shut: embedding, norm, head, however many blocks there are
    made<TestType> shallow(tiny(1));
    plain.stack().forced_open = {0, 0, 0};
    shallow.stack().forced_open = {0};
    CHECK(plain.logits() == shallow.logits());
}

TEMPLATE_LIST_TEST_CASE("layer_route: a forced generation gives the logits of the whole", "[models][layer_route]",
                        model_targets) {
    using T = typename TestType::scalar;
    const auto ids = random_ids(10, vocabulary, 4);
    std::vector<layer_route_model> models{tiny()};
    for (gate_scope scope : scopes) models.push_back(gated(scope));
    for (const auto& config : models)
        for (const auto& mask : masks()) {
            made<TestType> m(config);
            m.stack().forced_open = mask;
            const auto want = logits_of(m.model, ids, 1);
            auto state = m.stack().make_decode_state(m.model.ex, 1, 16);
            for (auto [first, count] : {std::pair<index, index>{0, 4}, {4, 1}, {5, 5}}) {
                if (first == 5 && config.route.gates) m.stack().forced_open.clear();  // frozen since the prefill
                const std::vector<index> length{count};
                const auto host =
                    to_host(m.model.ex, m.model.decode(std::span(ids).subspan(first, count), length, state));
                const auto expected = rows_of(want, vocabulary, first + count - 1, first + count);
                compare({host.begin(), host.end()}, expected, model_tolerance<T>(expected),
                        {"layer_route", "logits", TestType::executor_name(), scalar_name<T>, describe(mask)});
            }
        }
}

TEMPLATE_LIST_TEST_CASE("layer_route: a new adapter and open gates are the backbone, bit for bit",
                        "[models][layer_route]", model_targets) {
    made<TestType> plain(tiny());
    auto config = adapted();
    config.route.gates = skip_gate_options{};
    made<TestType> m(config);
    set_gates(m.model, {1, 1, 1});
    CHECK(m.logits() != plain.logits());
    for (const auto& [name, p] : m.model.parameters.named())
        if (name.ends_with("lora_B.weight"))
            m.model.parameters.assign(*p, std::vector<typename TestType::scalar>(static_cast<std::size_t>(p->size())));
    CHECK(m.logits() == plain.logits());
}

TEST_CASE("layer_route: training runs every block, whatever evaluation is forced to", "[models][layer_route]") {
    const batch b = language_batch({5, 3}, vocabulary, 9);
    for (const auto& config : {tiny(), gated()}) {
        made<oracle> m(config);
        const double want = m.model.run(b, phase::training).loss, evaluated = m.model.run(b, phase::evaluation).loss;
        m.stack().forced_open = {0, 1, 0};
        CHECK(m.model.run(b, phase::training).loss == want);
        CHECK(m.model.run(b, phase::evaluation).loss != evaluated);
    }
}

TEMPLATE_LIST_TEST_CASE("layer_route: adapters switched off are no adapters", "[models][layer_route]", model_targets) {
    made<TestType> plain(tiny()), m(adapted());
    const auto adapters = [&](bool on) {
        for_each_linear(m.stack(), [on](const std::string&, auto& l) { l.adapter_on = on; });
    };
    const auto want = plain.logits(), with = m.logits();
    CHECK(with != want);
    adapters(false);
    CHECK(m.logits() == want);
    const batch b = language_batch({5, 3}, vocabulary, 9);
    CHECK(m.model.run(b, phase::training).loss == plain.model.run(b, phase::training).loss);
    for (const auto& [name, p] : m.model.parameters.named())
        if (p->trainable) {
            const auto g = to_host(m.model.ex, p->grad);
            CHECK(largest({g.begin(), g.end()}) == 0);
        }
    adapters(true);
    CHECK(m.logits() == with);
    // one map's adapter alone makes a difference
    for_each_linear(
        m.stack(), [&](const std::string& path, auto& l) { l.adapter_on = path != "model.layers.1.self_attn.v_proj"; });
    CHECK(m.logits() != with);
}

TEST_CASE("layer_route: what a runner can force", "[models][layer_route]") {
    auto config = adapted();
    config.route.gates = skip_gate_options{};
    const auto r = make_runner<reference::executor, double>(std::make_unique<reference::executor>(), config, false);
    r->initialize(3);
    fill(static_cast<layer_route_runner<reference::executor, double>&>(*r).model());
    layer_route_controls* route = r->layer_route();
    REQUIRE(route);
    CHECK(route->config().backbone.num_hidden_layers == blocks);
    const auto ids = random_ids(7, vocabulary, 4);
    const auto logits = [&] { return r->logits(ids, 1).values; };

    made<oracle> plain(tiny());
    const auto want = logits_of(plain.model, ids, 1);
    route->use_adapters(false);
    route->force_open({1, 1, 1});
    CHECK(logits() == want);
    route->force_open({1, 0, 1});
    const auto without_second = logits();
    plain.stack().forced_open = {1, 0, 1};
    CHECK(without_second == logits_of(plain.model, ids, 1));
    route->use_adapters(true);
    CHECK(logits() != without_second);

    r->start_decoding(2, 16);
    r->decode(ids, std::vector<index>{3, 4});
    CHECK(route->open_shares() == std::vector<double>{2.0 / 3, 2.0 / 3});
    check_throws([&] { route->force_open({1, 0}); }, {"force_open", "expected 3 or none", "found 2"});
    route->force_open({});
}

}  // namespace spectral::test::layer_route_test
