// SPDX-License-Identifier: Apache-2.0
// tests/ops/next_token_test.cpp: the most likely token of each row, or a drawn one; ties, unknown ids, NaN; rows that
// move on
#include <spectral/ops/next_token.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::next_token_test {

TEMPLATE_LIST_TEST_CASE("choose_tokens: the first of the largest", "[ops][next_token]", targets) {
    using Exec = typename TestType::executor;
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    const auto bad = std::numeric_limits<double>::quiet_NaN();
    for (index V : {1, 2, 33, 1025, 5000}) {
        const index S = 4;
        std::vector<double> z(static_cast<std::size_t>(S * V));
        for (std::size_t i = 0; i < z.size(); ++i)
            z[i] = static_cast<double>((i * 7919) % 101) - 150;  // many ties, all below 0
        for (index known : {V, (V + 1) / 2}) {
            if (V > 1) z[static_cast<std::size_t>(3 * V + known - 1)] = bad;
            std::vector<T> narrow;
            narrow.reserve(z.size());
            for (double v : z) narrow.push_back(static_cast<T>(v));
            tensor<Exec, T, 2> logits(ex, {S, V}, narrow);
            const std::vector<row_index> sequence{0, 2, 3}, position{1, 0, 4};
            tensor<Exec, row_index> s(ex, {3}, sequence), at(ex, {3}, position), ids(ex, {3});
            tensor<Exec, row_index, 2> chosen(ex, {3, 5});
            choose_tokens<Exec, T>(ex, logits, known, s.view(), at.view(), ids, chosen);
            advance_rows(ex, at.view());
            const auto got = ids.to_host(), log = chosen.to_host();
            for (std::size_t n = 0; n < 3; ++n) {
                const auto row = z.begin() + sequence[n] * V;
                const bool broken = sequence[n] == 3 && V > 1;
                const auto want = static_cast<row_index>(broken ? 0 : std::max_element(row, row + known) - row);
                INFO(TestType::executor_name()
                     << ", " << scalar_name<T> << ", V " << V << ", known " << known << ", row " << n);
                CHECK(got[n] == want);
                CHECK(log[5 * n + static_cast<std::size_t>(position[n])] == (broken ? -1 : want));
            }
            CHECK(at.to_host() == std::vector<row_index>{2, 1, 5});
            if (V > 1) z[static_cast<std::size_t>(3 * V + known - 1)] = 0;
        }
    }
    tensor<Exec, T, 2> logits(ex, {1, 4});
    tensor<Exec, row_index> one(ex, {1});
    tensor<Exec, row_index, 2> chosen(ex, {1, 4});
    check_throws([&] { choose_tokens<Exec, T>(ex, logits, 5, one.view(), one.view(), one, chosen); },
                 {"choose_tokens", "known ids", "expected 1 to 4", "found 5"});
}

// Every option, over one and several tiles of candidates, draws what the host draws from the same numbers.
TEMPLATE_LIST_TEST_CASE("choose_tokens: draws", "[ops][next_token]", targets) {
    using Exec = typename TestType::executor;
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    const std::vector<sampling_options> all{
        {.temperature = 0.7},
        {.temperature = 50},  // nearly uniform: far down the order
        {.temperature = 1.3, .top_k = 5},
        {.temperature = 20, .top_p = 0.9},
        {.temperature = 2, .min_p = 0.05},
        {.temperature = 0, .repetition_penalty = 1.5},
        {.temperature = 0.7, .top_p = 0.8, .repetition_penalty = 1.1, .top_k = 20},
        {.temperature = 5, .top_p = 0.7, .min_p = 0.001, .repetition_penalty = 0.5, .top_k = 1500}};
    const std::vector<row_index> sequence{2, 0}, position{3, 1};
    const index S = 3;
    for (index V : {1, 7, 1024, 3000}) {
        std::vector<T> z;
        for (double v : normals(S * V, 5)) z.push_back(static_cast<T>(3 * v));
        if (V > 2) z[1] = T(-0.0), z[2] = T(0);
        if (V > 7) z[5] = z[3], z[static_cast<std::size_t>(2 * V + 1)] = z[static_cast<std::size_t>(2 * V + 2)];
        std::vector<unsigned char> marks(static_cast<std::size_t>(S * V));
        for (std::size_t i = 0; i < marks.size(); ++i) marks[i] = i * 7919 % 5 == 0;
        tensor<Exec, T, 2> logits(ex, {S, V}, z);
        tensor<Exec, row_index> s(ex, {2}, sequence), at(ex, {2}, position), ids(ex, {2});
        for (index known : {V, (V + 1) / 2})
            for (sampling_options how : all)
                for (how.seed = 1; how.seed <= 3; ++how.seed) {
                    const bool penalty = how.repetition_penalty != 1;
                    tensor<Exec, unsigned char, 2> seen;
                    if (penalty) seen = tensor<Exec, unsigned char, 2>(ex, {S, V}, marks);
                    tensor<Exec, row_index, 2> chosen(ex, {2, 5});
                    choose_tokens<Exec, T>(ex, logits, known, s.view(), at.view(), ids, chosen, how, seen);
                    auto after = marks;
                    for (std::size_t n = 0; n < 2; ++n) {
                        const auto row = static_cast<std::size_t>(sequence[n] * V);
                        std::vector<float> values;
                        std::vector<row_index> before;
                        for (std::size_t v = 0; v < static_cast<std::size_t>(known); ++v) {
                            values.push_back(static_cast<float>(z[row + v]));
                            if (marks[row + v]) before.push_back(static_cast<row_index>(v));
                        }
                        const auto want = sample_token(values, before, how, draw_number(sequence[n], position[n] + 1));
                        INFO(TestType::executor_name()
                             << ", " << scalar_name<T> << ", V " << V << ", known " << known << ", row " << n
                             << ", temperature " << how.temperature << ", seed " << how.seed);
                        CHECK(ids.to_host()[n] == want);
                        CHECK(chosen.to_host()[5 * n + static_cast<std::size_t>(position[n])] == want);
                        after[row + static_cast<std::size_t>(want)] = 1;
                    }
                    if (penalty) CHECK(seen.to_host() == after);
                }
    }
    const auto bad = std::numeric_limits<double>::quiet_NaN(), infinite = std::numeric_limits<double>::infinity();
    const std::vector<std::vector<double>> rows{
        {-0.0, 0, -1}, {1, infinite, infinite}, {-infinite, -infinite, -infinite}, {-infinite, 3, -infinite}};
    for (std::size_t i = 0; i < rows.size(); ++i)
        for (const sampling_options& how : all) {
            std::vector<T> z;
            for (double v : rows[i]) z.push_back(static_cast<T>(v));
            const std::vector<float> values(rows[i].begin(), rows[i].end());
            tensor<Exec, T, 2> logits(ex, {1, 3}, z);
            tensor<Exec, row_index> zero(ex, {1}, std::vector<row_index>{0}), id(ex, {1});
            tensor<Exec, row_index, 2> chosen(ex, {1, 1});
            tensor<Exec, unsigned char, 2> seen(ex, {1, 3}, std::vector<unsigned char>{0, 0, 0});
            choose_tokens<Exec, T>(ex, logits, 3, zero.view(), zero.view(), id, chosen, how, seen);
            INFO(TestType::executor_name() << ", row " << i << ", temperature " << how.temperature);
            CHECK(id.to_host()[0] == sample_token(values, {}, how, draw_number(0, 1)));
            if (i == 1 || i == 3) CHECK(id.to_host()[0] == 1);
            if (i == 2) CHECK(id.to_host()[0] == 0);
        }
    tensor<Exec, T, 2> broken(ex, {1, 3}, std::vector<T>{T(1), T(bad), T(2)});
    tensor<Exec, row_index> first(ex, {1}, std::vector<row_index>{0}), id(ex, {1});
    tensor<Exec, row_index, 2> chosen(ex, {1, 2});
    choose_tokens<Exec, T>(ex, broken, 3, first.view(), first.view(), id, chosen, {.temperature = 1});
    CHECK(id.to_host()[0] == 0);
    CHECK(chosen.to_host()[0] == -1);
    check_throws(
        [&] {
            choose_tokens<Exec, T>(ex, broken, 3, first.view(), first.view(), id, chosen, {.repetition_penalty = 2});
        },
        {"choose_tokens", "seen"});
    check_throws([&] { choose_tokens<Exec, T>(ex, broken, 3, first.view(), first.view(), id, chosen, {.top_p = 2}); },
                 {"choose_tokens", "top_p", "found 2"});
}

TEMPLATE_LIST_TEST_CASE("choose_tokens: draws of more rows than are sorted together", "[ops][next_token]", targets) {
    using Exec = typename TestType::executor;
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    const index N = 70, V = 65536;
    const sampling_options how{.temperature = 1, .top_k = 3};
    std::vector<T> z;
    for (index i = 0; i < N * V; ++i)  // another permutation in every row
        z.push_back(static_cast<T>(static_cast<double>((i % V * 40503 + i / V * 977) % V) / 4096));
    std::vector<row_index> sequence, position;
    for (index n = 0; n < N; ++n) {
        sequence.push_back(static_cast<row_index>(N - 1 - n));
        position.push_back(static_cast<row_index>(n % 5 % 3));
    }
    tensor<Exec, T, 2> logits(ex, {N, V}, z);
    tensor<Exec, row_index> s(ex, {N}, sequence), at(ex, {N}, position), ids(ex, {N});
    tensor<Exec, row_index, 2> chosen(ex, {N, 3});
    choose_tokens<Exec, T>(ex, logits, V, s.view(), at.view(), ids, chosen, how);
    const auto all = chosen.to_host();
    std::vector<row_index> want, log;
    for (std::size_t n = 0; n < sequence.size(); ++n) {
        const auto row = std::span<const T>(z).subspan(static_cast<std::size_t>(sequence[n] * V), V);
        want.push_back(
            sample_token(penalised_row(row, nullptr, 1), {}, how, draw_number(sequence[n], position[n] + 1)));
        log.push_back(all[3 * n + static_cast<std::size_t>(position[n])]);
    }
    CHECK(ids.to_host() == want);
    CHECK(log == want);
}

}  // namespace spectral::test::next_token_test
