// SPDX-License-Identifier: Apache-2.0
// tests/ops/norm_test.cpp: layer norm, root-mean-square norm, and their gradients
#include <spectral/ops/norm.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::norm_test {

namespace {
constexpr double eps = 1e-5;

std::vector<double> around_one(index n, std::uint64_t seed) {
    auto v = normals(n, seed, 0.25);
    for (double& x : v) x = static_cast<float>(x + 1);
    return v;
}
// The largest 1 / deviation of a row. Normalising magnifies the rounding of a row by it: rows of two or three values
// that happen to lie close together are as hard as that.
double steepest(const std::vector<double>& x, index c) {
    double most = 1;
    for (std::size_t first = 0; first < x.size(); first += static_cast<std::size_t>(c)) {
        double mean = 0, variance = 0;
        for (std::size_t i = 0; i < static_cast<std::size_t>(c); ++i) mean += x[first + i] / static_cast<double>(c);
        for (std::size_t i = 0; i < static_cast<std::size_t>(c); ++i)
            variance += std::pow(x[first + i] - mean, 2) / static_cast<double>(c);
        most = std::max(most, 1 / std::sqrt(variance + eps));
    }
    return most;
}
// and widths that a warp takes as a row of its own, up to its last column, and one beyond them
std::vector<std::array<index, 2>> shapes() {
    auto out = edge_shapes();
    for (index c : {512, 896, 1024, 1032}) out.push_back({21, c});
    // several rows to a warp
    for (index c : {64, 512}) out.push_back({200, c});
    if (SPECTRAL_TEST_GPU) out.push_back({13000, 16}), out.push_back({6500, 264});
    return out;
}
std::vector<double> zeros(index n) { return std::vector<double>(static_cast<std::size_t>(n)); }
}  // namespace

TEMPLATE_LIST_TEST_CASE("layer_norm: forward and backward", "[ops][norm]", targets) {
    over(shapes(), [&](index n, index c) {
        if (c == 1)
            return;  // variance 0: rstd = 1/sqrt(eps) turns the mean's last bit into 300 times as much; by hand below
        const double steep = 4 * steepest(normals(n * c, 1), c);  // 4: the size of the largest values
        for (const write mode : {write::overwrite, write::accumulate})
            for (const bool biased : {false, true})
                check_against_reference<TestType>(
                    "layer_norm", shape(n, c), 4.0 * static_cast<double>(c + n), [&](auto& on) {
                        auto s = on.input(n, c, normals(n * c, 1));
                        auto gamma = on.input(around_one(c, 2)), beta = on.input(normals(c, 3));
                        auto y = on.output(n, c);
                        auto mean = on.output(n), rstd = on.output(n);
                        layer_norm_forward(on.ex, s, gamma, beta, eps, y, mean, rstd);
                        auto dL_ds = mode == write::overwrite ? on.output(n, c) : on.state(n, c, normals(n * c, 4));
                        auto dL_dgamma = on.state(normals(c, 5)), dL_dbeta = on.state(normals(c, 6));
                        // the sums' mode is the other one
                        bias_gradient<typename std::decay_t<decltype(on)>::scalar> bias;
                        if (biased && mode == write::overwrite) bias = {on.state(normals(c, 9)), write::accumulate};
                        if (biased && mode == write::accumulate) bias = {on.state(not_a_number(c)), write::overwrite};
                        layer_norm_backward(on.ex, on.input(n, c, normals(n * c, 7)), s, gamma, mean, rstd, dL_ds,
                                            dL_dgamma, dL_dbeta, mode, bias);
                        outputs out{{"y", on.read(y), steep},
                                    {"mean", on.read(mean)},
                                    {"rstd", on.read(rstd), steep},
                                    {"dL_ds", on.read(dL_ds), steep},
                                    {"dL_dgamma", on.read(dL_dgamma), steep},
                                    {"dL_dbeta", on.read(dL_dbeta)}};
                        if (biased) out.push_back({"dL_db", on.read(bias.sums), steep});
                        return out;
                    });
    });
}

TEMPLATE_LIST_TEST_CASE("add_layer_norm_forward, also into the memory of r", "[ops][norm]", targets) {
    for (index n : edge_rows)
        for (index c : {2, 5, 16, 33, 257})
            for (bool in_place : {false, true})
                check_against_reference<TestType>(
                    "add_layer_norm_forward", shape(n, c), 4.0 * static_cast<double>(c), [&](auto& on) {
                        auto r = on.state(n, c, normals(n * c, 8)), s = in_place ? r : on.output(n, c),
                             y = on.output(n, c);
                        auto mean = on.output(n), rstd = on.output(n);
                        add_layer_norm_forward(on.ex, on.input(n, c, normals(n * c, 1)), r, on.input(around_one(c, 2)),
                                               on.input(normals(c, 3)), eps, s, y, mean, rstd);
                        return outputs{
                            {"s", on.read(s)}, {"y", on.read(y)}, {"mean", on.read(mean)}, {"rstd", on.read(rstd)}};
                    });
}

TEMPLATE_LIST_TEST_CASE("rms_norm: forward and backward, gamma trained or frozen", "[ops][norm]", targets) {
    over(shapes(), [&](index n, index c) {
        for (int plus : {0, 1, 2})  // nothing, dL_ds itself, another gradient
            for (bool frozen : {false, true})
                check_against_reference<TestType>(
                    "rms_norm", shape(n, c), 4.0 * static_cast<double>(c + n), [&](auto& on) {
                        using T = typename std::decay_t<decltype(on)>::scalar;
                        auto s = on.input(n, c, around_one(n * c, 1));
                        auto gamma = on.input(around_one(c, 2));
                        auto y = on.output(n, c);
                        auto rstd = on.output(n);
                        rms_norm_forward(on.ex, s, gamma, eps, y, rstd);
                        auto dL_ds = plus == 1 ? on.state(n, c, normals(n * c, 4)) : on.output(n, c);
                        const view<const T, 2> addend = plus == 0   ? view<const T, 2>{}
                                                        : plus == 1 ? dL_ds
                                                                    : on.input(n, c, normals(n * c, 4));
                        auto dL_dgamma = frozen ? vector_view<statistic<T>>{} : on.state(normals(c, 5));
                        rms_norm_backward(on.ex, on.input(n, c, normals(n * c, 7)), s, gamma, rstd, dL_ds, dL_dgamma,
                                          addend);
                        return outputs{{"y", on.read(y)},
                                       {"rstd", on.read(rstd)},
                                       {"dL_ds", on.read(dL_ds)},
                                       {"dL_dgamma", on.read(dL_dgamma)}};
                    });
    });
}

TEMPLATE_LIST_TEST_CASE("layer_norm: rows have mean 0 and variance 1, whatever shift and scale", "[ops][norm]",
                        targets) {
    using T = typename TestType::scalar;
    for (double shift : {0.0, 1000.0})
        for (index c : {2, 5, 33, 256}) {
            workbench<TestType> on;
            const index n = 3;
            auto x = normals(n * c, 1, 8);
            for (double& v : x) v = static_cast<float>(v + shift);
            auto y = on.output(n, c);
            auto mean = on.output(n), rstd = on.output(n);
            layer_norm_forward(on.ex, on.input(n, c, x), on.input(std::vector<double>(static_cast<std::size_t>(c), 1)),
                               on.input(zeros(c)), 1e-12, y, mean, rstd);
            const auto got = on.read(y);
            for (index r = 0; r < n; ++r) {
                double m = 0, v = 0;
                for (index i = 0; i < c; ++i) m += got[static_cast<std::size_t>(r * c + i)] / static_cast<double>(c);
                for (index i = 0; i < c; ++i)
                    v += std::pow(got[static_cast<std::size_t>(r * c + i)] - m, 2) / static_cast<double>(c);
                INFO("width " << c << ", shift " << shift << ", row " << r << ", " << TestType::executor_name());
                // the mean is rounded at the size of the shift, the row then divided by a deviation that is about 8,
                // less for pairs
                const double bound =
                    allowed<T>(static_cast<double>(c), 1 + shift * on.read(rstd)[static_cast<std::size_t>(r)]);
                CHECK(std::abs(m) < bound);
                CHECK(std::abs(v - 1) < 2 * bound + 1e-9);
            }
        }
}

TEMPLATE_LIST_TEST_CASE("layer_norm of constant rows is beta", "[ops][norm]", targets) {
    for (index c : {1, 2, 16, 33}) {  // 2.5 and its sums are exact
        workbench<TestType> on;
        auto y = on.output(2, c);
        auto mean = on.output(2), rstd = on.output(2);
        layer_norm_forward(on.ex, on.input(2, c, std::vector<double>(static_cast<std::size_t>(2 * c), 2.5)),
                           on.input(around_one(c, 2)), on.input(normals(c, 3)), 0.25, y, mean, rstd);
        const auto beta = normals(c, 3);
        for (index i = 0; i < 2 * c; ++i)
            CHECK(on.read(y)[static_cast<std::size_t>(i)] == beta[static_cast<std::size_t>(i % c)]);
        CHECK(on.read(mean) == std::vector<double>{2.5, 2.5});
        CHECK(on.read(rstd)[0] == Approx(2));
    }
}

TEMPLATE_LIST_TEST_CASE("norms by hand", "[ops][norm]", targets) {
    workbench<TestType> on;
    auto s = on.output(1, 2), y = on.output(1, 2);
    auto mean = on.output(1), rstd = on.output(1);
    // x + r = (1, 4): mean 2.5, variance 2.25, with eps 1.75 the deviation is 2
    add_layer_norm_forward(on.ex, on.input(1, 2, {3, 5}), on.input(1, 2, {-2, -1}), on.input({2, 4}), on.input({1, 10}),
                           1.75, s, y, mean, rstd);
    CHECK(on.read(s) == std::vector<double>{1, 4});
    CHECK(on.read(mean) == std::vector<double>{2.5});
    CHECK(on.read(rstd)[0] == Approx(0.5));
    CHECK(on.read(y)[0] == Approx(-0.5));
    CHECK(on.read(y)[1] == Approx(13));
    // mean square of (1.5, -1.5) is 2.25
    rms_norm_forward(on.ex, on.input(1, 2, {1.5, -1.5}), on.input({2, 4}), 1.75, y, rstd);
    CHECK(on.read(rstd)[0] == Approx(0.5));
    CHECK(on.read(y)[0] == Approx(1.5));
    CHECK(on.read(y)[1] == Approx(-3));
}

TEMPLATE_LIST_TEST_CASE("norms: accumulate adds what overwrite writes", "[ops][norm]", targets) {
    using T = typename TestType::scalar;
    const index n = 5, c = 17;
    for (bool rms : {false, true}) {
        workbench<TestType> on;
        auto s = on.input(n, c, normals(n * c, 1)), dL_dy = on.input(n, c, normals(n * c, 7));
        auto gamma = on.input(around_one(c, 2));
        auto mean = on.statistics(normals(n, 8, 0.1)), rstd = on.statistics(around_one(n, 9));
        auto plain = on.output(n, c), added = on.state(n, c, normals(n * c, 4));
        for (write mode : {write::overwrite, write::accumulate}) {
            auto dL_ds = mode == write::overwrite ? plain : added;
            auto dL_dgamma = on.state(zeros(c)), dL_dbeta = on.state(zeros(c));
            if (rms)
                rms_norm_backward(on.ex, dL_dy, s, gamma, rstd, dL_ds, dL_dgamma,
                                  mode == write::accumulate ? dL_ds : matrix_view<T>{});
            else
                layer_norm_backward(on.ex, dL_dy, s, gamma, mean, rstd, dL_ds, dL_dgamma, dL_dbeta, mode);
        }
        auto want = on.read(plain);
        for (std::size_t i = 0; i < want.size(); ++i) want[i] += normals(n * c, 4)[i];
        compare(on.read(added), want, allowed<T>(2, std::max(4.0, largest(want))),
                {rms ? "rms_norm_backward" : "layer_norm_backward", "accumulated", TestType::executor_name(),
                 scalar_name<T>, shape(n, c)});
    }
}

TEST_CASE("layer_norm: gradients", "[ops][norm]") {
    for (index n : {1, 3})
        for (index c : {2, 3, 8}) {
            workbench<oracle> on;
            const auto dL_dy = normals(n * c, 7);
            auto s = on.state(n, c, normals(n * c, 1)), y = on.output(n, c), dL_ds = on.output(n, c);
            auto gamma = on.state(around_one(c, 2)), beta = on.state(normals(c, 3)), mean = on.output(n),
                 rstd = on.output(n);
            auto dL_dgamma = on.state(zeros(c)), dL_dbeta = on.state(zeros(c));
            const auto loss = [&] {
                layer_norm_forward(on.ex, s, gamma, beta, 0.01, y, mean, rstd);
                return dot(dL_dy, on.read(y));
            };
            loss();
            layer_norm_backward(on.ex, on.input(n, c, dL_dy), s, gamma, mean, rstd, dL_ds, dL_dgamma, dL_dbeta);
            require_gradient(on.ex, s, dL_ds, loss, "layer_norm: s");
            require_gradient(on.ex, gamma, dL_dgamma, loss, "layer_norm: gamma");
            require_gradient(on.ex, beta, dL_dbeta, loss, "layer_norm: beta");
        }
}

TEST_CASE("rms_norm: gradients", "[ops][norm]") {
    for (index n : {1, 3})
        for (index c : {1, 2, 8}) {
            workbench<oracle> on;
            const auto dL_dy = normals(n * c, 7);
            auto s = on.state(n, c, normals(n * c, 1)), y = on.output(n, c), dL_ds = on.output(n, c);
            auto gamma = on.state(around_one(c, 2)), rstd = on.output(n), dL_dgamma = on.state(zeros(c));
            const auto loss = [&] {
                rms_norm_forward(on.ex, s, gamma, 0.01, y, rstd);
                return dot(dL_dy, on.read(y));
            };
            loss();
            rms_norm_backward(on.ex, on.input(n, c, dL_dy), s, gamma, rstd, dL_ds, dL_dgamma);
            require_gradient(on.ex, s, dL_ds, loss, "rms_norm: s");
            require_gradient(on.ex, gamma, dL_dgamma, loss, "rms_norm: gamma");
        }
}

TEMPLATE_LIST_TEST_CASE("norms: a NaN row stays alone", "[ops][norm]", targets) {
    using T = typename TestType::scalar;
    const index n = 7, c = 17, bad = 4;
    const auto run = [&](const std::vector<double>& x, bool rms) {
        workbench<TestType> on;
        auto y = on.output(n, c);
        auto mean = on.output(n), rstd = on.output(n);
        if (rms)
            rms_norm_forward(on.ex, on.input(n, c, x), on.input(around_one(c, 2)), eps, y, rstd);
        else
            layer_norm_forward(on.ex, on.input(n, c, x), on.input(around_one(c, 2)), on.input(normals(c, 3)), eps, y,
                               mean, rstd);
        return on.read(y);
    };
    const auto x = normals(n * c, 1);
    for (bool rms : {false, true})
        check_nan_stays(run(x, rms), run(with_nan_row(x, c, bad), rms), c, bad,
                        {rms ? "rms_norm" : "layer_norm", "y with a NaN row", TestType::executor_name(), scalar_name<T>,
                         shape(n, c)},
                        allowed<T>(c, 4));
}

TEST_CASE("norms: errors", "[ops][norm]") {
    workbench<oracle> on;
    auto s = on.input(2, 4, normals(8, 1));
    auto y = on.output(2, 4), wrong = on.output(2, 3);
    auto v = on.input(normals(4, 2)), short_v = on.input(normals(3, 2));
    auto mean = on.output(2), rstd = on.output(2), d = on.output(4), one = on.output(1);
    check_throws([&] { layer_norm_forward(on.ex, s, v, v, eps, wrong, mean, rstd); },
                 {"layer_norm_forward", "y", "(2, 4)", "(2, 3)"});
    check_throws([&] { layer_norm_forward(on.ex, s, short_v, v, eps, y, mean, rstd); },
                 {"layer_norm_forward", "gamma", "(4)", "(3)"});
    check_throws([&] { layer_norm_forward(on.ex, s, v, short_v, eps, y, mean, rstd); },
                 {"layer_norm_forward", "beta", "(4)", "(3)"});
    check_throws([&] { layer_norm_forward(on.ex, s, v, v, eps, y, one, rstd); },
                 {"layer_norm_forward", "mean", "(2)", "(1)"});
    check_throws([&] { layer_norm_backward(on.ex, s, s, v, mean, rstd, wrong, d, d); },
                 {"layer_norm_backward", "dL_ds", "(2, 4)", "(2, 3)"});
    check_throws(
        [&] { layer_norm_backward(on.ex, s, s, v, mean, rstd, y, d, d, write::overwrite, bias_gradient<double>{one}); },
        {"layer_norm_backward", "bias gradient", "(4)", "(1)"});
    check_throws([&] { layer_norm_backward(on.ex, s, s, v, mean, rstd, y, one, d); },
                 {"layer_norm_backward", "dL_dgamma", "(4)", "(1)"});
    check_throws([&] { add_layer_norm_forward(on.ex, s, on.input(2, 3, normals(6, 1)), v, v, eps, y, y, mean, rstd); },
                 {"add_layer_norm_forward", "r", "(2, 4)", "(2, 3)"});
    check_throws([&] { add_layer_norm_forward(on.ex, s, s, v, short_v, eps, y, y, mean, rstd); },
                 {"add_layer_norm_forward", "beta", "(4)", "(3)"});
    check_throws([&] { rms_norm_forward(on.ex, s, short_v, eps, y, rstd); },
                 {"rms_norm_forward", "gamma", "(4)", "(3)"});
    check_throws([&] { rms_norm_forward(on.ex, s, v, eps, y, one); }, {"rms_norm_forward", "rstd", "(2)", "(1)"});
    check_throws([&] { rms_norm_backward(on.ex, s, s, v, rstd, wrong, d); },
                 {"rms_norm_backward", "dL_ds", "(2, 4)", "(2, 3)"});
    check_throws([&] { rms_norm_backward(on.ex, s, s, v, rstd, y, d, wrong); },
                 {"rms_norm_backward", "addend", "(2, 4)", "(2, 3)"});
}

}  // namespace spectral::test::norm_test
