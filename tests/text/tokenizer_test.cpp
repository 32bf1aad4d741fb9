// SPDX-License-Identifier: Apache-2.0
// tests/text/tokenizer_test.cpp: ids and text equal those of Hugging Face tokenizers; scanners equal PCRE2
#include <spectral/text/tokenizer.hpp>

#include "support/golden.hpp"

#include <fstream>
#include <random>
#include <thread>

using namespace spectral;

namespace {
using ids = std::vector<row_index>;

// Every line of a golden file through one tokenizer: ids, decoded text, and the same text token by token.
int check_golden(const std::filesystem::path& tokenizer_json, const std::filesystem::path& lines,
                 const std::string& key) {
    const auto tok = tokenizer::from_file(tokenizer_json);
    std::ifstream file(lines);
    int count = 0;
    for (std::string line; std::getline(file, line); ++count) {
        const auto golden = nlohmann::json::parse(line);
        const auto text = golden["text"].get<std::string>();
        const auto decoded = key == "gpt2" ? text : golden[key + "_decoded"].get<std::string>();
        const auto expected = golden[key].get<ids>();
        INFO(key << ", line " << count << ": " << text);
        CHECK(tok.encode(text) == expected);
        CHECK(tok.decode(expected) == decoded);
        stream_decoder stream(tok);
        std::string streamed;
        for (row_index id : expected) {
            const std::string piece = stream.push(id);
            CHECK_NOTHROW(check_utf8(piece, "piece"));
            streamed += piece;
        }
        CHECK(streamed + stream.finish() == decoded);
    }
    return count;
}

// A small tokenizer.json whose sections can be replaced.
nlohmann::json small_file() {
    nlohmann::json file = nlohmann::json::parse(R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[
        {"id":300,"content":"<|a|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,
         "special":true},
        {"id":301,"content":"<|a|><|b|>","normalized":false,"special":false},
        {"id":302,"content":"\u00e9!","normalized":true,"special":false}],
        "normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"post_processor":null,
        "decoder":{"type":"ByteLevel"},"model":{"type":"BPE","merges":["h e","l l",["he","ll"],["hell","o"],"e l"]}})");
    for (int b = 0; b < 256; ++b) file["model"]["vocab"][to_byte_level(std::string(1, static_cast<char>(b)))] = b;
    int next = 256;
    for (const char* token : {"he", "ll", "hell", "hello", "el"}) file["model"]["vocab"][token] = next++;
    return file;
}
tokenizer load(const nlohmann::json& file) { return tokenizer::from_json(file.dump(), "t.json"); }
template <class Change>
nlohmann::json changed(Change&& change) {
    auto file = small_file();
    change(file);
    return file;
}

std::vector<std::string> split_by(std::string_view pattern, std::string_view text) {
    std::vector<std::string> out;
    splitter(pattern, "test").split(text, [&](std::string_view word) { out.emplace_back(word); });
    return out;
}
}  // namespace

TEST_CASE("tokenizer: a subset of the golden lines, with the tokens they need") {
    const auto dir = test::small_golden_dir() / "text";
    CHECK(check_golden(dir / "gpt2_subset.tokenizer.json", dir / "tokens_subset.jsonl", "gpt2") == 97);
    CHECK(check_golden(dir / "qwen2.5_subset.tokenizer.json", dir / "tokens_subset.jsonl", "qwen2.5") == 97);
}

TEST_CASE("tokenizer: all golden lines") {
    const auto dir = test::golden_dir("text");
    if (!dir || !std::filesystem::exists(*dir / "tokens.jsonl")) {
        WARN("SPECTRAL_GOLDEN_DIR does not name the full set: skipped");
        return;
    }
    CHECK(check_golden(*dir / "gpt2.tokenizer.json", *dir / "tokens.jsonl", "gpt2") == 291);
    CHECK(check_golden(*dir / "qwen2.5.tokenizer.json", *dir / "tokens.jsonl", "qwen2.5") == 291);
    const auto qwen = tokenizer::from_file(*dir / "qwen2.5.tokenizer.json");
    CHECK(qwen.vocab_size() == 151665);
    CHECK(qwen.token_id("<|im_end|>") == 151645);
    CHECK(qwen.is_special(151645));
    CHECK(!qwen.is_special(151657));
    CHECK(qwen.encode("Hello world") == ids{9707, 1879});
    CHECK(qwen.encode(" Hello world") == ids{21927, 1879});
    CHECK(qwen.decode(ids{151644, 9707, 151645}, true) == "Hello");
}

TEST_CASE("split: the scanners cut as PCRE2 does with the patterns") {
    // other text for the same pattern, so that it goes to PCRE2
    const std::string gpt2_regex = "(?:" + std::string(gpt2_pattern) + ")";
    const std::string qwen2_regex = "(?:" + std::string(qwen2_pattern) + ")";
    const std::vector<std::string> parts{
        "a",  "B",   "re",     "'s",     "'S",     "'ll",    "'Ll",    "'",    "'\xc5\xbf", "7",       "42",
        " ",  "  ",  "\n",     "\r",     "\t",     "\v",     ".",      "!?",   "é",         "e\u0301", "日本",
        "½",  "Ⅷ",   "\u00a0", "\u3000", "\u2028", "\u0085", "\u200b", "👩",    "ไทย",       "_",       "ǅ",
        "'t", "'ve", "'m",     "'D",     "ʰ",      "\u1680", "\x1c",   "\x7f", "٣",         "l",       "v"};
    std::mt19937 random(1);
    for (int round = 0; round < 20'000; ++round) {
        std::string text;
        for (unsigned n = random() % 9; n > 0; --n) text += parts[random() % parts.size()];
        INFO("text: " << nlohmann::json(text).dump());
        const auto gpt2 = split_by(gpt2_pattern, text), qwen2 = split_by(qwen2_pattern, text);
        if (gpt2 != split_by(gpt2_regex, text)) FAIL("the GPT-2 scanner differs");
        if (qwen2 != split_by(qwen2_regex, text)) FAIL("the Qwen2 scanner differs");
    }
    SUCCEED("20000 texts");
    CHECK(split_by("[0-9]+", "ab12c3") == std::vector<std::string>{"ab", "12", "c", "3"});
    CHECK(split_by("x*", "axxb") == std::vector<std::string>{"a", "xx", "b"});
    CHECK_SENTENCE(split_by("(", "x"), "test: split pattern: missing closing parenthesis at offset 1");
    CHECK_SENTENCE(split_by("(a|aa)+c", std::string(60, 'a') + "dc"),
                   "split pattern: match limit exceeded at byte offset 0");
}

TEST_CASE("tokenizer: order of steps in a small file") {
    const auto tok = load(small_file());
    CHECK(tok.vocab_size() == 303);
    CHECK(tok.encode("") == ids{});
    CHECK(tok.encode("hello") == ids{259});
    CHECK(tok.encode("hell") == ids{258});
    CHECK(tok.encode("hel") == ids{256, 'l'});  // "h e" has a lower rank than "e l"
    CHECK(tok.encode("hello hello") == ids{259, ' ', 259});
    CHECK(tok.encode("<|a|><|b|><|a|>") == ids{301, 300});  // the longest token first
    CHECK(tok.encode_ordinary("<|a|>") == ids{'<', '|', 'a', '|', '>'});
    CHECK(tok.encode("e\u0301!") == ids{302});  // found after normalisation
    CHECK(tok.decode(ids{302, 0xc3, 300}) == "é!\ufffd<|a|>");
    CHECK(tok.decode(ids{300, 259, 301}, true) == "hello<|a|><|b|>");
    CHECK(tok.token_bytes(259) == "hello");
    CHECK_SENTENCE(tok.decode(ids{303}), "t.json: token id: expected one of the vocabulary (0 to 302), found 303");
    CHECK_SENTENCE(tok.decode(ids{-1}), "found -1");
    CHECK_SENTENCE(tok.decode(ids{270}), "found 270");  // a hole in the numbering
    CHECK_SENTENCE(tok.encode("ab\xff"), "tokenizer encode: the text is not valid UTF-8 at byte offset 2");
    CHECK_SENTENCE(tok.encode("0123456789\xed\xa0\x80"), "byte offset 10");  // a surrogate
    CHECK(tok.encode(std::string("a\0b", 3)) == ids{'a', 0, 'b'});

    const auto prefixed = load(changed([](auto& f) { f["pre_tokenizer"]["add_prefix_space"] = true; }));
    CHECK(prefixed.encode("hello") == ids{' ', 259});
    CHECK(prefixed.encode(" hello") == ids{' ', 259});
    CHECK(prefixed.encode("") == ids{});
    const auto whole = load(changed([](auto& f) {
        f["model"]["ignore_merges"] = true;
        f["model"]["vocab"]["xyz"] = 261;
    }));
    CHECK(whole.encode("xyz xyz") == ids{261, ' ', 'x', 'y', 'z'});
}

TEST_CASE("tokenizer: long words, many threads, a full cache") {
    const auto tok = load(small_file());
    const std::string one_word(1 << 20, 'l');
    CHECK(tok.encode(one_word) == ids(one_word.size() / 2, 257));
    std::string text;
    for (int i = 0; i < 60'000; ++i) text += "w" + std::to_string(i) + "x hello";
    const ids expected = tok.encode(text);
    CHECK(tok.decode(expected) == text);
    std::vector<std::thread> threads;
    std::array<bool, 4> same{};
    threads.reserve(same.size());
    for (bool& s : same) threads.emplace_back([&] { s = tok.encode(text) == expected; });
    for (auto& t : threads) t.join();
    CHECK(same == std::array<bool, 4>{true, true, true, true});
}

TEST_CASE("tokenizer: NFC, also of long runs of combining marks") {
    CHECK(to_nfc("plain") == "plain");
    CHECK(to_nfc("e\u0301a\u030a\u1100\u1161\u11a8") == "éå각");
    CHECK(to_nfc("\u212b\u2126") == "\u00c5\u03a9");
    CHECK(to_nfc("a\u0323\u0307") == to_nfc("a\u0307\u0323"));
    CHECK(to_nfc("\u0958") == "\u0915\u093c");  // excluded from composition
    CHECK(to_nfc("\u0301e") == "\u0301e");
    std::string marks = "a";
    for (int i = 0; i < 100'000; ++i) marks += i % 2 ? "\u0323" : "\u0307";
    CHECK(to_nfc(marks).size() > 199'000);  // finishes at once
    std::mt19937 random(2);
    for (int round = 0; round < 3000; ++round) {  // against utf8proc's own function
        std::string text;
        const std::array<char32_t, 16> starts{0x41,   0x20,  0xc0,  0x300,  0x323,  0x1e00,  0x1100, 0x1161,
                                              0xac00, 0x915, 0x93c, 0x3099, 0x304b, 0x1d15e, 0x2126, 0xf900};
        for (unsigned n = random() % 8; n > 0; --n) append_utf8(text, starts[random() % 16] + random() % 24);
        auto* whole = utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(text.c_str()));
        const std::string expected = reinterpret_cast<const char*>(whole);
        std::free(whole);
        if (to_nfc(text) != expected) FAIL("differs for " << text);
    }
}

TEST_CASE("tokenizer: decoding repairs what is not UTF-8") {
    const auto repaired = [](std::string_view bytes) {
        std::string out;
        append_repaired(out, bytes, true);
        return out;
    };
    const std::string r = "\ufffd";
    CHECK(repaired("a\x80z") == "a" + r + "z");
    CHECK(repaired("\xe2\x82z") == r + "z");  // one for the longest prefix of a character
    CHECK(repaired("\xf0\x9f\x91") == r);
    CHECK(repaired("\xe2\x82\xe2\x82\xac") == r + "€");
    CHECK(repaired("\xed\xa0\x80") == r + r + r);  // a surrogate: no byte of it starts a character
    CHECK(repaired("\xc0\xaf\xf5\xff") == r + r + r + r);
    const auto tok = load(small_file());
    stream_decoder stream(tok);
    CHECK(stream.push(0xf0) == "");
    CHECK(stream.push(0x9f) == "");
    CHECK(stream.push(0x91) == "");
    CHECK(stream.push(0xa9) == "👩");
    CHECK(stream.push(0xe2) == "");
    CHECK(stream.push('x') == r + "x");
    CHECK(stream.push(0xe2) == "");
    CHECK(stream.finish() == r);
    CHECK(stream.finish() == "");
}

TEST_CASE("tokenizer: files that would change ids are refused") {
    const auto refused = [](auto change) { return test::sentence_of([&] { load(changed(change)); }); };
    const auto has = [](const std::string& sentence, const std::string& words) {
        INFO(sentence);
        CHECK(sentence.find(words) != std::string::npos);
    };
    has(refused([](auto& f) { f["truncation"] = {{"max_length", 5}}; }), "t.json: truncation is not supported");
    has(refused([](auto& f) { f["padding"] = {{"pad_id", 5}}; }), "padding is not supported");
    has(refused([](auto& f) { f["normalizer"]["type"] = "Lowercase"; }),
        "normalizer: expected type NFC, found \"Lowercase\"");
    has(refused([](auto& f) { f["pre_tokenizer"] = nullptr; }), "pre_tokenizer: expected an object, found nothing");
    has(refused([](auto& f) {
            f["pre_tokenizer"] = {{"type", "Metaspace"}};
        }),
        "expected type ByteLevel, found \"Metaspace\"");
    const auto none = nlohmann::json::array();
    has(refused([&](auto& f) {
            f["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", none}};
        }),
        "expected an array that ends in ByteLevel");
    const auto split = [](const char* behavior, bool invert, bool prefix) {
        return [=](auto& f) {
            f["pre_tokenizer"] = {
                {"type", "Sequence"},
                {"pretokenizers",
                 {{{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", behavior}, {"invert", invert}},
                  {{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"use_regex", false}}}}};
        };
    };
    CHECK(refused(split("Isolated", false, false)) == "");
    has(refused(split("Removed", false, false)), "behavior: expected Isolated, found \"Removed\"");
    has(refused(split("Isolated", true, false)), "invert: expected false, found true");
    has(refused(split("Isolated", false, true)), "add_prefix_space: expected false after a Split");
    has(refused([](auto& f) {
            f["post_processor"] = {{"type", "TemplateProcessing"}};
        }),
        "post_processor: expected type ByteLevel");
    has(refused([](auto& f) { f["decoder"]["type"] = "WordPiece"; }), "decoder: expected type ByteLevel");
    has(refused([](auto& f) { f["model"]["type"] = "Unigram"; }), "model: expected type BPE, found \"Unigram\"");
    has(refused([](auto& f) { f["model"]["dropout"] = 0.1; }), "model, dropout: expected null");
    has(refused([](auto& f) { f["model"]["end_of_word_suffix"] = "</w>"; }), "end_of_word_suffix: expected null");
    has(refused([](auto& f) { f["model"]["byte_fallback"] = true; }), "byte_fallback: expected false");
    has(refused([](auto& f) { f["model"]["byte_fallback"] = 1; }),
        "byte_fallback: expected true or false, found number");
    has(refused([](auto& f) { f["model"]["vocab"]["x"] = -1; }),
        "token \"x\": expected an id from 0 to 262143, found \"-1\"");
    has(refused([](auto& f) { f["model"]["vocab"]["x"] = 2'000'000'000; }), "expected an id from 0 to 262143");
    has(refused([](auto& f) { f["model"]["vocab"]["x"] = 5; }), "is used twice");
    has(refused([](auto& f) { f["model"]["merges"][0] = "he"; }),
        "entry 0: expected two tokens with a space between them");
    has(refused([](auto& f) { f["model"]["merges"][0] = "h e l"; }), "entry 0: expected two tokens");
    has(refused([](auto& f) { f["model"]["merges"][0] = 7; }), "entry 0: expected two tokens");
    has(refused([](auto& f) { f["model"]["merges"][0] = "a b"; }), "entry 0: token \"ab\" is not in the vocabulary");
    has(refused([](auto& f) { f["model"]["merges"][1] = "h e"; }), "the pair \"h\" \"e\" appears twice");
    has(refused([](auto& f) { f["added_tokens"][0]["lstrip"] = true; }), "token \"<|a|>\", lstrip: expected false");
    has(refused([](auto& f) { f["added_tokens"][0]["id"] = 7; }), "id 7 does not agree with the other tokens");
    has(refused([](auto& f) { f["added_tokens"][0]["content"] = ""; }), "found an empty string");
    CHECK_SENTENCE(tokenizer::from_json("[]", "t.json"), "t.json: expected a JSON object, found array");
    CHECK_SENTENCE(tokenizer::from_json("{}", "t.json"), "pre_tokenizer: expected an object, found nothing");
    CHECK_SENTENCE(tokenizer::from_file("/nonexistent/t.json"), "the file cannot be opened");

    auto lacking = small_file();
    lacking["model"]["vocab"].erase("q");
    CHECK(load(lacking).encode("hello") == ids{259});
    CHECK_SENTENCE(load(lacking).encode("q"), "the vocabulary has no token for byte 113");
    lacking["model"]["unk_token"] = "hello";
    CHECK_SENTENCE(load(lacking), "unk_token: expected null, since the vocabulary lacks some bytes");
}
