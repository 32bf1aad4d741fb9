// SPDX-License-Identifier: Apache-2.0
// tests/models/bfloat16_test.cpp: models in bfloat16 on the GPU against the same weights in float
//
// Weights are rounded before both take them, and routes of the one in float are replayed, so that what differs is
// rounding of what lies between operators: half a unit of 2⁻⁸ at each of some forty places of a path, of either sign.
// ‖difference‖ / ‖value‖ stays below 2⁻⁸ √40 = 2.5 % of logits; gradients go through twice as many.
#include "model_test.hpp"
#include "tiny_qwen2.hpp"

namespace spectral::test::bfloat16_test {

namespace {
using wide = target<cuda::executor, float>;
using narrow = target<cuda::executor, bfloat16>;
constexpr double logits_bound = 0.025, gradients_bound = 0.05;

struct results {
    std::vector<double> logits, gradients;
    double loss = 0;
};

double distance(const std::vector<double>& got, const std::vector<double>& want) {
    REQUIRE(got.size() == want.size());
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
    }
    return std::sqrt(difference / size);
}

void check_near(const results& got, const results& want) {
    CHECK(distance(got.logits, want.logits) < logits_bound);
    CHECK(distance(got.gradients, want.gradients) < gradients_bound);
    CHECK(got.loss == Approx(want.loss).epsilon(logits_bound));
    CHECK(got.logits != want.logits);  // it was not float all the way
}

// random weights, rounded whatever the model computes in; smaller ones where attention would be so sharp that a rounded
// score changes everything
template <class Model>
void rounded_weights(Model& model) {
    randomize(model);
    for (const auto& [name, p] : model.parameters.named()) {
        auto values = to_host(model.ex, *p);
        if (name.find("self_attn") != name.npos)
            for (float& v : values) v *= 0.25f;
        for (float& v : values) v = float(bfloat16(v));
        model.parameters.assign(*p, std::span<const float>(values));
    }
}

std::vector<double> widened(const auto& values) {
    std::vector<double> out;
    for (const auto v : values) out.push_back(static_cast<float>(v));
    return out;
}

template <class Model>
results run(Model& model, const batch& b, route_trace& trace) {
    results out;
    rounded_weights(model);
    model.trace = &trace;
    out.logits = widened(to_host(model.ex, model.forward(b.ids, b.sequences())));
    model.parameters.zero_gradients();
    out.loss = model.run(b, phase::training).loss;
    out.gradients = widened(to_host(model.ex, model.parameters.gradients_view()));
    model.trace = nullptr;
    return out;
}

layer_route_model tiny_qwen2() {
    layer_route_model m{.backbone = tiny_qwen2_backbone(), .route = {.lora = lora_options{.rank = 2, .dropout = 0}}};
    m.route.gates = skip_gate_options{.pool = gate_pool::prompt};
    return m;
}

template <class Target>
using qwen2_of = qwen2<typename Target::executor, typename Target::scalar>;
}  // namespace

TEST_CASE("bfloat16: every CHIAR model is near the one in float", "[models][bfloat16]") {
    for (const named_config& entry : causal_configs()) {
        if (entry.config.meta_gate_threshold) continue;  // its choice is not replayed
        INFO(entry.name);
        const batch b = language_batch({12, 12}, entry.config.vocab_size, 6);
        results want, got;
        route_trace trace;
        with_model<wide>(entry.config, [&](auto& model) { want = run(model, b, trace); });
        trace.how = route_trace::mode::replay;
        with_model<narrow>(entry.config, [&](auto& model) { got = run(model, b, trace); });
        check_near(got, want);
    }
}

TEST_CASE("bfloat16: Qwen2 with adapters and gates is near the one in float, also when decoding",
          "[models][bfloat16]") {
    const batch b = language_batch({12, 12}, 61, 6);
    qwen2_of<wide> exact(wide::instance(), tiny_qwen2());
    qwen2_of<narrow> model(narrow::instance(), tiny_qwen2());
    route_trace trace;
    const results want = run(exact, b, trace);
    trace.how = route_trace::mode::replay;
    check_near(run(model, b, trace), want);

    const std::vector<index> prompt{5, 5}, next{1, 1};
    auto state = model.stack.make_decode_state(model.ex, 2, 20);
    auto exact_state = exact.stack.make_decode_state(exact.ex, 2, 20);
    std::vector<row_index> ids = random_ids(10, 61, 7);
    for (int call = 0; call < 4; ++call) {
        const auto got = widened(to_host(model.ex, model.decode(ids, call ? next : prompt, state)));
        const auto exactly = widened(to_host(exact.ex, exact.decode(ids, call ? next : prompt, exact_state)));
        CHECK(distance(got, exactly) < logits_bound);
        ids = {5, 9};
    }
}

}  // namespace spectral::test::bfloat16_test
