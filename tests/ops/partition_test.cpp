// SPDX-License-Identifier: Apache-2.0
// tests/ops/partition_test.cpp: rows by operator, gather and scatter, sub-maps
#include <spectral/ops/partition.hpp>
#include <support/operator_test.hpp>

#include <span>

namespace spectral::test::partition_test {

namespace {
using list = std::vector<row_index>;

// Row subsets of n rows: none, one, two thirds, all
std::vector<list> subsets(index n) {
    std::vector<list> out{{}};
    if (n > 0) out.push_back({static_cast<row_index>(n / 2)});
    list some, all;
    for (index i = 0; i < n; ++i) {
        if (i % 3 != 1) some.push_back(static_cast<row_index>(i));
        all.push_back(static_cast<row_index>(i));
    }
    out.push_back(some);
    out.push_back(all);
    return out;
}

// A selection's rows on the host
template <class On>
list rows_of(On& on, const selection& s) {
    const auto v = on.read(view<const row_index, 1>{s.rows, {selected_rows(on.ex, s)}});
    return {v.begin(), v.end()};
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("partition is a stable permutation", "[ops][partition]", targets) {
    for (index n : {0, 1, 2, 31, 32, 33, 256, 257, 1000, 5000, 40000, 140001})
        for (index operators : {1, 2, 3, 4})
            for (int pattern : {0, 1, 2}) {  // random, all to the last, alternating
                if (n > 5000 && (operators != 3 || pattern != 0)) continue;
                workbench<TestType> on;
                list op = random_ids(n, operators, 3);
                for (std::size_t i = 0; i < op.size(); ++i)
                    op[i] = static_cast<row_index>(pattern == 0   ? op[i]
                                                   : pattern == 1 ? operators - 1
                                                                  : static_cast<index>(i) % operators);
                std::vector<selection> parts(static_cast<std::size_t>(operators));
                partition(on.ex, on.ids(op), parts);
                std::vector<list> want(static_cast<std::size_t>(operators));
                for (std::size_t i = 0; i < op.size(); ++i)
                    want[static_cast<std::size_t>(op[i])].push_back(static_cast<row_index>(i));
                for (std::size_t o = 0; o < want.size(); ++o) {
                    CHECK(parts[o].capacity == n);
                    CHECK(rows_of(on, parts[o]) == want[o]);
                }
                on.check_untouched("partition");
            }
}

TEMPLATE_LIST_TEST_CASE("gather_rows and scatter_rows", "[ops][partition]", targets) {
    for (index n : {0, 1, 2, 7, 17, 33, 700})  // 700: rows for several threads, which wide ones do not show better
        for (index c : n < 700 ? edge_widths : std::vector<index>{17, 48})
            for (const list& rows : subsets(n))
                for (write mode : {write::overwrite, write::accumulate})
                    check_against_reference<TestType>(
                        "gather_rows, scatter_rows, copy_rows", shape(n, c, rows.size()), 1, [&](auto& on) {
                            const auto chosen = on.select(rows, n);
                            const auto count = static_cast<index>(rows.size());
                            auto packed = on.output(count, c), y = on.state(n, c, normals(n * c, 2)),
                                 copied = on.state(n, c, normals(n * c, 3));
                            const auto x = on.input(n, c, normals(n * c, 1));
                            gather_rows(on.ex, x, chosen, packed);
                            scatter_rows(on.ex, packed, chosen, y, mode);
                            copy_rows(on.ex, x, chosen, copied);
                            return outputs{{"packed", on.read(packed)}, {"y", on.read(y)}, {"copied", on.read(copied)}};
                        });
}

TEMPLATE_LIST_TEST_CASE("gather_rows and scatter_rows by hand, and over all rows", "[ops][partition]", targets) {
    workbench<TestType> on;
    auto x = on.input(4, 2, {1, 2, 3, 4, 5, 6, 7, 8});
    auto packed = on.output(2, 2), y = on.state(4, 2, {10, 10, 20, 20, 30, 30, 40, 40});
    const auto chosen = on.select({1, 3}, 4);
    gather_rows(on.ex, x, chosen, packed);
    CHECK(on.read(packed) == std::vector<double>{3, 4, 7, 8});
    scatter_rows(on.ex, packed, chosen, y, write::accumulate);
    CHECK(on.read(y) == std::vector<double>{10, 10, 23, 24, 30, 30, 47, 48});
    scatter_rows(on.ex, packed, chosen, y, write::overwrite);
    CHECK(on.read(y) == std::vector<double>{10, 10, 3, 4, 30, 30, 7, 8});
    auto everything = on.output(4, 2);
    gather_rows(on.ex, x, selection::all(4), everything);
    CHECK(on.read(everything) == on.read(x));
    scatter_rows(on.ex, x, selection::all(4), y, write::overwrite);
    CHECK(on.read(y) == on.read(x));
}

TEMPLATE_LIST_TEST_CASE("select_rows keeps sequences and positions", "[ops][partition]", targets) {
    const std::vector<index> lengths{3, 0, 5, 1, 8};
    const index n = 17;
    for (const list& rows : subsets(n)) {
        workbench<TestType> on;
        const row_map map = pack_rows(on.ex, lengths);
        const row_map sub = select_rows(on.ex, map, on.select(rows, n));
        const auto position = on.read(map.position), sequence = on.read(map.sequence);
        std::vector<double> want_position, want_sequence, want_end(lengths.size());
        for (row_index r : rows) {
            want_position.push_back(position[static_cast<std::size_t>(r)]);
            want_sequence.push_back(sequence[static_cast<std::size_t>(r)]);
            for (std::size_t s = static_cast<std::size_t>(sequence[static_cast<std::size_t>(r)]); s < want_end.size();
                 ++s)
                ++want_end[s];
        }
        std::vector<double> want_begin{0};
        want_begin.insert(want_begin.end(), want_end.begin(), want_end.end() - 1);
        CHECK(on.read(sub.position) == want_position);
        CHECK(on.read(sub.sequence) == want_sequence);
        CHECK(on.read(sub.end) == want_end);
        CHECK(on.read(sub.begin) == want_begin);
    }
    workbench<TestType> on;
    const row_map map = pack_rows(on.ex, lengths);
    CHECK(select_rows(on.ex, map, selection::all(n)).position.data == map.position.data);
}

TEST_CASE("partition: errors", "[ops][partition]") {
    workbench<oracle> on;
    auto x = on.input(4, 2, normals(8, 1));
    auto narrow = on.output(1, 3), packed = on.output(1, 2), y = on.output(4, 2);
    check_throws(
        [&] {
            partition(on.ex, on.ids({0, 1}), std::span<selection>{});
        },
        {"partition", "positive", "found 0"});
    check_throws([&] { gather_rows(on.ex, x, on.select({1}, 4), narrow); },
                 {"gather_rows", "width", "expected 2", "found 3"});
    check_throws([&] { gather_rows(on.ex, x, on.select({1}, 5), packed); },
                 {"gather_rows", "capacity", "expected 4", "found 5"});
    check_throws([&] { scatter_rows(on.ex, narrow, on.select({1}, 4), y, write::overwrite); },
                 {"scatter_rows", "width", "expected 2", "found 3"});
    check_throws([&] { scatter_rows(on.ex, packed, on.select({1}, 5), y, write::overwrite); },
                 {"scatter_rows", "capacity", "expected 4", "found 5"});
    const row_map map = pack_rows(on.ex, std::vector<index>{4});
    check_throws([&] { select_rows(on.ex, map, on.select({1}, 5)); },
                 {"select_rows", "capacity", "expected 4", "found 5"});
}

}  // namespace spectral::test::partition_test
