// SPDX-License-Identifier: Apache-2.0
// tests/ops/rotary_test.cpp: rotation by position: values, norms, inverse, relative angles, gradient
#include <spectral/ops/rotary.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::rotary_test {

namespace {
constexpr index positions = 40;
constexpr double base = 10000;

template <class On>
matrix_view<const typename On::real> table(On& on, index width) {
    const auto t = rotary_table<double>(positions, width, base);
    return on.statistics(positions, width, t);
}
}  // namespace

// The table is rounded to the scalar type (1 rounding), then two products and a sum.
TEMPLATE_LIST_TEST_CASE("rotary: both directions", "[ops][rotary]", targets) {
    for (index n : {0, 1, 2, 3, 7, 17, 1000})
        for (index width : {2, 4, 6, 16, 30, 32, 34, 64})
            for (index heads : {1, 3})
                for (rotation direction : {rotation::forward, rotation::inverse})
                    check_against_reference<TestType>("rotary", shape(n, heads * width), 4, [&](auto& on) {
                        auto x = on.state(n, heads * width, normals(n * heads * width, 1));
                        rotary(on.ex, x, on.ids(random_ids(n, positions, 2)), table(on, width), direction);
                        return outputs{{"x", on.read(x)}};
                    });
}

TEMPLATE_LIST_TEST_CASE("rotary by hand", "[ops][rotary]", targets) {
    using T = typename TestType::scalar;
    // two heads of width 4 at position 3: angles 3 and 3 / 100
    workbench<TestType> on;
    auto x = on.state(1, 8, {1, 0, 0, 0, 0, 2, 0, 1});
    rotary(on.ex, x, on.ids({3}), table(on, 4), rotation::forward);
    const double a = 3, b = 0.03;
    compare(on.read(x),
            {std::cos(a), 0, std::sin(a), 0, 0, 2 * std::cos(b) - std::sin(b), 0, std::cos(b) + 2 * std::sin(b)},
            allowed<T>(4, 2), {"rotary", "by hand", TestType::executor_name(), scalar_name<T>, "(1, 8)"});
}

TEMPLATE_LIST_TEST_CASE("rotary keeps norms; the inverse undoes it; position 0 is the identity", "[ops][rotary]",
                        targets) {
    using T = typename TestType::scalar;
    const index n = 7, heads = 2, width = 16, c = heads * width;
    workbench<TestType> on;
    const auto values = normals(n * c, 1);
    auto x = on.state(n, c, values);
    auto ids = on.ids(random_ids(n, positions, 2));
    auto t = table(on, width);
    rotary(on.ex, x, ids, t, rotation::forward);
    const auto turned = on.read(x);
    CHECK(turned != values);
    for (index row = 0; row < n * heads; ++row) {
        double before = 0, after = 0;
        for (index i = 0; i < width; ++i) {
            before += std::pow(values[static_cast<std::size_t>(row * width + i)], 2);
            after += std::pow(turned[static_cast<std::size_t>(row * width + i)], 2);
        }
        CHECK(std::abs(after - before) < allowed<T>(width, before));
    }
    rotary(on.ex, x, ids, t, rotation::inverse);
    const subject s{"rotary", "there and back", TestType::executor_name(), scalar_name<T>, shape(n, c)};
    compare(on.read(x), values, allowed<T>(8, largest(values)), s);
    rotary(on.ex, x, on.ids(std::vector<row_index>(static_cast<std::size_t>(n), 0)), t, rotation::forward);
    compare(on.read(x), values, allowed<T>(8, largest(values)), s);
}

TEMPLATE_LIST_TEST_CASE("rotary: inner products depend on the difference of positions", "[ops][rotary]", targets) {
    using T = typename TestType::scalar;
    const index c = 16;
    const auto q = normals(c, 1), k = normals(c, 2);
    auto both = q;
    both.insert(both.end(), k.begin(), k.end());
    std::vector<double> products;
    for (row_index shift : {0, 5, 30}) {
        workbench<TestType> on;
        auto x = on.state(2, c, both);
        rotary(on.ex, x, on.ids({static_cast<row_index>(7 + shift), static_cast<row_index>(3 + shift)}), table(on, c),
               rotation::forward);
        const auto v = on.read(x);
        products.push_back(dot({v.begin(), v.begin() + c}, {v.begin() + c, v.end()}));
    }
    CHECK(std::abs(products[1] - products[0]) < allowed<T>(c, 16));
    CHECK(std::abs(products[2] - products[0]) < allowed<T>(c, 16));
}

TEST_CASE("rotary: the gradient is the inverse rotation", "[ops][rotary]") {
    workbench<oracle> on;
    const index n = 3, c = 12;
    const auto dL_dy = normals(n * c, 2);
    auto x = on.state(n, c, normals(n * c, 1)), y = on.output(n, c), dL_dx = on.state(n, c, dL_dy);
    auto ids = on.ids({5, 0, 17});
    auto t = table(on, 6);
    rotary(on.ex, dL_dx, ids, t, rotation::inverse);
    require_gradient(
        on.ex, x, dL_dx,
        [&] {
            y = on.state(n, c, on.read(x));
            rotary(on.ex, y, ids, t, rotation::forward);
            return dot(dL_dy, on.read(y));
        },
        "rotary: x");
}

TEMPLATE_LIST_TEST_CASE("rotary: a NaN stays in its pair", "[ops][rotary]", targets) {
    workbench<TestType> on;
    const index n = 5, c = 32;
    auto x =
        on.state(n, c, with_nan_row(normals(n * c, 1), c, 2));  // element 16 of row 2: pair (16, 24) of the second head
    rotary(on.ex, x, on.ids({1, 2, 3, 4, 5}), table(on, 16), rotation::forward);
    const auto got = on.read(x);
    for (index i = 0; i < n * c; ++i)
        CHECK(std::isnan(got[static_cast<std::size_t>(i)]) == (i == 2 * c + 16 || i == 2 * c + 24));
}

TEST_CASE("rotary: errors", "[ops][rotary]") {
    workbench<oracle> on;
    auto x = on.state(2, 10, normals(20, 1));
    check_throws([&] { rotary_table<float>(4, 5, base); }, {"rotary_table", "even", "5"});
    check_throws(
        [&] {
            rotary(on.ex, x, on.ids({0, 1}), table(on, 4), rotation::forward);
        },
        {"rotary", "multiple of 4", "found 10"});
    check_throws([&] { rotary(on.ex, x, on.ids({0}), table(on, 2), rotation::forward); },
                 {"rotary", "positions", "expected 2", "found 1"});
}

}  // namespace spectral::test::rotary_test
