// SPDX-License-Identifier: Apache-2.0
// tests/ops/kv_cache_test.cpp: rows appended to sequences of different length, in several calls, with their positions
#include <spectral/ops/kv_cache.hpp>
#include <spectral/ops/partition.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::kv_cache_test {

namespace {
constexpr index sequences = 4, capacity = 9;

std::vector<double> widened(const auto& v) { return {v.begin(), v.end()}; }

// A cache on a target, and what it should hold, appended by hand.
template <class On>
struct cache_pair {
    using T = typename On::scalar;
    On& on;
    index width;
    std::vector<row_index> first = {0, 9, 18, 27}, length = {0, 0, 0, 0};
    std::vector<double> k = empty(width), v = empty(width), position = empty(1);
    kv_cache<T> cache{on.state(sequences * capacity, width, k),
                      on.state(sequences* capacity, width, v),
                      indices(first),
                      indices(first),
                      indices(widened(position)),
                      capacity};
    index calls = 0;

    static std::vector<double> empty(index width) {
        return std::vector<double>(static_cast<std::size_t>(sequences * capacity * width), -7);
    }
    vector_view<row_index> indices(const auto& values) {
        auto memory = on.ex.memory().template vector<row_index>(static_cast<index>(values.size()));
        const std::vector<row_index> narrow(values.begin(), values.end());
        on.ex.copy_from_host(memory.data, narrow.data(), narrow.size() * sizeof(row_index));
        return memory;
    }

    // rows of `map`; their sequence and position as the host knows them
    void append(const row_map& map, const std::vector<std::pair<index, index>>& rows) {
        const index n = map.rows();
        REQUIRE(n == static_cast<index>(rows.size()));
        const auto new_k = normals(n * width, 10 + static_cast<std::uint64_t>(calls)),
                   new_v = normals(n * width, 20 + static_cast<std::uint64_t>(calls));
        ++calls;
        kv_append(on.ex, on.input(n, width, new_k), on.input(n, width, new_v), map, cache);
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const auto s = static_cast<std::size_t>(rows[i].first);
            const auto to = static_cast<std::size_t>(first[s] + length[s]++);
            position[to] = static_cast<double>(rows[i].second);
            for (std::size_t c = 0; c < static_cast<std::size_t>(width); ++c) {
                k[to * static_cast<std::size_t>(width) + c] = new_k[i * static_cast<std::size_t>(width) + c];
                v[to * static_cast<std::size_t>(width) + c] = new_v[i * static_cast<std::size_t>(width) + c];
            }
        }
    }
    void check() {
        std::vector<double> begin = widened(first), end = begin;
        for (std::size_t s = 0; s < end.size(); ++s) end[s] += length[s];
        CHECK(on.read(cache.k) == k);  // rows not appended to keep what they held
        CHECK(on.read(cache.v) == v);
        CHECK(on.read(cache.position) == position);
        const row_map map = cache.map();
        CHECK(on.read(map.begin) == begin);
        CHECK(on.read(map.end) == end);
        on.check_untouched("kv_append on " + On::target::executor_name());
    }
};
}  // namespace

TEMPLATE_LIST_TEST_CASE("kv_append: sequences fill at their own pace", "[ops][kv_cache]", targets) {
    for (index width : {1, 2, 5, 16, 33})
        for (layout l : {layout::dense, layout::columns}) {
            workbench<TestType> on(l);
            cache_pair<workbench<TestType>> pair{on, width};
            std::vector<index> seen(sequences);
            // a prefill, a step of all, a step with one waiting, an empty call, several rows of some
            for (const auto& lengths : std::vector<std::vector<index>>{
                     {3, 0, 1, 2}, {1, 1, 1, 1}, {1, 0, 1, 1}, {0, 0, 0, 0}, {4, 2, 0, 5}}) {
                std::vector<std::pair<index, index>> rows;
                for (std::size_t s = 0; s < seen.size(); ++s)
                    for (index t = 0; t < lengths[s]; ++t) rows.push_back({static_cast<index>(s), seen[s] + t});
                pair.append(pack_rows(on.ex, lengths, seen), rows);
                for (std::size_t s = 0; s < seen.size(); ++s) seen[s] += lengths[s];
                pair.check();
            }
            CHECK(pair.length == std::vector<row_index>{9, 3, 3, 9});  // two are full
        }
}

// A layer that keeps keys of routed rows alone: positions have gaps.
TEMPLATE_LIST_TEST_CASE("kv_append: routed rows keep their positions", "[ops][kv_cache]", targets) {
    workbench<TestType> on;
    cache_pair<workbench<TestType>> pair{on, 6};
    const row_map all = pack_rows(on.ex, std::vector<index>{4, 0, 3, 2});
    pair.append(select_rows(on.ex, all, on.select({1, 3, 4, 6, 8}, 9)), {{0, 1}, {0, 3}, {2, 0}, {2, 2}, {3, 1}});
    pair.check();
    const row_map next = pack_rows(on.ex, std::vector<index>{1, 1, 1, 1}, std::vector<index>{4, 0, 3, 2});
    pair.append(select_rows(on.ex, next, on.select({0, 1}, 4)), {{0, 4}, {1, 0}});
    pair.check();
    pair.append(select_rows(on.ex, next, on.select({}, 4)), {});
    pair.check();
    CHECK(pair.length == std::vector<row_index>{3, 1, 2, 1});
}

TEST_CASE("kv_append: sentences", "[ops][kv_cache]") {
    workbench<oracle> on;
    cache_pair<workbench<oracle>> pair{on, 4};
    auto narrow = on.input(2, 3, normals(6, 1));
    check_throws(
        [&] {
            kv_append(on.ex, narrow, narrow, pack_rows(on.ex, std::vector<index>{1, 1, 0, 0}), pair.cache);
        },
        {"kv_append", "width of k", "expected 4", "found 3"});
    auto fitting = on.input(2, 4, normals(8, 1));
    check_throws(
        [&] {
            kv_append(on.ex, fitting, fitting, pack_rows(on.ex, std::vector<index>{1, 1}), pair.cache);
        },
        {"kv_append", "sequences", "expected 4", "found 2"});
}

}  // namespace spectral::test::kv_cache_test
