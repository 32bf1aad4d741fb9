// SPDX-License-Identifier: Apache-2.0
// tests/ops/pool_test.cpp: means over a batch, a sequence, and the rows so far; decoding with a history
#include <spectral/ops/pool.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::pool_test {

namespace {
constexpr pool_scope scopes[] = {pool_scope::batch, pool_scope::sequence, pool_scope::causal};
const std::vector<std::vector<index>> length_lists{{}, {0}, {1}, {3, 0, 5, 1}, {17}, {0, 33, 2}, {100, 57}, {700, 300}};

index total(const std::vector<index>& lengths) {
    index n = 0;
    for (index l : lengths) n += l;
    return n;
}
std::vector<double> zeros(index n) { return std::vector<double>(static_cast<std::size_t>(n)); }
}  // namespace

TEMPLATE_LIST_TEST_CASE("mean_pool: forward and backward", "[ops][pool]", targets) {
    for (const auto& lengths : length_lists)
        for (index c : {1, 2, 5, 16, 33, 97})
            for (pool_scope scope : scopes) {
                const index n = total(lengths);
                check_against_reference<TestType>("mean_pool", shape(n, c), static_cast<double>(n + 2), [&](auto& on) {
                    const row_map map = pack_rows(on.ex, lengths);
                    const index g = pooled_rows(map, scope);
                    auto pooled = on.output(g, c), dL_dx = on.state(n, c, normals(n * c, 2));
                    mean_pool_forward(on.ex, on.input(n, c, normals(n * c, 1)), map, scope, pooled);
                    mean_pool_backward(on.ex, on.input(g, c, normals(g * c, 3)), map, scope, dL_dx);
                    return outputs{{"pooled", on.read(pooled)}, {"dL_dx", on.read(dL_dx)}};
                });
            }
}

TEMPLATE_LIST_TEST_CASE("mean_pool by hand", "[ops][pool]", targets) {
    workbench<TestType> on;
    const row_map map = pack_rows(on.ex, std::vector<index>{2, 0, 2});
    auto x = on.input(4, 2, {1, 10, 3, 30, 5, 50, 7, 70});
    auto batch = on.output(1, 2), sequence = on.output(3, 2), causal = on.output(4, 2);
    mean_pool_forward(on.ex, x, map, pool_scope::batch, batch);
    mean_pool_forward(on.ex, x, map, pool_scope::sequence, sequence);
    mean_pool_forward(on.ex, x, map, pool_scope::causal, causal);
    CHECK(on.read(batch) == std::vector<double>{4, 40});
    CHECK(on.read(sequence) == std::vector<double>{2, 20, 0, 0, 6, 60});
    CHECK(on.read(causal) == std::vector<double>{1, 10, 2, 20, 5, 50, 6, 60});
}

TEMPLATE_LIST_TEST_CASE("mean_pool: row by row with a history equals all rows at once", "[ops][pool]", targets) {
    using T = typename TestType::scalar;
    const index sequences = 3, time = 9, c = 17;
    workbench<TestType> on;
    const auto x = normals(sequences * time * c, 1);
    auto whole = on.output(sequences * time, c);
    mean_pool_forward(on.ex, on.input(sequences * time, c, x), uniform_rows(on.ex, sequences, time), pool_scope::causal,
                      whole);
    const auto want = on.read(whole);
    auto history = on.gradient(sequences, c, zeros(sequences * c));
    over(std::vector<std::array<index, 2>>{{0, 4}, {4, 1}, {5, 1}, {6, 3}}, [&](index first, index count) {
        std::vector<double> part, expected;
        for (index s = 0; s < sequences; ++s)
            for (index i = (s * time + first) * c; i < (s * time + first + count) * c; ++i) {
                part.push_back(x[static_cast<std::size_t>(i)]);
                expected.push_back(want[static_cast<std::size_t>(i)]);
            }
        const row_map map =
            pack_rows(on.ex, std::vector<index>(sequences, count), std::vector<index>(sequences, first));
        auto pooled = on.output(sequences * count, c);
        mean_pool_forward(on.ex, on.input(sequences * count, c, part), map, pool_scope::causal, pooled, history);
        compare(on.read(pooled), expected, allowed<T>(2.0 * time, 3),
                {"mean_pool_forward", "with history", TestType::executor_name(), scalar_name<T>,
                 shape(sequences * count, c)});
    });
    std::vector<double> sums = zeros(sequences * c);
    for (index s = 0; s < sequences; ++s)
        for (index i = 0; i < time * c; ++i)
            sums[static_cast<std::size_t>(s * c + i % c)] += x[static_cast<std::size_t>(s * time * c + i)];
    compare(on.read(history), sums, allowed<T>(2.0 * time, 10),
            {"mean_pool_forward", "history", TestType::executor_name(), scalar_name<T>, shape(sequences, c)});
}

TEST_CASE("mean_pool: gradients", "[ops][pool]") {
    const std::vector<index> lengths{3, 0, 4};
    for (pool_scope scope : scopes) {
        workbench<oracle> on;
        const index n = 7, c = 3;
        const row_map map = pack_rows(on.ex, lengths);
        const index g = pooled_rows(map, scope);
        const auto dL_dp = normals(g * c, 2);
        auto x = on.state(n, c, normals(n * c, 1)), dL_dx = on.state(n, c, zeros(n * c)), pooled = on.output(g, c);
        mean_pool_backward(on.ex, on.input(g, c, dL_dp), map, scope, dL_dx);
        require_gradient(
            on.ex, x, dL_dx,
            [&] { return mean_pool_forward(on.ex, x, map, scope, pooled), dot(dL_dp, on.read(pooled)); },
            "mean_pool: x");
    }
}

TEMPLATE_LIST_TEST_CASE("mean_pool: a NaN row stays in its sequence", "[ops][pool]", targets) {
    workbench<TestType> on;
    const index c = 5;
    const row_map map = pack_rows(on.ex, std::vector<index>{3, 4, 2});
    auto x = on.input(9, c, with_nan_row(normals(9 * c, 1), c, 4));  // second row of the second sequence
    auto sequence = on.output(3, c), causal = on.output(9, c);
    mean_pool_forward(on.ex, x, map, pool_scope::sequence, sequence);
    mean_pool_forward(on.ex, x, map, pool_scope::causal, causal);
    const auto s = on.read(sequence), k = on.read(causal);
    for (index i = 0; i < 3 * c; ++i) CHECK(std::isnan(s[static_cast<std::size_t>(i)]) == (i == c + c / 2));
    for (index i = 0; i < 9 * c; ++i) {
        const index row = i / c;
        CHECK(std::isnan(k[static_cast<std::size_t>(i)]) == (row >= 4 && row < 7 && i % c == c / 2));
    }
}

TEST_CASE("mean_pool: errors", "[ops][pool]") {
    workbench<oracle> on;
    const row_map map = pack_rows(on.ex, std::vector<index>{2, 2});
    auto x = on.input(3, 2, normals(6, 1)), good = on.input(4, 2, normals(8, 1));
    auto two = on.output(2, 2), three = on.output(3, 2), four = on.output(4, 2);
    check_throws([&] { mean_pool_forward(on.ex, x, map, pool_scope::batch, two); },
                 {"mean_pool_forward", "rows of x", "expected 4", "found 3"});
    check_throws([&] { mean_pool_forward(on.ex, good, map, pool_scope::sequence, three); },
                 {"mean_pool_forward", "pooled", "(2, 2)", "(3, 2)"});
    check_throws([&] { mean_pool_forward(on.ex, good, map, pool_scope::causal, four, three); },
                 {"mean_pool_forward", "history", "(2, 2)", "(3, 2)"});
    check_throws([&] { mean_pool_backward(on.ex, two, map, pool_scope::sequence, three); },
                 {"mean_pool_backward", "dL_dx", "expected 4", "found 3"});
    check_throws([&] { mean_pool_backward(on.ex, three, map, pool_scope::sequence, four); },
                 {"mean_pool_backward", "dL_dpooled", "(2, 2)", "(3, 2)"});
}

}  // namespace spectral::test::pool_test
