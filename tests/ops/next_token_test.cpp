// SPDX-License-Identifier: Apache-2.0
// tests/ops/next_token_test.cpp: the most likely token of each row, ties, unknown ids, NaN; rows that move on
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

}  // namespace spectral::test::next_token_test
