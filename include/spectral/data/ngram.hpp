// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/ngram.hpp: unigram and bigram perplexity, the bar that a language model has to clear
//
// Interpolated Kneser-Ney (Kneser and Ney 1995; Chen and Goodman 1999), one discount per order, nothing tuned:
//   unigram  p(w)     = max(c(w) - D1, 0) / c  +  D1 U / c · 1/V               U  word types seen, c tokens
//   bigram   p(w | h) = max(c(h,w) - D2, 0) / c(h)  +  D2 F(h) / c(h) · q(w)   F(h) different followers of h
//            q(w)     = max(P(w) - Dq, 0) / P  +  Dq U' / P · 1/V              P(w) different predecessors of w
// with D = n1 / (n1 + 2 n2), n1 and n2 the number of items counted once and twice; c(h) counts h as a context, and a
// context never seen leaves q(w). Everything sums to 1 over the V ids, so unseen ids cost a finite number of nats.
// Both perplexities are over the targets of a validation stream: every token but the first, each with its predecessor.
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <string_view>
#include <vector>

namespace spectral {

// exp(nats / tokens); nats is the sum over the targets, not their mean
inline double perplexity(double total_nats, index tokens) { return std::exp(total_nats / static_cast<double>(tokens)); }
// bits that the model needs per byte of text, whatever the tokenizer
inline double bits_per_byte(double total_nats, index bytes) {
    return total_nats / 0.69314718055994530942 / static_cast<double>(bytes);
}
// perplexity per word, comparable between tokenizers: the same nats spread over the words
inline double word_perplexity(double total_nats, index words) { return perplexity(total_nats, words); }

// Words separated by white space; WikiText's published perplexities count one <eos> for every line end as well.
inline index count_words(std::string_view text, bool count_line_ends) {
    index words = 0;
    bool inside = false;
    for (char c : text) {
        const bool space = c == ' ' || (c >= '\t' && c <= '\r');
        words += !space && !inside;
        words += c == '\n' && count_line_ends;
        inside = !space;
    }
    return words;
}

// Log-likelihood of a text under both models.
struct ngram_score {
    double unigram_nats = 0, bigram_nats = 0;  // sums over the targets
    index targets = 0;

    double unigram_perplexity() const { return perplexity(unigram_nats, targets); }
    double bigram_perplexity() const { return perplexity(bigram_nats, targets); }
};

//   const ngram_model model(train.tokens(), vocabulary);  model.score(valid.tokens()).bigram_perplexity()
class ngram_model {
public:
    ngram_model(std::span<const row_index> tokens, index vocabulary) : vocabulary_(vocabulary) {
        check(tokens.size() >= 2, "ngram_model", "training tokens: expected at least 2, found ", tokens.size());
        check_ids(tokens);
        const auto v = static_cast<std::size_t>(vocabulary);
        std::vector<index> counts(v), predecessors(v);
        for (row_index id : tokens) ++counts[static_cast<std::size_t>(id)];
        unigram_ = smoothed(counts);

        // all bigrams as one number each, sorted: those of a context lie together
        std::vector<std::uint64_t> pairs;
        pairs.reserve(tokens.size() - 1);
        for (std::size_t i = 1; i < tokens.size(); ++i)
            pairs.push_back(static_cast<std::uint64_t>(tokens[i - 1]) << 32 | static_cast<std::uint64_t>(tokens[i]));
        std::sort(pairs.begin(), pairs.end());
        context_begin_.assign(v + 1, 0);
        context_count_.assign(v, 0);
        std::vector<index> bigram_counts;
        for (std::size_t i = 0; i < pairs.size();) {
            std::size_t end = i;
            while (end < pairs.size() && pairs[end] == pairs[i]) ++end;
            const auto h = static_cast<std::size_t>(pairs[i] >> 32);
            const auto w = static_cast<std::size_t>(pairs[i] & 0xFFFFFFFF);
            follower_.push_back({static_cast<row_index>(w), static_cast<index>(end - i)});
            bigram_counts.push_back(static_cast<index>(end - i));
            ++context_begin_[h + 1];
            context_count_[h] += static_cast<index>(end - i);
            ++predecessors[w];
            i = end;
        }
        for (std::size_t h = 0; h < v; ++h) context_begin_[h + 1] += context_begin_[h];
        discount_ = discount(bigram_counts);
        continuation_ = smoothed(predecessors);
    }

    index vocabulary() const { return vocabulary_; }
    double probability(row_index w) const { return unigram_[id(w)]; }
    double probability(row_index w, row_index after) const {
        const std::size_t h = id(after);
        const double q = continuation_[id(w)];
        if (context_count_[h] == 0) return q;
        const auto first = follower_.begin() + context_begin_[h], last = follower_.begin() + context_begin_[h + 1];
        const auto found = std::lower_bound(first, last, w, [](const followed& f, row_index x) { return f.by < x; });
        const double seen = found != last && found->by == w ? static_cast<double>(found->times) - discount_ : 0.0;
        return (seen + discount_ * static_cast<double>(last - first) * q) / static_cast<double>(context_count_[h]);
    }

    ngram_score score(std::span<const row_index> tokens) const {
        check(tokens.size() >= 2, "ngram_model", "validation tokens: expected at least 2, found ", tokens.size());
        check_ids(tokens);
        ngram_score s;
        for (std::size_t i = 1; i < tokens.size(); ++i, ++s.targets) {
            s.unigram_nats -= std::log(probability(tokens[i]));
            s.bigram_nats -= std::log(probability(tokens[i], tokens[i - 1]));
        }
        return s;
    }

private:
    struct followed {
        row_index by;
        index times;
    };

    static double discount(const std::vector<index>& counts) {
        const auto once = static_cast<double>(std::count(counts.begin(), counts.end(), 1));
        const auto twice = static_cast<double>(std::count(counts.begin(), counts.end(), 2));
        if (once == 0) return 0.5;  // too little data to estimate: keep something for the unseen
        return once / (once + 2 * twice);
    }
    // absolute discounting, interpolated with the uniform distribution
    std::vector<double> smoothed(const std::vector<index>& counts) const {
        const double d = discount(counts);
        double total = 0, types = 0;
        for (index c : counts) {
            total += static_cast<double>(c);
            types += c > 0;
        }
        std::vector<double> p(counts.size());
        for (std::size_t i = 0; i < p.size(); ++i)
            p[i] = (std::max(static_cast<double>(counts[i]) - d, 0.0) + d * types / static_cast<double>(vocabulary_)) /
                   total;
        return p;
    }
    std::size_t id(row_index w) const {
        check(w >= 0 && w < vocabulary_, "ngram_model", "id: expected 0 to ", vocabulary_ - 1, ", found ", w);
        return static_cast<std::size_t>(w);
    }
    void check_ids(std::span<const row_index> tokens) const {
        for (row_index w : tokens) id(w);
    }

    index vocabulary_;
    std::vector<double> unigram_, continuation_;  // p(w), q(w)
    std::vector<index> context_begin_, context_count_;
    std::vector<followed> follower_;  // sorted by context, then by word
    double discount_ = 0;
};

}  // namespace spectral
