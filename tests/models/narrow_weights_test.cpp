// SPDX-License-Identifier: Apache-2.0
// tests/models/narrow_weights_test.cpp: a Qwen2 whose backbone is kept as bfloat16 is the one with the widened weights
#include "tiny_qwen2.hpp"

#include <support/golden.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::narrow_weights_test {
namespace {

layer_route_model tiny(bool narrow, bool adapted, bool tied = true) {
    layer_route_model m{.backbone = tiny_qwen2_backbone(tied),
                        .route = {},
                        .storage = narrow ? weight_storage::bf16 : weight_storage::as_computed};
    m.backbone.initializer_range = 0.3;
    if (!adapted) return m;
    m.route.lora = lora_options{.rank = 2, .dropout = 0};
    m.route.gates = skip_gate_options{.pool = gate_pool::prompt};
    m.route.gate_bias = {1, -1, 1};
    return m;
}

// The narrow model, and a wide one of the same values. Adapters are given some effect.
template <class Target>
struct pair {
    using Exec = typename Target::executor;
    using T = typename Target::scalar;
    Exec& ex = Target::instance();
    qwen2<Exec, T> narrow, wide;

    explicit pair(bool adapted, bool tied = true)
        : narrow(ex, tiny(true, adapted, tied)), wide(ex, tiny(false, adapted, tied)) {
        narrow.parameters.initialize(1);
        wide.parameters.initialize(2);
        for (const auto& [name, p] : narrow.parameters.named()) {
            auto values = to_host(ex, *p);
            if (name.find("lora_B") != std::string::npos) {
                const auto effect = normals(p->size(), 5, 0.3);
                values.assign(effect.begin(), effect.end());
                narrow.parameters.assign(*p, values);
            }
            for (const auto& [other, q] : wide.parameters.named())
                if (other == name) wide.parameters.assign(*q, values);
        }
    }
    void same(const std::vector<T>& got, const std::vector<T>& want, const std::string& what) {
        const std::vector<double> g(got.begin(), got.end()), w(want.begin(), want.end());
        compare(g, w, allowed<T>(400, std::max(1.0, largest(w))),
                {"narrow Qwen2", what, Target::executor_name(), scalar_name<T>, ""});
    }
};

batch questions() {
    batch b;
    b.lengths = {9, 5, 12};
    b.ids = random_ids(26, 61, 3);
    for (std::size_t i = 0; i < b.ids.size(); ++i)
        b.targets.push_back(i == 8 || i == 13 || i == 25 ? -1 : b.ids[i + 1]);
    return b;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("narrow Qwen2: matrices of the backbone are narrow, the rest is not", "[models][narrow]",
                        model_targets) {
    pair<TestType> p(true, false);
    for (const auto& [name, q] : p.narrow.parameters.named()) {
        INFO(name);
        const bool adapter = name.find("lora_") != std::string::npos, gate = name.starts_with("router.");
        CHECK(q->narrow == (!adapter && !gate && q->shape.size() == 2));
        CHECK(q->trainable == (adapter || gate));
        CHECK((q->value.data == nullptr) == q->narrow);
    }
}

TEMPLATE_LIST_TEST_CASE("narrow Qwen2: logits", "[models][narrow]", model_targets) {
    for (bool tied : {true, false}) {
        pair<TestType> p(false, tied);
        const auto ids = random_ids(28, 61, 3);
        const auto got = to_host(p.ex, p.narrow.forward(ids, 2));
        p.same(got, to_host(p.ex, p.wide.forward(ids, 2)), "logits");
    }
}

TEMPLATE_LIST_TEST_CASE("narrow Qwen2: adapters and gates train on it", "[models][narrow]", model_targets) {
    using T = typename TestType::scalar;
    pair<TestType> p(true);
    const batch b = questions();
    const auto got = p.narrow.run(b, phase::training), want = p.wide.run(b, phase::training);
    CHECK(got.loss == Approx(want.loss).epsilon(1e-5));
    int gradients = 0;
    for (const auto& [name, q] : p.narrow.parameters.named()) {
        if (!q->grad.data) continue;
        for (const auto& [other, r] : p.wide.parameters.named())
            if (other == name) p.same(to_host(p.ex, q->grad), to_host(p.ex, r->grad), "gradient of " + name);
        gradients += to_host(p.ex, q->grad)[0] != T(0);
    }
    CHECK(gradients > 10);  // and they are not all zero
}

TEMPLATE_LIST_TEST_CASE("narrow Qwen2: decoding; a closed block has no cache", "[models][narrow]", model_targets) {
    pair<TestType> p(true);
    auto a = p.narrow.stack.make_decode_state(p.ex, 2, 20), b = p.wide.stack.make_decode_state(p.ex, 2, 20);
    std::vector<row_index> ids = random_ids(11, 61, 7);
    std::vector<index> lengths{4, 7};
    for (int call = 0; call < 3; ++call) {
        const auto got = to_host(p.ex, p.narrow.decode(ids, lengths, a));
        p.same(got, to_host(p.ex, p.wide.decode(ids, lengths, b)), "logits of call " + std::to_string(call));
        ids = {5, 9};
        lengths = {1, 1};
    }
    CHECK(a.layers[0].capacity == 20);
    CHECK(a.layers[1].capacity == 0);
    CHECK(a.layers[1].k.size() == 0);
    CHECK(a.layers[2].capacity == 20);
}

TEST_CASE("narrow Qwen2: what cannot be", "[models][narrow]") {
    auto& ex = oracle::instance();
    auto m = tiny(true, true);
    m.route.train_backbone = true;
    CHECK_SENTENCE((qwen2<reference::executor, double>(ex, m)), "kept as bfloat16 cannot be trained");
    qwen2<reference::executor, double> model(ex, tiny(true, true));
    CHECK_SENTENCE(model.stack.blocks[0].attention.q_proj.merge(ex), "load it wide");
}

}  // namespace spectral::test::narrow_weights_test
