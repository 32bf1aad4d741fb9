// SPDX-License-Identifier: Apache-2.0
// tests/core/random_test.cpp: Philox against its published vectors, and the numbers made from it
#include <spectral/core/random.hpp>
#include <support/catch.hpp>

#include <vector>

namespace spectral::test {

namespace {
bool same(const philox_words& got, std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
    return got.word[0] == a && got.word[1] == b && got.word[2] == c && got.word[3] == d;
}
}  // namespace

// Known answers of philox4x32-10 as distributed with Random123 (Salmon et al.). Our counter words 0 and 1 are
// `counter`, 2 and 3 are `stream`.
TEST_CASE("philox: known answers", "[core][random]") {
    CHECK(same(philox(0, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
    const std::uint64_t ones = ~std::uint64_t{0};
    CHECK(same(philox(ones, ones, ones), 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
    // digits of pi: counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0
    CHECK(same(philox(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u), 0xd16cfe09, 0x94fdcceb,
               0x5001e420, 0x24126ea1));
}

TEST_CASE("random_stream: draws are functions of their number", "[core][random]") {
    const random_stream a{7, 3}, same_stream{7, 3}, other_key{8, 3}, other_stream{7, 4};
    int equal_key = 0, equal_stream = 0;
    for (std::uint64_t n = 0; n < 64; ++n) {
        CHECK(a.bits(n) == same_stream.bits(n));
        CHECK(a.bits(n) == philox(7, 3, n / 4).word[n % 4]);
        equal_key += a.bits(n) == other_key.bits(n);
        equal_stream += a.bits(n) == other_stream.bits(n);
    }
    CHECK(equal_key == 0);
    CHECK(equal_stream == 0);
    CHECK(a.bits(5'000'000'000ull) == philox(7, 3, 1'250'000'000ull).word[0]);  // beyond 32 bits
}

TEST_CASE("random_stream: moments of uniform and normal", "[core][random]") {
    const random_stream draw{1, 2};
    const int n = 100000;
    double u1 = 0, u2 = 0, z1 = 0, z2 = 0, z4 = 0;
    for (int i = 0; i < n; ++i) {
        const double u = draw.uniform(static_cast<std::uint64_t>(i)), z = draw.normal(static_cast<std::uint64_t>(i));
        REQUIRE(u >= 0);
        REQUIRE(u < 1);
        REQUIRE(static_cast<double>(static_cast<float>(u)) == u);
        u1 += u / n, u2 += u * u / n, z1 += z / n, z2 += z * z / n, z4 += z * z * z * z / n;
    }
    const double five_sigma = 5 / std::sqrt(double(n));  // five standard errors of each mean
    CHECK(std::abs(u1 - 0.5) < five_sigma * 0.289);
    CHECK(std::abs(u2 - 1.0 / 3) < five_sigma * 0.298);
    CHECK(std::abs(z1) < five_sigma);
    CHECK(std::abs(z2 - 1) < five_sigma * 1.414);
    CHECK(std::abs(z4 - 3) < five_sigma * 9.8);
}

TEST_CASE("streams from names and numbers are stable and distinct", "[core][random]") {
    STATIC_REQUIRE(stream_of("") == 14695981039346656037ull);
    STATIC_REQUIRE(stream_of("a") == 0xaf63dc4c8601ec8cull);  // FNV-1a, published
    STATIC_REQUIRE(stream_of("foobar") == 0x85944171f73967e8ull);  // FNV-1a, published
    std::vector<std::uint64_t> seen;
    for (std::uint64_t parent = 0; parent < 8; ++parent)
        for (std::uint64_t n = 0; n < 8; ++n) seen.push_back(substream(parent, n));
    for (std::size_t i = 0; i < seen.size(); ++i)
        for (std::size_t j = 0; j < i; ++j) CHECK(seen[i] != seen[j]);
}

TEST_CASE("probability_threshold", "[core][random]") {
    CHECK(probability_threshold(-1) == 0);
    CHECK(probability_threshold(0) == 0);
    CHECK(probability_threshold(0.5) == 0x80000000u);
    CHECK(probability_threshold(0.25) == 0x40000000u);
    CHECK(probability_threshold(1) == 0xffffffffu);
    CHECK(probability_threshold(2) == 0xffffffffu);
}

}  // namespace spectral::test
