// SPDX-License-Identifier: Apache-2.0
// tests/train/schedule_test.cpp: the learning rate by step
#include "support/catch.hpp"

#include <spectral/train/schedule.hpp>

namespace spectral::test {

TEST_CASE("schedule: warm-up rises in equal steps to the peak") {
    const learning_rate_schedule s{.peak = 1e-3, .last = 1e-5, .warmup = 4, .steps = 104};
    for (index i = 0; i < 4; ++i) CHECK(s.at(i) == Approx(1e-3 * static_cast<double>(i + 1) / 4));
    CHECK(s.at(4) == Approx(1e-3));
}

TEST_CASE("schedule: cosine, linear and constant after warm-up") {
    learning_rate_schedule s{.peak = 1e-3, .last = 1e-5, .warmup = 0, .steps = 100};
    CHECK(s.at(50) == Approx((1e-3 + 1e-5) / 2));
    CHECK(s.at(25) == Approx(1e-5 + (1e-3 - 1e-5) * (1 + std::cos(3.14159265358979 / 4)) / 2));
    CHECK(s.at(100) == Approx(1e-5));
    CHECK(s.at(1000) == Approx(1e-5));
    for (index i = 1; i < 100; ++i) CHECK(s.at(i) < s.at(i - 1));
    s.decay = decay::linear;
    CHECK(s.at(25) == Approx(1e-3 + (1e-5 - 1e-3) * 0.25));
    s.decay = decay::constant;
    CHECK(s.at(99) == 1e-3);
    s = {.peak = 1, .last = 0, .warmup = 10, .steps = 10};  // nothing but warm-up
    CHECK(s.at(10) == 1);
}

}  // namespace spectral::test
