// SPDX-License-Identifier: Apache-2.0
// tests/ops/decision_test.cpp: argmax, thresholds, coins by position, picks and one-hot rows
#include <spectral/ops/decision.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::decision_test {

TEMPLATE_LIST_TEST_CASE("argmax_rows: the first of the largest; threshold_rows: strictly above", "[ops][decision]",
                        targets) {
    workbench<TestType> on;
    auto op = on.template output<row_index>(6);
    argmax_rows(on.ex, on.state(6, 3, {1, 2, 3, 3, 2, 3, 2, 2, 1, -5, -4, -4, 0, 0, 0, -1, -2, -3}), op);
    CHECK(on.read(op) == std::vector<double>{2, 0, 0, 1, 0, 0});
    auto levels = on.template output<row_index>(5);
    auto values = on.state({0.25, 0.5, 0.75, 0.5000001, -1});
    threshold_rows(on.ex, values, std::vector<double>{0.5}, levels);
    CHECK(on.read(levels) == std::vector<double>{0, 0, 1, 1, 0});
    threshold_rows(on.ex, values, std::vector<double>{0.25, 0.5, 0.7}, levels);
    CHECK(on.read(levels) == std::vector<double>{0, 1, 3, 2, 0});
    on.check_untouched("argmax_rows, threshold_rows");

    for (index n : edge_rows)
        for (index K : {1, 2, 3, 4})
            check_against_reference<TestType>("argmax_rows, threshold_rows", shape(n, K), 1, [&](auto& case_on) {
                auto choice = case_on.template output<row_index>(n), level = case_on.template output<row_index>(n);
                argmax_rows(case_on.ex, case_on.state(n, K, normals(n * K, 1)), choice);
                threshold_rows(case_on.ex, case_on.state(normals(n, 2)), std::vector<double>{-0.5, 0.5}, level);
                return outputs{{"argmax", case_on.read(choice)}, {"level", case_on.read(level)}};
            });
}

TEMPLATE_LIST_TEST_CASE("pick_columns and one_hot_rows", "[ops][decision]", targets) {
    for (index n : edge_rows)
        for (index K : {1, 2, 3, 4})
            check_against_reference<TestType>("pick_columns, one_hot_rows", shape(n, K), 1, [&](auto& on) {
                auto op = on.ids(random_ids(n, K, 1));
                auto picked = on.output(n, 1), dL_ds = on.output(n, K), hot = on.output(n, K);
                pick_columns_forward(on.ex, on.input(n, K, normals(n * K, 2)), op, picked);
                pick_columns_backward(on.ex, on.input(n, 1, normals(n, 3)), op, dL_ds);
                one_hot_rows(on.ex, op, hot);
                return outputs{{"picked", on.read(picked)}, {"dL_ds", on.read(dL_ds)}, {"one_hot", on.read(hot)}};
            });
    workbench<TestType> on;
    auto op = on.ids({2, 0});
    auto picked = on.output(2, 1), dL_ds = on.output(2, 3), hot = on.output(2, 3);
    pick_columns_forward(on.ex, on.input(2, 3, {1, 2, 3, 4, 5, 6}), op, picked);
    pick_columns_backward(on.ex, on.input(2, 1, {7, 8}), op, dL_ds);
    one_hot_rows(on.ex, op, hot);
    CHECK(on.read(picked) == std::vector<double>{3, 4});
    CHECK(on.read(dL_ds) == std::vector<double>{0, 0, 7, 8, 0, 0});
    CHECK(on.read(hot) == std::vector<double>{0, 0, 1, 1, 0, 0});
}

TEMPLATE_LIST_TEST_CASE("random_rows: a coin by position, the same on every executor", "[ops][decision]", targets) {
    const random_stream draw{3, 4};
    for (double share : {0.0, 0.3, 1.0}) {
        workbench<TestType> on;
        const auto position = random_ids(1000, 5000, 1);
        auto op = on.template output<row_index>(1000);
        random_rows(on.ex, on.ids(position), draw, share, op);
        const auto got = on.read(op);
        double ones = 0;
        for (std::size_t i = 0; i < got.size(); ++i) {
            CHECK(got[i] ==
                  (draw.bits(static_cast<std::uint64_t>(position[i])) < probability_threshold(share) ? 1 : 0));
            ones += got[i];
        }
        CHECK(std::abs(ones / 1000 - share) < 5 * std::sqrt(share * (1 - share) / 1000) + 1e-9);
        on.check_untouched("random_rows");
    }
}

TEST_CASE("decisions: errors", "[ops][decision]") {
    workbench<oracle> on;
    auto x = on.input(2, 4, normals(8, 1));
    auto s = on.output(2, 3), column = on.output(2, 1);
    auto g2 = on.output(2);
    auto op = on.output<row_index>(2), op3 = on.output<row_index>(3);
    check_throws([&] { argmax_rows(on.ex, s, op3); }, {"argmax_rows", "op", "(2)", "(3)"});
    check_throws([&] { threshold_rows(on.ex, g2, std::vector<double>{}, op); },
                 {"threshold_rows", "1 to 3", "found 0"});
    check_throws([&] { pick_columns_forward(on.ex, x, op, s); },
                 {"pick_columns_forward", "picked", "(2, 1)", "(2, 3)"});
    check_throws([&] { pick_columns_backward(on.ex, column, op3, s); }, {"pick_columns_backward", "op", "(2)", "(3)"});
    check_throws([&] { one_hot_rows(on.ex, op3, s); }, {"one_hot_rows", "op", "(2)", "(3)"});
    check_throws([&] { random_rows(on.ex, op, {}, 1.5, op); }, {"random_rows", "[0, 1]", "1.5"});
}

}  // namespace spectral::test::decision_test
