// SPDX-License-Identifier: Apache-2.0
// tests/data/token_stream_test.cpp: shuffled orders, token files, windows for training and evaluation
#include <spectral/data/token_stream.hpp>

#include "support/catch.hpp"

#include <unistd.h>

#include <fstream>
#include <map>
#include <set>

namespace token_stream_test {
using spectral::index;  // strings.h has a function of this name outside
using spectral::row_index;

struct temporary_file {
    std::filesystem::path path =
        std::filesystem::temp_directory_path() / ("spectral_tokens_" + std::to_string(::getpid()) + ".bin");
    ~temporary_file() { std::filesystem::remove(path); }
    void put(const std::string& bytes) const { std::ofstream(path, std::ios::binary) << bytes; }
    std::string get() const {
        std::ifstream in(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
};

template <class Call>
std::string sentence(Call&& call) {
    try {
        call();
    } catch (const spectral::error& e) {
        return e.what();
    }
    return "no error";
}

// token i of the corpus is i, so that a window shows where it comes from
spectral::token_stream counting(index n) {
    std::vector<row_index> tokens;
    for (index i = 0; i < n; ++i) tokens.push_back(static_cast<row_index>(i));
    return spectral::token_stream(tokens);
}

TEST_CASE("a shuffled order is a permutation for every n", "[data]") {
    for (index n : {1, 2, 3, 4, 5, 7, 16, 17, 255, 1000, 4097}) {
        const spectral::shuffled_order order(n, {42, 7});
        std::set<index> seen;
        for (index i = 0; i < n; ++i) {
            seen.insert(order[i]);
            CHECK(order[i] < n);
        }
        CHECK(seen.size() == static_cast<std::size_t>(n));
    }
    CHECK_THROWS_AS(spectral::shuffled_order(0, {}), spectral::error);
    CHECK_THROWS_AS(spectral::shuffled_order(3, {})[3], spectral::error);
    CHECK_THROWS_AS(spectral::shuffled_order(3, {})[-1], spectral::error);
}

TEST_CASE("shuffled orders are uniform: all 24 orders of 4 things are equally likely", "[data]") {
    std::map<std::array<index, 4>, int> count;
    constexpr int draws = 24000;
    for (int s = 0; s < draws; ++s) {
        const spectral::shuffled_order order(4, {static_cast<std::uint64_t>(s), 1});
        ++count[{order[0], order[1], order[2], order[3]}];
    }
    REQUIRE(count.size() == 24);
    double chi2 = 0;
    for (const auto& [order, n] : count) chi2 += (n - draws / 24.0) * (n - draws / 24.0) / (draws / 24.0);
    CHECK(chi2 < 49.7);  // 23 degrees of freedom: exceeded by chance once in 1000
}

TEST_CASE("neighbours are torn apart by a shuffled order", "[data]") {
    const spectral::shuffled_order order(1000, {1, 2});
    int fixed = 0, adjacent = 0;
    for (index i = 0; i < 1000; ++i) fixed += order[i] == i;
    for (index i = 0; i + 1 < 1000; ++i) adjacent += order[i + 1] == order[i] + 1;
    CHECK(fixed < 8);  // Poisson with mean 1
    CHECK(adjacent < 8);
}

TEST_CASE("training windows: every target exactly once per epoch, inputs one token behind", "[data]") {
    // 5 full windows of 4 from 23 tokens; batches of 3 straddle the epochs
    const spectral::training_windows data(counting(23), {.batch = 3, .window = 4, .seed = 9});
    REQUIRE(data.windows() == 5);
    std::vector<std::vector<row_index>> epochs(3);
    index window = 0;
    for (index step = 0; step < 5; ++step) {
        const auto b = data.batch_at(step);
        CHECK(b.lengths == std::vector<index>{4, 4, 4});
        REQUIRE_NOTHROW(check_batch(b, 23));
        for (std::size_t i = 0; i < b.ids.size(); ++i) CHECK(b.targets[i] == b.ids[i] + 1);
        for (index w = 0; w < 3; ++w, ++window)
            for (index t = 0; t < 4; ++t)
                epochs[static_cast<std::size_t>(window / 5)].push_back(b.targets[static_cast<std::size_t>(4 * w + t)]);
    }
    CHECK(epochs[0] != epochs[1]);
    for (auto& epoch : epochs) {
        std::sort(epoch.begin(), epoch.end());
        REQUIRE(epoch.size() == 20);
        for (row_index i = 0; i < 20; ++i) CHECK(epoch[static_cast<std::size_t>(i)] == i + 1);
    }
    CHECK(data.epochs(5) == Approx(3.0));
}

TEST_CASE("training windows resume by their step and depend on the seed", "[data]") {
    const spectral::window_options options{.batch = 8, .window = 16, .seed = 3};
    const spectral::training_windows whole(counting(5000), options), resumed(counting(5000), options);
    std::vector<spectral::batch> run;
    for (index step = 0; step < 60; ++step) run.push_back(whole.batch_at(step));
    for (index step : {59, 41, 7}) CHECK(resumed.batch_at(step) == run[static_cast<std::size_t>(step)]);
    const spectral::training_windows other(counting(5000), {.batch = 8, .window = 16, .seed = 4});
    CHECK_FALSE(other.batch_at(0) == run[0]);
}

TEST_CASE("evaluation windows predict every token but the first exactly once", "[data]") {
    for (index n : {2, 5, 16, 17, 18, 33, 100})
        for (index batch : {1, 3}) {
            const spectral::evaluation_windows data(counting(n), {.batch = batch, .window = 16});
            std::vector<row_index> targets;
            index windows = 0;
            for (index i = 0; i < data.batches(); ++i) {
                const auto b = data.batch_at(i);
                REQUIRE_NOTHROW(check_batch(b, n));
                targets.insert(targets.end(), b.targets.begin(), b.targets.end());
                windows += b.sequences();
                for (std::size_t r = 0; r < b.ids.size(); ++r) CHECK(b.targets[r] == b.ids[r] + 1);
            }
            CHECK(windows == data.windows());
            REQUIRE(targets.size() == static_cast<std::size_t>(n - 1));
            for (std::size_t i = 0; i < targets.size(); ++i) CHECK(targets[i] == static_cast<row_index>(i + 1));
        }
    const spectral::evaluation_windows data(counting(18), {.batch = 4, .window = 16});
    CHECK(data.batch_at(0).lengths == std::vector<index>{16, 1});
    CHECK_THROWS_AS(data.batch_at(1), spectral::error);
    CHECK(sentence([] { spectral::evaluation_windows(counting(1), {}); }) ==
          "token stream: tokens: expected at least 2 to predict one, found 1");
    CHECK(sentence([] { spectral::training_windows(counting(256), {}); }) ==
          "token stream: tokens: expected at least 257 for one window, found 256");
}

TEST_CASE("token files round-trip in 2 and 4 bytes", "[data]") {
    const temporary_file file;
    for (row_index largest : {65535, 65536}) {
        std::vector<row_index> tokens(70000, 7);
        tokens.back() = largest;
        spectral::write_token_file(file.path, tokens, {.bytes = 123, .words = 45});
        CHECK(std::filesystem::file_size(file.path) == 40 + tokens.size() * (largest < 65536 ? 2 : 4));
        const auto stream = spectral::token_stream::open(file.path, 70000);
        CHECK(stream.tokens() == tokens);
        CHECK(stream.text() == spectral::text_size{123, 45});
    }
    CHECK_THROWS_AS(spectral::write_token_file(file.path, std::vector<row_index>{1, -1}), spectral::error);
}

TEST_CASE("token files are not trusted", "[data]") {
    const temporary_file file;
    const std::string name = file.path.string();
    const std::vector<row_index> tokens{1, 2, 300};
    spectral::write_token_file(file.path, tokens);
    const std::string good = file.get();
    const auto opened = [&](std::string bytes) {
        file.put(bytes);
        return sentence([&] { spectral::token_stream::open(file.path, 1000); });
    };
    const auto changed = [&](std::size_t at, char value) {
        std::string bytes = good;
        bytes[at] = value;
        return bytes;
    };
    CHECK(opened(good) == "no error");
    CHECK(opened("") == name + ": the file is empty");
    CHECK(opened(good.substr(0, 39)) == name + ": expected a token file with a header of 40 bytes, found 39 bytes");
    CHECK(opened(changed(0, 'X')) ==
          name + ": expected a token file, which begins with \"SPTOKENS\", found other bytes");
    CHECK(opened(changed(8, 2)) == name + ": version of the token file: expected 1, found 2");
    CHECK(opened(changed(12, 3)) == name + ": bytes per token: expected 2 or 4, found 3");
    CHECK(opened(changed(12, 0)) == name + ": bytes per token: expected 2 or 4, found 0");
    CHECK(opened(changed(16, 4)) == name + ": tokens: the header says 4 of 2 bytes each, found 6 bytes of tokens");
    CHECK(opened(good.substr(0, 45)) == name + ": tokens: the header says 3 of 2 bytes each, found 5 bytes of tokens");
    // a count whose size in bytes wraps around to the right one
    CHECK(opened(changed(23, static_cast<char>(0x80))).find("tokens: the header says 9223372036854775811") !=
          std::string::npos);
    CHECK(opened(changed(31, static_cast<char>(0x80))).find("bytes and words of the text: expected at most") !=
          std::string::npos);
    file.put(good);
    const auto small = spectral::token_stream::open(file.path, 300);
    CHECK(small[1] == 2);
    CHECK(sentence([&] { small.tokens(); }) == name + ": token 2: expected an id below 300, found 300");
    CHECK(sentence([&] { spectral::token_stream({4, -2}); }) == "token stream: token 1: expected at least 0, found -2");
}

}  // namespace token_stream_test
