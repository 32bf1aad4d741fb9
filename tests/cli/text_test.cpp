// SPDX-License-Identifier: Apache-2.0
// tests/cli/text_test.cpp: `spectral tokenizer`, and what is refused of texts and tokenizers
#include "cli/program.hpp"

#include <spectral/io/json.hpp>

#include <sstream>

namespace spectral::test {
namespace {

const std::filesystem::path texts = small_golden_dir() / "text";

std::vector<nlohmann::json> lines_of(const std::string& text) {
    std::vector<nlohmann::json> out;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) out.push_back(nlohmann::json::parse(line));
    return out;
}

}  // namespace

TEST_CASE("JSON lines are encoded and decoded as in the golden texts", "[cli]") {
    const auto want = lines_of(read_text_file(texts / "tokens_subset.jsonl"));
    for (const std::string name : {"gpt2", "qwen2.5"}) {
        const std::string tokenizer = " --jsonl --tokenizer " + quoted(texts / (name + "_subset.tokenizer.json"));
        const auto encoded = run("tokenizer encode" + tokenizer + " < " + quoted(texts / "tokens_subset.jsonl"));
        INFO(encoded.err);
        REQUIRE(encoded.code == 0);
        const auto got = lines_of(encoded.out);
        REQUIRE(got.size() == want.size());
        for (std::size_t i = 0; i < want.size(); ++i) CHECK(got[i]["ids"] == want[i][name]);
        temporary_dir dir;
        write_text(dir / "ids.jsonl", encoded.out);
        const auto decoded = run("tokenizer decode" + tokenizer + " --input " + quoted(dir / "ids.jsonl"));
        REQUIRE(decoded.code == 0);
        const auto back = lines_of(decoded.out);
        REQUIRE(back.size() == want.size());
        for (std::size_t i = 0; i < want.size(); ++i)
            CHECK(back[i]["text"] == (name == "gpt2" ? want[i]["text"] : want[i]["qwen2.5_decoded"]));
    }
}

TEST_CASE("a tokenizer is trained, and encodes what it was trained on", "[cli]") {
    temporary_dir dir;
    write_text(dir / "text.txt", read_text_file(texts / "tokens_subset.jsonl"));
    const std::string tokenizer = quoted(dir / "tokenizer.json");
    REQUIRE(run("tokenizer train --train " + quoted(dir / "text.txt") + " --vocab 400 --out " + tokenizer).code == 0);
    const auto encoded = run("tokenizer encode --tokenizer " + tokenizer + " --input " + quoted(dir / "text.txt"));
    REQUIRE(encoded.code == 0);
    write_text(dir / "ids.txt", encoded.out);
    CHECK(run("tokenizer decode --tokenizer " + tokenizer + " --input " + quoted(dir / "ids.txt")).out ==
          read_text_file(dir / "text.txt"));
}

TEST_CASE("no command writes over what it reads", "[cli]") {
    temporary_dir dir;
    const std::string text = quoted(dir / "text.txt"), want = std::string(2000, 'x');
    write_text(dir / "text.txt", want);
    for (const std::string& command :
         {"tokenizer train --vocab 300 --train " + text, "convert --from sgd " + text,
          "tokenizer encode --input " + text + " --tokenizer " + quoted(texts / "gpt2_subset.tokenizer.json")})
        check_refused(run(command + " --out " + text), {"text.txt", "expected an output that is no input"});
    CHECK(read_text_file(dir / "text.txt") == want);
}

TEST_CASE("bad texts and tokenizers are refused with one sentence", "[cli]") {
    temporary_dir dir;
    const std::string gpt2 = quoted(texts / "gpt2_subset.tokenizer.json"), text = quoted(dir / "text.txt"),
                      bad = quoted(dir / "bad.json");
    const auto encode = [&](const std::string& content) {
        write_text(dir / "text.txt", content);
        return run("tokenizer encode --tokenizer " + gpt2 + " --input " + text);
    };
    check_refused(encode("good \xff bad"), {"text.txt", "UTF-8", "byte offset 5"});
    check_refused(encode(""), {"text.txt", "empty"});
    write_text(dir / "text.txt", "text");
    check_refused(run("tokenizer encode --tokenizer " + quoted(dir / "none.json") + " --input " + text),
                  {"none.json", "cannot be opened"});
    write_text(dir / "bad.json", "{\"model\": {}}");
    check_refused(run("tokenizer encode --tokenizer " + bad + " --input " + text), {"bad.json", "expected"});
    const std::string whole = read_text_file(texts / "gpt2_subset.tokenizer.json");
    write_text(dir / "bad.json", whole.substr(0, whole.size() / 2));
    check_refused(run("tokenizer encode --tokenizer " + bad + " --input " + text), {"bad.json", "not valid JSON"});
    write_text(dir / "bad.json", "");
    check_refused(run("tokenizer encode --tokenizer " + bad + " --input " + text), {"bad.json"});

    write_text(dir / "lines.jsonl", "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n");
    check_refused(run("tokenizer encode --jsonl --tokenizer " + gpt2 + " --input " + quoted(dir / "lines.jsonl")),
                  {"line 2", "text"});
    write_text(dir / "lines.jsonl", "{\"ids\": [64, 99999999]}\n");
    check_refused(run("tokenizer decode --jsonl --tokenizer " + gpt2 + " --input " + quoted(dir / "lines.jsonl")),
                  {"token id", "found 99999999"});
    write_text(dir / "lines.jsonl", "{\"ids\": [1.5]}\n");
    check_refused(run("tokenizer decode --jsonl --tokenizer " + gpt2 + " --input " + quoted(dir / "lines.jsonl")),
                  {"line 1", "whole numbers"});

    check_refused(run_shell("echo '5 six' | \"$SPECTRAL\" tokenizer decode --tokenizer " + gpt2),
                  {"standard input", "whole numbers", "found \"six\""});

    write_text(dir / "text.txt", "short");
    const std::string train = "train --quiet --train " + text + " --out " + quoted(dir / "run");
    check_refused(run(train), {"text.txt", "tokenizer"});
    check_refused(run(train + " --tokenizer " + gpt2), {"tokens", "expected at least 257", "found"});
    check_refused(run(train + " --tokenizer " + gpt2 + " --time 1 --d-model 32 --set n_layer=3"),
                  {"n_layer", "did you mean"});
    write_text(dir / "text.txt", "bad \xc3");
    check_refused(run(train + " --train-tokenizer 300"), {"text.txt", "UTF-8"});
    check_refused(run(train + " --train-tokenizer 1"), {"--train-tokenizer", "from 257", "found 1"});
    write_text(dir / "text.txt", "");
    check_refused(run(train + " --train-tokenizer 300"), {"text.txt", "empty"});

    std::filesystem::remove_all(dir / "run");  // somebody's files in the directory of the run
    write_text(dir / "text.txt", std::string(2000, 'x'));
    std::filesystem::create_directories(dir / "mine");
    write_text(dir / "mine/tokenizer.json", "mine");
    check_refused(run("train --train " + text + " --train-tokenizer 300 --out " + quoted(dir / "mine")),
                  {"tokenizer.json", "not that of a run"});
    CHECK(read_text_file(dir / "mine/tokenizer.json") == "mine");
}

}  // namespace spectral::test
