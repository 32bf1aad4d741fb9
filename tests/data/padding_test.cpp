// SPDX-License-Identifier: Apache-2.0
// tests/data/padding_test.cpp: padding on the left, on the right, on none; what is no padding
#include <spectral/data/padding.hpp>
#include "support/golden.hpp"

namespace spectral::test {

TEST_CASE("padding: sequences of a rectangle", "[data]") {
    const std::vector<row_index> ids{0, 0, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4}, mask{0, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1};
    CHECK(without_padding(ids, mask, 3) == std::vector<std::vector<row_index>>{{5, 6}, {7, 8, 9}, {1, 2, 3, 4}});
}

TEST_CASE("padding: sentences", "[data]") {
    const auto of = [](std::vector<row_index> mask, index batch) {
        return without_padding(std::vector<row_index>(4), mask, batch);
    };
    CHECK_SENTENCE(of({1, 0, 0, 1}, 1),
                   "without_padding: attention_mask, row 0: expected padding on one side, found some before token 3");
    CHECK_SENTENCE(of({1, 1, 0, 0}, 2),
                   "without_padding: attention_mask, row 1: expected at least one token, found padding alone");
    CHECK_SENTENCE(of({1, 1, 2, 0}, 2), "without_padding: attention_mask, row 1, token 0: expected 0 or 1, found 2");
    CHECK_SENTENCE(of({1, 1, 1}, 2), "without_padding: attention_mask against ids: expected 4, found 3");
    CHECK_SENTENCE(of({1, 1, 1, 1}, 3), "without_padding: ids: expected 3 rows of equal length, found 4 ids");
}

}  // namespace spectral::test
