// SPDX-License-Identifier: Apache-2.0
// tests/models/qwen2_gradients_test.cpp: the loss of a whole Qwen2 against finite differences: every weight, and
// adapters
//
// A straight-through gate is a step, whose gradient is a choice (tests/layers/skip_gate_test.cpp, golden layerroute): gates
// here are hard concrete ones, which are differentiable.
#include <spectral/models/qwen2.hpp>
#include <spectral/train/gradient_check.hpp>
#include "model_test.hpp"

namespace spectral::test::qwen2_gradients_test {

namespace {
layer_route_model tiny(bool tied) {
    layer_route_model m;
    m.backbone = {.vocab_size = 11,
                  .hidden_size = 12,
                  .intermediate_size = 10,
                  .num_hidden_layers = 2,
                  .num_attention_heads = 3,
                  .num_key_value_heads = 1,
                  .max_position_embeddings = 8,
                  .tie_word_embeddings = tied};
    return m;
}

// every gradient that the model has, of `weight` times the loss; the names of the parameters that have one
std::set<std::string> check_gradients(const layer_route_model& config, const batch& b, const std::string& about,
                                      const gate_objective& objective = {}, double weight = 1) {
    qwen2<reference::executor, double> model(oracle::instance(), config);
    randomize(model);
    model.stack.objective = objective;
    model.seed = 3;
    model.step = 4;
    model.parameters.zero_gradients();
    model.run(b, phase::training, weight);
    // differences of training passes, which draw the same dropout each time and add their own gradients elsewhere
    const auto all = model.parameters.gradients_view();
    tensor<reference::executor, double> analytic(model.ex, {all.size()}, to_host(model.ex, all));
    std::set<std::string> names;
    for (const auto& [name, p] : model.parameters.named()) {
        if (!p->grad.data) continue;
        names.insert(name);
        const auto t = check_gradient(
            model.ex, p->value, matrix_view<double>{analytic.data() + (p->grad.data - all.data), p->grad.shape},
            [&] { return weight * model.run(b, phase::training, weight).loss; }, {.most = 16});
        INFO(about << ": " << name << " (" << t.row << ", " << t.column << "): analytic " << t.analytic << ", numeric "
                   << t.numeric);
        CHECK(t.error < 1e-6);
        CHECK((t.analytic != 0 || t.numeric != 0 || name.ends_with("k_proj.bias")));  // it matters to the loss
    }
    return names;
}
}  // namespace

TEST_CASE("qwen2: gradients of every weight, tied and untied head", "[models][gradients]") {
    batch b = language_batch({4, 1, 3}, 11, 7);
    b.targets[2] = -1;
    for (bool tied : {true, false}) {
        const auto names = check_gradients(tiny(tied), b, tied ? "tied" : "untied");
        // embedding; in each of two blocks two norms and ten tensors of seven maps; final norm; head
        CHECK(names.size() == (tied ? 26u : 27u));
        CHECK(names.count("model.layers.1.self_attn.k_proj.bias") == 1);
        CHECK(names.count("lm_head.weight") == (tied ? 0u : 1u));
    }
}

TEST_CASE("qwen2: gradients of adapters on all seven maps, with dropout, over a frozen backbone",
          "[models][gradients]") {
    auto m = tiny(true);
    m.route.lora = lora_options{.rank = 2, .alpha = 3, .dropout = 0.2};
    m.route.lora_targets = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
    const auto names = check_gradients(m, language_batch({4, 1, 3}, 11, 7), "adapters");
    CHECK(names.size() == 2 * 7 * 2);
    for (const auto& name : names) CHECK(name.find("lora_") != name.npos);
}

TEST_CASE("qwen2: gradients through gates of every scope and pool, with an objective, at half the loss's weight",
          "[models][gradients]") {
    batch b = language_batch({4, 1, 3}, 11, 7);
    b.prompt_lengths = {3, 1, 2};
    for (gate_scope scope : {gate_scope::block, gate_scope::attention, gate_scope::feed_forward})
        for (gate_pool pool : {gate_pool::sequence, gate_pool::prompt, gate_pool::last_prompt_token}) {
            auto m = tiny(true);
            m.route.gates = skip_gate_options{.pool = pool, .kind = gate_kind::hard_concrete, .scope = scope};
            m.route.train_backbone = true;
            const auto names = check_gradients(
                m, b,
                "scope " + std::to_string(static_cast<int>(scope)) + ", pool " + std::to_string(static_cast<int>(pool)),
                mean_gate_objective(0.3), 0.5);
            CHECK(names.size() == 26 + 2 * 2);
            CHECK(names.count("router.1.weight") == 1);
        }
}

}  // namespace spectral::test::qwen2_gradients_test
