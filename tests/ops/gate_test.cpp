// SPDX-License-Identifier: Apache-2.0
// tests/ops/gate_test.cpp: softmax and sigmoid gates, and the blends of a gate
#include <spectral/ops/gate.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::gate_test {

namespace {
constexpr pool_scope scopes[] = {pool_scope::batch, pool_scope::sequence, pool_scope::causal};
std::vector<double> zeros(index n) { return std::vector<double>(static_cast<std::size_t>(n)); }
std::vector<double> shares(index n, std::uint64_t seed) {  // gates: in (0, 1)
    auto v = normals(n, seed);
    for (double& x : v) x = static_cast<float>(1 / (1 + std::exp(-x)));
    return v;
}
index total(const std::vector<index>& lengths) {
    index n = 0;
    for (index l : lengths) n += l;
    return n;
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("token_gate: forward and backward", "[ops][gate]", targets) {
    for (index n : {0, 1, 3, 17, 257, 1000})
        for (index d : {1, 2, 5, 16, 31, 33, 97, 256})
            for (index K : {1, 2, 3, 4})
                if (n < 1000 || (d == 33 || d == 256))
                    check_against_reference<TestType>(
                        "token_gate", shape(n, d, K), 2.0 * static_cast<double>(d + n), [&](auto& on) {
                            // logits of about unit size: w has deviation 1/sqrt(d)
                            auto x = on.input(n, d, normals(n * d, 1)),
                                 w = on.input(K, d + 1, normals(K * (d + 1), 2, 1 / std::sqrt(static_cast<double>(d))));
                            auto entropy = on.statistics(shares(n, 3));
                            auto b = on.input(normals(K, 4));
                            auto s = on.statistics(n, K);
                            token_gate_forward(on.ex, x, entropy, w, b, s);
                            auto dL_dx = on.state(n, d, normals(n * d, 5));
                            auto dL_dw = on.gradient(K, d + 1, normals(K * (d + 1), 6));
                            auto dL_dentropy = on.output(n), dL_db = on.state(normals(K, 7));
                            token_gate_backward(on.ex, on.statistics(n, K, normals(n * K, 8)), s, x, entropy, w, dL_dx,
                                                dL_dentropy, dL_dw, dL_db);
                            return outputs{{"s", on.read(s)},
                                           {"dL_dx", on.read(dL_dx)},
                                           {"dL_dentropy", on.read(dL_dentropy)},
                                           {"dL_dw", on.read(dL_dw)},
                                           {"dL_db", on.read(dL_db)}};
                        });
}

TEMPLATE_LIST_TEST_CASE("token_gate: rows sum to 1, large logits do not overflow, by hand", "[ops][gate]", targets) {
    using T = typename TestType::scalar;
    const index n = 5, d = 3, K = 3;
    workbench<TestType> on;
    auto s = on.statistics(n, K);
    token_gate_forward(on.ex, on.input(n, d, normals(n * d, 1, 400)), on.statistics(shares(n, 3)),
                       on.input(K, d + 1, normals(K * (d + 1), 2)), on.input(normals(K, 4)), s);
    const auto got = on.read(s);
    for (std::size_t i = 0; i < 5; ++i)
        CHECK(std::abs(got[3 * i] + got[3 * i + 1] + got[3 * i + 2] - 1) < allowed<T>(3, 1));
    // z = (1·2 + 10·0.5 − 1, −4·2 + 2·0.5 + 3) = (6, −4)
    auto p = on.statistics(1, 2);
    token_gate_forward(on.ex, on.input(1, 1, {2}), on.statistics({0.5}), on.input(2, 2, {1, 10, -4, 2}),
                       on.input({-1, 3}), p);
    const double q = 1 / (1 + std::exp(-10.0));
    compare(on.read(p), {q, 1 - q}, allowed<T>(8, 1),
            {"token_gate_forward", "by hand", TestType::executor_name(), scalar_name<T>, "(1, 1, 2)"});
}

TEMPLATE_LIST_TEST_CASE("sigmoid_gate: forward and backward", "[ops][gate]", targets) {
    over(edge_shapes(), [&](index g, index d) {
        check_against_reference<TestType>("sigmoid_gate", shape(g, d), 2.0 * static_cast<double>(d + g), [&](auto& on) {
            auto pooled = on.input(g, d, normals(g * d, 1)),
                 u = on.input(1, d, normals(d, 2, 1 / std::sqrt(static_cast<double>(d))));
            auto gate = on.output(g);
            sigmoid_gate_forward(on.ex, pooled, u, on.input({0.5}), gate);
            auto dL_dpooled = on.output(g, d);
            auto dL_du = on.gradient(1, d, normals(d, 3));
            auto dL_db = on.state({0.25});
            sigmoid_gate_backward(on.ex, on.statistics(normals(g, 4)), gate, pooled, u, dL_dpooled, dL_du, dL_db);
            return outputs{{"gate", on.read(gate)},
                           {"dL_dpooled", on.read(dL_dpooled)},
                           {"dL_du", on.read(dL_du)},
                           {"dL_db", on.read(dL_db)}};
        });
    });
}

TEMPLATE_LIST_TEST_CASE("sigmoid_gate: known values", "[ops][gate]", targets) {
    using T = typename TestType::scalar;
    workbench<TestType> on;
    auto gate = on.output(4);
    sigmoid_gate_forward(on.ex, on.input(4, 1, {0, 2, 1000, -1000}), on.input(1, 1, {0.5}), on.input({0}), gate);
    compare(on.read(gate), {0.5, 0.7310585786300049, 1, 0}, allowed<T>(4, 1),
            {"sigmoid_gate_forward", "known values", TestType::executor_name(), scalar_name<T>, "(4, 1)"});
}

TEMPLATE_LIST_TEST_CASE("hard_gate: forward and backward", "[ops][gate]", targets) {
    for (index n : {0, 1, 5, 300})
        for (gate_kind kind : {gate_kind::straight_through, gate_kind::hard_concrete})
            for (bool asked : {false, true})
                check_against_reference<TestType>("hard_gate", shape(n), 16, [&](auto& on) {
                    auto gate = on.output(n), dL_dsoft = on.output(n);
                    const auto slope = on.ex.memory().template vector<double>(n),
                               wanted = on.ex.memory().template vector<double>(n);
                    const auto some = normals(n, 5);
                    if (n) on.ex.copy_from_host(wanted.data, some.data(), some.size() * sizeof(double));
                    hard_gate_forward(on.ex, on.statistics(shares(n, 4)), {kind, 0.5, {3, 9}}, gate, slope);
                    hard_gate_backward(on.ex, on.statistics(normals(n, 6)), slope,
                                       asked ? wanted : vector_view<double>{}, dL_dsoft);
                    return outputs{{"gate", on.read(gate)}, {"dL_dsoft", on.read(dL_dsoft), 64}};
                });
}

TEST_CASE("hard_gate: values and slopes", "[ops][gate]") {
    workbench<oracle> on;
    const index n = 200;
    const auto soft = shares(n, 4);
    auto s = on.state(soft), gate = on.output(n);
    const auto slope = on.ex.memory().template vector<double>(n);
    hard_gate_forward(on.ex, s, {gate_kind::straight_through, 0.3, {}}, gate, slope);
    for (index i = 0; i < n; ++i) {
        CHECK(gate[i] == (soft[static_cast<std::size_t>(i)] > 0.3 ? 1 : 0));
        CHECK(slope[i] == 1);
    }
    hard_gate_forward(on.ex, s, {gate_kind::hard_concrete, 0.3, {3, 9}}, gate, slope);
    index inner = 0, shut = 0, open = 0;
    for (index i = 0; i < n; ++i) {
        inner += gate[i] > 0 && gate[i] < 1, shut += gate[i] == 0, open += gate[i] == 1;
        if (gate[i] == 0 || gate[i] == 1) CHECK(slope[i] == 0);
    }
    CHECK(inner > 20);
    CHECK(shut > 20);
    CHECK(open > 20);
    const std::vector<double> ones(static_cast<std::size_t>(n), 1);
    auto dL_dsoft = on.output(n);
    hard_gate_backward(on.ex, on.input(ones), slope, {}, dL_dsoft);
    const auto loss = [&] {
        hard_gate_forward(on.ex, s, {gate_kind::hard_concrete, 0.3, {3, 9}}, gate, slope);
        return dot(ones, on.read(gate));
    };
    require_gradient(on.ex, s, dL_dsoft, loss, "hard_gate: soft", 1e-5);
}

TEMPLATE_LIST_TEST_CASE("blend: forward and backward", "[ops][gate]", targets) {
    for (const auto& lengths :
         std::vector<std::vector<index>>{{}, {1}, {3, 0, 5, 1}, {17}, {0, 33, 2}, {60, 57}, {700, 300}})
        for (index c : {1, 2, 5, 16, 33, 97})
            for (pool_scope scope : scopes) {
                const index n = total(lengths);
                check_against_reference<TestType>("blend", shape(n, c), static_cast<double>(n * c + 4), [&](auto& on) {
                    const row_map map = pack_rows(on.ex, lengths);
                    const index g = pooled_rows(map, scope);
                    auto a = on.input(n, c, normals(n * c, 1)), x = on.input(n, c, normals(n * c, 2)),
                         dL_dy = on.input(n, c, normals(n * c, 3));
                    auto gate = on.statistics(shares(g, 4));
                    auto y = on.output(n, c), dL_da = on.output(n, c), dL_dx = on.output(n, c);
                    auto dL_dgate = on.output(g);
                    blend_forward(on.ex, a, x, gate, map, scope, y);
                    blend_backward(on.ex, dL_dy, a, x, gate, map, scope, dL_da, dL_dx, dL_dgate);
                    return outputs{{"y", on.read(y)},
                                   {"dL_da", on.read(dL_da)},
                                   {"dL_dx", on.read(dL_dx)},
                                   {"dL_dgate", on.read(dL_dgate), std::sqrt(static_cast<double>(n * c))}};
                });
            }
}

TEMPLATE_LIST_TEST_CASE("blend: gate 1 is a, gate 0 is x", "[ops][gate]", targets) {
    workbench<TestType> on;
    const row_map map = pack_rows(on.ex, std::vector<index>{2, 1});
    auto a = on.input(3, 2, {1, 2, 3, 4, 5, 6}), x = on.input(3, 2, {10, 20, 30, 40, 50, 60});
    auto y = on.output(3, 2);
    blend_forward(on.ex, a, x, on.statistics({1, 0}), map, pool_scope::sequence, y);
    CHECK(on.read(y) == std::vector<double>{1, 2, 3, 4, 50, 60});
    blend_forward(on.ex, a, x, on.statistics({0.5, 0, 1}), map, pool_scope::causal, y);
    CHECK(on.read(y) == std::vector<double>{5.5, 11, 30, 40, 5, 6});
}

TEST_CASE("gates: gradients", "[ops][gate]") {
    workbench<oracle> on;
    const index n = 6, d = 4, K = 3;
    {
        const auto dL_ds = normals(n * K, 8);
        auto x = on.state(n, d, normals(n * d, 1)), w = on.state(K, d + 1, normals(K * (d + 1), 2)),
             s = on.output(n, K);
        auto entropy = on.state(shares(n, 3)), b = on.state(normals(K, 4)), dL_dentropy = on.output(n),
             dL_db = on.state(zeros(K));
        auto dL_dx = on.state(n, d, zeros(n * d)), dL_dw = on.gradient(K, d + 1, zeros(K * (d + 1)));
        const auto loss = [&] { return token_gate_forward(on.ex, x, entropy, w, b, s), dot(dL_ds, on.read(s)); };
        loss();
        token_gate_backward(on.ex, on.input(n, K, dL_ds), s, x, entropy, w, dL_dx, dL_dentropy, dL_dw, dL_db);
        require_gradient(on.ex, x, dL_dx, loss, "token_gate: x");
        require_gradient(on.ex, entropy, dL_dentropy, loss, "token_gate: entropy");
        require_gradient(on.ex, w, dL_dw, loss, "token_gate: w");
        require_gradient(on.ex, b, dL_db, loss, "token_gate: b");
    }
    {
        const auto dL_dgate = normals(n, 8);
        auto pooled = on.state(n, d, normals(n * d, 1)), u = on.state(1, d, normals(d, 2)),
             dL_dpooled = on.output(n, d), dL_du = on.gradient(1, d, zeros(d));
        auto b = on.state({0.5}), gate = on.output(n), dL_db = on.state({0});
        const auto loss = [&] { return sigmoid_gate_forward(on.ex, pooled, u, b, gate), dot(dL_dgate, on.read(gate)); };
        loss();
        sigmoid_gate_backward(on.ex, on.input(dL_dgate), gate, pooled, u, dL_dpooled, dL_du, dL_db);
        require_gradient(on.ex, pooled, dL_dpooled, loss, "sigmoid_gate: pooled");
        require_gradient(on.ex, u, dL_du, loss, "sigmoid_gate: u");
        require_gradient(on.ex, b, dL_db, loss, "sigmoid_gate: b");
    }
    for (pool_scope scope : scopes) {
        const row_map map = pack_rows(on.ex, std::vector<index>{2, 0, 4});
        const index g = pooled_rows(map, scope);
        const auto dL_dy = normals(n * d, 3);
        auto a = on.state(n, d, normals(n * d, 1)), x = on.state(n, d, normals(n * d, 2)), y = on.output(n, d),
             dL_da = on.output(n, d), dL_dx = on.output(n, d);
        auto gate = on.state(shares(g, 4)), dL_dgate = on.output(g);
        blend_backward(on.ex, on.input(n, d, dL_dy), a, x, gate, map, scope, dL_da, dL_dx, dL_dgate);
        const auto loss = [&] { return blend_forward(on.ex, a, x, gate, map, scope, y), dot(dL_dy, on.read(y)); };
        require_gradient(on.ex, a, dL_da, loss, "blend: a");
        require_gradient(on.ex, x, dL_dx, loss, "blend: x");
        require_gradient(on.ex, gate, dL_dgate, loss, "blend: gate");
    }
}

TEMPLATE_LIST_TEST_CASE("gates: a NaN row stays alone", "[ops][gate]", targets) {
    using T = typename TestType::scalar;
    const index n = 7, d = 17, K = 3, bad = 4;
    const auto x = normals(n * d, 1);
    const auto run = [&](const std::vector<double>& values) {
        workbench<TestType> on;
        const row_map map = pack_rows(on.ex, std::vector<index>{n});
        auto s = on.statistics(n, K);
        auto y = on.output(n, d);
        auto gate = on.output(n);
        token_gate_forward(on.ex, on.input(n, d, values), on.statistics(shares(n, 3)),
                           on.input(K, d + 1, normals(K * (d + 1), 2)), on.input(normals(K, 4)), s);
        sigmoid_gate_forward(on.ex, on.input(n, d, values), on.input(1, d, normals(d, 2)), on.input({0.5}), gate);
        blend_forward(on.ex, on.input(n, d, values), on.input(n, d, x), on.statistics(shares(n, 4)), map,
                      pool_scope::causal, y);
        return std::array{on.read(s), on.read(gate), on.read(y)};
    };
    const auto clean = run(x), poisoned = run(with_nan_row(x, d, bad));
    const index widths[] = {K, 1, d};
    const subject s{"gate", "with a NaN row", TestType::executor_name(), scalar_name<T>, shape(n, d)};
    for (std::size_t i = 0; i < 3; ++i) check_nan_stays(clean[i], poisoned[i], widths[i], bad, s, allowed<T>(d, 4));
}

TEST_CASE("gates: errors", "[ops][gate]") {
    workbench<oracle> on;
    const row_map map = pack_rows(on.ex, std::vector<index>{2});
    auto x = on.input(2, 4, normals(8, 1)), w = on.input(3, 5, normals(15, 1)), narrow = on.input(3, 4, normals(12, 1));
    auto s = on.output(2, 3), y = on.output(2, 4), dw = on.output(3, 5), wrong = on.output(2, 2),
         many = on.output(2, 9);
    auto two = on.input({1, 2}), three = on.input({1, 2, 3}), four = on.input({1, 2, 3, 4}), one = on.input({1});
    auto g2 = on.output(2), g3 = on.output(3), g1 = on.output(1);
    check_throws([&] { token_gate_forward(on.ex, x, two, narrow, three, s); },
                 {"token_gate_forward", "w", "(3, 5)", "(3, 4)"});
    check_throws([&] { token_gate_forward(on.ex, x, three, w, three, s); },
                 {"token_gate_forward", "entropy", "(2)", "(3)"});
    check_throws([&] { token_gate_forward(on.ex, x, two, w, four, s); }, {"token_gate_forward", "b", "(3)", "(4)"});
    check_throws(
        [&] { token_gate_forward(on.ex, x, two, on.input(9, 5, normals(45, 1)), on.input(normals(9, 1)), many); },
        {"token_gate_forward", "operators", "8", "9"});
    check_throws([&] { token_gate_backward(on.ex, wrong, s, x, two, w, y, g2, dw, g3); },
                 {"token_gate_backward", "dL_ds", "(2, 3)", "(2, 2)"});
    check_throws([&] { token_gate_backward(on.ex, s, s, x, two, w, y, g2, s, g3); },
                 {"token_gate_backward", "dL_dw", "(3, 5)", "(2, 3)"});
    check_throws([&] { token_gate_backward(on.ex, s, s, x, two, w, y, g3, dw, g3); },
                 {"token_gate_backward", "dL_dentropy", "(2)", "(3)"});
    check_throws([&] { token_gate_backward(on.ex, s, s, x, two, w, y, g2, dw, g2); },
                 {"token_gate_backward", "dL_db", "(3)", "(2)"});
    check_throws(
        [&] {
            sigmoid_gate_forward(on.ex, x, on.input(1, 3, {1, 2, 3}), one, g2);
        },
        {"sigmoid_gate_forward", "u", "(1, 4)", "(1, 3)"});
    check_throws(
        [&] {
            sigmoid_gate_forward(on.ex, x, on.input(1, 4, {1, 2, 3, 4}), two, g2);
        },
        {"sigmoid_gate_forward", "b", "(1)", "(2)"});
    check_throws(
        [&] {
            sigmoid_gate_backward(on.ex, two, two, x, on.input(1, 4, {1, 2, 3, 4}), wrong, y, g1);
        },
        {"sigmoid_gate_backward", "dL_dpooled", "(2, 4)", "(2, 2)"});
    check_throws(
        [&] {
            sigmoid_gate_backward(on.ex, two, two, x, on.input(1, 4, {1, 2, 3, 4}), y, y, g1);
        },
        {"sigmoid_gate_backward", "dL_du", "(1, 4)", "(2, 4)"});
    check_throws([&] { blend_forward(on.ex, x, x, two, map, pool_scope::batch, y); },
                 {"blend_forward", "gate", "(1)", "(2)"});
    check_throws([&] { blend_forward(on.ex, narrow, x, one, map, pool_scope::batch, y); },
                 {"blend_forward", "a", "(2, 4)", "(3, 4)"});
    check_throws([&] { blend_backward(on.ex, x, x, x, one, map, pool_scope::batch, y, wrong, g1); },
                 {"blend_backward", "dL_dx", "(2, 4)", "(2, 2)"});
    check_throws([&] { blend_backward(on.ex, x, x, x, one, map, pool_scope::batch, y, y, g2); },
                 {"blend_backward", "dL_dgate", "(1)", "(2)"});
}

}  // namespace spectral::test::gate_test
