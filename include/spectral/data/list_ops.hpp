// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/list_ops.hpp: ListOps, expressions over lists of digits whose value (0 to 9) is the class
//   [MAX 2 9 [MIN 4 7 ] 0 ]   ->   9
//
// nested: the grammar of Nangia and Bowman (2018) with the operators and limits of the Long Range Arena: a node is an
//   operator with probability 1/4 while its depth is below max_depth (the root has depth 1), else a digit; an operator
//   has 2 to max_args arguments; expressions outside [min_length, max_length] tokens are thrown away and drawn again.
//   MED of an even count is the mean of the middle two, rounded down; SM is the sum modulo 10.
// flat: one operator over 2 to 10 digits. CHIAR-Former's description says no more than that its ListOps is a short list
//   of operators over digits; operators, counts and uniform draws are our reading of it. The same grammar with depth 2.
//
// Example n of a split is a pure function of (options, seed, split, n). Splits draw from streams of their own; short
// expressions would still turn up in two splits, so with `disjoint` the expression itself decides, by its hash, which
// split it may belong to: 1/8 validation, 1/8 test, the rest training.
#pragma once
#include <spectral/data/epoch_order.hpp>
#include <spectral/data/source.hpp>
#include <spectral/models/batch.hpp>

#include <algorithm>
#include <array>
#include <span>

namespace spectral {

// The vocabulary: digits are their own ids.
enum list_ops_id : row_index { list_max = 10, list_min = 11, list_med = 12, list_sm = 13, list_end = 14 };
// Number of ids and of classes; the text of each id.
inline constexpr index list_ops_vocabulary = 15;
inline constexpr index list_ops_classes = 10;
inline constexpr std::array<std::string_view, 15> list_ops_names{"0", "1", "2",    "3",    "4",    "5",   "6", "7",
                                                                 "8", "9", "[MAX", "[MIN", "[MED", "[SM", "]"};

// The grammar's limits; the defaults are the Long Range Arena's.
struct list_ops_options {
    index max_depth = 10;  // of the tree, digits included
    index min_args = 2, max_args = 10;
    index min_length = 500, max_length = 2000;  // tokens, both included
    double operator_probability = 0.25;
    bool disjoint = false;

    static list_ops_options long_range_arena() { return {}; }
    static list_ops_options flat() { return {2, 2, 10, 4, 12, 1.0, true}; }
    static list_ops_options small() { return {5, 2, 5, 8, 60, 0.25, true}; }
};

// An expression and its value.
struct list_ops_example {
    std::vector<row_index> ids;
    row_index label = 0;
};

// The value of an expression; throws a sentence with the position of the first token that does not fit the grammar.
// Any number of arguments from one up is accepted, and a single digit is an expression.
inline row_index evaluate_list_ops(std::span<const row_index> ids, std::string_view where = "list_ops") {
    struct open_list {
        row_index op;
        std::vector<row_index> values;
    };
    std::vector<open_list> open;  // a stack of our own: depth is up to the input
    for (std::size_t i = 0; i < ids.size(); ++i) {
        row_index value = ids[i];
        check(value >= 0 && value < list_ops_vocabulary, where, "token ", i, ": expected an id of 0 to 14, found ",
              value);
        if (value >= list_max && value <= list_sm) {
            open.push_back({value, {}});
            continue;
        }
        if (value == list_end) {
            check(!open.empty(), where, "token ", i,
                  ": expected a digit or an operator, found \"]\" with no open list");
            auto [op, v] = std::move(open.back());
            open.pop_back();
            check(!v.empty(), where, "token ", i, ": expected an argument of \"",
                  list_ops_names[static_cast<std::size_t>(op)], "\", found \"]\"");
            std::sort(v.begin(), v.end());
            const std::size_t half = v.size() / 2;
            switch (op) {
                case list_max: value = v.back(); break;
                case list_min: value = v.front(); break;
                case list_med: value = v.size() % 2 ? v[half] : (v[half - 1] + v[half]) / 2; break;
                default:
                    value = 0;
                    for (row_index x : v) value = (value + x) % 10;
            }
        }
        if (open.empty()) {
            if (i + 1 < ids.size())
                fail(where, "token ", i + 1, ": expected the end of the expression, found id ", ids[i + 1]);
            return value;
        }
        open.back().values.push_back(value);
    }
    if (ids.empty()) fail(where, "expected an expression, found nothing");
    fail(where, "expected \"]\" for ", open.size(), " open lists, found the end of the expression");
}

// "[MAX 2 9 ]", tokens separated by one space
inline std::string list_ops_text(std::span<const row_index> ids) {
    std::string out;
    for (row_index id : ids) {
        check(id >= 0 && id < list_ops_vocabulary, "list_ops_text", "expected an id of 0 to 14, found ", id);
        if (!out.empty()) out += ' ';
        out += list_ops_names[static_cast<std::size_t>(id)];
    }
    return out;
}

// The ids of a text that is one valid expression (spaces between tokens).
inline std::vector<row_index> parse_list_ops(std::string_view text, std::string_view where = "list_ops") {
    std::vector<row_index> ids;
    for (std::size_t at = 0; at < text.size();) {
        if (text[at] == ' ') {
            ++at;
            continue;
        }
        const std::string_view word = text.substr(at, text.find(' ', at) - at);
        const auto found = std::find(list_ops_names.begin(), list_ops_names.end(), word);
        check(found != list_ops_names.end(), where, "column ", at + 1,
              ": expected a digit, [MAX, [MIN, [MED, [SM or ], found \"", word.substr(0, 20), "\"");
        ids.push_back(static_cast<row_index>(found - list_ops_names.begin()));
        at += word.size();
    }
    evaluate_list_ops(ids, where);
    return ids;
}

namespace detail {
// One expression appended to `out`; false as soon as it is longer than max_length. Draws are numbered by `n`.
inline bool draw_list_ops(const list_ops_options& o, const random_stream& draw, std::uint64_t& n, index depth,
                          std::vector<row_index>& out) {
    const auto below = [&](index count) {  // the bias of a 32-bit draw is below 10 / 2^32
        return static_cast<index>(std::uint64_t{draw.bits(n++)} * static_cast<std::uint64_t>(count) >> 32);
    };
    const bool nested = depth < o.max_depth && draw.uniform(n++) < o.operator_probability;
    out.push_back(static_cast<row_index>(nested ? list_max + below(4) : below(10)));
    if (nested) {
        const index args = o.min_args + below(o.max_args - o.min_args + 1);
        for (index i = 0; i < args; ++i)
            if (!draw_list_ops(o, draw, n, depth + 1, out)) return false;
        out.push_back(list_end);
    }
    return static_cast<index>(out.size()) <= o.max_length;
}

inline data_split list_ops_split(std::span<const row_index> ids) {
    std::uint64_t hash = 14695981039346656037ull;  // FNV-1a
    for (row_index id : ids) hash = (hash ^ static_cast<std::uint64_t>(id)) * 1099511628211ull;
    const std::uint64_t eighth = philox(hash, 0, 0).word[0] % 8;  // FNV's low bits alone mix poorly
    return eighth == 0 ? data_split::valid : eighth == 1 ? data_split::test : data_split::train;
}
}  // namespace detail

// Throws error where the options make no sense.
inline void check_list_ops(const list_ops_options& o) {
    const char* where = "list_ops options";
    check(o.max_depth >= 2 && o.max_depth <= 1000, where, "max_depth: expected 2 to 1000, found ", o.max_depth);
    check(o.min_args >= 1 && o.max_args >= o.min_args, where, "arguments: expected 1 <= min_args <= max_args, found ",
          o.min_args, " and ", o.max_args);
    check(o.min_length >= 1 && o.max_length >= o.min_length, where,
          "length: expected 1 <= min_length <= max_length, found ", o.min_length, " and ", o.max_length);
    check(o.operator_probability > 0 && o.operator_probability <= 1, where,
          "operator_probability: expected above 0 and at most 1, found ", o.operator_probability);
}

// Example n of a split.
inline list_ops_example make_list_ops(const list_ops_options& o, std::uint64_t seed, data_split split, index n) {
    check_list_ops(o);
    const random_stream draw{
        seed, substream(stream_of(name_of(split), stream_of("list_ops/")), static_cast<std::uint64_t>(n))};
    list_ops_example e;
    std::uint64_t drawn = 0;
    constexpr int tries = 1000000;
    for (int i = 0; i < tries; ++i) {
        e.ids.clear();
        if (!detail::draw_list_ops(o, draw, drawn, 1, e.ids)) continue;
        if (static_cast<index>(e.ids.size()) < o.min_length) continue;
        if (o.disjoint && detail::list_ops_split(e.ids) != split) continue;
        e.label = evaluate_list_ops(e.ids);
        return e;
    }
    fail("list_ops options", "none of ", tries, " expressions had ", o.min_length, " to ", o.max_length,
         " tokens: raise max_depth, max_args or the range of lengths");
}

// Which expressions, and how many of them, become batches.
struct list_ops_source {
    list_ops_options options;
    std::uint64_t seed = 0;
    index batch = 32;
    index train_examples = 0;  // 0: every training example is new; else epochs over that many, shuffled
    index evaluation_examples = 2000;
    text_encoder encode = {};  // reads the text form; empty: the ids above
    std::string task = "list_ops";
};

// Batches of expressions with their values as labels.
//   list_ops_batches data{{.options = list_ops_options::small(), .seed = 1}};  data.batch_at(step)
class list_ops_batches {
public:
    explicit list_ops_batches(list_ops_source source) : s_(std::move(source)) {
        check_list_ops(s_.options);
        check(s_.batch > 0, "list_ops", "batch: expected at least 1, found ", s_.batch);
        check(s_.train_examples >= 0 && s_.evaluation_examples > 0, "list_ops",
              "examples: expected at least 0 for training and 1 for evaluation, found ", s_.train_examples, " and ",
              s_.evaluation_examples);
    }

    batch batch_at(index step) const {
        check(step >= 0, "list_ops", "step: expected at least 0, found ", step);
        batch b;
        b.task = s_.task;
        const index first = step * s_.batch;
        if (s_.train_examples == 0) {
            for (index i = 0; i < s_.batch; ++i) append(b, data_split::train, first + i);
        } else {
            const epoch_order order(s_.train_examples, s_.seed, "list_ops order");
            order.visit(first, s_.batch, [&](index n) { append(b, data_split::train, n); });
        }
        return b;
    }

    index evaluation_batches() const { return (s_.evaluation_examples + s_.batch - 1) / s_.batch; }
    batch evaluation_at(data_split split, index number) const {
        check(number >= 0 && number < evaluation_batches(), "list_ops", "evaluation batch: expected 0 to ",
              evaluation_batches() - 1, ", found ", number);
        batch b;
        b.task = s_.task;
        for (index n = number * s_.batch; n < std::min((number + 1) * s_.batch, s_.evaluation_examples); ++n)
            append(b, split, n);
        return b;
    }
    const list_ops_source& source() const { return s_; }

private:
    void append(batch& b, data_split split, index n) const {
        list_ops_example e = make_list_ops(s_.options, s_.seed, split, n);
        if (s_.encode) {
            e.ids = s_.encode(list_ops_text(e.ids));
            check(!e.ids.empty(), "list_ops", "example ", n, ": the encoder made no tokens of it");
        }
        b.lengths.push_back(static_cast<index>(e.ids.size()));
        b.ids.insert(b.ids.end(), e.ids.begin(), e.ids.end());
        b.labels.push_back(e.label);
    }

    list_ops_source s_;
};

}  // namespace spectral
