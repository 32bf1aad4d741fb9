// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/epoch_order.hpp: the order that examples come in, epoch by epoch
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/core/random.hpp>
#include <spectral/core/view.hpp>

#include <bit>
#include <string_view>
#include <vector>

namespace spectral {

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
