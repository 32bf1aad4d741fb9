// SPDX-License-Identifier: Apache-2.0
// tests/ops/cross_entropy_test.cpp: softmax cross-entropy alone and fused with the projection: values, gradients,
// ignored rows
#include <spectral/ops/cross_entropy.hpp>
#include <spectral/ops/linear.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::cross_entropy_test {

namespace {
enum class ignored { none, some, all };

std::vector<row_index> targets_for(index n, index vocabulary, ignored which) {
    auto t = random_ids(n, vocabulary, 3);
    for (std::size_t i = 0; i < t.size(); ++i)
        if (which == ignored::all || (which == ignored::some && i % 3 == 1)) t[i] = i % 2 ? -1 : -100;
    return t;
}
std::vector<double> zeros(index n) { return std::vector<double>(static_cast<std::size_t>(n)); }
}  // namespace

TEMPLATE_LIST_TEST_CASE("cross_entropy: loss and gradient, also over the logits", "[ops][cross_entropy]", targets) {
    for (index n : {0, 1, 2, 3, 17, 200})
        for (index v : {1, 2, 3, 5, 16, 17, 31, 32, 33, 97, 257, 5000})
            for (ignored which : {ignored::none, ignored::some, ignored::all})
                for (bool in_place : {false, true}) {
                    if (n * v > 500'000 && which != ignored::some) continue;
                    check_against_reference<TestType>(
                        "cross_entropy", shape(n, v), static_cast<double>(v), [&](auto& on) {
                            auto logits = on.state(n, v, normals(n * v, 1, 3));
                            auto loss = on.output(n);
                            auto gradient = in_place ? logits : on.output(n, v);
                            cross_entropy(on.ex, logits, on.ids(targets_for(n, v, which)), loss, 0.25, gradient);
                            return outputs{{"loss", on.read(loss)}, {"dL_dlogits", on.read(gradient)}};
                        });
                }
}

TEMPLATE_LIST_TEST_CASE("cross_entropy: uniform logits cost ln V; gradient rows sum to 0", "[ops][cross_entropy]",
                        targets) {
    using T = typename TestType::scalar;
    for (index v : {1, 2, 33, 1000}) {
        workbench<TestType> on;
        const index n = 3;
        auto loss = on.output(n), alone = on.output(n);
        auto gradient = on.output(n, v);
        auto logits = on.input(n, v, std::vector<double>(static_cast<std::size_t>(n * v), 7.5));
        cross_entropy(on.ex, logits, on.ids(random_ids(n, v, 3)), loss, 1, gradient);
        cross_entropy(on.ex, logits, on.ids(random_ids(n, v, 3)), alone);  // without a gradient
        const auto width = static_cast<double>(v);
        const subject s{"cross_entropy", "uniform logits", TestType::executor_name(), scalar_name<T>, shape(n, v)};
        compare(on.read(loss), std::vector<double>(3, std::log(width)), allowed<T>(width, 8), s);
        compare(on.read(alone), std::vector<double>(3, std::log(width)), allowed<T>(width, 8), s);
        std::vector<double> sums(3);
        const auto g = on.read(gradient);
        for (std::size_t i = 0; i < g.size(); ++i) sums[i / static_cast<std::size_t>(v)] += g[i];
        compare(sums, {0, 0, 0}, allowed<T>(width, 1), s);
    }
}

TEMPLATE_LIST_TEST_CASE("cross_entropy: softmax rows sum to 1; large logits do not overflow; a shift changes nothing",
                        "[ops][cross_entropy]", targets) {
    using T = typename TestType::scalar;
    workbench<TestType> on;
    auto loss = on.output(2);
    auto gradient = on.output(2, 3);
    // second row = first + 1024 (exact, in bfloat16 too); dL_dlogits + onehot = softmax
    cross_entropy(on.ex, on.input(2, 3, {0, 8, -8, 1024, 1032, 1016}), on.ids({1, 1}), loss, 1, gradient);
    const double z = std::exp(-8.0) + 1 + std::exp(-16.0);
    const subject s{"cross_entropy", "shifted rows", TestType::executor_name(), scalar_name<T>, "(2, 3)"};
    compare(on.read(loss), {std::log(z), std::log(z)}, allowed<T>(3, 1024), s);
    const std::vector<double> row{std::exp(-8.0) / z, 1 / z - 1, std::exp(-16.0) / z};
    compare(on.read(gradient), {row[0], row[1], row[2], row[0], row[1], row[2]}, allowed<T>(3, 1), s);
    cross_entropy(on.ex, on.input(2, 3, {1000, -1000, 0, -1000, 1000, 0}), on.ids({0, 0}), loss, 1, gradient);
    compare(on.read(loss), {0, 2000}, allowed<T>(3, 2000), s);
}

// (rows, width, vocabulary): several blocks of the fused form, and the edges
TEMPLATE_LIST_TEST_CASE("linear_cross_entropy: with and without gradients", "[ops][cross_entropy]", targets) {
    over(
        std::vector<std::array<index, 3>>{
            {0, 4, 5}, {1, 1, 1}, {2, 3, 2}, {7, 16, 33}, {17, 33, 97}, {33, 5, 257}, {600, 8, 11}, {65, 4, 1000}},
        [&](index n, index c, index v) {
            for (ignored which : {ignored::none, ignored::some, ignored::all})
                for (int asked : {0, 1, 2, 3})  // bit 0: dL_dx, bit 1: dL_dw
                    check_against_reference<TestType>(
                        "linear_cross_entropy", shape(n, c, v), static_cast<double>(c + v + n), [&](auto& on) {
                            using T = typename std::decay_t<decltype(on)>::scalar;
                            auto loss = on.output(n);
                            auto dL_dx = asked & 1 ? on.output(n, c) : matrix_view<T>{};
                            auto dL_dw = asked & 2 ? on.gradient(v, c, normals(v * c, 4)) : matrix_view<statistic<T>>{};
                            linear_cross_entropy(on.ex, on.input(n, c, normals(n * c, 1)),
                                                 on.input(v, c, normals(v * c, 2)), on.ids(targets_for(n, v, which)),
                                                 loss, 0.5, dL_dx, dL_dw);
                            return outputs{
                                {"loss", on.read(loss)}, {"dL_dx", on.read(dL_dx)}, {"dL_dw", on.read(dL_dw)}};
                        });
        });
}

TEMPLATE_LIST_TEST_CASE("linear_cross_entropy: a weight kept as bfloat16", "[ops][cross_entropy]", targets) {
    over(std::vector<std::array<index, 3>>{{0, 4, 5}, {1, 1, 1}, {2, 3, 2}, {17, 33, 97}, {600, 8, 11}, {65, 4, 1000}},
         [&](index n, index c, index v) {
             for (bool backward : {false, true})
                 check_against_reference<TestType>(
                     "linear_cross_entropy, narrow", shape(n, c, v), static_cast<double>(c + v + n),
                     [&, weight = narrow_after_oracle()](auto& on) mutable {
                         using T = typename std::decay_t<decltype(on)>::scalar;
                         auto loss = on.output(n);
                         auto dL_dx = backward ? on.output(n, c) : matrix_view<T>{};
                         linear_cross_entropy(on.ex, on.input(n, c, normals(n * c, 1)), weight(on, v, c, 2),
                                              on.ids(targets_for(n, v, ignored::some)), loss, 0.5, dL_dx);
                         return outputs{{"loss", on.read(loss)}, {"dL_dx", on.read(dL_dx)}};
                     });
         });
}

TEMPLATE_LIST_TEST_CASE("linear_cross_entropy is cross_entropy of linear", "[ops][cross_entropy]", targets) {
    using T = typename TestType::scalar;
    const index n = 9, c = 17, v = 33;
    workbench<TestType> on;
    auto x = on.input(n, c, normals(n * c, 1)), w = on.input(v, c, normals(v * c, 2));
    auto target = on.ids(targets_for(n, v, ignored::some));
    auto fused = on.output(n), parts = on.output(n);
    auto logits = on.output(n, v), fused_dx = on.output(n, c), dx = on.output(n, c);
    auto fused_dw = on.gradient(v, c, zeros(v * c)), dw = on.gradient(v, c, zeros(v * c));
    linear_cross_entropy(on.ex, x, w, target, fused, 2, fused_dx, fused_dw);
    linear_forward(on.ex, x, w, {}, logits);
    cross_entropy(on.ex, logits, target, parts, 2, logits);
    linear_backward_input(on.ex, logits, w, dx);
    linear_backward_weight(on.ex, logits, x, dw, {});
    const subject s{"linear_cross_entropy", "against its parts", TestType::executor_name(), scalar_name<T>,
                    shape(n, c, v)};
    compare(on.read(fused), on.read(parts), allowed<T>(c + v, 10), s);
    compare(on.read(fused_dx), on.read(dx), allowed<T>(c + v, 10), s);
    compare(on.read(fused_dw), on.read(dw), allowed<T>(n + v, 10), s);
}

TEST_CASE("cross_entropy: gradients", "[ops][cross_entropy]") {
    workbench<oracle> on;
    const index n = 5, c = 4, v = 7;
    auto target = on.ids(targets_for(n, v, ignored::some));
    auto loss = on.output(n);
    const auto sum = [&] {
        double total = 0;
        for (double l : on.read(loss)) total += 0.5 * l;
        return total;
    };
    auto logits = on.state(n, v, normals(n * v, 1)), dL_dlogits = on.output(n, v);
    cross_entropy(on.ex, logits, target, loss, 0.5, dL_dlogits);
    require_gradient(
        on.ex, logits, dL_dlogits, [&] { return cross_entropy(on.ex, logits, target, loss), sum(); },
        "cross_entropy: logits");
    auto x = on.state(n, c, normals(n * c, 1)), w = on.state(v, c, normals(v * c, 2));
    auto dL_dx = on.output(n, c), dL_dw = on.gradient(v, c, zeros(v * c));
    linear_cross_entropy(on.ex, x, w, target, loss, 0.5, dL_dx, dL_dw);
    const auto fused = [&] { return linear_cross_entropy(on.ex, x, w, target, loss), sum(); };
    require_gradient(on.ex, x, dL_dx, fused, "linear_cross_entropy: x");
    require_gradient(on.ex, w, dL_dw, fused, "linear_cross_entropy: w");
}

TEMPLATE_LIST_TEST_CASE("cross_entropy: a NaN row stays alone", "[ops][cross_entropy]", targets) {
    using T = typename TestType::scalar;
    const index n = 7, c = 9, v = 33, bad = 3;
    const auto x = normals(n * c, 1), z = normals(n * v, 2);
    const auto run = [&](const std::vector<double>& rows, const std::vector<double>& logits) {
        workbench<TestType> on;
        auto target = on.ids(random_ids(n, v, 3));
        auto loss = on.output(n), fused = on.output(n);
        auto gradient = on.output(n, v), dL_dx = on.output(n, c);
        cross_entropy(on.ex, on.input(n, v, logits), target, loss, 1, gradient);
        linear_cross_entropy(on.ex, on.input(n, c, rows), on.input(v, c, normals(v * c, 2)), target, fused, 1, dL_dx);
        return std::array{on.read(loss), on.read(gradient), on.read(fused), on.read(dL_dx)};
    };
    const auto clean = run(x, z), poisoned = run(with_nan_row(x, c, bad), with_nan_row(z, v, bad));
    const subject s{"cross_entropy", "with a NaN row", TestType::executor_name(), scalar_name<T>, shape(n, v)};
    const index widths[] = {1, v, 1, c};
    for (std::size_t i = 0; i < 4; ++i)
        check_nan_stays(clean[i], poisoned[i], widths[i], bad, s, allowed<T>(c + v, 10));
}

TEST_CASE("cross_entropy: errors", "[ops][cross_entropy]") {
    workbench<oracle> on;
    auto logits = on.input(2, 4, normals(8, 1)), w = on.input(5, 4, normals(20, 1)),
         narrow = on.input(5, 3, normals(15, 1));
    auto loss = on.output(2), one = on.output(1);
    auto wrong = on.output(2, 3);
    auto target = on.ids({0, 1}), short_target = on.ids({0});
    check_throws([&] { cross_entropy(on.ex, logits, short_target, loss); }, {"cross_entropy", "target", "(2)", "(1)"});
    check_throws([&] { cross_entropy(on.ex, logits, target, one); }, {"cross_entropy", "loss", "(2)", "(1)"});
    check_throws([&] { cross_entropy(on.ex, logits, target, loss, 1, wrong); },
                 {"cross_entropy", "dL_dlogits", "(2, 4)", "(2, 3)"});
    check_throws([&] { linear_cross_entropy(on.ex, logits, narrow, target, loss); },
                 {"linear_cross_entropy", "expected 4", "found 3"});
    check_throws([&] { linear_cross_entropy(on.ex, logits, w, short_target, loss); },
                 {"linear_cross_entropy", "target", "(2)", "(1)"});
    check_throws([&] { linear_cross_entropy(on.ex, logits, w, target, loss, 1, wrong); },
                 {"linear_cross_entropy", "dL_dx", "(2, 4)", "(2, 3)"});
    check_throws([&] { linear_cross_entropy(on.ex, logits, w, target, loss, 1, {}, wrong); },
                 {"linear_cross_entropy", "dL_dw", "(5, 4)", "(2, 3)"});
}

}  // namespace spectral::test::cross_entropy_test
