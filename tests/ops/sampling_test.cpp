// SPDX-License-Identifier: Apache-2.0
// tests/ops/sampling_test.cpp: the next token from logits, each option by itself
#include "support/golden.hpp"

#include <spectral/ops/sampling.hpp>

#include <limits>
#include <map>

namespace spectral::test::sampling_test {
namespace {

const std::vector<float> logits{0.f, 2.f, 1.f, -1.f, 2.f};  // probabilities .057 .418 .154 .021 (.418 tied with id 1)

// how often each id is drawn
std::map<row_index, int> draws(const sampling_options& o, int count = 4000, std::span<const row_index> seen = {}) {
    std::map<row_index, int> out;
    for (int n = 0; n < count; ++n) ++out[sample_token(logits, seen, o, static_cast<std::uint64_t>(n))];
    return out;
}

}  // namespace

TEST_CASE("sampling: probabilities follow the softmax of logits over temperature") {
    for (double temperature : {0.5, 1.0, 2.0}) {
        double total = 0;
        for (float z : logits) total += std::exp(z / temperature);
        auto seen = draws({.temperature = temperature, .seed = 3}, 20000);
        for (std::size_t i = 0; i < logits.size(); ++i) {
            const double p = std::exp(logits[i] / temperature) / total, deviation = std::sqrt(p * (1 - p) / 20000);
            CHECK(seen[static_cast<row_index>(i)] / 20000.0 == Approx(p).margin(5 * deviation));
        }
    }
}

TEST_CASE("sampling: temperature 0 takes the first of the largest; draws are a function of seed and number") {
    CHECK(sample_token(logits, {}, {.temperature = 0}, 7) == 1);
    const sampling_options o{.seed = 11};
    for (std::uint64_t n = 0; n < 50; ++n) CHECK(sample_token(logits, {}, o, n) == sample_token(logits, {}, o, n));
    CHECK(draws({.seed = 1}) != draws({.seed = 2}));
}

TEST_CASE("sampling: top-k, top-p and min-p keep what they say") {
    const auto ids = [](const std::map<row_index, int>& m) {
        std::vector<row_index> out;
        out.reserve(m.size());
        for (const auto& [id, n] : m) out.push_back(id);
        return out;
    };
    CHECK(ids(draws({.top_k = 1})) == std::vector<row_index>{1});  // ties by id
    CHECK(ids(draws({.top_k = 2})) == std::vector<row_index>{1, 4});
    CHECK(ids(draws({.top_k = 99})).size() == 5);
    CHECK(ids(draws({.top_p = 0.3})) == std::vector<row_index>{1});  // .418 already reaches it
    CHECK(ids(draws({.top_p = 0.5})) == std::vector<row_index>{1, 4});
    CHECK(ids(draws({.min_p = 0.3})) == std::vector<row_index>{1, 2, 4});  // e⁻¹ = .37 of the largest stays, e⁻² goes
    CHECK(ids(draws({.min_p = 1})) == std::vector<row_index>{1, 4});
}

TEST_CASE("sampling: the repetition penalty divides positive and multiplies negative logits of seen tokens, once") {
    const std::vector<row_index> seen{1, 1, 1, 3};
    CHECK(sample_token(logits, seen, {.temperature = 0, .repetition_penalty = 1.5}, 0) == 4);
    // an id of the prompt beyond the logits that are drawn from is of no account
    const sampling_options most{.temperature = 0, .repetition_penalty = 1.5};
    CHECK(sample_token(logits, std::vector<row_index>{3, 700}, most, 0) ==
          sample_token(logits, std::vector<row_index>{3}, most, 0));
    const auto a = draws({.repetition_penalty = 2}, 20000, seen);
    double total = 0;
    const std::vector<double> z{0, 1, 1, -2, 2};
    for (double v : z) total += std::exp(v);
    for (std::size_t i = 0; i < z.size(); ++i) {
        const double p = std::exp(z[i]) / total;
        const auto found = a.find(static_cast<row_index>(i));
        CHECK((found == a.end() ? 0 : found->second) / 20000.0 == Approx(p).margin(5 * std::sqrt(p / 20000)));
    }
}

TEST_CASE("sampling: bad options and broken logits are refused") {
    CHECK_SENTENCE((sampling_options{.temperature = -1}.validate()), "temperature");
    CHECK_SENTENCE((sampling_options{.top_p = 0}.validate()), "top_p");
    CHECK_SENTENCE((sampling_options{.min_p = 2}.validate()), "min_p");
    CHECK_SENTENCE((sampling_options{.repetition_penalty = 0}.validate()), "repetition_penalty");
    CHECK_SENTENCE((sampling_options{.repetition_penalty = std::numeric_limits<double>::infinity()}.validate()),
                   "repetition_penalty");
    CHECK_SENTENCE((sampling_options{.top_k = -1}.validate()), "top_k");
    const std::vector<float> broken{0.f, std::numeric_limits<float>::quiet_NaN()};
    CHECK_SENTENCE(sample_token(broken, {}, {}, 0), "NaN");
}

}  // namespace spectral::test::sampling_test
