// SPDX-License-Identifier: Apache-2.0
// tests/report/flops_test.cpp: counts against loops, hand-worked sums and the published shares
#include <spectral/report/flops.hpp>

#include "support/catch.hpp"

#include <numeric>
#include <set>

namespace flops_test {
using spectral::index;
using spectral::layer_work;
using spectral::mac_counts;
using spectral::row_index;

TEST_CASE("visible pairs against counting them one by one", "[report]") {
    const std::vector<std::vector<row_index>> lists{{}, {0}, {5}, {0, 1, 2, 3, 4, 5, 6, 7}, {1, 3, 4, 7}, {0, 2, 6}};
    const auto counted = [](const std::vector<row_index>& queries, const std::vector<row_index>& keys) {
        double n = 0;
        for (row_index q : queries)
            for (row_index k : keys) n += k <= q;
        return n;
    };
    for (const auto& q : lists) {
        CHECK(spectral::causal_pairs(q) == counted(q, lists[3]));
        for (const auto& k : lists) CHECK(spectral::causal_pairs(q, k) == counted(q, k));
    }
    CHECK(spectral::causal_pairs(8) == counted(lists[3], lists[3]));
    CHECK(spectral::causal_pairs(0) == 0);
    CHECK(spectral::causal_pairs(lists[4], lists[4]) == 4 * 5 / 2);
    CHECK_THROWS_WITH(spectral::causal_pairs(std::vector<row_index>{3, 1}, lists[3]),
                      "causal_pairs: query positions must ascend, found 1 after 3");
}

TEST_CASE("attention counted by executing its loops", "[report]") {
    // d 6, 2 heads of 3; queries at 1, 3, 4 of 5 rows; keys: all
    const index d = 6, heads = 2, width = 3;
    const std::vector<row_index> queries{1, 3, 4};
    mac_counts m;
    for (row_index q : queries) {
        for (index o = 0; o < d; ++o)
            for (index i = 0; i < d; ++i) ++m.attention_query, ++m.attention_output;
        for (index h = 0; h < heads; ++h)
            for (row_index k = 0; k <= q; ++k)
                for (index c = 0; c < width; ++c) ++m.attention_scores, ++m.attention_values;
    }
    for (row_index k = 0; k < 5; ++k)
        for (index o = 0; o < 2 * d; ++o)
            for (index i = 0; i < d; ++i) ++m.attention_key_value;
    CHECK(spectral::attention_macs(3, 5, spectral::causal_pairs(queries), d) == m);
    CHECK(m.attention() == m.total());
}

TEST_CASE("the other operators, by hand", "[report]") {
    CHECK(spectral::linear_macs(3, 4, 5) == 60);
    CHECK(spectral::feed_forward_macs(2, 8, 32).feed_forward == 1024);
    CHECK(spectral::dct_macs(10, 256) == 10 * 2.5 * 256 * 8);
    CHECK(spectral::dct_macs(10, 1) == 0);
    CHECK(spectral::dct_mixing_macs(10, 256).dct == 10 * (2 * 2.5 * 256 * 8 + 256));
    // projections 5·8·3, scores and means 2·(7 pairs · 6 features), W_o 4·6·8
    CHECK(spectral::rbf_mixing_macs(4, 5, 7, 8, 3).rbf == 5 * 8 * 3 + 2 * 7 * 6 + 4 * 6 * 8);
    CHECK(spectral::router_macs(10, 256, 0).router == spectral::dct_macs(10, 256));
    CHECK(spectral::router_macs(10, 256, 2).router == spectral::dct_macs(10, 256) + 10 * 257 * 2);
    CHECK(spectral::head_macs(2, 3, 7).head == 42);
}

TEST_CASE("every field is added, scaled and summed", "[report]") {
    mac_counts m;
    double value = 1;
    std::set<std::string_view> names;
    for (const auto& [name, field] : mac_counts::fields()) {
        m.*field = value;
        value *= 2;
        names.insert(name);
    }
    CHECK(names.size() == sizeof(mac_counts) / sizeof(double));  // no field is missing from the list, none twice
    CHECK(m.total() == value - 1);
    CHECK((m + m).total() == 2 * m.total());
    CHECK(spectral::training(m).total() == 3 * m.total());
    CHECK(m.flops() == 2 * m.total());
}

TEST_CASE("a layer with every token on attention costs the dense layer", "[report]") {
    const spectral::chiar_widths c{.d = 64, .feed_forward = 256, .vocabulary = 100};
    layer_work routed;
    routed.rows = routed.attention_rows = routed.key_rows = 2 * 16;
    std::vector<row_index> all(16);
    std::iota(all.begin(), all.end(), row_index{0});
    routed.attention_pairs = 2 * spectral::causal_pairs(all);
    CHECK(spectral::layer_macs(c, routed) == spectral::layer_macs(c, layer_work::all_attention(2, 16)));
    const auto dense = spectral::layer_macs(c, layer_work::all_attention(2, 16));
    CHECK(dense.total() == 32 * 12 * 64 * 64 + 2 * 2 * 136 * 64);  // 12 d² a row; 136 pairs, twice, per sequence
    const auto v1 = spectral::layer_macs({64, 256, 0, 64, true}, layer_work::all_dct(32));
    CHECK(v1.feed_forward == 2 * spectral::layer_macs(c, layer_work::all_dct(32)).feed_forward);
    layer_work wrong;
    wrong.rows = 4;
    wrong.dct_rows = 5;
    CHECK_THROWS_AS(spectral::layer_macs(c, wrong), spectral::error);
}

TEST_CASE("the 400M model at half the tokens on attention saves 8.5 % of its layers, not 37 %", "[report]") {
    // d 1024, T 256, 28 layers of which 26 are routed; keys and values for all tokens
    const spectral::chiar_widths c{.d = 1024, .feed_forward = 4096, .vocabulary = 50257};
    const auto dense = spectral::layer_macs(c, layer_work::all_attention(1, 256));
    CHECK(dense.feed_forward / dense.total() == Approx(0.65).margin(0.005));
    layer_work half = layer_work::all_attention(1, 256);
    half.attention_rows /= 2;
    half.attention_pairs /= 2;
    const auto routed = spectral::layer_macs(c, half);  // without the small cost of the DCT
    CHECK(26 * (dense.total() - routed.total()) / (28 * dense.total()) == Approx(0.085).margin(0.0005));
    CHECK(routed.attention_key_value == dense.attention_key_value);
    const std::vector<layer_work> layers(28, layer_work::all_attention(1, 256));
    const auto model = spectral::model_macs(c, layers, 256);
    CHECK(model.total() == Approx(28 * dense.total() + 256.0 * 1024 * 50257).epsilon(1e-12));
}

TEST_CASE("the table names what ran and adds up", "[report]") {
    const spectral::chiar_widths c{.d = 64, .feed_forward = 256, .vocabulary = 100};
    const auto dense = spectral::layer_macs(c, layer_work::all_attention(2, 16));
    layer_work work = layer_work::all_attention(2, 16);
    work.attention_rows = 16;
    work.dct_rows = 16;
    const auto routed = spectral::layer_macs(c, work);
    const std::string table = spectral::mac_table(routed), both = spectral::mac_table(routed, &dense);
    CHECK(table.find("\ndct ") != std::string::npos);
    CHECK(table.find("\nrbf ") == std::string::npos);
    CHECK(table.find("\ntotal ") != std::string::npos);
    CHECK(table.find(" 100.0%\n") != std::string::npos);
    CHECK(both.find("attention_query       6.554e+04    4.3%   1.311e+05   50.0%\n") != std::string::npos);
    std::size_t width = both.find('\n');
    for (std::size_t at = 0; at < both.size(); at = both.find('\n', at) + 1) CHECK(both.find('\n', at) - at == width);
}

}  // namespace flops_test
