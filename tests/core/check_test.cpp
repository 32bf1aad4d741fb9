// SPDX-License-Identifier: Apache-2.0
// tests/core/check_test.cpp: what an error says, and that checks throw
#include <spectral/core/check.hpp>
#include <spectral/core/view.hpp>
#include <support/catch.hpp>

#include <limits>

namespace spectral::test {

namespace {
template <class F>
std::string message(F&& f) {
    try {
        f();
    } catch (const error& e) {
        return e.what();
    }
    return "nothing thrown";
}
}  // namespace

TEST_CASE("error: one sentence that starts with where", "[core][check]") {
    const error e("linear_forward", "width of x: expected 256, found 255");
    CHECK(std::string(e.what()) == "linear_forward: width of x: expected 256, found 255");
    CHECK(e.where() == "linear_forward");
    CHECK(message([] { fail("here", "a ", 1, ' ', 2.5); }) == "here: a 1 2.5");
    CHECK(message([] { fail("here", -std::numeric_limits<double>::quiet_NaN()); }) == "here: nan");
}

TEST_CASE("check and check_equal", "[core][check]") {
    CHECK(message([] { check(true, "here", "unused"); }) == "nothing thrown");
    CHECK(message([] { check(false, "here", "count ", 3); }) == "here: count 3");
    CHECK(message([] { check_equal(4, 4, "here", "size"); }) == "nothing thrown");
    CHECK(message([] { check_equal(5, 4, "here", "size"); }) == "here: size: expected 4, found 5");
}

TEST_CASE("check_shape names expected and found", "[core][check]") {
    float data[6] = {};
    const matrix_view<float> v{data, {2, 3}};
    CHECK(message([&] { check_shape(v, {2, 3}, "op", "x"); }) == "nothing thrown");
    CHECK(message([&] { check_shape(v, {3, 2}, "op", "x"); }) == "op: shape of x: expected (3, 2), found (2, 3)");
}

}  // namespace spectral::test
