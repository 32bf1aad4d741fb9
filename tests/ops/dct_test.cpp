// SPDX-License-Identifier: Apache-2.0
// tests/ops/dct_test.cpp: the transform against its definition, its inverse, Parseval and its adjoint
#include <spectral/ops/dct.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::dct_test {

namespace {
constexpr dct_norm norms[] = {dct_norm::ortho, dct_norm::reference};

// widths with large prime factors and powers of two besides the edges
std::vector<index> widths() {
    auto w = edge_widths;
    w.insert(w.end(), {4, 8, 64, 127, 255, 512, 768});
    return w;
}
double square(const std::vector<double>& v) { return dot(v, v); }
}  // namespace

// A fast transform rounds in log2(d) steps, a plain one in d: terms = d covers both; coefficients grow like sqrt(d).
TEMPLATE_LIST_TEST_CASE("dct, idct and their adjoints", "[ops][dct]", targets) {
    const index many = on_cuda(TestType::instance()) ? 4100 : 700;  // there by products with the matrix
    for (index d : widths())
        for (index n : d <= 48    ? edge_rows
                       : d < 97   ? std::vector<index>{0, 1, 2, 3, 17, 700}
                       : d == 97  ? std::vector<index>{0, 1, 2, 3, 17, many}
                       : d <= 257 ? std::vector<index>{0, 1, 3, 9, 300}
                                  : std::vector<index>{1, 3})
            for (dct_norm norm : norms)
                check_against_reference<TestType>("dct", shape(n, d), static_cast<double>(d), [&](auto& on) {
                    auto x = on.input(n, d, normals(n * d, 1));
                    auto a = on.output(n, d), b = on.output(n, d), c = on.output(n, d), e = on.output(n, d);
                    dct_forward(on.ex, x, norm, a);
                    dct_backward(on.ex, x, norm, b);
                    idct_forward(on.ex, x, norm, c);
                    idct_backward(on.ex, x, norm, e);
                    return outputs{{"dct", on.read(a)},
                                   {"dct backward", on.read(b)},
                                   {"idct", on.read(c)},
                                   {"idct backward", on.read(e)}};
                });
}

TEMPLATE_LIST_TEST_CASE("dct in place", "[ops][dct]", targets) {
    for (index d : {1, 2, 5, 16, 33, 97, 256})
        for (index n : {1, 3, 17})
            check_against_reference<TestType>("dct in place", shape(n, d), static_cast<double>(d), [&](auto& on) {
                auto x = on.state(n, d, normals(n * d, 1)), y = on.state(n, d, normals(n * d, 1));
                dct_forward(on.ex, x, dct_norm::reference, x);
                idct_forward(on.ex, y, dct_norm::reference, y);
                return outputs{{"dct", on.read(x)}, {"idct", on.read(y)}};
            });
}

TEMPLATE_LIST_TEST_CASE("dct: the inverse, Parseval, the first coefficient", "[ops][dct]", targets) {
    using T = typename TestType::scalar;
    for (index d : widths()) {
        const index n = 2;
        workbench<TestType> on;
        const auto x = normals(n * d, 5);
        const double width = static_cast<double>(d);
        auto in = on.input(n, d, x);
        auto spectrum = on.output(n, d), back = on.output(n, d), twice = on.output(n, d);
        const subject s{"dct", "idct(dct(x))", TestType::executor_name(), scalar_name<T>, shape(n, d)};
        dct_forward(on.ex, in, dct_norm::ortho, spectrum);
        idct_forward(on.ex, spectrum, dct_norm::ortho, back);
        compare(on.read(back), x, allowed<T>(width, 2 * largest(x)), s);
        const double energy = square(x);
        CHECK(std::abs(square(on.read(spectrum)) - energy) < allowed<T>(width, energy));
        double mean = 0;
        for (index i = 0; i < d; ++i) mean += x[static_cast<std::size_t>(i)];
        CHECK(std::abs(on.read(spectrum)[0] - mean / std::sqrt(width)) < allowed<T>(width, 4));

        dct_forward(on.ex, in, dct_norm::reference, spectrum);
        idct_forward(on.ex, spectrum, dct_norm::reference, twice);
        auto doubled = x;
        for (double& v : doubled) v *= 2;
        compare(on.read(twice), doubled, allowed<T>(width, 4 * largest(x)), s);
    }
}

// Independent of the kernels' table of cosines: sums written as the definition in ops/dct.hpp says, in long double.
TEMPLATE_LIST_TEST_CASE("dct: by its definition", "[ops][dct]", targets) {
    using T = typename TestType::scalar;
    for (index d : {1, 2, 3, 8, 17, 33}) {
        const auto x = normals(d, 6);
        std::vector<double> ortho, reference;
        for (index k = 0; k < d; ++k) {
            long double sum = 0;
            for (index i = 0; i < d; ++i)
                sum += x[static_cast<std::size_t>(i)] *
                       std::cos(3.14159265358979323846264338L * static_cast<long double>((2 * i + 1) * k) /
                                (2.0L * static_cast<long double>(d)));
            ortho.push_back(static_cast<double>(sum * std::sqrt((k == 0 ? 1.0L : 2.0L) / static_cast<long double>(d))));
            reference.push_back(ortho.back() * (k == 0 ? 2 * std::sqrt(2.0) : 2.0));
        }
        workbench<TestType> on;
        auto y = on.output(1, d);
        dct_forward(on.ex, on.input(1, d, x), dct_norm::ortho, y);
        compare(on.read(y), ortho, allowed<T>(static_cast<double>(d), 4),
                {"dct_forward", "ortho", TestType::executor_name(), scalar_name<T>, shape(1, d)});
        dct_forward(on.ex, on.input(1, d, x), dct_norm::reference, y);
        compare(on.read(y), reference, allowed<T>(static_cast<double>(d), 12),
                {"dct_forward", "reference", TestType::executor_name(), scalar_name<T>, shape(1, d)});
    }
}

TEST_CASE("dct: gradients", "[ops][dct]") {
    for (dct_norm norm : norms)
        for (index d : {1, 2, 5, 8}) {
            workbench<oracle> on;
            const index n = 2;
            const auto dL_dy = normals(n * d, 2);
            auto x = on.state(n, d, normals(n * d, 1)), y = on.output(n, d), dL_dx = on.output(n, d);
            dct_backward(on.ex, on.input(n, d, dL_dy), norm, dL_dx);
            require_gradient(
                on.ex, x, dL_dx, [&] { return dct_forward(on.ex, x, norm, y), dot(dL_dy, on.read(y)); }, "dct: x");
            idct_backward(on.ex, on.input(n, d, dL_dy), norm, dL_dx);
            require_gradient(
                on.ex, x, dL_dx, [&] { return idct_forward(on.ex, x, norm, y), dot(dL_dy, on.read(y)); }, "idct: x");
        }
}

TEMPLATE_LIST_TEST_CASE("dct: a NaN row stays alone", "[ops][dct]", targets) {
    using T = typename TestType::scalar;
    for (index d : {5, 32, 97, 256}) {
        const index n = 19, bad = 6;  // rows that a kernel takes several at a time must not touch each other
        const auto x = normals(n * d, 1);
        workbench<TestType> on;
        auto clean = on.output(n, d), y = on.output(n, d);
        const subject s{"dct", "with a NaN row", TestType::executor_name(), scalar_name<T>, shape(n, d)};
        dct_forward(on.ex, on.input(n, d, x), dct_norm::ortho, clean);
        dct_forward(on.ex, on.input(n, d, with_nan_row(x, d, bad)), dct_norm::ortho, y);
        check_nan_stays(on.read(clean), on.read(y), d, bad, s, allowed<T>(1, 1));
        idct_forward(on.ex, on.input(n, d, x), dct_norm::ortho, clean);
        idct_forward(on.ex, on.input(n, d, with_nan_row(x, d, bad)), dct_norm::ortho, y);
        check_nan_stays(on.read(clean), on.read(y), d, bad, s, allowed<T>(1, 1));
    }
}

TEST_CASE("dct: errors", "[ops][dct]") {
    workbench<oracle> on;
    auto x = on.input(2, 4, normals(8, 1));
    auto wrong = on.output(2, 3);
    check_throws([&] { dct_forward(on.ex, x, dct_norm::ortho, wrong); }, {"dct_forward", "output", "(2, 4)", "(2, 3)"});
    check_throws([&] { dct_backward(on.ex, x, dct_norm::ortho, wrong); }, {"dct_backward", "(2, 4)", "(2, 3)"});
    check_throws([&] { idct_forward(on.ex, x, dct_norm::ortho, wrong); }, {"idct_forward", "(2, 4)", "(2, 3)"});
    check_throws([&] { idct_backward(on.ex, x, dct_norm::ortho, wrong); }, {"idct_backward", "(2, 4)", "(2, 3)"});
}

}  // namespace spectral::test::dct_test
