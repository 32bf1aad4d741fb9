// SPDX-License-Identifier: Apache-2.0
// tests/models/gradients_test.cpp: the loss of whole models against finite differences, and against other executors
//
// Soft routing is smooth. A threshold is a step: τ lies in the widest gap between entropies, so that no difference
// moves a row across it. Learned hard choices are checked layer by layer (tests/layers/routed_test.cpp) and here across
// executors.
#include "model_test.hpp"

#include <spectral/train/gradient_check.hpp>

namespace spectral::test::gradients_test {

namespace {
chiar_config small_config() {
    auto c = tiny_config();
    c.vocab_size = 11;
    c.d_model = 8;
    c.n_layers = 3;
    c.max_seq_len = 8;
    return c;
}
const std::vector<index> lengths{4, 1, 3};

// The middle of the widest gap between entropies, from the share `from` of the rows to the share `to`; its width must
// allow for differences of 1e-3.
double gap(std::vector<double> entropy, double from, double to) {
    std::sort(entropy.begin(), entropy.end());
    const double n = static_cast<double>(entropy.size());
    double widest = 0, middle = 0;
    for (auto i = static_cast<std::size_t>(from * n); i + 1 < static_cast<std::size_t>(to * n); ++i)
        if (entropy[i + 1] - entropy[i] > widest) {
            widest = entropy[i + 1] - entropy[i];
            middle = (entropy[i + 1] + entropy[i]) / 2;
        }
    REQUIRE(widest > 0.01);
    return middle;
}
// thresholds of the one routed layer, away from every row's entropy
chiar_config with_clear_thresholds(chiar_config c, const batch& b) {
    if (c.baseline() || c.routing_mode != routing_mode::threshold) return c;
    std::vector<double> entropy;
    with_model<oracle>(c, [&](auto& model) {
        route_trace trace;
        model.trace = &trace;
        model.run(b, phase::training);  // with the dropout of training
        entropy = trace.layers.at(1).entropy;
    });
    if (c.operators() == 2)
        c.tau = {gap(entropy, 0.2, 0.9)};
    else
        c.tau_low = gap(entropy, 0.1, 0.6), c.tau_high = gap(entropy, 0.5, 1.0);
    return c;
}

void check_gradients(chiar_config c, const batch& b, const std::string& about) {
    c = with_clear_thresholds(c, b);
    with_model<oracle>(c, [&](auto& model) {
        model.seed = 3;
        model.step = 4;
        model.parameters.zero_gradients();
        route_trace trace;
        model.trace = &trace;
        model.run(b, phase::training);
        if (c.routing_mode == routing_mode::threshold)
            for (const auto& [layer, count] : trace.counts)
                for (double rows : count.routed) CHECK(rows > 0);  // every operator takes part
        model.trace = nullptr;
        // differences of training passes, which draw the same dropout each time and add their own gradients elsewhere
        const auto kept = to_host(model.ex, model.parameters.gradients_view());
        index checked = 0;
        tensor<reference::executor, double> analytic(model.ex, {model.parameters.gradients_view().size()}, kept);
        for (const auto& [name, p] : model.parameters.named()) {
            if (!p->grad.data) continue;
            const index offset = p->grad.data - model.parameters.gradients_view().data;
            const auto t =
                check_gradient(model.ex, p->value, matrix_view<double>{analytic.data() + offset, p->grad.shape},
                               [&] { return model.run(b, phase::training).loss; }, {.most = 12});
            checked += t.checked;
            INFO(about << ": " << name << " (" << t.row << ", " << t.column << "): analytic " << t.analytic
                       << ", numeric " << t.numeric);
            CHECK(t.error < 1e-6);
        }
        CHECK(checked > 150);
    });
}
}  // namespace

TEST_CASE("models: gradients, soft and threshold routing", "[models][gradients]") {
    for (routing_mode m : {routing_mode::soft, routing_mode::threshold})
        for (meta_pool pool : {meta_pool::batch, meta_pool::sequence, meta_pool::causal, meta_pool::fixed}) {
            auto c = small_config();
            c.routing_mode = m;
            c.meta_pool = pool;
            c.meta_gate_value = 0.4;
            check_gradients(c, language_batch(lengths, c.vocab_size, 7),
                            "v3, " + name_of(m) + ", pool " + std::to_string(static_cast<int>(pool)));
        }
}

// What training does: gradients that hold nothing are written by the first backward pass, and added to by the second.
TEST_CASE("models: forgotten gradients become what cleared ones do", "[models][gradients]") {
    for (double dropout : {0.0, 0.1})
        for (bool baseline : {false, true}) {
            auto c = small_config();
            c.dropout = dropout;
            if (baseline) c.model_type = "full_attention";
            with_model<oracle>(c, [&](auto& model) {
                const auto b = language_batch(lengths, c.vocab_size, 7);
                const auto gradients = [&](bool forget) {
                    auto all = model.parameters.gradients_view();
                    std::vector<double> start(static_cast<std::size_t>(all.size()), forget ? nan : 0);
                    model.ex.copy_from_host(all.data, start.data(), start.size() * sizeof(double));
                    forget ? model.parameters.forget_gradients() : model.parameters.zero_gradients();
                    for (int i = 0; i < 2; ++i) model.run(b, phase::training, 0.5);
                    std::vector<double> out;
                    for (const auto& [name, p] : model.parameters.named())
                        for (double g : to_host(model.ex, p->grad)) out.push_back(g);
                    return out;
                };
                const auto want = gradients(false), got = gradients(true);
                compare(got, want, allowed<double>(4, largest(want)),
                        {"gradients", "forgotten", "reference", "double", ""});
            });
        }
}

TEST_CASE("models: gradients with dropout", "[models][gradients]") {
    for (routing_mode m : {routing_mode::soft, routing_mode::threshold}) {
        auto c = small_config();
        c.routing_mode = m;
        c.dropout = 0.2;
        check_gradients(c, language_batch(lengths, c.vocab_size, 7), "v3, dropout, " + name_of(m));
    }
}

TEST_CASE("models: gradients of the other architectures", "[models][gradients]") {
    const batch b = language_batch(lengths, small_config().vocab_size, 7);
    for (routing_mode m : {routing_mode::soft, routing_mode::threshold}) {
        auto c = small_config();
        c.routing_mode = m;
        c.architecture = architecture::v2;
        check_gradients(c, b, "v2, " + name_of(m));
        c.architecture = architecture::v1;
        c.layer_variant = layer_variant::dct_rbf_attn;
        check_gradients(c, b, "v1, three operators, " + name_of(m));
        c = small_config();
        c.routing_mode = m;
        c.layer_variant = layer_variant::identity_attn;
        c.use_meta_router = false;
        c.kv_scope = kv_scope::routed;
        check_gradients(c, b, "identity, keys of routed rows, " + name_of(m));
    }
    auto c = small_config();
    c.model_type = "full_attention";
    check_gradients(c, b, "full attention");
}

TEST_CASE("models: gradients, soft routing with the regulariser, targets ignored", "[models][gradients]") {
    auto c = small_config();
    c.routing_mode = routing_mode::soft;
    c.use_collapse_reg = true;
    c.lambda_reg = 0.5;
    batch b = language_batch(lengths, c.vocab_size, 7);
    b.targets[0] = b.targets[6] = -1;
    check_gradients(c, b, "soft, regularised");
}

TEST_CASE("models: gradients of classifiers", "[models][gradients]") {
    for (double dropout : {0.0, 0.2}) {
        auto c = small_config();
        c.routing_mode = routing_mode::soft;
        c.dropout = dropout;
        c.model_type = "chiar_classifier";
        c.num_classes = 3;
        batch b = language_batch(lengths, c.vocab_size, 7);
        b.targets.clear();
        b.labels = {2, 0, 1};
        check_gradients(c, b, "classifier");
        c.model_type = "chiar_former";
        c.num_classes = 0;
        c.task_classes = {{"first", 2}, {"second", 3}};
        b.task = "second";
        check_gradients(c, b, "classifier, one of two tasks");
    }
}

// Accumulation: k batches of weight 1/k add up to the gradient of their mean.
TEMPLATE_LIST_TEST_CASE("models: weighted batches add up", "[models][gradients]", model_targets) {
    using T = typename TestType::scalar;
    auto c = tiny_config();
    c.routing_mode = routing_mode::soft;
    c.use_collapse_reg = true;
    const batch b = language_batch({6, 3}, c.vocab_size, 7);
    with_model<TestType>(c, [&](auto& model) {
        const auto gradients = [&] {
            const auto host = to_host(model.ex, model.parameters.gradients_view());
            return std::vector<double>(host.begin(), host.end());
        };
        model.parameters.zero_gradients();
        const double loss = model.run(b, phase::training).loss;
        const auto once = gradients();
        model.parameters.zero_gradients();
        for (int i = 0; i < 4; ++i) CHECK(model.run(b, phase::training, 0.25).loss == Approx(loss).epsilon(1e-5));
        compare(gradients(), once, model_tolerance<T>(once),
                {"run", "gradients", TestType::executor_name(), scalar_name<T>, "4 of weight 1/4"});
        model.run(b, phase::evaluation);
        compare(gradients(), once, model_tolerance<T>(once),
                {"run", "gradients", TestType::executor_name(), scalar_name<T>, "evaluation leaves them"});
    });
}

// The same model on another executor and scalar: loss, logits and every gradient, with the oracle's routes replayed.
TEMPLATE_LIST_TEST_CASE("models: every executor agrees when routes are replayed", "[models][gradients]",
                        model_targets) {
    using T = typename TestType::scalar;
    for (const named_config& entry : causal_configs()) {
        auto c = entry.config;
        c.dropout = 0.1;
        const batch b = language_batch({7, 2, 11}, c.vocab_size, 17);
        route_trace trace;
        std::vector<std::pair<std::string, std::vector<double>>> want;
        const auto run = [&](auto& model) {
            model.trace = &trace;
            model.seed = 12;
            model.parameters.zero_gradients();
            const double loss = model.run(b, phase::training).loss;
            std::vector<std::pair<std::string, std::vector<double>>> out{{"loss", {loss}}};
            for (const auto& [parameter_name, p] : model.parameters.named()) {
                if (!p->grad.data) continue;
                const auto host = to_host(model.ex, p->grad);
                out.push_back({"gradient of " + parameter_name, {host.begin(), host.end()}});
            }
            return out;
        };
        with_model<oracle>(c, [&](auto& model) { want = run(model); });
        trace.how = route_trace::mode::replay;
        with_model<TestType>(c, [&](auto& model) {
            const auto got = run(model);
            REQUIRE(got.size() == want.size());
            for (std::size_t i = 0; i < got.size(); ++i)
                compare(got[i].second, want[i].second, model_tolerance<T>(want[i].second),
                        {"model", got[i].first, TestType::executor_name(), scalar_name<T>, entry.name});
        });
    }
}

}  // namespace spectral::test::gradients_test
