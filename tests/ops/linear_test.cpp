// SPDX-License-Identifier: Apache-2.0
// tests/ops/linear_test.cpp: affine map of rows, and its three gradients
#include <spectral/ops/linear.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::linear_test {

namespace {
// (rows, inputs, outputs): the edges of every extent, alone and together; each extent long enough to be cut into
// blocks, and strides of whole kilobytes
std::vector<std::array<index, 3>> sizes() {
    std::vector<std::array<index, 3>> out{
        {33, 48, 257}, {256, 31, 17}, {97, 97, 97}, {128, 64, 192}, {40, 1024, 20},
        {9, 801, 35},  {9, 35, 801},  {801, 17, 9}, {21, 24, 1029}};  // a head of odd width
    for (index n : edge_rows) out.push_back({n, 5, 3});
    for (index i : edge_widths) out.push_back({3, i, 5});
    for (index o : edge_widths) out.push_back({7, 16, o});
    for (index i : {1, 17, 33})
        for (index o : {1, 17, 33}) out.push_back({1, i, o});
    if (SPECTRAL_TEST_GPU) out.push_back({17000, 5, 24});  // several rows to a thread that sums columns
    return out;
}

// what a product is added to
enum class summand { none, y, other, part_of_wider };
std::string describe(summand s) {
    static const char* names[] = {"", " + y", " + another", " + part of a wider matrix"};
    return names[static_cast<int>(s)];
}
template <class T, class Bench>
view<const T, 2> added(Bench& on, summand s, view<T, 2> y) {
    const index n = y.rows(), o = y.width();
    switch (s) {
        case summand::none: return {};
        case summand::y: return y;
        case summand::other: return on.input(n, o, normals(n * o, 4));
        default: return view<const T, 2>(on.input(n, o + 3, normals(n * (o + 3), 4))).columns(1, o);
    }
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("linear_forward", "[ops][linear]", targets) {
    over(sizes(), [&](index n, index i, index o) {
        for (bool bias : {true, false})
            for (summand plus : {summand::none, summand::y, summand::other, summand::part_of_wider})
                check_against_reference<TestType>(
                    "linear_forward", shape(n, i, o) + describe(plus), static_cast<double>(i + 3), [&](auto& on) {
                        using T = typename std::decay_t<decltype(on)>::scalar;
                        auto y = plus == summand::y ? on.state(n, o, normals(n * o, 4)) : on.output(n, o);
                        linear_forward(on.ex, on.input(n, i, normals(n * i, 1)), on.input(o, i, normals(o * i, 2)),
                                       bias ? on.input(normals(o, 3)) : view<const T, 1>{}, y, added<T>(on, plus, y),
                                       1.5);
                        return outputs{{"y", on.read(y)}};
                    });
    });
}

TEMPLATE_LIST_TEST_CASE("linear_forward: a weight of more columns than one block holds", "[ops][linear]", targets) {
    const index n = 20, i = 384, o = 5600;  // a block of a depth of 384 floats or 192 doubles holds 5461 columns
    const auto x = normals(n * i, 1), w = normals(o * i, 2), b = normals(o, 3);
    check_against_reference<TestType>("linear_forward", shape(n, i, o), static_cast<double>(i + 1), [&](auto& on) {
        auto y = on.output(n, o);
        linear_forward(on.ex, on.input(n, i, x), on.input(o, i, w), on.input(b), y);
        return outputs{{"y", on.read(y)}};
    });
}

// A block of a depth of 384 floats has at most 256 rows.
TEMPLATE_LIST_TEST_CASE("linear: more rows than one block holds", "[ops][linear]", targets) {
    const index rows = 600, depth = 384, width = 40;
    const auto tall = normals(rows * depth, 1), small = normals(width * depth, 2);
    const auto terms = static_cast<double>(rows);
    check_against_reference<TestType>("linear_forward", shape(rows, depth, width), terms, [&](auto& on) {
        auto y = on.output(rows, width);
        linear_forward(on.ex, on.input(rows, depth, tall), on.input(width, depth, small), {}, y);
        return outputs{{"y", on.read(y)}};
    });
    check_against_reference<TestType>("linear_backward_input", shape(rows, width, depth), terms, [&](auto& on) {
        auto dL_dx = on.output(rows, width);
        linear_backward_input(on.ex, on.input(rows, depth, tall), on.input(depth, width, small), dL_dx);
        return outputs{{"dL_dx", on.read(dL_dx)}};
    });
    check_against_reference<TestType>("linear_backward_weight", shape(depth, width, rows), terms, [&](auto& on) {
        auto dL_dw = on.gradient(rows, width, normals(rows * width, 3));
        linear_backward_weight(on.ex, on.input(depth, rows, tall), on.input(depth, width, small), dL_dw, {});
        return outputs{{"dL_dw", on.read(dL_dw)}};
    });
}

TEMPLATE_LIST_TEST_CASE("linear_backward_input", "[ops][linear]", targets) {
    over(sizes(), [&](index n, index i, index o) {
        for (write mode : {write::overwrite, write::accumulate})
            check_against_reference<TestType>(
                "linear_backward_input", shape(n, i, o), static_cast<double>(o + 2), [&](auto& on) {
                    auto dL_dx = mode == write::overwrite ? on.output(n, i) : on.state(n, i, normals(n * i, 4));
                    linear_backward_input(on.ex, on.input(n, o, normals(n * o, 5)), on.input(o, i, normals(o * i, 2)),
                                          dL_dx, mode, 1.5);
                    return outputs{{"dL_dx", on.read(dL_dx)}};
                });
    });
}

TEMPLATE_LIST_TEST_CASE("linear_backward_weight adds or writes; the bias may be absent", "[ops][linear]", targets) {
    over(sizes(), [&](index n, index i, index o) {
        for (bool bias : {true, false})
            for (write mode : {write::accumulate, write::overwrite})
                check_against_reference<TestType>(
                    "linear_backward_weight", shape(n, i, o), static_cast<double>(n + 1), [&](auto& on) {
                        using T = typename std::decay_t<decltype(on)>::scalar;
                        const bool adds = mode == write::accumulate;
                        auto dL_dw = on.gradient(o, i, adds ? normals(o * i, 6) : not_a_number(o * i));
                        auto dL_db =
                            bias ? on.state(adds ? normals(o, 7) : not_a_number(o)) : vector_view<statistic<T>>{};
                        linear_backward_weight(on.ex, on.input(n, o, normals(n * o, 5)),
                                               on.input(n, i, normals(n * i, 1)), dL_dw, dL_db, mode);
                        return outputs{{"dL_dw", on.read(dL_dw)}, {"dL_db", on.read(dL_db)}};
                    });
    });
}

// from one row to more than a block; few rows are another kernel than many
TEMPLATE_LIST_TEST_CASE("linear: a weight kept as bfloat16 counts as its widened values", "[ops][linear]", targets) {
    auto shapes = sizes();
    for (index n : {1, 2, 3, 4, 5, 8, 9, 20})
        for (index i : {1, 15, 16, 31, 32, 47, 100, 257}) shapes.push_back({n, i, 37});
    over(shapes, [&](index n, index i, index o) {
        for (summand plus : {summand::none, summand::y, summand::other})
            check_against_reference<TestType>(
                "linear_forward, narrow", shape(n, i, o) + describe(plus), static_cast<double>(i + 3),
                [&, weight = narrow_after_oracle()](auto& on) mutable {
                    using T = typename std::decay_t<decltype(on)>::scalar;
                    auto y = plus == summand::y ? on.state(n, o, normals(n * o, 4)) : on.output(n, o);
                    linear_forward(on.ex, on.input(n, i, normals(n * i, 1)), weight(on, o, i, 2),
                                   on.input(normals(o, 3)), y, added<T>(on, plus, y), 1.5);
                    return outputs{{"y", on.read(y)}};
                });
        for (write mode : {write::overwrite, write::accumulate})
            check_against_reference<TestType>(
                "linear_backward_input, narrow", shape(n, i, o), static_cast<double>(o + 1),
                [&, weight = narrow_after_oracle()](auto& on) mutable {
                    auto dL_dx = mode == write::overwrite ? on.output(n, i) : on.state(n, i, normals(n * i, 4));
                    linear_backward_input(on.ex, on.input(n, o, normals(n * o, 5)), weight(on, o, i, 2), dL_dx, mode,
                                          1.5);
                    return outputs{{"dL_dx", on.read(dL_dx)}};
                });
    });
}

// Decoding a batch gives each sequence what it gets alone. Not so with a vendor's products, whose algorithm follows the
// shape: on cuda, decoding in bfloat16 has kernels of its own (few_rows_test).
TEMPLATE_LIST_TEST_CASE("linear_forward: a row's bits do not depend on how few there are", "[ops][linear]", targets) {
    workbench<TestType> on;
    if (std::string(TestType::executor::name) == "cuda") return;
    const index i = 101, o = 37;
    auto x = on.input(4, i, normals(4 * i, 1)), w = on.input(o, i, normals(o * i, 2));
    auto together = on.output(4, o), alone = on.output(1, o);
    linear_forward(on.ex, x, w, {}, together);
    for (index n = 0; n < 4; ++n) {
        linear_forward(on.ex, x.slice(n, 1), w, {}, alone);
        CHECK(on.read(alone) == on.read(together.slice(n, 1)));
    }
}

TEMPLATE_LIST_TEST_CASE("linear by hand", "[ops][linear]", targets) {
    workbench<TestType> on;
    auto y = on.output(1, 2);
    linear_forward(on.ex, on.input(1, 3, {1, 2, 3}), on.input(2, 3, {1, 0, 0, 1, -1, 2}), on.input({10, 20}), y);
    CHECK(on.read(y) == std::vector<double>{11, 25});
    linear_forward(on.ex, on.input(1, 3, {1, 2, 3}), on.input(2, 3, {1, 0, 0, 1, -1, 2}), on.input({10, 20}), y, y);
    CHECK(on.read(y) == std::vector<double>{22, 50});
    linear_forward(on.ex, on.input(1, 3, {1, 2, 3}), on.input(2, 3, {1, 0, 0, 1, -1, 2}), {}, y, on.input(1, 2, {7, 8}),
                   2);
    CHECK(on.read(y) == std::vector<double>{9, 18});
    // dL_dy = (1, 2): dL_dx = dL_dy W, dL_dw += dL_dyᵀ x, dL_db += dL_dy
    auto dL_dy = on.input(1, 2, {1, 2}), w = on.input(2, 3, {1, 0, 0, 1, -1, 2});
    auto dL_dx = on.state(1, 3, {100, 100, 100});
    auto dL_dw = on.gradient(2, 3, {1, 1, 1, 1, 1, 1});
    auto dL_db = on.state({7, 7});
    linear_backward_input(on.ex, dL_dy, w, dL_dx, write::accumulate);
    CHECK(on.read(dL_dx) == std::vector<double>{103, 98, 104});
    linear_backward_input(on.ex, dL_dy, w, dL_dx);
    CHECK(on.read(dL_dx) == std::vector<double>{3, -2, 4});
    linear_backward_weight(on.ex, dL_dy, on.input(1, 3, {1, 2, 3}), dL_dw, dL_db);
    CHECK(on.read(dL_dw) == std::vector<double>{2, 3, 4, 3, 5, 7});
    CHECK(on.read(dL_db) == std::vector<double>{8, 9});
}

TEST_CASE("linear: gradients", "[ops][linear]") {
    over(std::vector<std::array<index, 3>>{{1, 1, 1}, {3, 5, 4}, {7, 3, 2}}, [&](index n, index i, index o) {
        workbench<oracle> on;
        const auto dL_dy = normals(n * o, 5);
        auto x = on.state(n, i, normals(n * i, 1)), w = on.state(o, i, normals(o * i, 2)), y = on.output(n, o);
        auto b = on.state(normals(o, 3));
        auto dL_dx = on.output(n, i), dL_dw = on.gradient(o, i, std::vector<double>(static_cast<std::size_t>(o * i)));
        auto dL_db = on.state(std::vector<double>(static_cast<std::size_t>(o)));
        auto dy = on.input(n, o, dL_dy);
        linear_backward_input(on.ex, dy, w, dL_dx);
        linear_backward_weight(on.ex, dy, x, dL_dw, dL_db);
        const auto loss = [&] {
            linear_forward(on.ex, x, w, b, y);
            return dot(dL_dy, on.read(y));
        };
        require_gradient(on.ex, x, dL_dx, loss, "linear: x");
        require_gradient(on.ex, w, dL_dw, loss, "linear: w");
        require_gradient(on.ex, b, dL_db, loss, "linear: b");
    });
}

TEMPLATE_LIST_TEST_CASE("linear: a NaN row stays alone", "[ops][linear]", targets) {
    const index n = 7, i = 17, o = 9, bad = 3;
    const auto run = [&](const std::vector<double>& x) {
        workbench<TestType> on;
        auto y = on.output(n, o);
        linear_forward(on.ex, on.input(n, i, x), on.input(o, i, normals(o * i, 2)), on.input(normals(o, 3)), y);
        return on.read(y);
    };
    const auto x = normals(n * i, 1);
    using T = typename TestType::scalar;
    check_nan_stays(
        run(x), run(with_nan_row(x, i, bad)), o, bad,
        {"linear_forward", "y with NaN in row 3", TestType::executor_name(), scalar_name<T>, shape(n, i, o)},
        allowed<T>(i, 10));
}

TEST_CASE("linear: errors", "[ops][linear]") {
    workbench<oracle> on;
    auto x = on.input(2, 4, normals(8, 1)), w = on.input(3, 4, normals(12, 1)), narrow = on.input(3, 5, normals(15, 1));
    auto y = on.output(2, 3), wrong = on.output(2, 2);
    check_throws([&] { linear_forward(on.ex, x, narrow, {}, y); },
                 {"linear_forward", "width", "expected 4", "found 5"});
    check_throws([&] { linear_forward(on.ex, x, w, {}, wrong); }, {"linear_forward", "y", "(2, 3)", "(2, 2)"});
    check_throws([&] { linear_forward(on.ex, x, w, on.input({1, 2}), y); }, {"linear_forward", "bias", "(3)", "(2)"});
    check_throws([&] { linear_forward(on.ex, x, w, {}, y, wrong); }, {"linear_forward", "addend", "(2, 3)", "(2, 2)"});
    check_throws([&] { linear_backward_input(on.ex, x, w, wrong); },
                 {"linear_backward_input", "expected 4", "found 3"});
    auto dL_dw = on.output(3, 3);
    check_throws([&] { linear_backward_weight(on.ex, y, x, dL_dw, {}); },
                 {"linear_backward_weight", "dL_dw", "(3, 4)", "(3, 3)"});
}

}  // namespace spectral::test::linear_test
