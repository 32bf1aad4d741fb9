// SPDX-License-Identifier: Apache-2.0
// tests/core/rows_test.cpp: packed sequences and selections
#include <spectral/core/rows.hpp>
#include <spectral/core/tensor.hpp>
#include <support/catch.hpp>
#include <support/executors.hpp>

namespace spectral::test {

using list = std::vector<row_index>;

TEMPLATE_LIST_TEST_CASE("pack_rows: begin, end, position, sequence", "[core][rows]", targets) {
    auto& ex = TestType::instance();
    arena_scope scope(ex);
    const row_map map = pack_rows(ex, std::vector<index>{2, 0, 3, 1});
    CHECK(map.sequences() == 4);
    CHECK(map.rows() == 6);
    CHECK(to_host(ex, map.begin) == list{0, 2, 2, 5});
    CHECK(to_host(ex, map.end) == list{2, 2, 5, 6});
    CHECK(to_host(ex, map.position) == list{0, 1, 0, 1, 2, 0});
    CHECK(to_host(ex, map.sequence) == list{0, 0, 2, 2, 2, 3});
}

TEMPLATE_LIST_TEST_CASE("pack_rows: decoding continues later in a sequence", "[core][rows]", targets) {
    auto& ex = TestType::instance();
    arena_scope scope(ex);
    const row_map map = pack_rows(ex, std::vector<index>{1, 2}, std::vector<index>{7, 3});
    CHECK(to_host(ex, map.position) == list{7, 3, 4});
    CHECK(to_host(ex, map.sequence) == list{0, 1, 1});
}

TEMPLATE_LIST_TEST_CASE("pack_rows: nothing, and negative lengths", "[core][rows]", targets) {
    auto& ex = TestType::instance();
    arena_scope scope(ex);
    const row_map none = pack_rows(ex, std::vector<index>{});
    CHECK(none.sequences() == 0);
    CHECK(none.rows() == 0);
    CHECK(uniform_rows(ex, 3, 0).sequences() == 3);
    CHECK_THROWS_AS(pack_rows(ex, std::vector<index>{2, -1}), error);
    const row_map even = uniform_rows(ex, 2, 2);
    CHECK(to_host(ex, even.position) == list{0, 1, 0, 1});
    CHECK(to_host(ex, even.end) == list{2, 4});
}

TEMPLATE_LIST_TEST_CASE("select_list: row numbers and their count", "[core][rows]", targets) {
    auto& ex = TestType::instance();
    arena_scope scope(ex);
    for (const list& rows : {list{0, 2, 5}, list{5}, list{}}) {
        const selection s = select_list(ex, rows, 6);
        CHECK(!s.is_all());
        CHECK(s.capacity == 6);
        REQUIRE(selected_rows(ex, s) == static_cast<index>(rows.size()));
        CHECK(to_host(ex, view<const row_index, 1>{s.rows, {static_cast<index>(rows.size())}}) == rows);
    }
}

TEMPLATE_LIST_TEST_CASE("selection: all rows, or a counted list", "[core][rows]", targets) {
    auto& ex = TestType::instance();
    CHECK(selection::all(5).is_all());
    CHECK(selected_rows(ex, selection::all(5)) == 5);
    tensor<typename TestType::executor, row_index> rows(ex, {4}, list{0, 2, 9, 9}), count(ex, {1}, list{2});
    const selection some{rows.data(), count.data(), 4};
    CHECK_FALSE(some.is_all());
    CHECK(selected_rows(ex, some) == 2);
}

}  // namespace spectral::test
