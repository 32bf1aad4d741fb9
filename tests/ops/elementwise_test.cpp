// SPDX-License-Identifier: Apache-2.0
// tests/ops/elementwise_test.cpp: sums, copies and column orders of equal shapes
#include <spectral/ops/elementwise.hpp>
#include <support/operator_test.hpp>

#include <numeric>

namespace spectral::test::elementwise_test {

TEMPLATE_LIST_TEST_CASE("add, add_constant, copy, permute_columns", "[ops][elementwise]", targets) {
    over(edge_shapes(), [&](index n, index c) {
        std::vector<row_index> order(static_cast<std::size_t>(c));
        for (index i = 0; i < c; ++i) order[static_cast<std::size_t>(i)] = static_cast<row_index>((i * 7 + 3) % c);
        check_against_reference<TestType>("elementwise", shape(n, c), 3, [&](auto& on) {
            auto x = on.input(n, c, normals(n * c, 1));
            auto sum = on.state(n, c, normals(n * c, 2)), scaled = on.state(n, c, normals(n * c, 2));
            auto shifted = on.state(n, c, normals(n * c, 3)), copied = on.output(n, c), permuted = on.output(n, c);
            add(on.ex, x, sum);
            add(on.ex, x, scaled, -0.3);
            add_constant(on.ex, shifted, 1.7);
            copy(on.ex, x, copied);
            permute_columns(on.ex, x, on.ids(order), permuted);
            return outputs{{"add", on.read(sum)},
                           {"add scaled", on.read(scaled)},
                           {"add_constant", on.read(shifted)},
                           {"copy", on.read(copied)},
                           {"permute_columns", on.read(permuted)}};
        });
    });
}

TEMPLATE_LIST_TEST_CASE("elementwise by hand", "[ops][elementwise]", targets) {
    workbench<TestType> on;
    auto x = on.input(2, 3, {1, 2, 3, 4, 5, 6});
    auto y = on.state(2, 3, {10, 20, 30, 40, 50, 60}), z = on.output(2, 3);
    add(on.ex, x, y, -2);
    CHECK(on.read(y) == std::vector<double>{8, 16, 24, 32, 40, 48});
    add_constant(on.ex, y, -8);
    CHECK(on.read(y) == std::vector<double>{0, 8, 16, 24, 32, 40});
    permute_columns(on.ex, x, on.ids({2, 0, 1}), z);
    CHECK(on.read(z) == std::vector<double>{3, 1, 2, 6, 4, 5});
    copy(on.ex, x, z);
    CHECK(on.read(z) == on.read(x));
    add(on.ex, z, z);  // the same memory: y = 2 y
    CHECK(on.read(z) == std::vector<double>{2, 4, 6, 8, 10, 12});
}

TEMPLATE_LIST_TEST_CASE("elementwise: a NaN stays where it is", "[ops][elementwise]", targets) {
    workbench<TestType> on;
    const index c = 33;
    auto x = on.input(3, c, with_nan_row(normals(3 * c, 1), c, 1));
    auto sum = on.state(3, c, normals(3 * c, 2)), copied = on.output(3, c);
    add(on.ex, x, sum);
    copy(on.ex, x, copied);
    for (index i = 0; i < 3 * c; ++i) {
        CHECK(std::isnan(on.read(sum)[static_cast<std::size_t>(i)]) == (i == c + c / 2));
        CHECK(std::isnan(on.read(copied)[static_cast<std::size_t>(i)]) == (i == c + c / 2));
    }
}

TEST_CASE("elementwise: errors", "[ops][elementwise]") {
    workbench<oracle> on;
    auto x = on.input(2, 4, normals(8, 1));
    auto wrong = on.output(2, 3), y = on.output(2, 4);
    check_throws([&] { add(on.ex, x, wrong); }, {"add", "x", "(2, 3)", "(2, 4)"});
    check_throws([&] { copy(on.ex, x, wrong); }, {"copy", "x", "(2, 3)", "(2, 4)"});
    check_throws([&] { permute_columns(on.ex, x, on.ids({0, 1}), y); }, {"permute_columns", "order", "(4)", "(2)"});
    check_throws(
        [&] {
            permute_columns(on.ex, x, on.ids({0, 1, 2, 3}), wrong);
        },
        {"permute_columns", "y", "(2, 4)", "(2, 3)"});
}

}  // namespace spectral::test::elementwise_test
