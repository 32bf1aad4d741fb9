// SPDX-License-Identifier: Apache-2.0
// tests/train/oracle_test.cpp: what leaving a block out costs, and the targets made of it
#include <spectral/train/layer_route_runner.hpp>
#include <spectral/train/oracle.hpp>

#include "models/model_test.hpp"

namespace spectral::test {

TEST_CASE("oracle: the blocks that cost least are closed", "[train][oracle]") {
    const std::vector<double> increase{0.3, -0.1, 0.2, 0.0};
    CHECK(oracle_openness(increase, 0) == std::vector<double>{1, 1, 1, 1});
    CHECK(oracle_openness(increase, 0.25) == std::vector<double>{1, 0, 1, 1});
    CHECK(oracle_openness(increase, 0.5) == std::vector<double>{1, 0, 1, 0});
    CHECK(oracle_openness(increase, 1) == std::vector<double>{0, 0, 0, 0});
    check_throws([&] { oracle_openness(increase, 1.5); }, {"oracle_openness", "expected 0 to 1", "found 1.5"});
}

TEST_CASE("oracle: a block left out is a block forced shut", "[train][oracle]") {
    layer_route_model m;
    m.backbone = {.vocab_size = 29,
                  .hidden_size = 16,
                  .intermediate_size = 24,
                  .num_hidden_layers = 3,
                  .num_attention_heads = 4,
                  .num_key_value_heads = 2,
                  .max_position_embeddings = 24};
    m.backbone.initializer_range = 0.3;
    const auto r = make_runner<reference::executor, double>(std::make_unique<reference::executor>(), m, false);
    r->initialize(4);
    const std::vector<batch> batches{language_batch({5, 3}, 29, 1), language_batch({7}, 29, 2)};
    const auto increase = leave_one_out(*r, {"set", 2, [&](index n) { return batches[static_cast<std::size_t>(n)]; }});
    REQUIRE(increase.size() == 3);
    const auto loss = [&](std::vector<char> open) {
        r->layer_route()->force_open(std::move(open));
        return (r->evaluate(batches[0]).nats + r->evaluate(batches[1]).nats) / 15;
    };
    const double whole = loss({1, 1, 1});
    CHECK(increase[0] == Approx(loss({0, 1, 1}) - whole));
    CHECK(increase[1] == Approx(loss({1, 0, 1}) - whole));
    CHECK(increase[2] == Approx(loss({1, 1, 0}) - whole));
}

}  // namespace spectral::test
