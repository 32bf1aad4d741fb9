// SPDX-License-Identifier: Apache-2.0
// tests/ops/spectral_entropy_test.cpp: normalised entropy of the power spectrum, its range, its end points and its
// gradient
#include <spectral/ops/spectral_entropy.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::spectral_entropy_test {

namespace {
constexpr dct_norm norms[] = {dct_norm::ortho, dct_norm::reference};
std::vector<double> zeros(index n) { return std::vector<double>(static_cast<std::size_t>(n)); }

// A row that is basis function k of the transform: all of its power in one coefficient
std::vector<double> cosine(index d, index k) {
    std::vector<double> x;
    for (index n = 0; n < d; ++n)
        x.push_back(
            std::cos(3.14159265358979323846 * static_cast<double>((2 * n + 1) * k) / (2.0 * static_cast<double>(d))));
    return x;
}
}  // namespace

// Width 1 is left out: ln 1 + eps = 1e-8 divides a rounding error (by hand below). The gradient's scale is that of
// dL_dX = 2 X / Q a with a up to ln(eps): a coefficient near 0 has slope 18 per unit, so that errors of X weigh as
// much.
TEMPLATE_LIST_TEST_CASE("spectral_entropy: forward and backward", "[ops][spectral_entropy]", targets) {
    over(edge_shapes(), [&](index n, index d) {
        for (dct_norm norm : norms) {
            if (d == 1) continue;
            check_against_reference<TestType>(
                "spectral_entropy", shape(n, d), 4.0 * static_cast<double>(d), [&](auto& on) {
                    auto x = on.input(n, d, normals(n * d, 1));
                    auto entropy = on.output(n);
                    auto dL_dx = on.state(n, d, normals(n * d, 2));
                    spectral_entropy_forward(on.ex, x, norm, entropy);
                    spectral_entropy_backward(on.ex, on.statistics(normals(n, 3)), x, norm, dL_dx);
                    return outputs{{"entropy", on.read(entropy)}, {"dL_dx", on.read(dL_dx), 18}};
                });
        }
    });
}

TEMPLATE_LIST_TEST_CASE("spectral_entropy: widths that a backend may treat apart", "[ops][spectral_entropy]",
                        backends) {
    std::vector<std::array<index, 2>> shapes;
    if (on_cuda(TestType::instance())) shapes.push_back({4100, 97});  // many rows of 97: by products there
    for (index d : widths_apart) shapes.push_back({3, d});
    for (auto [rows, width] : shapes)
        for (dct_norm norm : norms) {
            const index n = rows, d = width;  // lambdas capture no structured bindings
            check_against_reference<TestType>(
                "spectral_entropy", shape(n, d), 4.0 * static_cast<double>(d), [&](auto& on) {
                    auto x = on.input(n, d, normals(n * d, 1));
                    auto entropy = on.output(n);
                    auto dL_dx = on.state(n, d, normals(n * d, 2));
                    spectral_entropy_forward(on.ex, x, norm, entropy);
                    spectral_entropy_backward(on.ex, on.statistics(normals(n, 3)), x, norm, dL_dx);
                    return outputs{{"entropy", on.read(entropy)}, {"dL_dx", on.read(dL_dx), 18}};
                });
        }
}

TEMPLATE_LIST_TEST_CASE("spectral_entropy: a pure cosine has none, a flat spectrum all", "[ops][spectral_entropy]",
                        targets) {
    for (index d : {2, 5, 16, 33, 64, 97, 256}) {
        workbench<TestType> on;
        std::vector<double> x = cosine(d, 0);  // rows: constant, a cosine, the highest cosine, a flat spectrum
        for (index k : {d / 2, d - 1}) {
            const auto row = cosine(d, k);
            x.insert(x.end(), row.begin(), row.end());
        }
        workbench<oracle> exact;
        auto flat = exact.output(1, d);
        idct_forward(exact.ex, exact.input(1, d, std::vector<double>(static_cast<std::size_t>(d), 1)), dct_norm::ortho,
                     flat);
        for (double v : exact.read(flat)) x.push_back(v);
        auto entropy = on.output(4);
        spectral_entropy_forward(on.ex, on.input(4, d, x), dct_norm::ortho, entropy);
        const auto h = on.read(entropy);
        INFO("width " << d << " on " << TestType::executor_name());
        // rows rounded to bfloat16 leak 2^-18 of their power into each coefficient, whose -P ln P is 5e-5
        const double error =
            1e-4 +
            (std::is_same_v<typename TestType::scalar, bfloat16> ? static_cast<double>(d) * 5e-5 / std::log(d) : 0);
        for (int i : {0, 1, 2}) CHECK(std::abs(h[static_cast<std::size_t>(i)]) < error);
        CHECK(std::abs(h[3] - 1) < error);
        // where coefficient 0 counts double, a constant row is still pure, and a flat spectrum is no longer flat
        spectral_entropy_forward(on.ex, on.input(4, d, x), dct_norm::reference, entropy);
        CHECK(std::abs(on.read(entropy)[0]) < error);
        const double share = 2.0 / (static_cast<double>(d) + 1), rest = 1.0 / (static_cast<double>(d) + 1);
        const double want = -(share * std::log(share) + static_cast<double>(d - 1) * rest * std::log(rest)) /
                            std::log(static_cast<double>(d));
        CHECK(std::abs(on.read(entropy)[3] - want) < error);
    }
}

// The formula of ops/spectral_entropy.hpp for two columns, where every epsilon is seen in double.
TEMPLATE_LIST_TEST_CASE("spectral_entropy by its formula", "[ops][spectral_entropy]", targets) {
    using T = typename TestType::scalar;
    const double epsilon = 1e-8, a = 0.75, b = -0.25;
    for (dct_norm norm : norms) {
        const double gain = norm == dct_norm::ortho ? 1 : 2, first = norm == dct_norm::ortho ? 1 : std::sqrt(2.0);
        const double X0 = gain * first * (a + b) / std::sqrt(2.0), X1 = gain * (a - b) / std::sqrt(2.0);
        const double Q = X0 * X0 + X1 * X1 + epsilon, P0 = X0 * X0 / Q, P1 = X1 * X1 / Q;
        const double H = -(P0 * std::log(P0 + epsilon) + P1 * std::log(P1 + epsilon)) / (std::log(2.0) + epsilon);
        const auto slope = [&](double P) {
            return -(std::log(P + epsilon) + P / (P + epsilon)) / (std::log(2.0) + epsilon);
        };
        const double mean = slope(P0) * P0 + slope(P1) * P1;
        const double d0 = 2 * X0 / Q * (slope(P0) - mean) * gain * first / std::sqrt(2.0);
        const double d1 = 2 * X1 / Q * (slope(P1) - mean) * gain / std::sqrt(2.0);
        workbench<TestType> on;
        auto entropy = on.output(1);
        auto x = on.input(1, 2, {a, b});
        auto dL_dx = on.state(1, 2, {0, 0});
        spectral_entropy_forward(on.ex, x, norm, entropy);
        spectral_entropy_backward(on.ex, on.statistics({1}), x, norm, dL_dx);
        const subject s{"spectral_entropy", "by its formula", TestType::executor_name(), scalar_name<T>, "(1, 2)"};
        compare(on.read(entropy), {H}, allowed<T>(8, 1), s);
        compare(on.read(dL_dx), {d0 + d1, d0 - d1}, allowed<T>(8, 4), s);
    }
}

TEMPLATE_LIST_TEST_CASE("spectral_entropy lies in [0, 1] and does not see scale", "[ops][spectral_entropy]", targets) {
    using T = typename TestType::scalar;
    const index n = 17, d = 48;
    workbench<TestType> on;
    const auto x = normals(n * d, 1);
    auto scaled = x;
    for (double& v : scaled) v *= -64;
    auto a = on.output(n), b = on.output(n);
    spectral_entropy_forward(on.ex, on.input(n, d, x), dct_norm::ortho, a);
    spectral_entropy_forward(on.ex, on.input(n, d, scaled), dct_norm::ortho, b);
    for (double h : on.read(a)) CHECK((h > 0 && h < 1));
    compare(on.read(b), on.read(a), allowed<T>(4.0 * d, 1) + 1e-9,
            {"spectral_entropy_forward", "of a scaled row", TestType::executor_name(), scalar_name<T>, shape(n, d)});
}

TEMPLATE_LIST_TEST_CASE("spectral_entropy of zero rows and of one column is finite", "[ops][spectral_entropy]",
                        targets) {
    for (index d : {1, 16}) {
        workbench<TestType> on;
        auto entropy = on.output(2);
        auto dL_dx = on.state(2, d, zeros(2 * d));
        auto x = on.input(2, d, zeros(2 * d));
        spectral_entropy_forward(on.ex, x, dct_norm::ortho, entropy);
        spectral_entropy_backward(on.ex, on.statistics({1, 1}), x, dct_norm::ortho, dL_dx);
        CHECK(on.read(entropy) == std::vector<double>{0, 0});
        CHECK(on.read(dL_dx) == zeros(2 * d));
    }
}

TEST_CASE("spectral_entropy: gradients", "[ops][spectral_entropy]") {
    for (dct_norm norm : norms)
        for (index d : {2, 5, 8, 33}) {
            workbench<oracle> on;
            const index n = 3;
            const auto dL_dentropy = normals(n, 3);
            auto x = on.state(n, d, normals(n * d, 1)), dL_dx = on.state(n, d, zeros(n * d));
            auto entropy = on.output(n);
            spectral_entropy_backward(on.ex, on.input(dL_dentropy), x, norm, dL_dx);
            // P ln(P + eps) bends sharply where a coefficient is near 0: Richardson's error term there is the bound
            require_gradient(
                on.ex, x, dL_dx,
                [&] {
                    spectral_entropy_forward(on.ex, x, norm, entropy);
                    return dot(dL_dentropy, on.read(entropy));
                },
                "spectral_entropy: x, width " + std::to_string(d), 1e-6);
        }
}

TEMPLATE_LIST_TEST_CASE("spectral_entropy: a NaN row stays alone", "[ops][spectral_entropy]", targets) {
    using T = typename TestType::scalar;
    const index n = 19, d = 32, bad = 6;
    const auto x = normals(n * d, 1);
    const auto run = [&](const std::vector<double>& values) {
        workbench<TestType> on;
        auto entropy = on.output(n);
        auto dL_dx = on.state(n, d, zeros(n * d));
        spectral_entropy_forward(on.ex, on.input(n, d, values), dct_norm::ortho, entropy);
        spectral_entropy_backward(on.ex, on.statistics(normals(n, 3)), on.input(n, d, values), dct_norm::ortho, dL_dx);
        return std::pair(on.read(entropy), on.read(dL_dx));
    };
    const auto clean = run(x), poisoned = run(with_nan_row(x, d, bad));
    const subject s{"spectral_entropy", "with a NaN row", TestType::executor_name(), scalar_name<T>, shape(n, d)};
    check_nan_stays(clean.first, poisoned.first, 1, bad, s, allowed<T>(1, 1));
    check_nan_stays(clean.second, poisoned.second, d, bad, s, allowed<T>(1, 1));
}

TEST_CASE("spectral_entropy: errors", "[ops][spectral_entropy]") {
    workbench<oracle> on;
    auto x = on.input(2, 4, normals(8, 1));
    auto one = on.output(1);
    auto wrong = on.output(2, 3), dx = on.output(2, 4);
    check_throws([&] { spectral_entropy_forward(on.ex, x, dct_norm::ortho, one); },
                 {"spectral_entropy_forward", "entropy", "(2)", "(1)"});
    check_throws([&] { spectral_entropy_backward(on.ex, one, x, dct_norm::ortho, dx); },
                 {"spectral_entropy_backward", "dL_dentropy", "(2)", "(1)"});
    check_throws(
        [&] {
            spectral_entropy_backward(on.ex, on.statistics({1, 1}), x, dct_norm::ortho, wrong);
        },
        {"spectral_entropy_backward", "dL_dx", "(2, 4)", "(2, 3)"});
}

}  // namespace spectral::test::spectral_entropy_test
