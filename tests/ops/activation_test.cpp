// SPDX-License-Identifier: Apache-2.0
// tests/ops/activation_test.cpp: GELU and the SiLU gate, with their gradients
#include <spectral/ops/activation.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::activation_test {

TEMPLATE_LIST_TEST_CASE("gelu: forward and backward, also in place", "[ops][activation]", targets) {
    over(edge_shapes(), [&](index n, index c) {
        for (bool in_place : {false, true})
            check_against_reference<TestType>("gelu", shape(n, c), 8, [&](auto& on) {
                auto x = on.input(n, c, normals(n * c, 1, 2));
                auto y = in_place ? on.state(n, c, normals(n * c, 1, 2)) : on.output(n, c);
                if (in_place)
                    gelu_forward(on.ex, y, y);
                else
                    gelu_forward(on.ex, x, y);
                auto dL_dx = in_place ? on.state(n, c, normals(n * c, 2)) : on.output(n, c);
                if (in_place)
                    gelu_backward(on.ex, dL_dx, x, dL_dx);
                else
                    gelu_backward(on.ex, on.input(n, c, normals(n * c, 2)), x, dL_dx);
                return outputs{{"y", on.read(y)}, {"dL_dx", on.read(dL_dx)}};
            });
    });
}

TEMPLATE_LIST_TEST_CASE("gelu_backward: with the sums of a bias's gradient", "[ops][activation]", targets) {
    auto shapes = edge_shapes();
    shapes.push_back({1027, 40});  // several rows to a thread, in several blocks
    if (SPECTRAL_TEST_GPU) shapes.push_back({17000, 24});
    over(shapes, [&](index n, index c) {
        for (bool in_place : {false, true})
            for (write mode : {write::overwrite, write::accumulate})
                check_against_reference<TestType>(
                    "gelu_backward", shape(n, c), 8.0 + static_cast<double>(n), [&](auto& on) {
                        auto dL_dy = normals(n * c, 2);
                        auto dL_dx = in_place ? on.state(n, c, dL_dy) : on.output(n, c);
                        auto sums = on.state(mode == write::overwrite ? not_a_number(c) : normals(c, 3));
                        const bias_gradient<typename std::decay_t<decltype(on)>::scalar> bias{sums, mode};
                        auto x = on.input(n, c, normals(n * c, 1, 2));
                        if (in_place)
                            gelu_backward(on.ex, dL_dx, x, dL_dx, bias);
                        else
                            gelu_backward(on.ex, on.input(n, c, dL_dy), x, dL_dx, bias);
                        return outputs{{"dL_dx", on.read(dL_dx)}, {"dL_db", on.read(sums)}};
                    });
    });
}

TEMPLATE_LIST_TEST_CASE("gelu: known values and far tails", "[ops][activation]", targets) {
    using T = typename TestType::scalar;
    workbench<TestType> on;
    const std::vector<double> x{0, 1, -1, 30, -30, 5, -5, 1e-6};
    auto y = on.output(1, 8);
    gelu_forward(on.ex, on.input(1, 8, x), y);
    // x Φ(x); Φ(1) and Φ(5) from tables to 16 digits
    compare(on.read(y),
            {0, 0.8413447460685429, -0.1586552539314571, 30, 0, 4.999998566742141, -1.43325785939597e-6,
             5.00000398942280e-7},
            allowed<T>(4, 1), {"gelu_forward", "known values", TestType::executor_name(), scalar_name<T>, "(1, 8)"});
}

TEMPLATE_LIST_TEST_CASE("silu_gate: forward and backward", "[ops][activation]", targets) {
    over(edge_shapes(), [&](index n, index c) {
        check_against_reference<TestType>("silu_gate", shape(n, c), 8, [&](auto& on) {
            auto gate = on.input(n, c, normals(n * c, 1, 2)), up = on.input(n, c, normals(n * c, 2));
            auto y = on.output(n, c), dL_dgate = on.output(n, c), dL_dup = on.output(n, c);
            silu_gate_forward(on.ex, gate, up, y);
            silu_gate_backward(on.ex, on.input(n, c, normals(n * c, 3)), gate, up, dL_dgate, dL_dup);
            return outputs{{"y", on.read(y)}, {"dL_dgate", on.read(dL_dgate)}, {"dL_dup", on.read(dL_dup)}};
        });
    });
}

TEMPLATE_LIST_TEST_CASE("silu_gate: known values; large arguments do not overflow", "[ops][activation]", targets) {
    using T = typename TestType::scalar;
    workbench<TestType> on;
    auto y = on.output(1, 4), dL_dgate = on.output(1, 4), dL_dup = on.output(1, 4);
    auto gate = on.input(1, 4, {0, 1, 200, -200}), up = on.input(1, 4, {3, 2, 1, 1});
    silu_gate_forward(on.ex, gate, up, y);
    silu_gate_backward(on.ex, on.input(1, 4, {1, 1, 1, 1}), gate, up, dL_dgate, dL_dup);
    const subject s{"silu_gate", "known values", TestType::executor_name(), scalar_name<T>, "(1, 4)"};
    compare(on.read(y), {0, 2 * 0.7310585786300049, 200, 0}, allowed<T>(4, 1), s);
    compare(on.read(dL_dgate), {1.5, 2 * 0.9276705118714867, 1, 0}, allowed<T>(4, 1), s);
    compare(on.read(dL_dup), {0, 0.7310585786300049, 200, 0}, allowed<T>(4, 1), s);
}

TEST_CASE("activation: gradients", "[ops][activation]") {
    workbench<oracle> on;
    const index n = 4, c = 9;
    const auto dL_dy = normals(n * c, 3);
    auto dy = on.input(n, c, dL_dy);
    auto x = on.state(n, c, normals(n * c, 1, 2)), up = on.state(n, c, normals(n * c, 2));
    auto y = on.output(n, c), dL_dx = on.output(n, c), dL_dup = on.output(n, c);
    gelu_backward(on.ex, dy, x, dL_dx);
    require_gradient(
        on.ex, x, dL_dx, [&] { return gelu_forward(on.ex, x, y), dot(dL_dy, on.read(y)); }, "gelu: x");
    silu_gate_backward(on.ex, dy, x, up, dL_dx, dL_dup);
    const auto loss = [&] { return silu_gate_forward(on.ex, x, up, y), dot(dL_dy, on.read(y)); };
    require_gradient(on.ex, x, dL_dx, loss, "silu_gate: gate");
    require_gradient(on.ex, up, dL_dup, loss, "silu_gate: up");
}

TEMPLATE_LIST_TEST_CASE("activation: a NaN stays where it is", "[ops][activation]", targets) {
    workbench<TestType> on;
    const index c = 33;
    const auto x = normals(3 * c, 1);
    auto clean = on.output(3, c), y = on.output(3, c), z = on.output(3, c);
    gelu_forward(on.ex, on.input(3, c, x), clean);
    gelu_forward(on.ex, on.input(3, c, with_nan_row(x, c, 1)), y);
    silu_gate_forward(on.ex, on.input(3, c, with_nan_row(x, c, 1)), on.input(3, c, x), z);
    const auto bad = static_cast<std::size_t>(c + c / 2);
    for (std::size_t i = 0; i < static_cast<std::size_t>(3 * c); ++i) {
        CHECK(std::isnan(on.read(y)[i]) == (i == bad));
        CHECK(std::isnan(on.read(z)[i]) == (i == bad));
        if (i != bad) CHECK(on.read(y)[i] == on.read(clean)[i]);
    }
}

TEST_CASE("activation: errors", "[ops][activation]") {
    workbench<oracle> on;
    auto x = on.input(2, 4, normals(8, 1)), narrow = on.input(2, 3, normals(6, 1));
    auto y = on.output(2, 4), wrong = on.output(2, 3);
    check_throws([&] { gelu_forward(on.ex, x, wrong); }, {"gelu_forward", "y", "(2, 4)", "(2, 3)"});
    check_throws([&] { gelu_backward(on.ex, narrow, x, y); }, {"gelu_backward", "dL_dy", "(2, 4)", "(2, 3)"});
    check_throws(
        [&] {
            gelu_backward(on.ex, x, x, y, bias_gradient<double>{on.state({1, 2, 3})});
        },
        {"gelu_backward", "bias gradient", "(4)", "(3)"});
    check_throws([&] { silu_gate_forward(on.ex, x, narrow, y); }, {"silu_gate_forward", "up", "(2, 4)", "(2, 3)"});
    check_throws([&] { silu_gate_backward(on.ex, x, x, x, y, wrong); },
                 {"silu_gate_backward", "dL_dup", "(2, 4)", "(2, 3)"});
}

}  // namespace spectral::test::activation_test
