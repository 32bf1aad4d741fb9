// SPDX-License-Identifier: Apache-2.0
// tests/models/config_test.cpp: parameter counts and names, and one sentence for every configuration or input that
// cannot be
#include "model_test.hpp"

#include <set>

namespace spectral::test::config_test {

namespace {
using Exec = reference::executor;

template <class Stack>
std::set<std::string> names_of(Stack& stack) {
    std::set<std::string> out;
    for_each_parameter(stack, [&](const std::string& name, auto&) { out.insert(name); });
    return out;
}
}  // namespace

// A stack declares its parameters; only a model's store gives them memory. So the published sizes are counted at no
// cost.
TEST_CASE("models: parameter counts of the published sizes", "[models][config]") {
    auto& ex = oracle::instance();
    auto c = chiar_config::large();
    chiar_stack<Exec, float> chiar(ex, c);
    CHECK(count_parameters(chiar) == 400'043'009);
    c.model_type = "full_attention";
    attention_stack<Exec, float> baseline(ex, c);
    CHECK(count_parameters(baseline) == 404'159'488);
}

TEST_CASE("models: a model holds what its stack declares", "[models][config]") {
    for (const auto& [name, c] : causal_configs())
        with_model<oracle>(c, [&](auto& model) {
            index n = 0;
            for (const auto& [parameter_name, p] : model.parameters.named()) n += p->value.size();
            CHECK(n == count_parameters(model.stack));
            CHECK(n == count_parameters(model));
        });
}

TEST_CASE("models: names of the authors' state dict", "[models][config]") {
    auto& ex = oracle::instance();
    auto c = tiny_config();
    c.n_layers = 3;
    const std::set<std::string> first{"token_emb.weight",
                                      "meta_router.gate_proj.weight",
                                      "meta_router.gate_proj.bias",
                                      "layers.0.dct_mix.w",
                                      "layers.0.dct_mix.norm.weight",
                                      "layers.0.dct_mix.norm.bias",
                                      "norm.weight",
                                      "norm.bias"};
    const auto layer = [](const std::string& n, std::initializer_list<const char*> operators) {
        std::set<std::string> out;
        for (const char* part : operators) out.insert("layers." + n + "." + part);
        for (const char* part :
             {"ffn.0.weight", "ffn.0.bias", "ffn.3.weight", "ffn.3.bias", "ffn_norm.weight", "ffn_norm.bias"})
            out.insert("layers." + n + "." + part);
        return out;
    };
    const auto attention = {"attn.qkv.weight",    "attn.qkv.bias",    "attn.out_proj.weight",
                            "attn.out_proj.bias", "attn.norm.weight", "attn.norm.bias"};
    std::set<std::string> want = first;
    want.merge(layer("0", {}));
    want.merge(layer("1", attention));
    want.merge(layer("1", {"dct_mix.w", "dct_mix.norm.weight", "dct_mix.norm.bias"}));
    want.merge(layer("2", attention));
    chiar_stack<Exec, double> threshold(ex, c);
    CHECK(names_of(threshold) == want);
    c.routing_mode = routing_mode::hard;
    chiar_stack<Exec, double> hard(ex, c);
    want.insert({"layers.1.router.gate_proj.weight", "layers.1.router.gate_proj.bias"});
    CHECK(names_of(hard) == want);
    c.routing_mode = routing_mode::budget;
    chiar_stack<Exec, double> budget(ex, c);
    want.insert("layers.1.router.multiplier");
    CHECK(names_of(budget) == want);

    c.layer_variant = layer_variant::identity_attn;
    c.routing_mode = routing_mode::threshold;
    c.use_meta_router = false;
    chiar_stack<Exec, double, identity_or_attention<Exec, double>> control(ex, c);
    const auto names = names_of(control);
    CHECK(names.count("layers.0.identity_mix.norm.weight") == 1);
    CHECK(names.count("layers.1.identity_mix.norm.bias") == 1);
    CHECK(names.count("meta_router.gate_proj.bias") == 0);
    CHECK(names.count("layers.0.dct_mix.w") == 0);

    c.layer_variant = layer_variant::dct_rbf_attn;
    c.architecture = architecture::v1;
    chiar_stack<Exec, double, three_way<Exec, double>> v1(ex, c);
    const auto v1_names = names_of(v1);
    for (const char* name :
         {"pos_emb.weight", "layers.0.dct_mix.ffn.0.weight", "layers.1.dct_mix.ffn.3.bias", "layers.1.rbf_mix.omega",
          "layers.1.rbf_mix.out_proj.weight", "layers.1.rbf_mix.ffn.0.weight", "layers.1.rbf_mix.norm.bias"}) {
        INFO(name);
        CHECK(v1_names.count(name) == 1);
    }

    c = tiny_config();
    c.model_type = "chiar_classifier";
    c.num_classes = 4;
    c.task_classes = {{"listops", 10}};
    with_model<oracle>(c, [&](auto& model) {
        const auto all = names_of(model);
        for (const char* name :
             {"backbone.token_emb.weight", "classifier.0.weight", "classifier.3.bias", "heads.listops.3.weight"}) {
            INFO(name);
            CHECK(all.count(name) == 1);
        }
    });
}

TEST_CASE("config: every wrong value has its sentence", "[models][config]") {
    const auto says = [](auto&& change, const std::vector<std::string>& parts) {
        auto c = tiny_config();
        change(c);
        check_throws([&] { c.validate(); }, parts);
    };
    tiny_config().validate();
    chiar_config::small().validate();
    chiar_config::large().validate();
    says([](auto& c) { c.model_type = "gpt"; },
         {"config", "model_type", "expected chiar_former, full_attention or chiar_classifier", "found gpt"});
    says([](auto& c) { c.vocab_size = 0; }, {"vocab_size", "expected at least 1", "found 0"});
    says([](auto& c) { c.n_layers = 1; }, {"n_layers", "expected at least 2", "found 1"});
    says([](auto& c) { c.max_seq_len = 0; }, {"max_seq_len", "expected at least 1"});
    says([](auto& c) { c.n_random_features = 0; }, {"n_random_features", "expected at least 1"});
    says([](auto& c) { c.d_model = 15; }, {"d_model", "expected a multiple of n_heads (2)", "found 15"});
    says([](auto& c) { c.d_model = 6; }, {"d_model / n_heads", "even head width", "found 3"});
    says([](auto& c) { c.rope_base = 0; }, {"rope_base", "expected a positive number", "found 0"});
    says([](auto& c) { c.dropout = 1; }, {"dropout", "expected a number in [0, 1)", "found 1"});
    says([](auto& c) { c.dropout = nan; }, {"dropout"});
    says([](auto& c) { c.target_share = 1.5; }, {"target_share", "expected a number in [0, 1]", "found 1.5"});
    says([](auto& c) { c.meta_gate_value = -0.1; }, {"meta_gate_value", "found -0.1"});
    says([](auto& c) { c.meta_gate_threshold = 2; }, {"meta_gate_threshold", "found 2"});
    says([](auto& c) { c.rbf_gamma = 0; }, {"rbf_gamma", "expected a positive number"});
    says([](auto& c) { c.tau_low = 0.9; }, {"tau_low", "expected at most tau_high (0.8)", "found 0.9"});
    says([](auto& c) { c.tau = {0.1, 0.2}; }, {"tau", "expected one number or 4 entries", "found 2"});
    says(
        [](auto& c) {
            c.tau = {std::nullopt, 0.5, std::nullopt, std::nullopt};
        },
        {"tau[2]", "expected a number for a routed layer", "found null"});
    says([](auto& c) { c.model_type = "chiar_classifier"; }, {"num_classes", "expected at least 1", "found 0"});
    says([](auto& c) { c.layer_variant = layer_variant::dct_rbf_attn, c.routing_mode = routing_mode::random; },
         {"routing_mode", "random", "two operators"});
    auto odd = tiny_config();  // learned positions turn nothing: an odd head width is fine
    odd.architecture = architecture::v2;
    odd.d_model = 6;
    odd.validate();
    odd = tiny_config();  // nor does a model without routed layers ask how one would route
    odd.model_type = "full_attention";
    odd.layer_variant = layer_variant::dct_rbf_attn;
    odd.routing_mode = routing_mode::random;
    odd.validate();
    odd = tiny_config();  // thresholds are not read by other modes
    odd.tau = {std::nullopt, std::nullopt, std::nullopt, std::nullopt};
    odd.routing_mode = routing_mode::soft;
    odd.validate();
}

// A model's operators are fixed where it is compiled: a configuration of others must not run as if it had them.
TEST_CASE("models: layer_variant says what the model is built of", "[models][config]") {
    using Exec = reference::executor;
    auto& ex = oracle::instance();
    const auto with = [](layer_variant v) {
        auto c = tiny_config();
        c.layer_variant = v;
        return c;
    };
    using enum layer_variant;
    for (layer_variant v : {dct_attn, identity_attn, dct_rbf_attn}) with_model<oracle>(with(v), [](auto&) {});
    check_throws(
        [&] {
            chiar_former<Exec, double>{ex, with(identity_attn)};
        },
        {"chiar_former", "layer_variant", "expected dct_attn", "found identity_attn"});
    check_throws(
        [&] {
            chiar_former<Exec, double>{ex, with(dct_rbf_attn)};
        },
        {"layer_variant", "expected dct_attn", "found dct_rbf_attn"});
    check_throws(
        [&] {
            chiar_former<Exec, double, identity_or_attention<Exec, double>>{ex, with(dct_attn)};
        },
        {"layer_variant", "expected identity_attn", "found dct_attn"});
    check_throws(
        [&] {
            chiar_former<Exec, double, three_way<Exec, double>>{ex, with(dct_attn)};
        },
        {"layer_variant", "expected dct_rbf_attn", "found dct_attn"});
    // a choice that no variant names is free
    using own = routed<Exec, double, any_router<Exec, double>, dct_mixer<Exec, double>, identity_mixer<Exec, double>>;
    chiar_former<Exec, double, own> model{ex, with(dct_attn)};
    CHECK(model.stack.middle.size() == 2);
}

TEST_CASE("models: inputs that cannot be have their sentence", "[models][config]") {
    auto c = tiny_config();
    with_model<oracle>(c, [&](auto& model) {
        batch b = language_batch({3, 2}, c.vocab_size, 1);
        const auto run = [&](auto&& change) {
            batch wrong = b;
            change(wrong);
            return [&model, wrong] { model.run(wrong, phase::evaluation); };
        };
        check_throws(run([](auto& w) { w.ids[4] = 29; }), {"ids", "id 4", "expected 0 to 28 (vocab_size)", "found 29"});
        check_throws(run([](auto& w) { w.ids[0] = -1; }), {"ids", "id 0", "found -1"});
        check_throws(run([](auto& w) { w.targets[1] = 29; }), {"targets", "expected less than 29", "found 29"});
        check_throws(run([](auto& w) { w.ids.pop_back(); }),
                     {"batch", "ids against the lengths' sum", "expected 5", "found 4"});
        check_throws(run([](auto& w) { w.targets.pop_back(); }), {"target", "expected (5)", "found (4)"});
        check_throws(run([](auto& w) {
                         w.lengths = {25};
                         w.ids.assign(25, 1);
                         w.targets.assign(25, 1);
                     }),
                     {"batch", "sequence 0", "at most 24 (the model's context)", "found 25"});
        check_throws(run([](auto& w) {
                         w.targets.clear();
                         w.labels = {1, 0};
                         w.task = "imdb";
                     }),
                     {"batch", "task imdb", "no head of that name"});
        check_throws([&] { model.forward(b.ids, 2); }, {"forward", "expected 2 rows of equal length", "found 5 ids"});
        check_throws([&] { model.forward(b.ids, 0); }, {"forward"});
        model.run(b, phase::evaluation);
        const auto r =
            model.run(batch{.lengths = {3}, .ids = {1, 2, 3}, .targets = {-1, -1, -1}, .labels = {}, .task = {}},
                      phase::training);
        CHECK(r.targets == 0);  // nothing to learn from is no error
        CHECK(r.loss == 0);
    });
    c.model_type = "chiar_classifier";
    c.num_classes = 3;
    with_model<oracle>(c, [&](auto& model) {
        batch b = language_batch({3, 2}, c.vocab_size, 1);
        b.targets.clear();
        b.labels = {1, 3};
        check_throws([&] { model.run(b, phase::evaluation); }, {"labels", "expected 0 to 2", "found 3"});
        b.labels = {1};
        check_throws([&] { model.run(b, phase::evaluation); }, {"batch", "number of labels", "expected 2", "found 1"});
        b.labels = {1, 2};
        CHECK(model.run(b, phase::evaluation).targets == 2);
    });
}

}  // namespace spectral::test::config_test
