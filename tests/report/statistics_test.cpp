// SPDX-License-Identifier: Apache-2.0
// tests/report/statistics_test.cpp: intervals and correlations against values worked out by hand
#include <spectral/report/statistics.hpp>

#include "support/catch.hpp"

namespace spectral::test {

namespace {
using numbers = std::vector<double>;
bool near(double a, double b, double error = 1e-12) { return std::abs(a - b) <= error; }
}  // namespace

TEST_CASE("mean and variance", "[report][statistics]") {
    CHECK(mean_of({}) == 0);
    CHECK(mean_of({1, 2, 6}) == 3);
    CHECK(variance_of({5}) == 0);
    CHECK(variance_of({1, 2, 6}) == 7);  // (4 + 1 + 9) / 2
}

TEST_CASE("correlation, and with a third quantity held fixed", "[report][statistics]") {
    const numbers x{1, 2, 3, 4}, y{1, 3, 2, 4}, z{1, 1, -1, -1};
    CHECK(near(correlation(x, y), 0.8));  // 4 / √(5 · 5)
    CHECK(near(correlation(x, {-2, -4, -6, -8}), -1));
    CHECK(correlation(x, {3, 3, 3, 3}) == 0);
    // r = 0.8, −4/√20, −2/√20: (0.8 − 0.4) / √(0.2 · 0.8)
    CHECK(near(partial_correlation(x, y, z), 1));
    CHECK(partial_correlation(z, y, z) == 0);
    CHECK_THROWS(correlation(x, {1, 2}));
}

TEST_CASE("dealt_by: the largest values to the largest keys, equal keys share", "[report][statistics]") {
    CHECK(dealt_by({1, 2, 2, 3}, {10, 0, 4, 2}) == numbers{0, 3, 3, 10});
    CHECK(dealt_by({3, 1, 2}, {1, 2, 3}) == numbers{3, 1, 2});
}

TEST_CASE("student_interval", "[report][statistics]") {
    const auto three = student_interval({1, 2, 3});  // 2 ± 4.303 / √3
    CHECK(near(three.low, 2 - 4.303 / std::sqrt(3.0)));
    CHECK(near(three.high, 2 + 4.303 / std::sqrt(3.0)));
    const auto two = student_interval({0, 2});  // 1 ± 12.706 √(2 / 2)
    CHECK(near(two.low, 1 - 12.706));
    CHECK(student_interval({4}).low == 4);
}

TEST_CASE("bootstrap_difference", "[report][statistics]") {
    const auto certain = bootstrap_difference({2, 2}, {1, 1, 1}, 100);
    CHECK(certain.low == 1);
    CHECK(certain.high == 1);
    CHECK(bootstrap_difference({}, {1}, 100).high == 0);
    // a hundred coins: half ± 1.96 · 0.05
    numbers coins(100, 0);
    std::fill(coins.begin(), coins.begin() + 50, 1);
    const auto half = bootstrap_difference(coins, {}, 2000, 7);
    CHECK(near(half.low, 0.5 - 0.098, 0.015));
    CHECK(near(half.high, 0.5 + 0.098, 0.015));
    CHECK(bootstrap_difference(coins, {}, 2000, 7).low == half.low);
}

}  // namespace spectral::test
