// SPDX-License-Identifier: Apache-2.0
// tests/ops/random_features_test.cpp: random Fourier features: values, kernel estimate, gradient
#include <spectral/ops/random_features.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::random_features_test {

// An argument p is a sum of d terms; cos and sin pass its error on at most as it is.
TEMPLATE_LIST_TEST_CASE("random_features: forward and backward", "[ops][random_features]", targets) {
    for (index n : {0, 1, 2, 3, 7, 17, 500})
        over(std::vector<std::array<index, 2>>{{1, 1}, {5, 3}, {16, 16}, {17, 31}, {32, 33}, {97, 48}, {256, 64}},
             [&](index d, index r) {
                 check_against_reference<TestType>(
                     "random_features", shape(n, d, r), 2.0 * static_cast<double>(d + r), [&](auto& on) {
                         auto omega = on.input(d, r, normals(d * r, 2));
                         auto phi = on.output(n, 2 * r), dL_dphi = on.state(n, 2 * r, normals(n * 2 * r, 3)),
                              dL_dx = on.state(n, d, normals(n * d, 4));
                         random_features_forward(on.ex, on.input(n, d, normals(n * d, 1)), omega, phi);
                         random_features_backward(on.ex, dL_dphi, phi, omega, dL_dx);
                         const double scale = std::sqrt(static_cast<double>(d));
                         return outputs{{"phi", on.read(phi), scale},
                                        {"dL_dx", on.read(dL_dx), scale}};  // dL_dphi is scratch afterwards
                     });
             });
}

TEMPLATE_LIST_TEST_CASE("random_features: cos² + sin² = 1, and inner products are means of cosines",
                        "[ops][random_features]", targets) {
    using T = typename TestType::scalar;
    const index n = 4, d = 5, r = 33;
    workbench<TestType> on;
    auto phi = on.output(n, 2 * r);
    random_features_forward(on.ex, on.input(n, d, normals(n * d, 1)), on.input(d, r, normals(d * r, 2)), phi);
    const auto p = on.read(phi);
    const auto at = [&](index row, index c) { return p[static_cast<std::size_t>(row * 2 * r + c)]; };
    for (index row = 0; row < n; ++row)
        for (index i = 0; i < r; ++i)
            CHECK(std::abs(at(row, i) * at(row, i) + at(row, r + i) * at(row, r + i) - 1) < allowed<T>(4, 1));
    workbench<TestType> zero;
    auto at_zero = zero.output(1, 2);
    random_features_forward(zero.ex, zero.input(1, 1, {0}), zero.input(1, 1, {3}), at_zero);
    CHECK(zero.read(at_zero) == std::vector<double>{1, 0});
    // p = x ω / √R by hand: x = 2, ω = (0.25, 0.5, 1, 0.125), R = 4
    workbench<TestType> hand;
    auto features = hand.output(1, 8);
    random_features_forward(hand.ex, hand.input(1, 1, {2}), hand.input(1, 4, {0.25, 0.5, 1, 0.125}), features);
    std::vector<double> want;
    for (double angle : {0.25, 0.5, 1.0, 0.125}) want.push_back(std::cos(angle));
    for (double angle : {0.25, 0.5, 1.0, 0.125}) want.push_back(std::sin(angle));
    compare(hand.read(features), want, allowed<T>(4, 1),
            {"random_features_forward", "by hand", TestType::executor_name(), scalar_name<T>, "(1, 8)"});
}

TEST_CASE("random_features: gradients", "[ops][random_features]") {
    workbench<oracle> on;
    const index n = 3, d = 4, r = 5;
    const auto dL_dphi = normals(n * 2 * r, 3);
    auto x = on.state(n, d, normals(n * d, 1)),
         dL_dx = on.state(n, d, std::vector<double>(static_cast<std::size_t>(n * d)));
    auto omega = on.input(d, r, normals(d * r, 2));
    auto phi = on.output(n, 2 * r);
    const auto loss = [&] { return random_features_forward(on.ex, x, omega, phi), dot(dL_dphi, on.read(phi)); };
    loss();
    random_features_backward(on.ex, on.state(n, 2 * r, dL_dphi), phi, omega, dL_dx);
    require_gradient(on.ex, x, dL_dx, loss, "random_features: x");
}

TEMPLATE_LIST_TEST_CASE("random_features: a NaN row stays alone", "[ops][random_features]", targets) {
    using T = typename TestType::scalar;
    const index n = 7, d = 17, r = 9, bad = 2;
    const auto x = normals(n * d, 1);
    const auto run = [&](const std::vector<double>& values) {
        workbench<TestType> on;
        auto phi = on.output(n, 2 * r);
        random_features_forward(on.ex, on.input(n, d, values), on.input(d, r, normals(d * r, 2)), phi);
        return on.read(phi);
    };
    check_nan_stays(
        run(x), run(with_nan_row(x, d, bad)), 2 * r, bad,
        {"random_features_forward", "with a NaN row", TestType::executor_name(), scalar_name<T>, shape(n, d, r)},
        allowed<T>(d, 4));
}

TEST_CASE("random_features: errors", "[ops][random_features]") {
    workbench<oracle> on;
    auto x = on.input(2, 4, normals(8, 1)), omega = on.input(4, 3, normals(12, 1)),
         wrong_omega = on.input(3, 3, normals(9, 1));
    auto phi = on.output(2, 6), wrong = on.output(2, 3);
    check_throws([&] { random_features_forward(on.ex, x, wrong_omega, phi); },
                 {"random_features_forward", "omega", "expected 4", "found 3"});
    check_throws([&] { random_features_forward(on.ex, x, omega, wrong); },
                 {"random_features_forward", "phi", "(2, 6)", "(2, 3)"});
    check_throws([&] { random_features_backward(on.ex, phi, phi, omega, wrong); },
                 {"random_features_backward", "dL_dx", "(2, 4)", "(2, 3)"});
}

}  // namespace spectral::test::random_features_test
