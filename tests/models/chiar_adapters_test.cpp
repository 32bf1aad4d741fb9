// SPDX-License-Identifier: Apache-2.0
// tests/models/chiar_adapters_test.cpp: low-rank adapters on CHIAR models: they alone train, and PEFT's files hold them
#include <spectral/io/model_files.hpp>
#include <spectral/train/adamw.hpp>
#include "model_test.hpp"

namespace spectral::test::chiar_adapters_test {

namespace {
chiar_config adapted(chiar_config c) {
    if (c.baseline())
        c.adapters = {
            {"attns.1.qkv", {.rank = 2, .alpha = 4}}, {"ffns.1.3", {.rank = 3}}, {"attns.3.out_proj", {.rank = 2}}};
    else
        c.adapters = {{"layers.1.attn.qkv", {.rank = 2, .alpha = 4}},
                      {"layers.1.ffn.3", {.rank = 3}},
                      {"layers.3.attn.out_proj", {.rank = 2}}};
    for (auto& [path, o] : c.adapters) o.dropout = 0;
    return c;
}
std::vector<chiar_config> configs() {
    chiar_config threshold = tiny_config(), hard = tiny_config(), v1 = tiny_config(), baseline = tiny_config();
    hard.routing_mode = routing_mode::hard;
    v1.architecture = architecture::v1;
    baseline.model_type = "full_attention";
    return {threshold, hard, v1, baseline};
}
template <class Model>
void set_b(Model& model, double size) {
    using T = typename Model::scalar;
    for (const auto& [name, p] : model.parameters.named()) {
        if (!name.ends_with("lora_B.weight")) continue;
        auto values = normals(p->size(), stream_of(name), size);
        model.parameters.assign(*p, std::vector<T>(values.begin(), values.end()));
    }
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("adapters on CHIAR: they alone have gradients, those of finite differences", "[models][lora]",
                        model_targets) {
    using T = typename TestType::scalar;
    for (const auto& c : configs())
        with_model<TestType>(adapted(c), [&](auto& model) {
            set_b(model, 0.25);
            const batch b = language_batch({6, 4}, c.vocab_size, 9);
            model.run(b, phase::training);
            index adapters = 0;
            for (const auto& [name, p] : model.parameters.named()) {
                CHECK((p->grad.data != nullptr) == is_adapter(name));
                if (!is_adapter(name)) continue;
                ++adapters;
                // a straight-through gradient is not that of finite differences
                if (!std::is_same_v<T, double> || c.routing_mode == routing_mode::hard) continue;
                INFO(name);
                auto host = to_host(model.ex, p->value);
                const auto gradient = to_host(model.ex, p->grad);
                const std::size_t at = host.size() / 2;
                double loss[2];
                for (int side : {0, 1}) {
                    auto moved = host;
                    moved[at] += static_cast<T>(side ? 1e-5 : -1e-5);
                    model.parameters.assign(*p, moved);
                    loss[side] = model.run(b, phase::evaluation).loss;
                }
                model.parameters.assign(*p, host);
                CHECK(static_cast<double>(gradient[at]) ==
                      Approx((loss[1] - loss[0]) / 2e-5).margin(1e-7).epsilon(1e-4));
            }
            CHECK(adapters == 6);
        });
}

TEMPLATE_LIST_TEST_CASE("adapters on CHIAR: a new one changes nothing, merged equals unmerged", "[models][lora]",
                        model_targets) {
    using T = typename TestType::scalar;
    const auto c = adapted(tiny_config());
    with_model<TestType>(c, [&](auto& model) {
        const auto ids = random_ids(10, c.vocab_size, 3);
        set_b(model, 0);
        for_each_linear(model.stack, [](const std::string&, auto& map) { map.adapter_on = false; });
        const auto without = logits_of(model, ids, 2);
        for_each_linear(model.stack, [](const std::string&, auto& map) { map.adapter_on = true; });
        CHECK(logits_of(model, ids, 2) == without);
        set_b(model, 0.25);
        const auto want = logits_of(model, ids, 2);
        CHECK(want != without);
        for_each_linear(model.stack, [&](const std::string&, auto& map) { map.merge(model.ex); });
        compare(logits_of(model, ids, 2), want, 4 * model_tolerance<T>(want),
                {"chiar_adapters", "merged", TestType::executor_name(), scalar_name<T>, ""});
    });
}

TEST_CASE("adapters on CHIAR: their files", "[models][lora]") {
    const auto c = adapted(tiny_config());
    const auto files = files_of(c);
    REQUIRE(files.texts.size() == 1);
    CHECK(files.texts[0].first == "adapter_config.json");
    std::vector<std::string> modules;
    with_model<oracle>(tiny_config(), [&](auto& model) {
        for_each_linear(model.stack, [&](const std::string& path, auto&) { modules.push_back(path); });
    });
    CHECK(std::count(modules.begin(), modules.end(), "layers.0.ffn.0") == 1);
    const auto back = parse_peft_config(parse_json(files.texts[0].second, "written"), "adapter_config.json", modules);
    REQUIRE(back.size() == c.adapters.size());
    for (const auto& [path, o] : c.adapters) {
        REQUIRE(back.count(path));
        CHECK(back.at(path).rank == o.rank);
        CHECK(back.at(path).scale() == o.scale());
    }
    auto unknown = c;
    unknown.adapters["layers.0.attn.qkv"] = {};
    check_throws([&] { with_model<oracle>(unknown, [](auto&) {}); }, {"adapters", "layers.0.attn.qkv"});
}

}  // namespace spectral::test::chiar_adapters_test
