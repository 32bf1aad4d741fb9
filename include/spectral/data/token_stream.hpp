// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/token_stream.hpp: a corpus as one run of tokens, cut into windows for training and evaluation
//
// Window w of length T reads tokens wT to wT + T: the first T are the input, the last T the targets, so windows overlap
// by one token and every token but the first of the corpus is the target of exactly one window.
//
// Token file, little-endian, 40 bytes and then the tokens:
//   0 "SPTOKENS"  8 u32 version = 1  12 u32 bytes per token, 2 or 4  16 u64 tokens  24 u64 bytes  32 u64 words
// Bytes and words are those of the text (0 = not known): bits per byte and word-level perplexity need them.
#pragma once
#include <spectral/data/epoch_order.hpp>
#include <spectral/io/atomic_file.hpp>
#include <spectral/io/mapped_file.hpp>
#include <spectral/models/batch.hpp>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>

namespace spectral {

// How much text a stream of tokens stands for; 0 = not known.
struct text_size {
    index bytes = 0, words = 0;
    bool operator==(const text_size&) const = default;
};

namespace detail {
static_assert(std::endian::native == std::endian::little, "token files are read in place: a little-endian machine");

struct token_file_header {
    char magic[8];
    std::uint32_t version, width;
    std::uint64_t tokens, bytes, words;
};
static_assert(sizeof(token_file_header) == 40);
inline constexpr char token_file_magic[8] = {'S', 'P', 'T', 'O', 'K', 'E', 'N', 'S'};
}  // namespace detail

// Writes a token file, with 2 bytes per token where every id fits.
inline void write_token_file(const std::filesystem::path& path, std::span<const row_index> tokens,
                             text_size text = {}) {
    const std::string where = path.string();
    row_index largest = 0;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        check(tokens[i] >= 0, where, "token ", i, ": expected at least 0, found ", tokens[i]);
        largest = std::max(largest, tokens[i]);
    }
    detail::token_file_header header{{},
                                     1,
                                     largest <= 0xFFFF ? 2u : 4u,
                                     tokens.size(),
                                     static_cast<std::uint64_t>(text.bytes),
                                     static_cast<std::uint64_t>(text.words)};
    std::memcpy(header.magic, detail::token_file_magic, sizeof header.magic);
    atomic_file file(path);
    file.write(std::as_bytes(std::span(&header, 1)));
    if (header.width == 4) {
        file.write(std::as_bytes(tokens));
    } else {
        std::vector<std::uint16_t> block;
        for (std::size_t i = 0; i < tokens.size(); i += block.size()) {
            const auto part = tokens.subspan(i, std::min<std::size_t>(tokens.size() - i, 1 << 16));
            block.assign(part.begin(), part.end());
            file.write(std::as_bytes(std::span<const std::uint16_t>(block)));
        }
    }
    file.commit();
}

// A corpus: a vector of ids, or a mapped token file. Copies share the tokens.
//   token_stream corpus = token_stream::open("train.tokens", tokenizer.size());
class token_stream {
public:
    token_stream() = default;
    explicit token_stream(std::vector<row_index> tokens, text_size text = {}, std::string name = "token stream")
        : where_(std::move(name)), text_(text), size_(static_cast<index>(tokens.size())) {
        for (std::size_t i = 0; i < tokens.size(); ++i)
            check(tokens[i] >= 0, where_, "token ", i, ": expected at least 0, found ", tokens[i]);
        auto kept = std::make_shared<const std::vector<row_index>>(std::move(tokens));
        wide_ = reinterpret_cast<const std::uint32_t*>(kept->data());
        owner_ = std::move(kept);
    }

    // The header is validated here, each id when it is read: opening touches one page of a file of any size.
    static token_stream open(const std::filesystem::path& path, index vocabulary) {
        token_stream s;
        s.where_ = path.string();
        s.vocabulary_ = vocabulary;
        check(vocabulary > 0, s.where_, "size of the vocabulary: expected at least 1, found ", vocabulary);
        auto file = std::make_shared<const mapped_file>(path);
        const auto bytes = file->bytes();
        detail::token_file_header h;
        check(bytes.size() >= sizeof h, s.where_, "expected a token file with a header of ", sizeof h, " bytes, found ",
              bytes.size(), " bytes");
        std::memcpy(&h, bytes.data(), sizeof h);
        check(std::equal(h.magic, h.magic + 8, detail::token_file_magic), s.where_,
              "expected a token file, which begins with \"SPTOKENS\", found other bytes");
        check_equal(h.version, 1u, s.where_, "version of the token file");
        check(h.width == 2 || h.width == 4, s.where_, "bytes per token: expected 2 or 4, found ", h.width);
        const std::uint64_t room = bytes.size() - sizeof h;
        check(room % h.width == 0 && room / h.width == h.tokens, s.where_, "tokens: the header says ", h.tokens, " of ",
              h.width, " bytes each, found ", room, " bytes of tokens");
        constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<index>::max());
        check(h.bytes <= most && h.words <= most, s.where_, "bytes and words of the text: expected at most ", most,
              ", found ", std::max(h.bytes, h.words));
        s.size_ = static_cast<index>(h.tokens);
        s.text_ = {static_cast<index>(h.bytes), static_cast<index>(h.words)};
        const std::byte* tokens = bytes.data() + sizeof h;
        if (h.width == 2) s.narrow_ = reinterpret_cast<const std::uint16_t*>(tokens);
        if (h.width == 4) s.wide_ = reinterpret_cast<const std::uint32_t*>(tokens);
        s.owner_ = std::move(file);
        return s;
    }

    index size() const { return size_; }
    text_size text() const { return text_; }
    const std::string& name() const { return where_; }

    row_index operator[](index i) const {
        check(i >= 0 && i < size_, where_, "position: expected 0 to ", size_ - 1, ", found ", i);
        const std::uint32_t id = narrow_ ? narrow_[i] : wide_[i];
        check(id < static_cast<std::uint64_t>(vocabulary_), where_, "token ", i, ": expected an id below ", vocabulary_,
              ", found ", id);
        return static_cast<row_index>(id);
    }
    void append_to(std::vector<row_index>& out, index first, index count) const {
        for (index i = first; i < first + count; ++i) out.push_back((*this)[i]);
    }
    std::vector<row_index> tokens() const {
        std::vector<row_index> out;
        out.reserve(static_cast<std::size_t>(size_));
        append_to(out, 0, size_);
        return out;
    }

private:
    std::string where_ = "token stream";
    text_size text_;
    index size_ = 0, vocabulary_ = index{1} << 31;
    std::shared_ptr<const void> owner_;
    const std::uint16_t* narrow_ = nullptr;
    const std::uint32_t* wide_ = nullptr;
};

// How a token stream is cut into training windows.
struct window_options {
    index batch = 8;  // windows per batch
    index window = 256;  // T
    std::uint64_t seed = 0;  // of the order
    std::string task = "lm";
};

// Training: all full windows, in a new order every epoch. Up to T - 1 tokens at the end of the corpus are not trained
// on (evaluation reads them); batches run on across the end of an epoch, so that each has the same size.
class training_windows {
public:
    training_windows(token_stream stream, window_options options)
        : stream_(std::move(stream)),
          options_(std::move(options)),
          order_(count(stream_, options_), options_.seed, "lm") {}

    index windows() const { return order_.size(); }
    double epochs(index step) const {
        return static_cast<double>(step) * static_cast<double>(options_.batch) / static_cast<double>(windows());
    }
    const window_options& options() const { return options_; }

    batch batch_at(index step) const {
        batch b;
        b.task = options_.task;
        b.lengths.assign(static_cast<std::size_t>(options_.batch), options_.window);
        order_.visit(step * options_.batch, options_.batch, [&](index w) {
            stream_.append_to(b.ids, w * options_.window, options_.window);
            stream_.append_to(b.targets, w * options_.window + 1, options_.window);
        });
        return b;
    }

private:
    static index count(const token_stream& s, const window_options& o) {
        check(o.batch > 0 && o.window > 0, s.name(), "windows: expected a batch and a window of at least 1, found ",
              o.batch, " and ", o.window);
        check(s.size() > o.window, s.name(), "tokens: expected at least ", o.window + 1, " for one window, found ",
              s.size());
        return (s.size() - 1) / o.window;
    }

    token_stream stream_;
    window_options options_;
    epoch_order order_;
};

// Evaluation: every token but the first of the split is a target exactly once, in order; the last window may be short.
class evaluation_windows {
public:
    evaluation_windows(token_stream stream, window_options options)
        : stream_(std::move(stream)), options_(std::move(options)) {
        check(options_.batch > 0 && options_.window > 0, stream_.name(),
              "windows: expected a batch and a window of at least 1, found ", options_.batch, " and ", options_.window);
        check(stream_.size() >= 2, stream_.name(), "tokens: expected at least 2 to predict one, found ",
              stream_.size());
    }

    index targets() const { return stream_.size() - 1; }
    index windows() const { return (targets() + options_.window - 1) / options_.window; }
    index batches() const { return (windows() + options_.batch - 1) / options_.batch; }
    const window_options& options() const { return options_; }

    batch batch_at(index number) const {
        check(number >= 0 && number < batches(), stream_.name(), "evaluation batch: expected 0 to ", batches() - 1,
              ", found ", number);
        batch b;
        b.task = options_.task;
        const index first = number * options_.batch, last = std::min(first + options_.batch, windows());
        for (index w = first; w < last; ++w) {
            const index begin = w * options_.window, length = std::min(options_.window, targets() - begin);
            b.lengths.push_back(length);
            stream_.append_to(b.ids, begin, length);
            stream_.append_to(b.targets, begin + 1, length);
        }
        return b;
    }

private:
    token_stream stream_;
    window_options options_;
};

}  // namespace spectral
