// SPDX-License-Identifier: Apache-2.0
// tests/ops/spectral_route_mix_test.cpp: entropy, choice and mix in one step, against the reference and against their
// parts
#include <spectral/ops/spectral_route_mix.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::spectral_route_mix_test {

namespace {
std::vector<double> near(double centre, index n, std::uint64_t seed) {
    auto v = normals(n, seed, 0.25);
    for (double& x : v) x = static_cast<float>(x + centre);
    return v;
}

// Thresholds in the widest gaps between the entropies of these rows: no rounding decides a route.
std::vector<double> between(std::vector<double> entropy, std::size_t count) {
    if (entropy.size() <= count) return std::vector<double>(count, 0.5);
    std::sort(entropy.begin(), entropy.end());
    std::vector<std::size_t> after(entropy.size() - 1);
    for (std::size_t i = 0; i < after.size(); ++i) after[i] = i;
    std::sort(after.begin(), after.end(),
              [&](std::size_t a, std::size_t b) { return entropy[a + 1] - entropy[a] > entropy[b + 1] - entropy[b]; });
    std::vector<double> out;
    for (std::size_t i = 0; i < count; ++i) out.push_back((entropy[after[i]] + entropy[after[i] + 1]) / 2);
    std::sort(out.begin(), out.end());
    return out;
}

struct case_of {
    index n, d;
    dct_norm norm;
    std::vector<double> x, thresholds;
    std::vector<row_index> given;  // replayed where there are no thresholds

    case_of(index n_, index d_, dct_norm norm_, std::size_t operators)
        : n(n_), d(d_), norm(norm_), x(normals(n_ * d_, 1)) {
        for (index r = 0; r < n; ++r)  // rows of different smoothness
            for (index c = 1; c < d; ++c) {
                const auto i = static_cast<std::size_t>(r * d + c);
                x[i] = static_cast<float>(x[i] + 0.2 * static_cast<double>(r % 5) * x[i - 1]);
            }
        workbench<oracle> on;
        auto entropy = on.output(n);
        spectral_entropy_forward(on.ex, on.input(n, d, x), norm, entropy);
        thresholds = between(on.read(entropy), operators - 1);
        for (index r = 0; r < n; ++r) given.push_back(static_cast<row_index>(r * r % static_cast<index>(operators)));
    }

    template <class On>
    outputs run(On& on, bool replay) const {
        using T = typename On::scalar;
        const std::size_t operators = thresholds.size() + 1;
        auto entropy = on.state(normals(n, 7));
        auto op = on.ex.memory().template vector<row_index>(n);
        if (n) on.ex.copy_from_host(op.data, given.data(), given.size() * sizeof(row_index));
        auto y = on.state(n, d, normals(n * d, 5));
        norm_statistics<T> stats{on.state(near(1, n, 8)), on.state(near(1, n, 9))};
        std::vector<selection> rows(operators);
        spectral_route_mix_forward(on.ex, on.input(n, d, x), norm, replay ? std::span<const double>{} : thresholds,
                                   entropy, op, rows, on.input(near(0.5, d, 2)), on.input(near(1, d, 3)),
                                   on.input(normals(d, 4)), 1e-5, y, stats);
        outputs out{{"entropy", on.read(entropy)},
                    {"op", on.read(view<const row_index, 1>(op))},
                    {"y", on.read(y), 4},
                    {"mean", on.read(stats.mean)},
                    {"rstd", on.read(stats.rstd), 4}};
        for (const selection& s : rows) {
            CHECK(s.capacity == n);
            out.push_back({"rows", on.read(view<const row_index, 1>{s.rows, {selected_rows(on.ex, s)}})});
        }
        return out;
    }
};
}  // namespace

TEMPLATE_LIST_TEST_CASE("spectral_route_mix: two and three operators, chosen and given", "[ops][spectral_route_mix]",
                        targets) {
    for (index d : {5, 33, 48, 64, 256, 512})
        for (index n : {0, 1, 2, 7, 33})
            for (std::size_t operators : {2, 3})
                for (dct_norm norm : {dct_norm::ortho, dct_norm::reference})
                    for (bool replay : {false, true}) {
                        if (d > 64 && (n == 2 || n == 7 || (operators == 3) != replay))
                            continue;  // the reference is slow
                        const case_of c(n, d, norm, operators);
                        check_against_reference<TestType>("spectral_route_mix", shape(n, d, operators),
                                                          16.0 * static_cast<double>(d),
                                                          [&](auto& on) { return c.run(on, replay); });
                    }
}

TEMPLATE_LIST_TEST_CASE("spectral_route_mix: every width that a backend may treat apart", "[ops][spectral_route_mix]",
                        backends) {
    for (index d : widths_apart) {
        const case_of c(3, d, dct_norm::ortho, 2);
        check_against_reference<TestType>("spectral_route_mix", shape(3, d), 16.0 * static_cast<double>(d),
                                          [&](auto& on) { return c.run(on, false); });
    }
}

TEMPLATE_LIST_TEST_CASE("spectral_route_mix: a NaN row, or a huge one, stays alone", "[ops][spectral_route_mix]",
                        targets) {
    using T = typename TestType::scalar;
    for (index d : {48, 256, 512}) {
        const index n = 9, bad = 4;
        case_of c(n, d, dct_norm::ortho, 2);
        const auto run = [&] {
            workbench<TestType> on;
            return c.run(on, true);  // given routes: row 4 goes to operator 0
        };
        const outputs clean = run();
        const subject s{"spectral_route_mix", "a bad row", TestType::executor_name(), scalar_name<T>, shape(n, d)};
        c.x = with_nan_row(c.x, d, bad);
        const outputs nan_row = run();
        check_nan_stays(clean[2].values, nan_row[2].values, d, bad, s, 0);
        check_nan_stays(clean[0].values, nan_row[0].values, 1, bad, s, 0);
        for (index i = 0; i < d; ++i) c.x[static_cast<std::size_t>(bad * d + i)] = i % 3 ? 1e15 : -1e15;
        auto huge = run()[2].values, want = clean[2].values;
        std::fill_n(huge.begin() + bad * d, d, 0);
        std::fill_n(want.begin() + bad * d, d, 0);
        compare(huge, want, 0, s);
    }
}

TEST_CASE("spectral_route_mix: errors", "[ops][spectral_route_mix]") {
    workbench<oracle> on;
    auto x = on.input(2, 4, normals(8, 1)), v = on.input(1, 4, normals(4, 1));
    const auto w = view<const double, 1>{v.data, {4}};
    auto y = on.output(2, 4);
    auto entropy = on.output(2);
    auto op = on.ex.memory().template vector<row_index>(2), short_op = on.ex.memory().template vector<row_index>(1);
    const norm_statistics<double> stats{on.output(2), on.output(2)};
    std::vector<selection> rows(2);
    const std::vector<double> one{0.5}, two{0.5, 0.6};
    check_throws(
        [&] { spectral_route_mix_forward(on.ex, x, dct_norm::ortho, two, entropy, op, rows, w, w, w, 1e-5, y, stats); },
        {"spectral_route_mix_forward", "thresholds", "expected 1", "found 2"});
    check_throws(
        [&] {
            spectral_route_mix_forward(on.ex, x, dct_norm::ortho, one, entropy, short_op, rows, w, w, w, 1e-5, y,
                                       stats);
        },
        {"spectral_route_mix_forward", "op", "(2)", "(1)"});
}

}  // namespace spectral::test::spectral_route_mix_test
