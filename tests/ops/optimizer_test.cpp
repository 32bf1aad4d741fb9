// SPDX-License-Identifier: Apache-2.0
// tests/ops/optimizer_test.cpp: gradient norm, and AdamW against a loop written by hand
#include <spectral/ops/optimizer.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::optimizer_test {

namespace {
const std::vector<index> sizes{0, 1, 2, 3, 5, 16, 17, 31, 33, 257, 8191, 8192, 8193, 40001};
const adamw_options usual{0.01, 0.9, 0.95, 1e-8, 0.1};

std::vector<double> positive(index n, std::uint64_t seed) {
    auto v = normals(n, seed);
    for (double& x : v) x = static_cast<float>(x * x);
    return v;
}

// A factor for gradients, asked for as programs ask for it: a norm of 1, limited to it.
template <class On>
clip_by_norm clipped_to(On& on, double factor) {
    return {on.doubles({1}).data, factor * (1 + 1e-6)};
}

// One parameter, one step, as the paper writes it.
void adamw_by_hand(double& w, double g, double& m, double& v, const adamw_options& o, int t, double clip) {
    g *= clip;
    w -= o.learning_rate * o.weight_decay * w;
    m += (1 - o.beta1) * (g - m);
    v += (1 - o.beta2) * (g * g - v);
    double b1 = 1, b2 = 1;
    for (int i = 0; i < t; ++i) b1 *= o.beta1, b2 *= o.beta2;
    w -= o.learning_rate * (m / (1 - b1)) / (std::sqrt(v / (1 - b2)) + o.eps);
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("adamw_step", "[ops][optimizer]", targets) {
    for (index n : sizes)
        for (index t : {1, 2, 1000})
            check_against_reference<TestType>("adamw_step", shape(n), 8, [&](auto& on) {
                auto w = on.state(normals(n, 1)), m = on.state(normals(n, 2)), v = on.state(positive(n, 3));
                adamw_step(on.ex, w, on.statistics(normals(n, 4)), m, v, usual, t, clipped_to(on, 0.5));
                return outputs{{"w", on.read(w)}, {"m", on.read(m)}, {"v", on.read(v)}};
            });
}

TEMPLATE_LIST_TEST_CASE("adamw_step: ten steps against a loop written by hand", "[ops][optimizer]", targets) {
    using T = typename TestType::scalar;
    const index n = 33;
    workbench<TestType> on;
    auto want_w = normals(n, 1);
    std::vector<double> want_m(n), want_v(n);
    auto w = on.state(want_w), m = on.state(want_m), v = on.state(want_v);
    const adamw_options o{0.02, 0.8, 0.99, 1e-6, 0.05};
    for (int t = 1; t <= 10; ++t) {
        const auto g = normals(n, static_cast<std::uint64_t>(100 + t));
        const double clip = t % 2 ? 1 : 0.25;
        adamw_step(on.ex, w, on.statistics(g), m, v, o, t, clipped_to(on, clip));
        for (std::size_t i = 0; i < g.size(); ++i) adamw_by_hand(want_w[i], g[i], want_m[i], want_v[i], o, t, clip);
        const subject s{"adamw_step", "against the loop by hand", TestType::executor_name(), scalar_name<T>, shape(n)};
        compare(on.read(w), want_w, allowed<T>(8.0 * t, largest(want_w)), s);
        compare(on.read(m), want_m, allowed<T>(4.0 * t, largest(want_m)), s);
        compare(on.read(v), want_v, allowed<T>(4.0 * t, largest(want_v)), s);
    }
}

TEMPLATE_LIST_TEST_CASE("adamw_step: the first step has size learning rate, however small the gradient",
                        "[ops][optimizer]", targets) {
    using T = typename TestType::scalar;
    workbench<TestType> on;
    auto w = on.state({0, 0, 0, 0, 0}), m = on.state({0, 0, 0, 0, 0}), v = on.state({0, 0, 0, 0, 0});
    adamw_options o = usual;
    o.eps = 0.25;  // large, so that its place (outside the root, after the correction) shows
    adamw_step(on.ex, w, on.statistics({4, -4, 1, 0, 0x1p-40}), m, v, o, 1, {});
    // m̂ = g, v̂ = g²: w = -lr g / (|g| + eps)
    const double lr = o.learning_rate;
    compare(on.read(w), {-lr * 4 / 4.25, lr * 4 / 4.25, -lr / 1.25, 0, -lr * 0x1p-40 / 0.25}, allowed<T>(8, lr),
            {"adamw_step", "first step", TestType::executor_name(), scalar_name<T>, "(5)"});
    // decay alone: gradient 0, moments 0
    workbench<TestType> decay;
    auto x = decay.state({1, -2}), zero_m = decay.state({0, 0}), zero_v = decay.state({0, 0});
    adamw_step(decay.ex, x, decay.statistics({0, 0}), zero_m, zero_v, usual, 1, {});
    compare(decay.read(x), {0.999, -1.998}, allowed<T>(2, 2),
            {"adamw_step", "decay", TestType::executor_name(), scalar_name<T>, "(2)"});
}

TEMPLATE_LIST_TEST_CASE("sum_of_squares, in double", "[ops][optimizer]", targets) {
    for (index n : sizes)
        for (layout l : {layout::dense, layout::columns}) {
            workbench<TestType> on(l);
            const auto x = normals(n, 1);
            auto result = on.template output<double>(1);
            sum_of_squares(on.ex, on.state(x), result);
            double want = 0;
            for (double v : x) want += v * v;
            compare(on.read(result), {want},
                    allowed<double>(static_cast<double>(n), want),  // double whatever the scalar
                    {"sum_of_squares", "result", TestType::executor_name(), scalar_name<typename TestType::scalar>,
                     shape(n)});
            on.check_untouched("sum_of_squares");
        }
}

TEMPLATE_LIST_TEST_CASE("optimizer: NaN and infinity are not hidden", "[ops][optimizer]", targets) {
    workbench<TestType> on;
    auto result = on.template output<double>(1);
    auto x = normals(100, 1);
    x[57] = nan;
    sum_of_squares(on.ex, on.state(x), result);
    CHECK(std::isnan(on.read(result)[0]));
    x[57] = std::numeric_limits<double>::infinity();
    sum_of_squares(on.ex, on.state(x), result);
    CHECK(std::isinf(on.read(result)[0]));
    auto w = on.state(normals(100, 2)), m = on.state(normals(100, 3)), v = on.state(positive(100, 4));
    x[57] = nan;
    adamw_step(on.ex, w, on.statistics(x), m, v, usual, 3, {});
    for (index i = 0; i < 100; ++i) CHECK(std::isnan(on.read(w)[static_cast<std::size_t>(i)]) == (i == 57));
}

TEST_CASE("optimizer: errors", "[ops][optimizer]") {
    workbench<oracle> on;
    auto w = on.state({1, 2}), m = on.state({0, 0}), v = on.state({0, 0}), one = on.state({1});
    auto g = on.input({1, 1});
    check_throws([&] { adamw_step(on.ex, w, g, m, v, usual, 0, {}); }, {"adamw_step", "step", "found 0"});
    check_throws([&] { adamw_step(on.ex, w, on.statistics({1}), m, v, usual, 1, {}); },
                 {"adamw_step", "gradients", "(2)", "(1)"});
    check_throws([&] { adamw_step(on.ex, w, g, one, v, usual, 1, {}); }, {"adamw_step", "first moments", "(2)", "(1)"});
    check_throws([&] { adamw_step(on.ex, w, g, m, one, usual, 1, {}); },
                 {"adamw_step", "second moments", "(2)", "(1)"});
    check_throws([&] { sum_of_squares(on.ex, w, on.output<double>(2)); }, {"sum_of_squares", "result", "(1)", "(2)"});
}

}  // namespace spectral::test::optimizer_test
