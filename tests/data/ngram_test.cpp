// SPDX-License-Identifier: Apache-2.0
// tests/data/ngram_test.cpp: Kneser-Ney worked by hand, sums of probabilities, units of the scores
#include <spectral/data/ngram.hpp>

#include "support/catch.hpp"

#include <spectral/core/random.hpp>

namespace ngram_test {
using spectral::index;
using spectral::ngram_model;
using spectral::row_index;

// a chain in which w follows h far more often if w = h + 1: 40 of 50 ids occur
std::vector<row_index> chain(std::size_t n, std::uint64_t seed) {
    const spectral::random_stream draw{seed, 1};
    std::vector<row_index> out{0};
    for (std::uint64_t i = 0; out.size() < n; ++i)
        out.push_back(draw.uniform(2 * i) < 0.5
                          ? (out.back() + 1) % 40
                          : static_cast<row_index>(40 * draw.uniform(2 * i + 1) * draw.uniform(2 * i + 1)));
    return out;
}

TEST_CASE("probabilities sum to 1 in every context, seen or not", "[data]") {
    for (std::size_t n : {2, 3, 10, 100, 5000}) {
        const ngram_model model(chain(n, 3), 50);
        double sum = 0;
        for (row_index w = 0; w < 50; ++w) {
            CHECK(model.probability(w) > 0);
            sum += model.probability(w);
        }
        CHECK(sum == Approx(1).epsilon(1e-12));
        for (row_index h = 0; h < 50; ++h) {
            sum = 0;
            for (row_index w = 0; w < 50; ++w) {
                REQUIRE(model.probability(w, h) > 0);
                sum += model.probability(w, h);
            }
            CHECK(sum == Approx(1).epsilon(1e-12));
        }
    }
}

TEST_CASE("a small corpus worked by hand", "[data]") {
    // tokens 0 1 0 1 0 2, V = 4. Unigram counts 3 2 1 0: n1 = 1, n2 = 1, D1 = 1/3.
    // Bigrams 01 x2, 10 x2, 02 x1: n1 = 1, n2 = 2, D2 = 1/5. Predecessors of 0, 1, 2: 1 1 1, so P = 3, Dq = 3/3 = 1.
    const ngram_model model(std::vector<row_index>{0, 1, 0, 1, 0, 2}, 4);
    const double d1 = 1.0 / 3, d2 = 0.2, q = (0 + 1.0 * 3 / 4) / 3;
    CHECK(model.probability(0) == Approx((3 - d1 + d1 * 3 / 4) / 6));
    CHECK(model.probability(3) == Approx((d1 * 3 / 4) / 6));
    CHECK(model.probability(1, 0) == Approx((2 - d2 + d2 * 2 * q) / 3));
    CHECK(model.probability(2, 0) == Approx((1 - d2 + d2 * 2 * q) / 3));
    CHECK(model.probability(3, 0) == Approx((d2 * 2 * q) / 3));
    CHECK(model.probability(0, 1) == Approx((2 - d2 + d2 * 1 * q) / 2));
    CHECK(model.probability(1, 2) == Approx(q));  // 2 ends the corpus: never a context
    const auto s = model.score(std::vector<row_index>{3, 0, 1});
    CHECK(s.targets == 2);
    CHECK(s.unigram_nats == Approx(-std::log(model.probability(0)) - std::log(model.probability(1))));
    CHECK(s.bigram_nats == Approx(-std::log(q) - std::log(model.probability(1, 0))));
}

TEST_CASE("a bigram model gains from order and a unigram model does not", "[data]") {
    const auto train = chain(20000, 1), valid = chain(5000, 2);
    const ngram_model model(train, 50);
    const auto s = model.score(valid);
    CHECK(s.bigram_perplexity() < 0.5 * s.unigram_perplexity());
    CHECK(s.unigram_perplexity() < 50);
    auto sorted = valid;  // the same words, their order destroyed
    std::sort(sorted.begin() + 1, sorted.end());
    CHECK(model.score(sorted).unigram_nats == Approx(s.unigram_nats));
    CHECK(model.score(sorted).bigram_nats > s.bigram_nats);
}

TEST_CASE("continuation counts, not frequency, stand in for unseen bigrams", "[data]") {
    // 9 is frequent but only ever follows 8; 5 is rarer but follows many
    std::vector<row_index> tokens;
    for (int i = 0; i < 20; ++i) tokens.insert(tokens.end(), {8, 9});
    for (row_index h : {0, 1, 2, 3}) tokens.insert(tokens.end(), {h, 5});
    const ngram_model model(tokens, 12);
    CHECK(model.probability(9) > model.probability(5));
    CHECK(model.probability(5, 11) > model.probability(9, 11));
}

TEST_CASE("units", "[data]") {
    CHECK(spectral::perplexity(10 * std::log(7.0), 10) == Approx(7));
    CHECK(spectral::bits_per_byte(16 * std::log(2.0), 8) == Approx(2));
    CHECK(spectral::word_perplexity(6 * std::log(2.0), 2) == Approx(8));
    CHECK(spectral::count_words(" = Title = \n a b\tc\n \n", false) == 6);
    CHECK(spectral::count_words(" = Title = \n a b\tc\n \n", true) == 9);
    CHECK(spectral::count_words("", true) == 0);
    CHECK(spectral::count_words("last", true) == 1);
}

TEST_CASE("what cannot be counted is refused", "[data]") {
    CHECK_THROWS_WITH(ngram_model(std::vector<row_index>{1}, 4),
                      "ngram_model: training tokens: expected at least 2, found 1");
    CHECK_THROWS_WITH(ngram_model(std::vector<row_index>{1, 4}, 4), "ngram_model: id: expected 0 to 3, found 4");
    const ngram_model model(std::vector<row_index>{1, 2}, 4);
    CHECK_THROWS_WITH(model.score(std::vector<row_index>{1, -1}), "ngram_model: id: expected 0 to 3, found -1");
    CHECK_THROWS_WITH(model.score(std::vector<row_index>{}),
                      "ngram_model: validation tokens: expected at least 2, found 0");
}

}  // namespace ngram_test
