// SPDX-License-Identifier: Apache-2.0
// examples/cli/text_files.cpp: training a tokenizer on files; token streams with a cache of encoded texts
#include "text_files.hpp"

#include <chrono>
#include <iomanip>

namespace spectral::cli {
namespace {

// FNV-1a over eight bytes at a time, mixed at the end: names cached files, guards nothing
std::uint64_t hash_of(std::string_view bytes, std::uint64_t h) {
    const auto mix = [&](std::uint64_t x) { h = (h ^ x) * 0x100000001b3ull, h ^= h >> 29; };
    for (std::size_t i = 0; i < bytes.size(); i += 8) {
        std::uint64_t x = 0;
        std::memcpy(&x, bytes.data() + i, std::min<std::size_t>(8, bytes.size() - i));
        mix(x);
    }
    mix(bytes.size());
    return h * 0x9e3779b97f4a7c15ull;
}

std::string megabytes(std::size_t bytes) {
    std::ostringstream out;
    out << std::fixed << std::setprecision(1) << static_cast<double>(bytes) / 1e6 << " MB";
    return out.str();
}

opened_stream encode_files(const text_source& source, index vocabulary) {
    check(!source.tokenizer.empty(), source.files.front(),
          "a text needs a tokenizer: --tokenizer, or --train-tokenizer where training starts");
    std::vector<text_file> texts(source.files.begin(), source.files.end());
    std::uint64_t hash = hash_of(read_text_file(source.tokenizer), 1);
    std::size_t bytes = 0;
    for (const auto& t : texts) {
        hash = hash_of(t.text(), hash);
        bytes += t.text().size();
    }
    std::filesystem::path cached;
    if (!source.cache.empty()) {
        char key[32];
        std::snprintf(key, sizeof key, "-%016llx.tokens", static_cast<unsigned long long>(hash));
        cached = source.cache / (source.name + key);
        if (std::filesystem::exists(cached)) return {token_stream::open(cached, vocabulary), cached};
    }
    const auto began = std::chrono::steady_clock::now();
    const auto tok = tokenizer::from_file(source.tokenizer);
    const auto between = tok.token_id("<|endoftext|>");
    std::vector<row_index> ids;
    text_size size;
    for (const auto& t : texts) {
        if (!ids.empty() && between) ids.push_back(*between);
        const auto part = tok.encode(t.text());
        ids.insert(ids.end(), part.begin(), part.end());
        size.bytes += size_of(t.text()).bytes;
        size.words += size_of(t.text()).words;
    }
    if (source.say) {
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
        *source.say << source.name << ": " << megabytes(bytes) << " of text are " << ids.size() << " tokens ("
                    << took.count() << " s)\n";
    }
    if (cached.empty()) return {token_stream(std::move(ids), size, source.files.front()), {}};
    std::filesystem::create_directories(source.cache);
    write_token_file(cached, ids, size);
    return {token_stream::open(cached, vocabulary), cached};
}

}  // namespace

index train_tokenizer(const std::vector<std::string>& files, const bpe_training& options,
                      const std::filesystem::path& out) {
    bpe_trainer trainer(options);
    for (const auto& path : files) {
        const text_file file(path);
        if (!path.ends_with(".tsv")) {
            trainer.add(file.text());
            continue;
        }
        for (std::string_view rest = file.text(); !rest.empty();) {
            const std::string_view line = rest.substr(0, rest.find('\n'));
            rest.remove_prefix(std::min(rest.size(), line.size() + 1));
            trainer.add(line.substr(line.rfind('\t') + 1));
        }
    }
    const std::string json = trainer.train();
    const index size = tokenizer::from_json(json, out.string()).vocab_size();
    write_file_atomically(out, json);
    return size;
}

bool is_token_file(const std::string& path) {
    const mapped_file file(path);
    const auto bytes = file.bytes();
    return bytes.size() >= 8 && std::memcmp(bytes.data(), spectral::detail::token_file_magic, 8) == 0;
}

opened_stream open_stream(const text_source& source, index vocabulary) {
    check(!source.files.empty(), source.name, "no file given");
    const auto tokens = std::count_if(source.files.begin(), source.files.end(), is_token_file);
    if (tokens == 0) return encode_files(source, vocabulary);
    check(source.files.size() == 1, source.files.front(), "a token file stands alone, found ", source.files.size(),
          " files");
    return {token_stream::open(source.files.front(), vocabulary), {}};
}

}  // namespace spectral::cli
