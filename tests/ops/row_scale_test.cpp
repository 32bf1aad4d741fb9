// SPDX-License-Identifier: Apache-2.0
// tests/ops/row_scale_test.cpp: rows times one number each, and the dot products that are its gradient
#include <spectral/ops/row_scale.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::row_scale_test {

TEMPLATE_LIST_TEST_CASE("scale_rows and row_dot, weights a column of a matrix", "[ops][row_scale]", targets) {
    over(edge_shapes(), [&](index n, index c) {
        check_against_reference<TestType>(
            "scale_rows, row_dot", shape(n, c), static_cast<double>(c + 2), [&](auto& on) {
                auto weights = on.statistics(n, 3, normals(n * 3, 1));
                auto x = on.input(n, c, normals(n * c, 2)), z = on.input(n, c, normals(n * c, 3));
                auto y = on.output(n, c), more = on.state(n, c, normals(n * c, 4));
                auto d = on.gradient(n, 3, normals(n * 3, 5));
                scale_rows(on.ex, x, weights.columns(1, 1), y);
                scale_rows(on.ex, x, weights.columns(2, 1), more, write::accumulate);
                row_dot(on.ex, x, z, d.columns(1, 1));  // the columns beside it keep their values
                return outputs{{"y", on.read(y)}, {"y accumulated", on.read(more)}, {"d", on.read(d)}};
            });
    });
}

TEST_CASE("scale_rows and row_dot: gradients", "[ops][row_scale]") {
    workbench<oracle> on;
    const index n = 6, d = 4;
    // y = c x: dL_dc = row_dot(dL_dy, x), dL_dx = scale_rows(dL_dy, c)
    const auto dL_dy = normals(n * d, 3);
    auto x = on.state(n, d, normals(n * d, 1)), c = on.state(n, 1, normals(n, 2)), y = on.output(n, d),
         dL_dx = on.output(n, d), dL_dc = on.output(n, 1);
    auto dy = on.input(n, d, dL_dy);
    scale_rows(on.ex, dy, c, dL_dx);
    row_dot(on.ex, dy, x, dL_dc);
    const auto loss = [&] { return scale_rows(on.ex, x, c, y), dot(dL_dy, on.read(y)); };
    require_gradient(on.ex, x, dL_dx, loss, "scale_rows: x");
    require_gradient(on.ex, c, dL_dc, loss, "scale_rows: c");
}

TEMPLATE_LIST_TEST_CASE("scale_rows: a NaN row stays alone", "[ops][row_scale]", targets) {
    using T = typename TestType::scalar;
    const index n = 7, d = 17, bad = 4;
    const auto x = normals(n * d, 1);
    const auto run = [&](const std::vector<double>& values) {
        workbench<TestType> on;
        auto scaled = on.output(n, d);
        scale_rows(on.ex, on.input(n, d, values), on.statistics(n, 1, normals(n, 5)), scaled);
        return on.read(scaled);
    };
    const subject s{"scale_rows", "with a NaN row", TestType::executor_name(), scalar_name<T>, shape(n, d)};
    check_nan_stays(run(x), run(with_nan_row(x, d, bad)), d, bad, s, allowed<T>(d, 4));
}

TEST_CASE("scale_rows and row_dot: errors", "[ops][row_scale]") {
    workbench<oracle> on;
    auto x = on.input(2, 4, normals(8, 1)), narrow = on.input(3, 4, normals(12, 1));
    auto s = on.output(2, 3), y = on.output(2, 4), column = on.output(2, 1);
    check_throws([&] { scale_rows(on.ex, x, s, y); }, {"scale_rows", "c", "(2, 1)", "(2, 3)"});
    check_throws([&] { row_dot(on.ex, x, narrow, column); }, {"row_dot", "b", "(2, 4)", "(3, 4)"});
}

}  // namespace spectral::test::row_scale_test
