// SPDX-License-Identifier: Apache-2.0
// examples/cli/text_files.hpp: text files by line, and to tokenizers and token streams, encoded once
#pragma once
#include "options.hpp"

#include <spectral/data/ngram.hpp>
#include <spectral/data/token_stream.hpp>
#include <spectral/text/bpe_trainer.hpp>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>

namespace spectral::cli {

// The bytes of a text file: UTF-8 and not empty, or one sentence.
class text_file {
public:
    explicit text_file(const std::string& path) : file_(path) { check_utf8(text(), path); }
    std::string_view text() const {
        const auto bytes = file_.bytes();
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }

private:
    mapped_file file_;
};

// Bytes, and words as WikiText counts them: one <eos> a line.
inline text_size size_of(std::string_view text) { return {static_cast<index>(text.size()), count_words(text, true)}; }

// f(line, where) for every line of a file, or of standard input if the name is empty; blank lines are left out.
template <class F>
void for_each_line(const std::string& input, F&& f) {
    std::ifstream file;
    if (!input.empty()) {
        file.open(input, std::ios::binary);
        check(file.good(), input, "the file cannot be opened: ", std::strerror(errno));
    }
    std::istream& in = input.empty() ? std::cin : file;
    const std::string name = input.empty() ? "standard input" : input;
    std::string line;
    for (index n = 1; std::getline(in, line); ++n)
        if (line.find_first_not_of(" \t\r") != line.npos) f(line, name + ": line " + std::to_string(n));
}

// Learns a BPE from text files (of .tsv files from the last field of each line), writes it, returns its size.
index train_tokenizer(const std::vector<std::string>& files, const bpe_training& options,
                      const std::filesystem::path& out);

// A token file as it is, or text files encoded one after another. With a cache directory the tokens are kept there
// under a name that holds the hash of texts and tokenizer: a changed text is encoded again. `say` hears what was done.
struct text_source {
    std::vector<std::string> files;
    std::string tokenizer;  // tokenizer.json; may be empty for token files
    std::filesystem::path cache = {};  // directory; empty: keep nothing
    std::string name = "text";  // of the cached file
    std::ostream* say = nullptr;
};
struct opened_stream {
    token_stream stream;
    std::filesystem::path cached;  // empty if the stream is not kept in the cache
};
opened_stream open_stream(const text_source& source, index vocabulary);
bool is_token_file(const std::string& path);

}  // namespace spectral::cli
