// SPDX-License-Identifier: Apache-2.0
// tests/ops/dropout_test.cpp: the mask: from the draw alone, the same in both directions and on every executor
#include <spectral/ops/dropout.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::dropout_test {

namespace {
const random_stream draw{99, stream_of("dropout_test")};
}

// rounding of x / (1 - p) or x * (1 / (1 - p)): two operations; a mask that differs anywhere fails
TEMPLATE_LIST_TEST_CASE("dropout: values and mask", "[ops][dropout]", targets) {
    over(edge_shapes(), [&](index n, index c) {
        for (double p : {0.0, 0.1, 0.5, 0.99})
            for (bool in_place : {false, true})
                check_against_reference<TestType>("dropout", shape(n, c), 2, [&](auto& on) {
                    auto y = in_place ? on.state(n, c, normals(n * c, 1)) : on.output(n, c);
                    if (in_place)
                        dropout(on.ex, y, p, draw, y);
                    else
                        dropout(on.ex, on.input(n, c, normals(n * c, 1)), p, draw, y);
                    return outputs{{"y", on.read(y)}};
                });
    });
}

TEMPLATE_LIST_TEST_CASE("dropout: the mask is the documented one", "[ops][dropout]", targets) {
    workbench<TestType> on;
    const index n = 5, c = 33;
    const double p = 0.3;
    auto y = on.output(n, c);
    dropout(on.ex, on.input(n, c, std::vector<double>(static_cast<std::size_t>(n * c), 1)), p, draw, y);
    const auto got = on.read(y);
    for (std::size_t i = 0; i < got.size(); ++i) {
        const bool keep = draw.bits(i) >= probability_threshold(p);
        // one rounding of the factor, one of the product
        CHECK(std::abs(got[i] - (keep ? 1 / 0.7 : 0)) <= allowed<typename TestType::scalar>(2, 1 / 0.7));
    }
}

TEMPLATE_LIST_TEST_CASE("dropout: shares and means", "[ops][dropout]", targets) {
    workbench<TestType> on;
    const index n = 100, c = 500;
    for (double p : {0.1, 0.5}) {
        auto y = on.output(n, c);
        dropout(on.ex, on.input(n, c, std::vector<double>(static_cast<std::size_t>(n * c), 1)), p, draw, y);
        double kept = 0, sum = 0;
        for (double v : on.read(y)) kept += v != 0, sum += v;
        const double size = static_cast<double>(n * c), five_sigma = 5 * std::sqrt(p * (1 - p) / size);
        CHECK(std::abs(kept / size - (1 - p)) < five_sigma);
        CHECK(std::abs(sum / size - 1) < five_sigma / (1 - p));
    }
}

TEST_CASE("dropout: backward is the same call on the gradient", "[ops][dropout]") {
    workbench<oracle> on;
    const index n = 3, c = 7;
    const auto dL_dy = normals(n * c, 2);
    auto x = on.state(n, c, normals(n * c, 1)), y = on.output(n, c), dL_dx = on.output(n, c);
    dropout(on.ex, on.input(n, c, dL_dy), 0.4, draw, dL_dx);
    require_gradient(
        on.ex, x, dL_dx, [&] { return dropout(on.ex, x, 0.4, draw, y), dot(dL_dy, on.read(y)); }, "dropout: x");
}

TEST_CASE("dropout: errors", "[ops][dropout]") {
    workbench<oracle> on;
    auto x = on.input(2, 3, normals(6, 1));
    auto y = on.output(2, 3), wrong = on.output(3, 2);
    for (double p : {-0.1, 1.0, nan})
        check_throws([&] { dropout(on.ex, x, p, draw, y); }, {"dropout", "probability", "[0, 1)"});
    check_throws([&] { dropout(on.ex, x, 0.5, draw, wrong); }, {"dropout", "y", "(2, 3)", "(3, 2)"});
}

}  // namespace spectral::test::dropout_test
