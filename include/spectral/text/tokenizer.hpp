// SPDX-License-Identifier: Apache-2.0
// include/spectral/text/tokenizer.hpp: byte-level BPE from a Hugging Face tokenizer.json
//
// text -> added tokens cut out -> NFC -> words (split.hpp) -> bytes -> merges (bpe.hpp) -> ids. Ids equal those of the
// Hugging Face library without special tokens added around the text; a file that asks for a step that is not here, and
// that would change an id, is refused. Decoding joins the tokens' bytes and repairs what is not UTF-8 with U+FFFD.
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/core/view.hpp>
#include <spectral/io/json.hpp>
#include <spectral/text/added_tokens.hpp>
#include <spectral/text/bpe.hpp>
#include <spectral/text/byte_level.hpp>
#include <spectral/text/split.hpp>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace spectral {

namespace detail {
struct text_hash {  // lets a map of strings be asked with a string_view
    using is_transparent = void;
    std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
};
using id_map = std::unordered_map<std::string, row_index, text_hash, std::equal_to<>>;

// What a tokenizer.json says, checked.
struct tokenizer_model {
    std::string where;
    id_map ids;  // by the token as the file writes it; added tokens too
    std::vector<std::string> bytes;  // by id; holes in the numbering are empty
    std::vector<bool> known, special;
    std::array<row_index, 256> byte_ids{};  // -1 where the vocabulary lacks the byte
    merge_table merges;
    std::vector<splitter> splitters;
    added_token_finder raw_tokens, normalized_tokens;
    bool nfc = false, prefix_space = false, ignore_merges = false;
};

// Reads the JSON into a tokenizer_model, section by section.
class tokenizer_reader {
public:
    tokenizer_reader(std::string_view text, std::string_view where) : where_(where), json_(parse_json(text, where)) {
        out_.where = where_;
    }

    tokenizer_model read() {
        check(json_.is_object(), where_, "expected a JSON object, found ", json_.type_name());
        for (const char* key : {"truncation", "padding"})
            check(absent(json_, key), where_, key, " is not supported: expected null");
        read_normalizer(json_.value("normalizer", nlohmann::json()));
        read_pre_tokenizer(section(json_, "pre_tokenizer"));
        check_post_processor(json_.value("post_processor", nlohmann::json()));
        expect_type(section(json_, "decoder"), "decoder", "ByteLevel");
        read_model(section(json_, "model"));
        if (!absent(json_, "added_tokens")) read_added_tokens(json_["added_tokens"]);
        return std::move(out_);
    }

private:
    using json = nlohmann::json;

    static bool absent(const json& object, const char* key) {
        const auto found = object.find(key);
        return found == object.end() || found->is_null();
    }
    const json& section(const json& object, const char* key) const {
        check(!absent(object, key), where_, key, ": expected an object, found nothing");
        check(object[key].is_object(), where_, key, ": expected an object, found ", object[key].type_name());
        return object[key];
    }
    bool flag(const json& object, const char* key, bool fallback, std::string_view of) const {
        if (absent(object, key)) return fallback;
        check(object[key].is_boolean(), where_, of, ", ", key, ": expected true or false, found ",
              object[key].type_name());
        return object[key].get<bool>();
    }
    const std::string& text(const json& object, const char* key, std::string_view of) const {
        check(object.is_object() && object.contains(key) && object[key].is_string(), where_, of, ", ", key,
              ": expected a string");
        return object[key].get_ref<const std::string&>();
    }
    void expect_type(const json& object, std::string_view of, std::string_view expected) const {
        const std::string& type = text(object, "type", of);
        check(type == expected, where_, of, ": expected type ", expected, ", found ", in_quotes(type));
    }

    void read_normalizer(const json& normalizer) {
        if (normalizer.is_null()) return;
        if (text(normalizer, "type", "normalizer") == "Sequence") {
            check(normalizer.contains("normalizers") && normalizer["normalizers"].is_array(), where_,
                  "normalizer, normalizers: expected an array");
            for (const json& part : normalizer["normalizers"]) read_normalizer(part);
            return;
        }
        expect_type(normalizer, "normalizer", "NFC");
        out_.nfc = true;
    }

    void read_pre_tokenizer(const json& pre) {
        if (text(pre, "type", "pre_tokenizer") != "Sequence") {
            read_byte_level(pre);
            return;
        }
        check(pre.contains("pretokenizers") && pre["pretokenizers"].is_array() && !pre["pretokenizers"].empty(), where_,
              "pre_tokenizer, pretokenizers: expected an array that ends in ByteLevel");
        const json& parts = pre["pretokenizers"];
        for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
            expect_type(parts[i], "pre_tokenizer", "Split");
            const std::string& behavior = text(parts[i], "behavior", "pre_tokenizer Split");
            check(behavior == "Isolated", where_, "pre_tokenizer Split, behavior: expected Isolated, found ",
                  in_quotes(behavior));
            check(!flag(parts[i], "invert", false, "pre_tokenizer Split"), where_,
                  "pre_tokenizer Split, invert: expected false, found true");
            check(parts[i].contains("pattern"), where_, "pre_tokenizer Split, pattern: expected {\"Regex\": ...}");
            out_.splitters.emplace_back(text(parts[i]["pattern"], "Regex", "pre_tokenizer Split, pattern"), where_);
        }
        read_byte_level(parts.back());
        check(!out_.prefix_space || parts.size() == 1, where_,
              "pre_tokenizer ByteLevel, add_prefix_space: expected false after a Split, found true");
    }
    void read_byte_level(const json& byte_level) {
        expect_type(byte_level, "pre_tokenizer", "ByteLevel");
        out_.prefix_space = flag(byte_level, "add_prefix_space", true, "pre_tokenizer ByteLevel");
        if (flag(byte_level, "use_regex", true, "pre_tokenizer ByteLevel"))
            out_.splitters.emplace_back(gpt2_pattern, where_);
    }
    void check_post_processor(const json& post) const {  // ByteLevel moves offsets only
        if (!post.is_null()) expect_type(post, "post_processor", "ByteLevel");
    }

    void read_model(const json& model) {
        if (!absent(model, "type")) expect_type(model, "model", "BPE");
        check(absent(model, "dropout") || model["dropout"] == 0, where_, "model, dropout: expected null");
        for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
            check(absent(model, key) || model[key] == "", where_, "model, ", key, ": expected null or an empty string");
        check(!flag(model, "byte_fallback", false, "model"), where_,
              "model, byte_fallback: expected false, found true");
        out_.ignore_merges = flag(model, "ignore_merges", false, "model");
        read_vocab(section(model, "vocab"));
        const bool complete = std::count(out_.byte_ids.begin(), out_.byte_ids.end(), -1) == 0;
        check(complete || absent(model, "unk_token"), where_,
              "model, unk_token: expected null, since the vocabulary lacks some bytes");
        check(model.contains("merges") && model["merges"].is_array(), where_, "model, merges: expected an array");
        read_merges(model["merges"]);
    }
    row_index read_id(const json& value, std::string_view of, const std::string& token) const {
        if (!value.is_number_unsigned() || value.get<std::uint64_t>() >= most_ids_)
            fail(where_, of, ", token ", in_quotes(token), ": expected an id from 0 to ", most_ids_ - 1, ", found ",
                 in_quotes(value.dump(), 40));
        return value.get<row_index>();
    }
    bool taken(row_index id) const {
        return static_cast<std::size_t>(id) < out_.known.size() && out_.known[static_cast<std::size_t>(id)];
    }
    void place(row_index id, std::string bytes) {
        const auto i = static_cast<std::size_t>(id);
        if (i >= out_.bytes.size()) {
            out_.bytes.resize(i + 1);
            out_.known.resize(i + 1);
            out_.special.resize(i + 1);
        }
        out_.bytes[i] = std::move(bytes);
        out_.known[i] = true;
    }
    void read_vocab(const json& vocab) {
        check(!vocab.empty(), where_, "model, vocab: expected tokens, found none");
        // ids may have holes, but a small file must not claim a table of gigabytes
        const std::size_t added = absent(json_, "added_tokens") ? 0 : json_["added_tokens"].size();
        constexpr std::uint64_t least = 1u << 18, most = 1u << 30;
        most_ids_ = std::clamp<std::uint64_t>(4 * (vocab.size() + added), least, most);
        out_.ids.reserve(vocab.size() + added);
        out_.bytes.reserve(vocab.size() + added);
        for (const auto& [token, value] : vocab.items()) {
            const row_index id = read_id(value, "model, vocab", token);
            if (taken(id)) fail(where_, "model, vocab, token ", in_quotes(token), ": id ", id, " is used twice");
            place(id, from_byte_level(token).value_or(token));
            out_.ids.emplace(token, id);
        }
        for (std::size_t b = 0; b < 256; ++b) {
            std::string token;
            append_utf8(token, alphabet.code_point[b]);
            const auto found = out_.ids.find(token);
            out_.byte_ids[b] = found == out_.ids.end() ? -1 : found->second;
        }
    }
    void read_merges(const json& merges) {
        out_.merges = merge_table(merges.size());
        std::string joined;
        for (std::size_t rank = 0; rank < merges.size(); ++rank) {
            const json& merge = merges[rank];
            std::string_view left, right;
            if (merge.is_string()) {
                const std::string_view both = merge.get_ref<const std::string&>();
                if (both.starts_with("#version")) continue;
                const std::size_t space = both.find(' ');
                if (space == both.npos || both.find(' ', space + 1) != both.npos)
                    fail(where_, "model, merges, entry ", rank,
                         ": expected two tokens with a space between them, found ", in_quotes(both));
                left = both.substr(0, space);
                right = both.substr(space + 1);
            } else {
                check(merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string(), where_,
                      "model, merges, entry ", rank, ": expected two tokens");
                left = merge[0].get_ref<const std::string&>();
                right = merge[1].get_ref<const std::string&>();
            }
            joined.assign(left).append(right);
            const row_index l = vocab_id(left, rank), r = vocab_id(right, rank), m = vocab_id(joined, rank);
            if (!out_.merges.insert(l, r, {static_cast<std::uint32_t>(rank), m}))
                fail(where_, "model, merges, entry ", rank, ": the pair ", in_quotes(left), " ", in_quotes(right),
                     " appears twice");
        }
    }
    row_index vocab_id(std::string_view token, std::size_t rank) const {
        const auto found = out_.ids.find(token);
        if (found == out_.ids.end())
            fail(where_, "model, merges, entry ", rank, ": token ", in_quotes(token), " is not in the vocabulary");
        return found->second;
    }

    void read_added_tokens(const json& tokens) {
        check(tokens.is_array(), where_, "added_tokens: expected an array, found ", tokens.type_name());
        for (const json& token : tokens) {
            const std::string& content = text(token, "content", "added_tokens");
            check(!content.empty(), where_, "added_tokens, content: expected text, found an empty string");
            check(token.contains("id"), where_, "added_tokens, token ", in_quotes(content), ": id is missing");
            const row_index id = read_id(token["id"], "added_tokens", content);
            for (const char* key : {"single_word", "lstrip", "rstrip"})
                check(!flag(token, key, false, "added_tokens"), where_, "added_tokens, token ", in_quotes(content),
                      ", ", key, ": expected false, found true");
            const auto found = out_.ids.find(content);
            check(found == out_.ids.end() ? !taken(id) : found->second == id, where_, "added_tokens, token ",
                  in_quotes(content), ": id ", id, " does not agree with the other tokens");
            place(id, content);
            out_.ids.emplace(content, id);
            out_.special[static_cast<std::size_t>(id)] = flag(token, "special", false, "added_tokens");
            const bool normalized = flag(token, "normalized", true, "added_tokens");
            if (normalized)
                out_.normalized_tokens.add(out_.nfc ? to_nfc(content) : content, id);
            else
                out_.raw_tokens.add(content, id);
        }
    }

    std::string where_;
    nlohmann::json json_;
    tokenizer_model out_;
    std::uint64_t most_ids_ = 0;
};
}  // namespace detail

// A tokenizer is immutable and cheap to copy; encode and decode may be called from many threads.
//   const auto tok = tokenizer::from_file("tokenizer.json");
//   std::vector<row_index> ids = tok.encode("Hello world");
//   std::string text = tok.decode(ids);
class tokenizer {
public:
    static tokenizer from_file(const std::filesystem::path& path) {
        return from_json(read_text_file(path), path.string());
    }
    static tokenizer from_json(std::string_view text, std::string_view name) {
        return tokenizer(detail::tokenizer_reader(text, name).read());
    }

    std::vector<row_index> encode(std::string_view text) const {
        return encode_with(text, [&](std::vector<row_index>& out, workspace& space) {
            const auto token = [&](row_index id) { out.push_back(id); };
            model().raw_tokens.split(
                text,
                [&](std::string_view piece) {
                    const std::string normal = model().nfc ? to_nfc(piece) : std::string();
                    const auto words = [&](std::string_view rest) { encode_words(rest, out, space); };
                    model().normalized_tokens.split(model().nfc ? std::string_view(normal) : piece, words, token);
                },
                token);
        });
    }
    // As text only: "<|im_end|>" in it becomes ordinary tokens. For words of users inside a chat template.
    std::vector<row_index> encode_ordinary(std::string_view text) const {
        return encode_with(text, [&](std::vector<row_index>& out, workspace& space) {
            if (text.empty()) return;
            if (model().nfc)
                encode_words(to_nfc(text), out, space);
            else
                encode_words(text, out, space);
        });
    }

    std::string decode(std::span<const row_index> ids, bool skip_special = false) const {
        std::string bytes, out;
        for (row_index id : ids)
            if (const std::string& token = token_bytes(id); !(skip_special && is_special(id))) bytes += token;
        out.reserve(bytes.size());
        append_repaired(out, bytes, true);
        return out;
    }

    // One more than the largest id. A model's embedding may have more rows: those are padding.
    index vocab_size() const { return static_cast<index>(model().bytes.size()); }
    // Of a token as the file writes it: "<|im_end|>", or "Ġthe" for " the".
    std::optional<row_index> token_id(std::string_view token) const {
        const auto found = model().ids.find(token);
        return found == model().ids.end() ? std::nullopt : std::optional(found->second);
    }
    bool is_special(row_index id) const { return model().special[checked(id)]; }
    const std::string& token_bytes(row_index id) const { return model().bytes[checked(id)]; }
    const std::string& name() const { return model().where; }

private:
    struct workspace {
        word_cache cache;
        bpe_merger merger;
        std::vector<row_index> ids;
    };
    // Work spaces rest here between calls, so that a cache stays warm without being shared by two threads at once.
    struct state {
        explicit state(detail::tokenizer_model m) : model(std::move(m)) {}
        const detail::tokenizer_model model;
        std::mutex mutex;
        std::vector<std::unique_ptr<workspace>> resting;
    };

    explicit tokenizer(detail::tokenizer_model model) : state_(std::make_shared<state>(std::move(model))) {}
    const detail::tokenizer_model& model() const { return state_->model; }

    std::size_t checked(row_index id) const {
        check(id >= 0 && id < vocab_size() && model().known[static_cast<std::size_t>(id)], model().where,
              "token id: expected one of the vocabulary (0 to ", vocab_size() - 1, "), found ", id);
        return static_cast<std::size_t>(id);
    }

    template <class Encode>
    std::vector<row_index> encode_with(std::string_view text, Encode&& encode) const {
        check_utf8(text, "tokenizer encode");
        std::unique_ptr<workspace> space;
        {
            const std::lock_guard lock(state_->mutex);
            if (!state_->resting.empty()) {
                space = std::move(state_->resting.back());
                state_->resting.pop_back();
            }
        }
        if (!space) space = std::make_unique<workspace>();
        std::vector<row_index> out;
        out.reserve(text.size() / 3);
        encode(out, *space);
        const std::lock_guard lock(state_->mutex);
        state_->resting.push_back(std::move(space));
        return out;
    }

    void encode_words(std::string_view text, std::vector<row_index>& out, workspace& space) const {
        if (model().prefix_space && text[0] != ' ')
            split_words(0, " " + std::string(text), out, space);
        else
            split_words(0, text, out, space);
    }
    void split_words(std::size_t level, std::string_view text, std::vector<row_index>& out, workspace& space) const {
        if (level == model().splitters.size()) return encode_word(text, out, space);
        const bool innermost = level + 1 == model().splitters.size();
        model().splitters[level].split(text, [&](std::string_view word) {
            if (innermost)
                encode_word(word, out, space);
            else
                split_words(level + 1, word, out, space);
        });
    }
    void encode_word(std::string_view word, std::vector<row_index>& out, workspace& space) const {
        const bool cached = word.size() <= word_cache::longest_word;
        if (cached) {
            if (const auto ids = space.cache.find(word); !ids.empty()) {
                out.insert(out.end(), ids.begin(), ids.end());
                return;
            }
        }
        check(word.size() <= std::size_t{1} << 30, "tokenizer encode", "a word of more than 2^30 bytes");
        space.ids.clear();
        if (model().ignore_merges)
            if (const auto whole = token_id(to_byte_level(word))) space.ids.push_back(*whole);
        if (space.ids.empty()) {
            for (char c : word) {
                const row_index id = model().byte_ids[static_cast<unsigned char>(c)];
                check(id >= 0, model().where, "the vocabulary has no token for byte ",
                      static_cast<int>(static_cast<unsigned char>(c)), " of the text");
                space.ids.push_back(id);
            }
            space.merger.merge(space.ids, model().merges);
        }
        if (cached) space.cache.insert(word, space.ids);
        out.insert(out.end(), space.ids.begin(), space.ids.end());
    }

    std::shared_ptr<state> state_;
};

// Text of a growing sequence of tokens: bytes that may be the start of a character wait for the next token. The pieces
// joined are what decode() gives for all ids at once.
//   stream_decoder text(tok);
//   while (...) std::cout << text.push(next_id);
//   std::cout << text.finish();
class stream_decoder {
public:
    explicit stream_decoder(tokenizer tok, bool skip_special = false)
        : tokenizer_(std::move(tok)), skip_(skip_special) {}

    std::string push(row_index id) {
        const std::string& token = tokenizer_.token_bytes(id);
        if (skip_ && tokenizer_.is_special(id)) return {};
        waiting_ += token;
        return take(false);
    }
    std::string finish() { return take(true); }

private:
    std::string take(bool last) {
        std::string out;
        waiting_.erase(0, append_repaired(out, waiting_, last));
        return out;
    }
    tokenizer tokenizer_;
    std::string waiting_;
    bool skip_;
};

}  // namespace spectral
