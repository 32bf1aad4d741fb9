// SPDX-License-Identifier: Apache-2.0
// tests/text/bpe_trainer_test.cpp: the trainer makes the merges of a plain recount, and files that load
#include <spectral/text/bpe_trainer.hpp>

#include "support/golden.hpp"

#include <map>
#include <random>

using namespace spectral;

namespace {
// The definition: count every adjacent pair anew, merge the most frequent (of equals, the smallest ids) everywhere.
std::vector<std::pair<std::string, std::string>> merges_by_recount(const std::string& text, std::size_t wanted) {
    std::array<row_index, 256> byte_id{};
    std::vector<std::string> tokens;
    for (std::uint8_t b : detail::alphabet.order) {
        byte_id[b] = static_cast<row_index>(tokens.size());
        tokens.emplace_back(1, static_cast<char>(b));
    }
    std::vector<std::vector<row_index>> words;
    splitter(gpt2_pattern, "test").split(text, [&](std::string_view word) {
        words.emplace_back();
        for (char c : word) words.back().push_back(byte_id[static_cast<unsigned char>(c)]);
    });
    std::vector<std::pair<std::string, std::string>> merges;
    while (merges.size() < wanted) {
        std::map<std::pair<row_index, row_index>, int> counts;
        for (const auto& w : words)
            for (std::size_t i = 0; i + 1 < w.size(); ++i) ++counts[{w[i], w[i + 1]}];
        std::pair<row_index, row_index> best{};
        int most = 1;
        for (const auto& [pair, count] : counts)
            if (count > most) most = count, best = pair;
        if (most < 2) break;
        const auto left = static_cast<std::size_t>(best.first), right = static_cast<std::size_t>(best.second);
        merges.emplace_back(to_byte_level(tokens[left]), to_byte_level(tokens[right]));
        tokens.push_back(tokens[left] + tokens[right]);
        for (auto& w : words)
            for (std::size_t i = 0; i + 1 < w.size(); ++i)
                if (w[i] == best.first && w[i + 1] == best.second) {
                    w[i] = static_cast<row_index>(tokens.size() - 1);
                    w.erase(w.begin() + static_cast<std::ptrdiff_t>(i) + 1);
                }
    }
    return merges;
}

std::string random_words(unsigned seed, int count, const std::string& letters) {
    std::mt19937 random(seed);
    std::string text;
    for (int i = 0; i < count; ++i) {
        for (unsigned n = 1 + random() % 7; n > 0; --n) text += letters[random() % letters.size()];
        text += ' ';
    }
    return text;
}
}  // namespace

TEST_CASE("bpe_trainer: incremental counts equal a recount") {
    for (unsigned seed = 0; seed < 6; ++seed) {
        const std::string text = random_words(seed, 300, seed % 2 ? "aab" : "abcdefgh");
        bpe_trainer trainer({.vocab_size = 256 + 60 + 1});
        trainer.add(text);
        const auto file = nlohmann::json::parse(trainer.train());
        const auto expected = merges_by_recount(text, 60);
        // two pairs may spell one token; then the trainer's ids and the recount's go apart
        std::map<std::string, int> spelt;
        for (std::size_t i = 0; i < expected.size() && ++spelt[expected[i].first + expected[i].second] == 1; ++i) {
            INFO("seed " << seed << ", merge " << i);
            CHECK(file["model"]["merges"][i][0] == expected[i].first);
            CHECK(file["model"]["merges"][i][1] == expected[i].second);
        }
    }
}

TEST_CASE("bpe_trainer: the file loads, round-trips and does not depend on the order of texts") {
    const std::string a = random_words(1, 400, "abcdef"), b = "Größe 12 <|endoftext|> don't 日本\n\n  x " + a;
    for (const bool qwen : {false, true}) {
        bpe_training options{.vocab_size = 400, .special_tokens = {"<|endoftext|>", "<|im_end|>"}};
        if (qwen) options.pattern = std::string(qwen2_pattern), options.nfc = true;
        bpe_trainer first(options), second(options);
        first.add(a);
        first.add(b);
        second.add(b);
        second.add(a);
        const std::string file = first.train();
        CHECK(file == second.train());
        CHECK(file == first.train());
        const auto tok = tokenizer::from_json(file, "trained");
        CHECK(tok.vocab_size() == 400);
        CHECK(tok.token_id("<|endoftext|>") == 398);
        CHECK(tok.is_special(399));
        CHECK(tok.decode(tok.encode(b)) == b);
        CHECK(tok.encode(a).size() < a.size() * 2 / 3);
        CHECK(tok.encode("<|im_end|>") == std::vector<row_index>{399});
        CHECK(tok.token_id("!") == 0);
        CHECK(nlohmann::json::parse(file)["normalizer"].is_null() == !qwen);
    }
}

TEST_CASE("bpe_trainer: tokens that can be spelt in several ways keep one id") {
    bpe_trainer trainer({.vocab_size = 600});
    trainer.add(random_words(3, 2000, "ab"));
    const auto tok = tokenizer::from_json(trainer.train(), "trained");  // a merge listed twice would be refused
    CHECK(tok.encode("abab abba").size() <= 4);
}

TEST_CASE("bpe_trainer: little text gives a small vocabulary") {
    bpe_trainer trainer({.vocab_size = 1000});
    trainer.add("ab ab ab");
    const auto tok = tokenizer::from_json(trainer.train(), "trained");
    CHECK(tok.vocab_size() == 256 + 2 + 1);  // "ab", " ab"
    CHECK(tokenizer::from_json(bpe_trainer().train(), "trained").vocab_size() == 257);
}

TEST_CASE("bpe_trainer: bad options and texts are refused") {
    CHECK_SENTENCE(bpe_trainer({.vocab_size = 256}),
                   "vocab_size: expected 257 (bytes and special tokens) to 2^24, found 256");
    CHECK_SENTENCE(bpe_trainer({.special_tokens = {"<a>", "<a>"}}), "special token \"<a>\" appears twice");
    CHECK_SENTENCE(bpe_trainer({.special_tokens = {""}}), "found an empty string");
    CHECK_SENTENCE(bpe_trainer({.pattern = "("}), "split pattern");
    bpe_trainer trainer;
    CHECK_SENTENCE(trainer.add("a\xff"), "bpe_trainer: the text is not valid UTF-8 at byte offset 1");
}
