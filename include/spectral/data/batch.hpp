// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/batch.hpp: what one training or evaluation step reads, and the order examples come in
//
// Data sources have no state: batch_at(step) is a pure function of (data, options, seed, step). Resuming a run is
// therefore one integer, and reading ahead or evaluating in between disturbs nothing.
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/core/random.hpp>
#include <spectral/core/view.hpp>

#include <bit>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace spectral {

// Packed sequences, one after another and without padding.
struct batch {
    std::vector<index> lengths;  // (S) of the packed sequences
    std::vector<row_index> ids;  // (N) N = sum of the lengths
    std::vector<row_index> targets;  // (N) next tokens, -1 = ignored; empty for classification
    std::vector<row_index> labels;  // (S) one per sequence; empty for language modelling
    std::string task;
    std::vector<index> prompt_lengths = {};  // (S) rows of each sequence that are its prompt; empty: not known
    std::vector<std::string> step_types = {};  // (S) kind of each answer, "tool_call", "planning"; empty: not known

    index sequences() const { return static_cast<index>(lengths.size()); }
    index rows() const { return static_cast<index>(ids.size()); }
    bool operator==(const batch&) const = default;
};

// Text to token ids: a tokenizer, or anything else. Sources that read text take one, so that they know no tokenizer.
using text_encoder = std::function<std::vector<row_index>(std::string_view)>;

// The three parts of a data set, and their names in messages and streams of random numbers.
enum class data_split { train, valid, test };
inline std::string_view name_of(data_split s) {
    return s == data_split::train ? "train" : s == data_split::valid ? "valid" : "test";
}

// A batch from outside, before a model reads it: consistent sizes, ids below `vocabulary`, labels below `classes`.
inline void check_batch(const batch& b, index vocabulary, index classes = 0) {
    const std::string where = "batch of task \"" + b.task + "\"";
    index rows = 0;
    for (index n : b.lengths) {
        check(n > 0, where, "length of a sequence: expected at least 1, found ", n);
        rows += n;
    }
    check_equal(b.rows(), rows, where, "number of ids against the sum of the lengths");
    check(b.targets.empty() != b.labels.empty(), where, "expected either targets or labels, found ",
          b.targets.empty() ? "neither" : "both");
    if (b.labels.empty()) check_equal(b.targets.size(), b.ids.size(), where, "number of targets");
    if (b.targets.empty()) check_equal(b.labels.size(), b.lengths.size(), where, "number of labels");
    if (!b.prompt_lengths.empty())
        check_equal(b.prompt_lengths.size(), b.lengths.size(), where, "number of prompt lengths");
    if (!b.step_types.empty()) check_equal(b.step_types.size(), b.lengths.size(), where, "number of step types");
    for (std::size_t s = 0; s < b.prompt_lengths.size(); ++s)
        check(b.prompt_lengths[s] > 0 && b.prompt_lengths[s] <= b.lengths[s], where, "prompt length ", s,
              ": expected 1 to the sequence's ", b.lengths[s], ", found ", b.prompt_lengths[s]);
    const auto within = [&](const std::vector<row_index>& values, row_index low, index high, const char* what) {
        for (std::size_t i = 0; i < values.size(); ++i)
            check(values[i] >= low && values[i] < high, where, what, " ", i, ": expected ", low, " to ", high - 1,
                  ", found ", values[i]);
    };
    within(b.ids, 0, vocabulary, "id");
    within(b.targets, -1, vocabulary, "target");
    within(b.labels, 0, classes, "label");
}

// A random order of 0 .. n-1 that needs no memory: order[i] costs a few hundred nanoseconds, whatever n is.
//
// Swap-or-not shuffle (Hoang, Morris and Rogaway, CRYPTO 2012): each round pairs every x with k - x (mod n), k being
// the round's random number, and swaps a pair or not by one random bit of the pair. Both members see the same bit, so
// every round, and with it the whole, is a permutation of exactly n things.
//   shuffled_order order{n, {seed, substream(stream_of("tokens"), epoch)}};  order[0], order[1], ...
class shuffled_order {
public:
    shuffled_order(index n, random_stream draw) : n_(static_cast<std::uint64_t>(n)), draw_(draw) {
        check(n > 0, "shuffled_order", "number of examples: expected at least 1, found ", n);
        // 4 log2 n + 8 rounds mix far beyond what tests on small n can tell from uniform
        const auto rounds = static_cast<std::size_t>(4 * std::bit_width(n_) + 8);
        for (std::size_t r = 0; r < rounds; ++r) {
            const philox_words w = philox(draw.key, draw.stream, first_key + r);
            keys_.push_back((std::uint64_t{w.word[0]} << 32 | w.word[1]) % n_);
        }
    }

    index size() const { return static_cast<index>(n_); }
    index operator[](index i) const {
        auto x = static_cast<std::uint64_t>(i);
        check(x < n_, "shuffled_order", "position: expected 0 to ", n_ - 1, ", found ", i);
        for (std::size_t r = 0; r < keys_.size(); ++r) {
            const std::uint64_t partner = keys_[r] >= x ? keys_[r] - x : keys_[r] + n_ - x;
            const std::uint64_t pair = x > partner ? x : partner;
            if (philox(draw_.key, draw_.stream, pair << 9 | r).word[0] >> 31) x = partner;
        }
        return static_cast<index>(x);
    }

private:
    static constexpr std::uint64_t first_key = std::uint64_t{1} << 63;  // counters that no pair uses
    std::uint64_t n_;
    random_stream draw_;
    std::vector<std::uint64_t> keys_;
};

// Endless epochs over n examples, each epoch in an order of its own: position p is in epoch p / n.
class epoch_order {
public:
    epoch_order(index n, std::uint64_t seed, std::string_view what) : n_(n), seed_(seed), stream_(stream_of(what)) {
        check(n > 0, what, "number of examples: expected at least 1, found ", n);
    }

    // each(example) for the positions [first, first + count)
    template <class Visit>
    void visit(index first, index count, Visit&& each) const {
        check(first >= 0 && count >= 0, "epoch_order", "position: expected at least 0, found ", first);
        for (index p = first; p < first + count;) {
            const index epoch = p / n_;
            const shuffled_order order(n_, {seed_, substream(stream_, static_cast<std::uint64_t>(epoch))});
            for (; p < first + count && p / n_ == epoch; ++p) each(order[p % n_]);
        }
    }
    index size() const { return n_; }

private:
    index n_;
    std::uint64_t seed_, stream_;
};

}  // namespace spectral
