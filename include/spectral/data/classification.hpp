// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/classification.hpp: labelled texts from a TSV file, as batches
//
// Two layouts, one example a line, UTF-8:
//   imdb        label TAB rating TAB id TAB text   (label 0 or 1, rating 1 to 10, id 0 and up)
//   label_text  label TAB text
// Texts are encoded once, when the file is read, and cut to their first `max_length` tokens.
#pragma once
#include <spectral/data/epoch_order.hpp>
#include <spectral/data/source.hpp>
#include <spectral/io/mapped_file.hpp>
#include <spectral/io/names.hpp>
#include <spectral/models/batch.hpp>
#include <spectral/text/utf8.hpp>

#include <algorithm>
#include <charconv>
#include <optional>

namespace spectral {

// detect: by the first line
enum class tsv_layout { detect, label_text, imdb };

// How labelled texts are read.
struct classification_options {
    index classes = 2;
    index max_length = 256;  // tokens
    index max_examples = 0;  // read no more lines than that; 0: all (IMDB's classes alternate)
    tsv_layout layout = tsv_layout::detect;
};

// One example.
struct labelled_tokens {
    std::vector<row_index> ids;
    row_index label = 0;
    bool operator==(const labelled_tokens&) const = default;
};

// The examples of one file.
struct classification_data {
    std::string name;
    std::vector<labelled_tokens> examples;
    index classes = 0;
    index cut = 0;  // examples that were longer than max_length
};

namespace detail {
inline std::optional<index> whole_number(std::string_view field) {
    index value = 0;
    const auto [end, problem] = std::from_chars(field.data(), field.data() + field.size(), value);
    if (problem != std::errc() || end != field.data() + field.size()) return std::nullopt;
    return value;
}

inline index number_in_field(std::string_view field, index low, index high, const std::string& where,
                             const char* what) {
    const auto value = whole_number(field);
    check(value && *value >= low && *value <= high, where, what, ": expected a number from ", low, " to ", high,
          ", found ", in_quotes(field, 20));
    return *value;
}
}  // namespace detail

// The lines of `text`; `name` names their file in errors.
inline classification_data parse_classification(std::string_view text, const std::string& name,
                                                const text_encoder& encode, const classification_options& options) {
    check(options.classes >= 2 && options.max_length >= 1, name,
          "options: expected at least 2 classes and a length of 1, found ", options.classes, " and ",
          options.max_length);
    check(static_cast<bool>(encode), name, "expected an encoder, found none");
    classification_data data{name, {}, options.classes, 0};
    tsv_layout layout = options.layout;
    index line_number = 0;
    while (!text.empty() && (options.max_examples == 0 || line_number < options.max_examples)) {
        const std::string where = name + ": line " + std::to_string(++line_number);
        const std::size_t end = text.find('\n');
        std::string_view line = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
        if (line.ends_with('\r')) line.remove_suffix(1);

        std::vector<std::string_view> fields{line};
        for (std::size_t tab; (tab = fields.back().find('\t')) != std::string_view::npos;) {
            const std::string_view rest = fields.back().substr(tab + 1);
            fields.back() = fields.back().substr(0, tab);
            fields.push_back(rest);
        }
        if (layout == tsv_layout::detect) {
            check(fields.size() == 2 || fields.size() == 4, where,
                  "fields between tabs: expected 2 (label, text) or 4 (label, rating, id, text), found ",
                  fields.size());
            layout = fields.size() == 2 ? tsv_layout::label_text : tsv_layout::imdb;
        }
        const bool imdb = layout == tsv_layout::imdb;
        check_equal(fields.size(), imdb ? 4u : 2u, where,
                    imdb ? "fields between tabs (label, rating, id, text)" : "fields between tabs (label, text)");
        const index label = detail::number_in_field(fields[0], 0, options.classes - 1, where, "label");
        if (imdb) {
            detail::number_in_field(fields[1], 1, 10, where, "rating");
            detail::number_in_field(fields[2], 0, index{1} << 53, where, "id");
        }
        const std::string_view content = fields.back();
        check_utf8(content, where);
        labelled_tokens example{encode(content), static_cast<row_index>(label)};
        check(!example.ids.empty(), where, "text: expected at least one token, found none");
        if (static_cast<index>(example.ids.size()) > options.max_length) {
            example.ids.resize(static_cast<std::size_t>(options.max_length));
            ++data.cut;
        }
        data.examples.push_back(std::move(example));
    }
    check(!data.examples.empty(), name, "the file has no examples");
    return data;
}

//   auto train = read_classification("imdb_train.tsv", [&](std::string_view s) { return bpe.encode(s); }, {});
inline classification_data read_classification(const std::filesystem::path& path, const text_encoder& encode,
                                               const classification_options& options) {
    const mapped_file file(path);
    const auto bytes = file.bytes();
    return parse_classification({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string(), encode,
                                options);
}

// How examples become batches.
struct classification_batch_options {
    index batch = 32;
    std::uint64_t seed = 0;
    // 0: plain shuffled order. n: n batches' worth of the shuffled order are sorted by length and cut into batches,
    // which then come in a random order: inside a batch lengths are alike.
    index bucket = 0;
    std::string task = "classification";
};

// Every example once per epoch, in a new order each time. With buckets, an epoch's end falls inside a bucket.
class classification_batches {
public:
    classification_batches(classification_data data, classification_batch_options options)
        : data_(std::move(data)),
          o_(std::move(options)),
          order_(static_cast<index>(data_.examples.size()), o_.seed, "classification") {
        check(o_.batch > 0 && o_.bucket >= 0, data_.name,
              "batches: expected a batch of at least 1 and a bucket of at least 0, found ", o_.batch, " and ",
              o_.bucket);
    }

    const classification_data& data() const { return data_; }
    const classification_batch_options& options() const { return o_; }

    batch batch_at(index step) const {
        check(step >= 0, data_.name, "step: expected at least 0, found ", step);
        std::vector<index> numbers;
        if (o_.bucket <= 1) {
            order_.visit(step * o_.batch, o_.batch, [&](index n) { numbers.push_back(n); });
            return make(numbers);
        }
        const index bucket = step / o_.bucket;
        order_.visit(bucket * o_.bucket * o_.batch, o_.bucket * o_.batch, [&](index n) { numbers.push_back(n); });
        std::stable_sort(numbers.begin(), numbers.end(), [&](index a, index b) { return length(a) < length(b); });
        const shuffled_order which(o_.bucket,
                                   {o_.seed, substream(stream_of("bucket"), static_cast<std::uint64_t>(bucket))});
        const auto first = numbers.begin() + which[step % o_.bucket] * o_.batch;
        return make({first, first + o_.batch});
    }

    // evaluation reads the examples once, in the order of the file
    index evaluation_batches() const { return (order_.size() + o_.batch - 1) / o_.batch; }
    batch evaluation_at(index number) const {
        check(number >= 0 && number < evaluation_batches(), data_.name, "evaluation batch: expected 0 to ",
              evaluation_batches() - 1, ", found ", number);
        std::vector<index> numbers;
        for (index n = number * o_.batch; n < std::min((number + 1) * o_.batch, order_.size()); ++n)
            numbers.push_back(n);
        return make(numbers);
    }

private:
    const labelled_tokens& example(index n) const { return data_.examples[static_cast<std::size_t>(n)]; }
    index length(index n) const { return static_cast<index>(example(n).ids.size()); }
    batch make(const std::vector<index>& numbers) const {
        batch b;
        b.task = o_.task;
        for (index n : numbers) {
            b.lengths.push_back(length(n));
            b.ids.insert(b.ids.end(), example(n).ids.begin(), example(n).ids.end());
            b.labels.push_back(example(n).label);
        }
        return b;
    }

    classification_data data_;
    classification_batch_options o_;
    epoch_order order_;
};

}  // namespace spectral
