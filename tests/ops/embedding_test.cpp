// SPDX-License-Identifier: Apache-2.0
// tests/ops/embedding_test.cpp: rows of a table by id, and the gradient of the table
#include <spectral/ops/embedding.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::embedding_test {

namespace {
constexpr index vocabulary = 11;

template <class On>
outputs forward(On& on, index n, index c, write mode) {
    auto y = on.state(n, c, normals(n * c, 3));
    embedding_forward(on.ex, on.ids(random_ids(n, vocabulary, 1)), on.input(vocabulary, c, normals(vocabulary * c, 2)),
                      y, mode);
    return {{"y", on.read(y)}};
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("embedding_forward", "[ops][embedding]", targets) {
    over(edge_shapes(), [&](index n, index c) {
        for (write mode : {write::overwrite, write::accumulate})
            check_against_reference<TestType>("embedding_forward", shape(n, c), 1,
                                              [&](auto& on) { return forward(on, n, c, mode); });
    });
}

TEMPLATE_LIST_TEST_CASE("embedding_forward: a table kept as bfloat16", "[ops][embedding]", targets) {
    over(edge_shapes(), [&](index n, index c) {
        for (write mode : {write::overwrite, write::accumulate})
            check_against_reference<TestType>("embedding_forward, narrow", shape(n, c), 1,
                                              [&, table = narrow_after_oracle()](auto& on) mutable {
                                                  auto y = on.state(n, c, normals(n * c, 3));
                                                  embedding_forward(on.ex, on.ids(random_ids(n, vocabulary, 1)),
                                                                    table(on, vocabulary, c, 2), y, mode);
                                                  return outputs{{"y", on.read(y)}};
                                              });
    });
}

TEST_CASE("embedding_forward copies rows", "[ops][embedding]") {
    workbench<oracle> on;
    auto y = on.output(3, 2);
    embedding_forward(on.ex, on.ids({2, 0, 2}), on.input(3, 2, {1, 2, 3, 4, 5, 6}), y);
    CHECK(on.read(y) == std::vector<double>{5, 6, 1, 2, 5, 6});
    embedding_forward(on.ex, on.ids({1, 1, 1}), on.input(3, 2, {1, 2, 3, 4, 5, 6}), y, write::accumulate);
    CHECK(on.read(y) == std::vector<double>{8, 10, 4, 6, 8, 10});
}

TEMPLATE_LIST_TEST_CASE("embedding_backward: repeated ids add up", "[ops][embedding]", targets) {
    for (index n : {0, 1, 2, 17, 257})
        for (index c : edge_widths)
            check_against_reference<TestType>("embedding_backward", shape(n, c), 50, [&](auto& on) {
                auto dL_dtable = on.gradient(vocabulary, c, normals(vocabulary * c, 4));
                embedding_backward(on.ex, on.ids(random_ids(n, vocabulary, 1)), on.input(n, c, normals(n * c, 5)),
                                   dL_dtable);
                return outputs{{"dL_dtable", on.read(dL_dtable)}};
            });
}

TEST_CASE("embedding: gradient", "[ops][embedding]") {
    workbench<oracle> on;
    const index n = 9, c = 5;
    const auto dL_dy = normals(n * c, 6);
    auto ids = on.ids(random_ids(n, vocabulary, 7));
    auto table = on.state(vocabulary, c, normals(vocabulary * c, 8)),
         dL_dtable = on.gradient(vocabulary, c, std::vector<double>(vocabulary * c));
    auto y = on.output(n, c);
    embedding_backward(on.ex, ids, on.input(n, c, dL_dy), dL_dtable);
    require_gradient(
        on.ex, table, dL_dtable,
        [&] {
            embedding_forward(on.ex, ids, table, y);
            return dot(dL_dy, on.read(y));
        },
        "embedding: table");
}

TEST_CASE("embedding: errors", "[ops][embedding]") {
    workbench<oracle> on;
    auto y = on.output(3, 4);
    check_throws(
        [&] {
            embedding_forward(on.ex, on.ids({0, 1}), on.input(2, 4, normals(8, 1)), y);
        },
        {"embedding_forward", "y", "(2, 4)", "(3, 4)"});
    check_throws(
        [&] {
            embedding_backward(on.ex, on.ids({0, 1}), on.input(2, 5, normals(10, 1)), y);
        },
        {"embedding_backward", "dL_dy", "(2, 4)", "(2, 5)"});
}

}  // namespace spectral::test::embedding_test
