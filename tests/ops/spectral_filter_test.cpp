// SPDX-License-Identifier: Apache-2.0
// tests/ops/spectral_filter_test.cpp: filter in the DCT domain, and the mixing operator with residual, norm and
// selection
#include <spectral/ops/norm.hpp>
#include <spectral/ops/spectral_filter.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::spectral_filter_test {

namespace {
constexpr dct_norm norms[] = {dct_norm::ortho, dct_norm::reference};
constexpr double eps = 1e-5;

std::vector<double> near(double centre, index n, std::uint64_t seed) {
    auto v = normals(n, seed, 0.25);
    for (double& x : v) x = static_cast<float>(x + centre);
    return v;
}
std::vector<double> zeros(index n) { return std::vector<double>(static_cast<std::size_t>(n)); }

// Row subsets of n rows: none, one, every third, all by a list; an absent list means all.
struct subset {
    bool listed = false;
    std::vector<row_index> rows;
};
std::vector<subset> subsets(index n) {
    std::vector<subset> out{{false, {}}, {true, {}}};
    if (n > 0) out.push_back({true, {static_cast<row_index>(n - 1)}});
    subset some{true, {}}, all{true, {}};
    for (index i = 0; i < n; ++i) {
        if (i % 3 != 1) some.rows.push_back(static_cast<row_index>(i));
        all.rows.push_back(static_cast<row_index>(i));
    }
    out.push_back(some);
    out.push_back(all);
    return out;
}
template <class On>
selection make(On& on, const subset& s, index n) {
    return s.listed ? on.select(s.rows, n) : selection::all(n);
}

// One mix, forward and backward, over a selection.
template <class On>
outputs mix(On& on, index n, index d, const subset& rows, dct_norm norm, const std::vector<double>& x_values) {
    using T = typename On::scalar;
    auto x = on.input(n, d, x_values);
    auto w = on.input(near(0.5, d, 2)), gamma = on.input(near(1, d, 3)), beta = on.input(normals(d, 4));
    auto y = on.state(n, d, normals(n * d, 5)), dL_dx = on.state(n, d, normals(n * d, 6));
    norm_statistics<T> stats{on.state(near(1, n, 7)), on.state(near(1, n, 8))};
    const selection chosen = make(on, rows, n);
    spectral_mix_forward(on.ex, x, chosen, w, norm, gamma, beta, eps, y, stats);
    auto dL_dw = on.state(normals(d, 9)), dL_dgamma = on.state(normals(d, 10)), dL_dbeta = on.state(normals(d, 11));
    const auto dL_dy = on.input(n, d, normals(n * d, 12));
    spectral_mix_backward(on.ex, dL_dy, x, chosen, w, norm, gamma, stats, dL_dx, dL_dw, dL_dgamma, dL_dbeta);
    // Dividing by a small deviation magnifies rounding by rstd, which for rows of three values is large by chance;
    // dL_dw is a sum over rows that may cancel.
    const double steep = 4 * std::max(1.0, largest(on.read(stats.rstd)));
    return {{"y", on.read(y), steep},
            {"mean", on.read(stats.mean)},
            {"rstd", on.read(stats.rstd), steep},
            {"dL_dx", on.read(dL_dx), steep},
            {"dL_dw", on.read(dL_dw), steep * std::sqrt(static_cast<double>(n + 1))},
            {"dL_dgamma", on.read(dL_dgamma), steep},
            {"dL_dbeta", on.read(dL_dbeta)}};
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("spectral_filter: forward and backward", "[ops][spectral_filter]", targets) {
    over(edge_shapes(), [&](index n, index d) {
        for (dct_norm norm : norms)
            check_against_reference<TestType>(
                "spectral_filter", shape(n, d), 2.0 * static_cast<double>(d + n), [&](auto& on) {
                    auto x = on.input(n, d, normals(n * d, 1));
                    auto w = on.input(near(0.5, d, 2));
                    auto y = on.output(n, d), dL_dx = on.state(n, d, normals(n * d, 3));
                    auto dL_dw = on.state(normals(d, 4));
                    spectral_filter_forward(on.ex, x, w, norm, y);
                    spectral_filter_backward(on.ex, on.input(n, d, normals(n * d, 5)), x, w, norm, dL_dx, dL_dw);
                    return outputs{{"y", on.read(y)}, {"dL_dx", on.read(dL_dx)}, {"dL_dw", on.read(dL_dw)}};
                });
    });
}

TEMPLATE_LIST_TEST_CASE("spectral_mix: forward and backward over selections", "[ops][spectral_filter]", targets) {
    for (index d : {3, 5, 16, 17, 31, 32, 33, 48, 97, 256, 257}) DYNAMIC_SECTION("width " << d) {
            for (index n : {0, 1, 2, 3, 7, 17, 300})
                for (const subset& rows : subsets(n))
                    for (dct_norm norm : norms) {
                        // the reference is slow
                        if (d > 97 && (norm == dct_norm::ortho || n == 300) && n != 17) continue;
                        check_against_reference<TestType>(
                            "spectral_mix", shape(n, d, rows.listed ? rows.rows.size() : std::size_t(n)),
                            16.0 * static_cast<double>(d + n),
                            [&](auto& on) { return mix(on, n, d, rows, norm, normals(n * d, 1)); });
                    }
        }
}

TEMPLATE_LIST_TEST_CASE("spectral_mix and spectral_filter: widths that a backend may treat apart",
                        "[ops][spectral_filter]", backends) {
    std::vector<std::array<index, 2>> shapes;
    if (on_cuda(TestType::instance())) shapes.push_back({4100, 97});  // many rows of 97: by products there
    for (index d : widths_apart) shapes.push_back({3, d});
    for (auto [height, width] : shapes) DYNAMIC_SECTION(height << " rows of width " << width) {
            const index n = height, d = width;  // lambdas capture no structured bindings
            subset rows = d % 3 ? subset{true, {0, 2}} : subset{};
            for (index i = 5; i < n; i += 3) rows.rows.push_back(static_cast<row_index>(i));
            check_against_reference<TestType>(
                "spectral_mix", shape(n, d), 16.0 * static_cast<double>(d),
                [&](auto& on) { return mix(on, n, d, rows, dct_norm::ortho, normals(n * d, 1)); });
            check_against_reference<TestType>(
                "spectral_filter", shape(n, d), 2.0 * static_cast<double>(d), [&](auto& on) {
                    auto x = on.input(n, d, normals(n * d, 1)), dL_dy = on.input(n, d, normals(n * d, 5));
                    auto w = on.input(near(0.5, d, 2));
                    auto y = on.output(n, d), dL_dx = on.state(n, d, normals(n * d, 3));
                    auto dL_dw = on.state(normals(d, 4));
                    spectral_filter_forward(on.ex, x, w, dct_norm::reference, y);
                    spectral_filter_backward(on.ex, dL_dy, x, w, dct_norm::reference, dL_dx, dL_dw);
                    return outputs{{"y", on.read(y)}, {"dL_dx", on.read(dL_dx)}, {"dL_dw", on.read(dL_dw)}};
                });
        }
}

TEMPLATE_LIST_TEST_CASE("spectral_filter: w = 1 is the gain", "[ops][spectral_filter]", targets) {
    using T = typename TestType::scalar;
    for (index d : edge_widths)
        for (dct_norm norm : norms) {
            workbench<TestType> on;
            const auto x = normals(3 * d, 1);
            auto want = x;
            for (double& v : want) v *= filter_gain(norm);
            auto y = on.output(3, d);
            spectral_filter_forward(on.ex, on.input(3, d, x),
                                    on.input(std::vector<double>(static_cast<std::size_t>(d), 1)), norm, y);
            compare(on.read(y), want, allowed<T>(static_cast<double>(d), 2 * largest(want)),
                    {"spectral_filter_forward", "w = 1", TestType::executor_name(), scalar_name<T>, shape(3, d)});
        }
}

TEMPLATE_LIST_TEST_CASE("spectral_filter is idct(w dct(x)) in both conventions", "[ops][spectral_filter]", targets) {
    using T = typename TestType::scalar;
    for (index d : {1, 5, 33, 48})
        for (dct_norm norm : norms) {
            const index n = 3;
            workbench<TestType> on;
            const auto w = near(0.5, d, 2);
            auto x = on.input(n, d, normals(n * d, 1));
            auto y = on.output(n, d), spectrum = on.output(n, d), want = on.output(n, d);
            spectral_filter_forward(on.ex, x, on.input(w), norm, y);
            dct_forward(on.ex, x, norm, spectrum);
            auto scaled = on.read(spectrum);
            for (std::size_t i = 0; i < scaled.size(); ++i) scaled[i] *= w[i % w.size()];
            idct_forward(on.ex, on.input(n, d, scaled), norm, want);
            compare(on.read(y), on.read(want), allowed<T>(2.0 * static_cast<double>(d), 2 * largest(on.read(want))),
                    {"spectral_filter_forward", "against dct and idct", TestType::executor_name(), scalar_name<T>,
                     shape(n, d)});
        }
}

TEMPLATE_LIST_TEST_CASE("spectral_mix is layer_norm(x + filter(x))", "[ops][spectral_filter]", targets) {
    using T = typename TestType::scalar;
    for (dct_norm norm : norms) {
        const index n = 5, d = 48;
        workbench<TestType> on;
        auto x = on.input(n, d, normals(n * d, 1));
        auto w = on.input(near(0.5, d, 2)), gamma = on.input(near(1, d, 3)), beta = on.input(normals(d, 4));
        auto y = on.output(n, d), f = on.output(n, d), s = on.output(n, d), want = on.output(n, d);
        auto mean = on.output(n), rstd = on.output(n);
        norm_statistics<T> stats{on.output(n), on.output(n)};
        spectral_mix_forward(on.ex, x, selection::all(n), w, norm, gamma, beta, eps, y, stats);
        spectral_filter_forward(on.ex, x, w, norm, f);
        add_layer_norm_forward(on.ex, x, f, gamma, beta, eps, s, want, mean, rstd);
        const subject about{"spectral_mix_forward", "against its parts", TestType::executor_name(), scalar_name<T>,
                            shape(n, d)};
        compare(on.read(y), on.read(want), allowed<T>(4.0 * d, 4), about);
        compare(on.read(stats.mean), on.read(mean), allowed<T>(4.0 * d, 1), about);
        compare(on.read(stats.rstd), on.read(rstd), allowed<T>(4.0 * d, 1), about);
    }
}

TEST_CASE("spectral_filter and spectral_mix: gradients", "[ops][spectral_filter]") {
    for (dct_norm norm : norms)
        for (const subset& rows : {subset{false, {}}, subset{true, {0, 2}}}) {
            workbench<oracle> on;
            const index n = 4, d = 6;
            const auto dL_dy = normals(n * d, 5);
            auto dy = on.input(n, d, dL_dy);
            auto x = on.state(n, d, normals(n * d, 1)), y = on.output(n, d), dL_dx = on.state(n, d, zeros(n * d));
            auto w = on.state(near(0.5, d, 2)), gamma = on.state(near(1, d, 3)), beta = on.state(normals(d, 4));
            auto dL_dw = on.state(zeros(d)), dL_dgamma = on.state(zeros(d)), dL_dbeta = on.state(zeros(d));

            const auto filtered = [&] { return spectral_filter_forward(on.ex, x, w, norm, y), dot(dL_dy, on.read(y)); };
            spectral_filter_backward(on.ex, dy, x, w, norm, dL_dx, dL_dw);
            require_gradient(on.ex, x, dL_dx, filtered, "spectral_filter: x");
            require_gradient(on.ex, w, dL_dw, filtered, "spectral_filter: w");

            auto mixed_y = on.state(n, d, zeros(n * d));  // rows outside the selection stay 0
            const norm_statistics<double> stats{on.output(n), on.output(n)};
            const selection chosen = make(on, rows, n);
            const auto mixed = [&] {
                spectral_mix_forward(on.ex, x, chosen, w, norm, gamma, beta, 0.01, mixed_y, stats);
                return dot(dL_dy, on.read(mixed_y));
            };
            mixed();
            auto dx = on.state(n, d, zeros(n * d));
            auto dw = on.state(zeros(d));
            spectral_mix_backward(on.ex, dy, x, chosen, w, norm, gamma, stats, dx, dw, dL_dgamma, dL_dbeta);
            require_gradient(on.ex, x, dx, mixed, "spectral_mix: x");
            require_gradient(on.ex, w, dw, mixed, "spectral_mix: w");
            require_gradient(on.ex, gamma, dL_dgamma, mixed, "spectral_mix: gamma");
            require_gradient(on.ex, beta, dL_dbeta, mixed, "spectral_mix: beta");
        }
}

TEMPLATE_LIST_TEST_CASE("spectral_mix: a NaN row stays alone; unselected, it is never read", "[ops][spectral_filter]",
                        targets) {
    using T = typename TestType::scalar;
    const index n = 19, d = 33, bad = 6;
    const auto x = normals(n * d, 1);
    const auto run = [&](const std::vector<double>& values, const subset& rows) {
        workbench<TestType> on;
        return mix(on, n, d, rows, dct_norm::reference, values);
    };
    const subset all{}, others{true, {0, 1, 5, 7, 8, 18}};
    const subject s{"spectral_mix", "y with a NaN row", TestType::executor_name(), scalar_name<T>, shape(n, d)};
    check_nan_stays(run(x, all)[0].values, run(with_nan_row(x, d, bad), all)[0].values, d, bad, s, allowed<T>(1, 1));
    const auto clean = run(x, others), poisoned = run(with_nan_row(x, d, bad), others);
    for (std::size_t i = 0; i < clean.size(); ++i) compare(poisoned[i].values, clean[i].values, allowed<T>(1, 1), s);
}

TEST_CASE("spectral_filter: errors", "[ops][spectral_filter]") {
    workbench<oracle> on;
    auto x = on.input(2, 4, normals(8, 1));
    auto v = on.input(normals(4, 1)), short_v = on.input(normals(3, 1));
    auto y = on.output(2, 4), wrong = on.output(2, 3);
    auto g = on.output(4), short_g = on.output(3);
    const norm_statistics<double> stats{on.output(2), on.output(2)}, one{on.output(1), on.output(2)};
    const auto ortho = dct_norm::ortho;
    check_throws([&] { spectral_filter_forward(on.ex, x, short_v, ortho, y); },
                 {"spectral_filter_forward", "w", "(4)", "(3)"});
    check_throws([&] { spectral_filter_forward(on.ex, x, v, ortho, wrong); },
                 {"spectral_filter_forward", "y", "(2, 4)", "(2, 3)"});
    check_throws([&] { spectral_filter_backward(on.ex, x, x, v, ortho, y, short_g); },
                 {"spectral_filter_backward", "dL_dw", "(4)", "(3)"});
    check_throws([&] { spectral_filter_backward(on.ex, x, x, short_v, ortho, y, g); },
                 {"spectral_filter_backward", "w", "(4)", "(3)"});
    check_throws([&] { spectral_mix_forward(on.ex, x, selection::all(3), v, ortho, v, v, eps, y, stats); },
                 {"spectral_mix_forward", "capacity", "expected 2", "found 3"});
    check_throws([&] { spectral_mix_forward(on.ex, x, selection::all(2), v, ortho, v, short_v, eps, y, stats); },
                 {"spectral_mix_forward", "beta", "(4)", "(3)"});
    check_throws([&] { spectral_mix_forward(on.ex, x, selection::all(2), v, ortho, v, v, eps, y, one); },
                 {"spectral_mix_forward", "mean", "(2)", "(1)"});
    check_throws([&] { spectral_mix_backward(on.ex, x, x, selection::all(2), v, ortho, v, stats, wrong, g, g, g); },
                 {"spectral_mix_backward", "dL_dx", "(2, 4)", "(2, 3)"});
    check_throws([&] { spectral_mix_backward(on.ex, x, x, selection::all(3), v, ortho, v, stats, y, g, g, g); },
                 {"spectral_mix_backward", "capacity", "expected 2", "found 3"});
    check_throws([&] { spectral_mix_backward(on.ex, x, x, selection::all(2), v, ortho, v, stats, y, g, short_g, g); },
                 {"spectral_mix_backward", "dL_dgamma", "(4)", "(3)"});
}

}  // namespace spectral::test::spectral_filter_test
