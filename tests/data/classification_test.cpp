// SPDX-License-Identifier: Apache-2.0
// tests/data/classification_test.cpp: TSV readers, their sentences, and the order of examples
#include <spectral/data/classification.hpp>

#include "support/catch.hpp"

#include <unistd.h>

#include <fstream>
#include <map>

namespace classification_test {
using spectral::index;
using spectral::row_index;

// one token per byte: a text shows in its ids
std::vector<row_index> bytes(std::string_view text) {
    std::vector<row_index> out;
    for (char c : text) out.push_back(static_cast<unsigned char>(c));
    return out;
}

template <class Call>
std::string sentence(Call&& call) {
    try {
        call();
    } catch (const spectral::error& e) {
        return e.what();
    }
    return "no error";
}

std::string problem(std::string_view text, spectral::classification_options options = {}) {
    return sentence([&] { spectral::parse_classification(text, "a.tsv", bytes, options); });
}

TEST_CASE("both layouts are read", "[data]") {
    const auto imdb = spectral::parse_classification("1\t9\t0\tgood film\r\n0\t2\t17\tbad\n", "a.tsv", bytes, {});
    REQUIRE(imdb.examples.size() == 2);
    CHECK(imdb.examples[0] == spectral::labelled_tokens{bytes("good film"), 1});
    CHECK(imdb.examples[1] == spectral::labelled_tokens{bytes("bad"), 0});
    CHECK(imdb.cut == 0);
    const auto plain =
        spectral::parse_classification("3\tone\n0\ttwo \xC3\xA9", "a.tsv", bytes, {.classes = 4, .max_length = 3});
    REQUIRE(plain.examples.size() == 2);  // the last line needs no line end
    CHECK(plain.examples[0] == spectral::labelled_tokens{bytes("one"), 3});
    CHECK(plain.examples[1] == spectral::labelled_tokens{bytes("two"), 0});
    CHECK(plain.cut == 1);
    CHECK(spectral::parse_classification("0\ta\n1\tb\n1\tc\n", "a.tsv", bytes, {.max_examples = 2}).examples.size() ==
          2);
}

TEST_CASE("malformed lines are named", "[data]") {
    using spectral::tsv_layout;
    CHECK(problem("") == "a.tsv: the file has no examples");
    CHECK(problem("0\tfine\n1\n") == "a.tsv: line 2: fields between tabs (label, text): expected 2, found 1");
    CHECK(problem("0\tfine\n\n") == "a.tsv: line 2: fields between tabs (label, text): expected 2, found 1");
    CHECK(problem("0\tfine\n1\ttab\tinside\n") ==
          "a.tsv: line 2: fields between tabs (label, text): expected 2, found 3");
    CHECK(problem("0\t1\t2\n") ==
          "a.tsv: line 1: fields between tabs: expected 2 (label, text) or 4 (label, rating, id, text), found 3");
    CHECK(problem("0\tx\n", {.layout = tsv_layout::imdb}) ==
          "a.tsv: line 1: fields between tabs (label, rating, id, text): expected 4, found 2");
    CHECK(problem("2\tx\n") == "a.tsv: line 1: label: expected a number from 0 to 1, found \"2\"");
    CHECK(problem("-1\tx\n") == "a.tsv: line 1: label: expected a number from 0 to 1, found \"-1\"");
    CHECK(problem("1x\tx\n") == "a.tsv: line 1: label: expected a number from 0 to 1, found \"1x\"");
    CHECK(problem("\tx\n") == "a.tsv: line 1: label: expected a number from 0 to 1, found \"\"");
    CHECK(problem("99999999999999999999\tx\n") ==
          "a.tsv: line 1: label: expected a number from 0 to 1, found \"99999999999999999999\"");
    CHECK(problem("a\x1b[31m label that is long\tx\n") ==
          "a.tsv: line 1: label: expected a number from 0 to 1, found \"a?[31m label that is...\"");
    CHECK(problem("1\t9\t4\tok\n1\t11\t4\tx\n") ==
          "a.tsv: line 2: rating: expected a number from 1 to 10, found \"11\"");
    CHECK(problem("1\t9\tseven\tx\n").find("a.tsv: line 1: id: expected a number from 0 to") == 0);
    CHECK(problem("1\tab\xFFz\n") == "a.tsv: line 1: the text is not valid UTF-8 at byte offset 2");
    CHECK(problem("0\tok\n1\t\n") == "a.tsv: line 2: text: expected at least one token, found none");
    CHECK(problem("0\tok\n", {.classes = 1}).find("options: expected at least 2 classes") != std::string::npos);
    CHECK(sentence([] { spectral::read_classification("/nonexistent/a.tsv", bytes, {}); }) ==
          "/nonexistent/a.tsv: the file cannot be opened: No such file or directory");
}

TEST_CASE("UTF-8 is what Unicode calls well-formed", "[data]") {
    for (const char* good : {"", "abc", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
                             "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"})
        CHECK_NOTHROW(spectral::check_utf8(good, "text"));
    // overlong, surrogate, above U+10FFFF, stray, cut short
    for (const char* bad :
         {"\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
          "\xF5\x80\x80\x80", "\x80", "\xC2", "\xE2\x82", "\xF0\x9F\x98", "\xE2\x28\xA1"})
        CHECK(sentence([&] { spectral::check_utf8(std::string("ok") + bad, "text"); }) ==
              "text: the text is not valid UTF-8 at byte offset 2");
}

TEST_CASE("a file is read", "[data]") {
    const auto path = std::filesystem::temp_directory_path() / ("spectral_tsv_" + std::to_string(::getpid()));
    std::ofstream(path) << "1\tyes\n0\tno\n";
    const auto data = spectral::read_classification(path, bytes, {});
    std::filesystem::remove(path);
    REQUIRE(data.examples.size() == 2);
    CHECK(data.examples[1] == spectral::labelled_tokens{bytes("no"), 0});
}

// example n is n + 1 tokens, all n: its length and its ids name it
spectral::classification_data numbered(index n) {
    spectral::classification_data data{"numbered", {}, 2, 0};
    for (index i = 0; i < n; ++i)
        data.examples.push_back({std::vector<row_index>(static_cast<std::size_t>(i + 1), static_cast<row_index>(i)),
                                 static_cast<row_index>(i % 2)});
    return data;
}

TEST_CASE("every example once per epoch, in buckets or not, and resumable", "[data]") {
    for (index bucket : {0, 1, 4}) {
        const spectral::classification_batches data(numbered(40), {.batch = 5, .seed = 8, .bucket = bucket});
        const spectral::classification_batches resumed(numbered(40), {.batch = 5, .seed = 8, .bucket = bucket});
        std::vector<std::vector<index>> orders;
        for (index epoch = 0; epoch < 3; ++epoch) {
            std::map<index, int> seen;
            std::vector<index> order;
            for (index step = 8 * epoch; step < 8 * (epoch + 1); ++step) {
                const auto b = data.batch_at(step);
                REQUIRE_NOTHROW(check_batch(b, 40, 2));
                REQUIRE(b.sequences() == 5);
                for (std::size_t s = 0; s < 5; ++s) {
                    ++seen[b.lengths[s] - 1];
                    order.push_back(b.lengths[s] - 1);
                    CHECK(b.labels[s] == (b.lengths[s] - 1) % 2);
                }
                CHECK(resumed.batch_at(step) == b);
            }
            CHECK(seen.size() == 40);
            for (const auto& [n, count] : seen) CHECK(count == 1);
            orders.push_back(order);
        }
        CHECK(orders[0] != orders[1]);
        CHECK(orders[1] != orders[2]);
    }
}

TEST_CASE("buckets make batches of alike lengths", "[data]") {
    const auto spread = [](index bucket) {
        const spectral::classification_batches data(numbered(400), {.batch = 10, .seed = 1, .bucket = bucket});
        index sum = 0;
        for (index step = 0; step < 40; ++step) {
            const auto lengths = data.batch_at(step).lengths;
            sum +=
                *std::max_element(lengths.begin(), lengths.end()) - *std::min_element(lengths.begin(), lengths.end());
        }
        return sum / 40;
    };
    CHECK(spread(0) > 250);
    CHECK(spread(20) < 40);
}

TEST_CASE("evaluation reads the file once, in order", "[data]") {
    const spectral::classification_batches data(numbered(12), {.batch = 5, .seed = 8});
    REQUIRE(data.evaluation_batches() == 3);
    index n = 0;
    for (index i = 0; i < 3; ++i)
        for (index length : data.evaluation_at(i).lengths) CHECK(length == ++n);
    CHECK(n == 12);
    CHECK_THROWS_AS(data.evaluation_at(3), spectral::error);
    CHECK_THROWS_AS(spectral::classification_batches({}, {}), spectral::error);
}

}  // namespace classification_test
