// SPDX-License-Identifier: Apache-2.0
// tests/models/recompute_test.cpp: training that keeps the layers' inputs alone and runs each layer again in backward:
// the same bits in less memory
#include <spectral/models/qwen2.hpp>
#include "model_test.hpp"

namespace spectral::test::recompute_test {

namespace {
struct step_result {
    double loss = 0;
    std::vector<double> gradients, multipliers;
    double routed = 0;  // rows that routers sent anywhere, as counted
    std::size_t bytes = 0;
};

// two batches, added up, so that what a forward pass advances (a budget's multiplier) shows in the second
template <class Model>
step_result train(Model& model, const batch& b, bool recompute) {
    step_result out;
    randomize(model);
    route_trace trace(route_trace::mode::count);
    model.trace = &trace;
    model.recompute = recompute;
    model.seed = 5;
    model.parameters.zero_gradients();
    for (std::uint64_t step : {3, 4}) {
        model.step = step;
        out.loss += model.run(b, phase::training, 0.5).loss;
    }
    model.trace = nullptr;
    const auto host = to_host(model.ex, model.parameters.gradients_view());
    out.gradients.assign(host.begin(), host.end());
    for (const auto& [name, p] : model.parameters.named())
        if (name.ends_with("multiplier")) out.multipliers.push_back(static_cast<double>(to_host(model.ex, *p)[0]));
    for (const auto& [layer, c] : trace.counts)
        for (double n : c.routed) out.routed += n;
    out.bytes = model.ex.memory().peak();
    return out;
}

void check_same(const step_result& got, const step_result& want, const std::string& about) {
    INFO(about);
    CHECK(got.loss == want.loss);
    CHECK(got.gradients == want.gradients);
    CHECK(got.multipliers == want.multipliers);
    CHECK(got.routed == want.routed);
    CHECK(got.bytes < want.bytes);
}

// each with an executor of its own, for the peak of its arena
template <class Target, class Make>
void compare_recomputed(const batch& b, const std::string& about, Make&& make) {
    const auto run = [&](bool recompute) {
        auto ex = make_executor<typename Target::executor>(2);
        return make(ex, [&](auto& model) { return train(model, b, recompute); });
    };
    check_same(run(true), run(false), about + ", " + Target::executor_name());
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("recompute: gradients of every model are the same bits, in less memory", "[models][recompute]",
                        model_targets) {
    using Exec = typename TestType::executor;
    using T = typename TestType::scalar;
    for (const named_config& entry : causal_configs()) {
        auto c = entry.config;
        c.n_layers = 5;
        c.dropout = 0.2;
        compare_recomputed<TestType>(
            language_batch({7, 2, 11}, c.vocab_size, 17), entry.name, [&](Exec& ex, auto&& use) {
                return with_chiar_stack<Exec, T>(c, [&]<class Stack>(std::type_identity<Stack>) {
                    task_model<Exec, T, Stack> model(ex, c);
                    return use(model);
                });
            });
    }
}

TEMPLATE_LIST_TEST_CASE("recompute: LayerRoute with gates of every kind and scope", "[models][recompute]",
                        model_targets) {
    using Exec = typename TestType::executor;
    using T = typename TestType::scalar;
    layer_route_model m;
    m.backbone = {.vocab_size = 31,
                  .hidden_size = 24,
                  .intermediate_size = 20,
                  .num_hidden_layers = 4,
                  .num_attention_heads = 3,
                  .num_key_value_heads = 1,
                  .max_position_embeddings = 16,
                  .tie_word_embeddings = true};
    m.route.lora = lora_options{.rank = 2, .alpha = 3, .dropout = 0.2};
    const batch b = language_batch({7, 2, 11}, m.backbone.vocab_size, 17);
    const auto compare_now = [&](const std::string& about) {
        compare_recomputed<TestType>(b, about, [&](Exec& ex, auto&& use) {
            qwen2<Exec, T> model(ex, m);
            return use(model);
        });
    };
    compare_now("without gates");
    for (gate_kind kind : {gate_kind::straight_through, gate_kind::hard_concrete})
        for (gate_scope scope : {gate_scope::block, gate_scope::attention, gate_scope::feed_forward}) {
            m.route.gates = skip_gate_options{};
            m.route.gates->kind = kind;
            m.route.gates->scope = scope;
            compare_now("gates " + std::to_string(static_cast<int>(kind)) + ", scope " +
                        std::to_string(static_cast<int>(scope)));
        }
}

}  // namespace spectral::test::recompute_test
