// SPDX-License-Identifier: Apache-2.0
// tests/core/view_test.cpp: views address what they say
#include <spectral/core/view.hpp>
#include <support/catch.hpp>

#include <numeric>
#include <vector>

namespace spectral::test {

TEST_CASE("view: rows, columns and slices of a matrix", "[core][view]") {
    std::vector<int> data(4 * 6);
    std::iota(data.begin(), data.end(), 0);  // element (n, c) is 6 n + c
    const matrix_view<int> m{data.data(), {4, 6}};
    CHECK(m.rows() == 4);
    CHECK(m.width() == 6);
    CHECK(m.size() == 24);
    CHECK(m.contiguous());
    CHECK(m(2, 3) == 15);
    CHECK(*m.row(3) == 18);

    const auto c = m.columns(2, 3);
    CHECK(c.rows() == 4);
    CHECK(c.width() == 3);
    CHECK(c.row_stride == 6);
    CHECK_FALSE(c.contiguous());
    CHECK(c(1, 0) == 8);
    CHECK(c(3, 2) == 22);

    const auto s = c.slice(1, 2);
    CHECK(s.rows() == 2);
    CHECK(s(0, 0) == 8);
    CHECK(s(1, 2) == 16);
    CHECK(m.slice(2, 1).columns(1, 2).contiguous());  // one row is contiguous whatever the stride
}

TEST_CASE("view: higher ranks are stacks of rows", "[core][view]") {
    std::vector<int> data(2 * 3 * 4 * 5);
    const view<int, 4> v{data.data(), {2, 3, 4, 5}};
    CHECK(v.rows() == 24);
    CHECK(v.size() == 120);
    CHECK(v.matrix().rows() == 24);
    CHECK(v.matrix().width() == 5);
    CHECK(v.matrix().data == data.data());
    const auto part = v.columns(1, 2).matrix();
    CHECK(part.row(7) == data.data() + 7 * 5 + 1);
}

TEST_CASE("view: vectors, empty views, constness", "[core][view]") {
    int data[5] = {0, 1, 2, 3, 4};
    const vector_view<int> v{data, {5}};
    CHECK(v.rows() == 1);
    CHECK(v.slice(2, 2)[1] == 3);
    CHECK(vector_view<int>{}.empty());
    CHECK(matrix_view<int>{data, {0, 5}}.empty());
    CHECK(matrix_view<int>{data, {5, 0}}.empty());
    const view<const int, 1> c = v;
    CHECK(c.data == data);
    STATIC_REQUIRE(std::is_convertible_v<matrix_view<int>, view<const int, 2>>);
    STATIC_REQUIRE_FALSE(std::is_convertible_v<view<const int, 2>, matrix_view<int>>);
}

}  // namespace spectral::test
