// SPDX-License-Identifier: Apache-2.0
// include/spectral/text/bpe_trainer.hpp: trains a byte-level BPE and writes it as a tokenizer.json
//
// Texts become counted words. Then, until the vocabulary is full, the most frequent adjacent pair becomes a token and
// is merged in the words that hold it: only those are touched, so a merge costs what it changes. The heap may hold old
// counts; an entry is corrected when it comes up. Of equally frequent pairs the one with the smaller ids wins, so the
// result depends on the texts alone.
// Ids: 256 bytes in GPT-2's order, merges in the order of their making, special tokens last.
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/core/view.hpp>
#include <spectral/io/atomic_file.hpp>
#include <spectral/text/added_tokens.hpp>
#include <spectral/text/byte_level.hpp>
#include <spectral/text/split.hpp>
#include <spectral/text/tokenizer.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <queue>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace spectral {

// What is learnt, and from which pieces.
struct bpe_training {
    index vocab_size = 8192;  // bytes, merges and special tokens together
    std::vector<std::string> special_tokens = {"<|endoftext|>"};
    std::string pattern = std::string(gpt2_pattern);
    bool nfc = false;  // normalise first, as Qwen2 does
    std::int64_t least_count = 2;  // a pair seen less often is not merged: the vocabulary then stays smaller
};

//   bpe_trainer trainer({.vocab_size = 8192});
//   trainer.add(text);
//   write_file_atomically("tokenizer.json", trainer.train());
class bpe_trainer {
public:
    explicit bpe_trainer(bpe_training options = {})
        : options_(std::move(options)), splitter_(options_.pattern, "bpe_trainer") {
        const index least = 256 + static_cast<index>(options_.special_tokens.size());
        check(options_.vocab_size >= least && options_.vocab_size <= index{1} << 24, "bpe_trainer",
              "vocab_size: expected ", least, " (bytes and special tokens) to 2^24, found ", options_.vocab_size);
        check(options_.least_count >= 1, "bpe_trainer", "least_count: expected at least 1, found ",
              options_.least_count);
        const auto& all = options_.special_tokens;
        for (const std::string& token : all) {
            check(!token.empty(), "bpe_trainer", "special_tokens: expected text, found an empty string");
            check_utf8(token, "bpe_trainer, special_tokens");
            check(token.size() > 1 && std::count(all.begin(), all.end(), token) == 1, "bpe_trainer", "special token ",
                  in_quotes(token), " appears twice or is a single byte");
            special_.add(token, 0);
        }
    }

    // Counts the words of a text. Special tokens in it are cut out and not learnt from.
    void add(std::string_view text) {
        check_utf8(text, "bpe_trainer");
        special_.split(
            text,
            [&](std::string_view piece) {
                const std::string normal = options_.nfc ? to_nfc(piece) : std::string();
                splitter_.split(options_.nfc ? std::string_view(normal) : piece, [&](std::string_view word) {
                    if (const auto found = counts_.find(word); found != counts_.end())
                        ++found->second;
                    else
                        counts_.emplace(word, 1);
                });
            },
            [](row_index) {});
    }

    // The tokenizer.json, on one line.
    std::string train() const {
        std::vector<std::string> tokens;  // bytes of each id
        for (std::uint8_t b : detail::alphabet.order) tokens.emplace_back(1, static_cast<char>(b));
        const auto merges = learn(tokens);
        return write(tokens, merges);
    }

private:
    struct pair {
        row_index left, right;
        bool operator==(const pair&) const = default;
    };
    struct pair_hash {
        std::size_t operator()(const pair& p) const {
            const auto k = (static_cast<std::uint64_t>(static_cast<std::uint32_t>(p.left)) << 32) |
                           static_cast<std::uint32_t>(p.right);
            return static_cast<std::size_t>((k * 0x9e3779b97f4a7c15u) >> 20);
        }
    };
    struct pair_state {
        std::int64_t count = 0;
        std::vector<std::uint32_t> words;  // that hold it, or held it: checked when they are visited
        bool done = false;  // merged, or never to be; stays so, since a file may list a merge only once
    };
    struct candidate {
        std::int64_t count;
        pair which;
        bool operator<(const candidate& other) const {  // of the heap: the largest comes first
            if (count != other.count) return count < other.count;
            if (which.left != other.which.left) return which.left > other.which.left;
            return which.right > other.which.right;
        }
    };
    struct word {
        std::vector<row_index> ids;
        std::int64_t count;
    };

    std::vector<pair> learn(std::vector<std::string>& tokens) const {
        std::array<row_index, 256> byte_id{};
        for (std::size_t i = 0; i < 256; ++i) byte_id[detail::alphabet.order[i]] = static_cast<row_index>(i);
        std::vector<word> words;
        for (const auto& [text, count] : counts_) {
            if (text.size() < 2) continue;
            word w{{}, count};
            for (char c : text) w.ids.push_back(byte_id[static_cast<unsigned char>(c)]);
            words.push_back(std::move(w));
        }
        check(words.size() < std::uint32_t(-1), "bpe_trainer", "more than 2^32 different words");

        std::unordered_map<pair, pair_state, pair_hash> pairs;
        const auto seen = [&](pair p, std::uint32_t w) {
            pair_state& state = pairs[p];
            state.count += words[w].count;
            if (state.words.empty() || state.words.back() != w) state.words.push_back(w);
        };
        for (std::uint32_t w = 0; w < words.size(); ++w)
            for (std::size_t i = 0; i + 1 < words[w].ids.size(); ++i) seen({words[w].ids[i], words[w].ids[i + 1]}, w);
        std::priority_queue<candidate> heap;
        for (const auto& [which, state] : pairs) heap.push({state.count, which});

        const std::size_t wanted = static_cast<std::size_t>(options_.vocab_size) - options_.special_tokens.size();
        std::unordered_map<std::string, row_index> known;  // two pairs may spell the same bytes: they share an id
        for (std::size_t i = 0; i < tokens.size(); ++i) known.emplace(tokens[i], static_cast<row_index>(i));
        for (const std::string& token : options_.special_tokens) known.emplace(token, -1);
        std::vector<pair> merges;
        std::vector<pair> grown;
        while (tokens.size() < wanted && !heap.empty()) {
            const candidate best = heap.top();
            heap.pop();
            pair_state& state = pairs[best.which];
            if (state.done) continue;
            if (state.count != best.count) {
                if (state.count >= options_.least_count) heap.push({state.count, best.which});
                continue;
            }
            if (best.count < options_.least_count) break;
            const std::string bytes =
                tokens[static_cast<std::size_t>(best.which.left)] + tokens[static_cast<std::size_t>(best.which.right)];
            const auto [spelt, is_new] = known.emplace(bytes, static_cast<row_index>(tokens.size()));
            state.done = true;
            const std::vector<std::uint32_t> holders = std::exchange(state.words, {});
            if (spelt->second < 0) continue;  // would spell a special token
            if (is_new) tokens.push_back(bytes);
            merges.push_back(best.which);
            const row_index merged = spelt->second;

            grown.clear();
            for (std::uint32_t w : holders) merge_in_word(words, w, best.which, merged, pairs, grown);
            for (const pair& p : grown) heap.push({pairs[p].count, p});
        }
        return merges;
    }

    // Replaces the pair in one word and keeps the counts of its neighbours right; `grown` collects pairs that gained.
    template <class Pairs>
    static void merge_in_word(std::vector<word>& words, std::uint32_t w, pair which, row_index merged, Pairs& pairs,
                              std::vector<pair>& grown) {
        auto& ids = words[w].ids;
        const std::int64_t count = words[w].count;
        const auto lost = [&](row_index left, row_index right) { pairs[{left, right}].count -= count; };
        const auto gained = [&](row_index left, row_index right) {
            pair_state& state = pairs[{left, right}];
            if (state.done) return;
            state.count += count;
            if (state.words.empty() || state.words.back() != w) state.words.push_back(w);
            if (grown.empty() || !(grown.back() == pair{left, right})) grown.push_back({left, right});
        };
        std::size_t out = 0;
        for (std::size_t i = 0; i < ids.size();) {
            if (i + 1 >= ids.size() || ids[i] != which.left || ids[i + 1] != which.right) {
                ids[out++] = ids[i++];
                continue;
            }
            if (out > 0) {
                lost(ids[out - 1], which.left);
                gained(ids[out - 1], merged);
            }
            if (i + 2 < ids.size()) {
                lost(which.right, ids[i + 2]);
                gained(merged, ids[i + 2]);
            }
            ids[out++] = merged;
            i += 2;
        }
        ids.resize(out);
    }

    std::string write(const std::vector<std::string>& tokens, const std::vector<pair>& merges) const {
        const auto quoted = [](const std::string& s) { return nlohmann::json(s).dump(); };
        const auto written = [&](row_index id) { return quoted(to_byte_level(tokens[static_cast<std::size_t>(id)])); };
        std::string out = R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)";
        for (std::size_t i = 0; i < options_.special_tokens.size(); ++i)
            out += (i ? "," : "") + (R"({"id":)" + std::to_string(tokens.size() + i)) + R"(,"content":)" +
                   quoted(options_.special_tokens[i]) +
                   R"(,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true})";
        out += R"(],"normalizer":)";
        out += options_.nfc ? R"({"type":"NFC"})" : "null";
        const auto byte_level = [](bool use_regex) {
            return std::string(R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":)") +
                   (use_regex ? "true}" : "false}");
        };
        out += R"(,"pre_tokenizer":)";
        if (options_.pattern == gpt2_pattern)
            out += byte_level(true);
        else
            out += R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":)" +
                   quoted(options_.pattern) + R"(},"behavior":"Isolated","invert":false},)" + byte_level(false) + "]}";
        out += R"(,"post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,)"
               R"("use_regex":true},"model":{"type":"BPE","dropout":null,"unk_token":null,)"
               R"("continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,)"
               R"("ignore_merges":false,"vocab":{)";
        for (std::size_t i = 0; i < tokens.size(); ++i)
            out += (i ? "," : "") + written(static_cast<row_index>(i)) + ":" + std::to_string(i);
        for (std::size_t i = 0; i < options_.special_tokens.size(); ++i)
            out += "," + quoted(options_.special_tokens[i]) + ":" + std::to_string(tokens.size() + i);
        out += R"(},"merges":[)";
        for (std::size_t i = 0; i < merges.size(); ++i)
            out += (i ? ",[" : "[") + written(merges[i].left) + "," + written(merges[i].right) + "]";
        return out + "]}}";
    }

    bpe_training options_;
    splitter splitter_;
    added_token_finder special_;
    std::unordered_map<std::string, std::int64_t, detail::text_hash, std::equal_to<>> counts_;
};

}  // namespace spectral
