// SPDX-License-Identifier: Apache-2.0
// examples/cli/tokenizer.cpp: `spectral tokenizer train|encode|decode`
#include "commands.hpp"
#include "text_files.hpp"

#include <spectral/text/bpe_trainer.hpp>

#include <iostream>

namespace spectral::cli {
namespace {

struct coding_options {
    std::string tokenizer, input, out;
    bool jsonl = false, skip_special = false;
};

std::string all_of(const std::string& input) {
    if (!input.empty()) return read_text_file(input);
    return {std::istreambuf_iterator<char>(std::cin), {}};
}
const nlohmann::json& field(const nlohmann::json& json, const char* key, const std::string& where) {
    check(json.is_object() && json.contains(key), where, "expected an object with the field \"", key, "\"");
    return json[key];
}
row_index id_from(const nlohmann::json& id, const std::string& where) {
    check(id.is_number_integer() && id.get<double>() >= 0 && id.get<double>() < 2147483648.0, where,
          "ids: expected whole numbers from 0, found ",
          id.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace).substr(0, 40));
    return id.get<row_index>();
}

void encode(const coding_options& o) {
    const auto tok = tokenizer::from_file(o.tokenizer);
    if (o.jsonl) {
        for_each_line(o.input, [&](const std::string& line, const std::string& where) {
            const auto json = parse_json(line, where);
            const auto& text = field(json, "text", where);
            check(text.is_string(), where, "text: expected a string, found ", text.type_name());
            std::cout << nlohmann::json{{"ids", tok.encode(text.get_ref<const std::string&>())}}.dump() << '\n';
        });
        return;
    }
    const std::string text = all_of(o.input), name = o.input.empty() ? "standard input" : o.input;
    check(!text.empty(), name, "the file is empty");
    check_utf8(text, name);
    const auto ids = tok.encode(text);
    check_is_no_input(o.out, {o.input, o.tokenizer});
    if (!o.out.empty()) return write_token_file(o.out, ids, size_of(text));
    for (std::size_t i = 0; i < ids.size(); ++i) std::cout << (i ? " " : "") << ids[i];
    std::cout << '\n';
}

void decode(const coding_options& o) {
    const auto tok = tokenizer::from_file(o.tokenizer);
    if (o.jsonl) {
        for_each_line(o.input, [&](const std::string& line, const std::string& where) {
            const auto json = parse_json(line, where);
            std::vector<row_index> ids;
            check(field(json, "ids", where).is_array(), where, "ids: expected an array, found ",
                  json["ids"].type_name());
            for (const auto& id : json["ids"]) ids.push_back(id_from(id, where));
            std::cout << nlohmann::json{{"text", tok.decode(ids, o.skip_special)}}.dump() << '\n';
        });
        return;
    }
    std::istringstream words(all_of(o.input));
    std::vector<row_index> ids;
    for (std::string word; words >> word;) {
        const auto json = nlohmann::json::parse(word, nullptr, false);
        ids.push_back(
            id_from(json.is_discarded() ? nlohmann::json(word) : json, o.input.empty() ? "standard input" : o.input));
    }
    std::cout << tok.decode(ids, o.skip_special);
}

struct training_files {
    std::vector<std::string> train;
    std::string out, pattern = "gpt2";
    std::vector<std::string> special = {"<|endoftext|>"};
    index vocab = 8192;
};

void add_coding(CLI::App& app, const std::string& name, const std::string& about, void (*work)(const coding_options&)) {
    auto* c = app.add_subcommand(name, about);
    auto o = std::make_shared<coding_options>();
    option(*c, "--tokenizer", o->tokenizer, "FILE", "tokenizer.json")->required();
    option(*c, "--input", o->input, "FILE", "instead of standard input");
    if (name == "encode") {
        c->add_flag("--jsonl", o->jsonl, "JSON lines: {\"text\": ...} in, {\"ids\": [...]} out");
        option(*c, "--out", o->out, "FILE", "a token file (.tokens) instead of numbers; not with --jsonl");
    } else {
        c->add_flag("--jsonl", o->jsonl, "JSON lines: {\"ids\": [...]} in, {\"text\": ...} out");
        c->add_flag("--skip-special", o->skip_special, "leave special tokens out of the text");
    }
    c->callback([o, work] { work(*o); });
}

}  // namespace

void add_tokenizer(CLI::App& app) {
    auto* c = app.add_subcommand("tokenizer", "trains a byte-level BPE; encodes and decodes text");
    c->require_subcommand(1);
    auto* train = c->add_subcommand("train", "learns merges from text files and writes tokenizer.json");
    auto o = std::make_shared<training_files>();
    option(*train, "--train", o->train, "FILE...", "UTF-8 text")->required();
    option(*train, "--out", o->out, "FILE", "tokenizer.json to write")->required();
    option(*train, "--vocab", o->vocab, "N", "tokens: 256 bytes, merges and special tokens");
    choice(*train, "--pattern", o->pattern, {"gpt2", "qwen2"}, "how words are cut; qwen2 also normalises to NFC");
    option(*train, "--special", o->special, "TOKEN...", "special tokens [<|endoftext|>]");
    train->callback([o] {
        bpe_training options{.vocab_size = o->vocab, .special_tokens = o->special};
        if (o->pattern == "qwen2") {
            options.pattern = std::string(qwen2_pattern);
            options.nfc = true;
        }
        check_is_no_input(o->out, o->train);
        const index size = train_tokenizer(o->train, options, o->out);
        std::cerr << o->out << ": " << size << " tokens\n";
    });
    add_coding(*c, "encode", "text to token ids", encode);
    add_coding(*c, "decode", "token ids to text", decode);
}

}  // namespace spectral::cli
