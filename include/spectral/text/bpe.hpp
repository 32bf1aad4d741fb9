// SPDX-License-Identifier: Apache-2.0
// include/spectral/text/bpe.hpp: byte-pair encoding of one word, and a cache of words
//
// A word starts as its bytes; the adjacent pair with the lowest rank is merged, leftmost first, until no pair is in the
// table. A heap of candidate pairs keeps that at O(n log n): a word may be a megabyte without a space.
#pragma once
#include <spectral/core/view.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spectral {

// (left, right) -> (rank, merged): open addressing, filled once and then read only.
class merge_table {
public:
    // What a pair becomes, and how early.
    struct merge {
        std::uint32_t rank;
        row_index merged;
    };

    explicit merge_table(std::size_t merges = 0)
        : slots_(std::bit_ceil(merges * 2 + 2)), shift_(64 - std::countr_zero(slots_.size())) {}

    // false when the pair is already there. No more than `merges` may be inserted.
    bool insert(row_index left, row_index right, merge value) {
        slot& s = slots_[find_slot(key(left, right))];
        if (s.key != none) return false;
        s = {key(left, right), value};
        return true;
    }
    const merge* find(row_index left, row_index right) const {
        const slot& s = slots_[find_slot(key(left, right))];
        return s.key == none ? nullptr : &s.value;
    }

private:
    static constexpr std::uint64_t none = ~std::uint64_t{0};
    struct slot {
        std::uint64_t key = none;
        merge value{};
    };
    static std::uint64_t key(row_index left, row_index right) {
        return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
    }
    std::size_t find_slot(std::uint64_t k) const {
        std::size_t i = (k * 0x9e3779b97f4a7c15u) >> shift_;
        while (slots_[i].key != none && slots_[i].key != k) i = (i + 1) & (slots_.size() - 1);
        return i;
    }

    std::vector<slot> slots_;
    int shift_;
};

// The merging itself; the object is the work space, reused from word to word.
class bpe_merger {
public:
    // Merges `ids` in place.
    void merge(std::vector<row_index>& ids, const merge_table& table) {
        const auto n = static_cast<std::int32_t>(ids.size());
        if (n < 2) return;
        heap_.clear();
        next_.resize(ids.size());
        previous_.resize(ids.size());
        for (std::int32_t i = 0; i < n; ++i) {
            previous_[static_cast<std::size_t>(i)] = i - 1;
            next_[static_cast<std::size_t>(i)] = i + 1 < n ? i + 1 : -1;
        }
        const auto offer = [&](std::int32_t left) {
            const std::int32_t right = left < 0 ? -1 : next_[static_cast<std::size_t>(left)];
            if (right < 0) return false;
            const auto* m = table.find(ids[static_cast<std::size_t>(left)], ids[static_cast<std::size_t>(right)]);
            if (m) heap_.push_back({m->rank, left, m->merged});
            return m != nullptr;
        };
        const auto push = [&](std::int32_t left) {
            if (offer(left)) std::push_heap(heap_.begin(), heap_.end(), later);
        };
        for (std::int32_t i = 0; i + 1 < n; ++i) offer(i);
        std::make_heap(heap_.begin(), heap_.end(), later);
        while (!heap_.empty()) {
            std::pop_heap(heap_.begin(), heap_.end(), later);
            const candidate best = heap_.back();
            heap_.pop_back();
            const auto left = static_cast<std::size_t>(best.left);
            if (ids[left] < 0 || next_[left] < 0) continue;  // swallowed by an earlier merge, or the end
            const auto right = static_cast<std::size_t>(next_[left]);
            const auto* m = table.find(ids[left], ids[right]);
            if (!m || m->rank != best.rank) continue;  // a neighbour has changed since
            ids[left] = best.merged;
            ids[right] = -1;
            next_[left] = next_[right];
            if (next_[left] >= 0) previous_[static_cast<std::size_t>(next_[left])] = best.left;
            push(previous_[left]);
            push(best.left);
        }
        std::erase(ids, -1);
    }

private:
    struct candidate {
        std::uint32_t rank;
        std::int32_t left;
        row_index merged;
    };
    static bool later(const candidate& a, const candidate& b) {
        return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
    }
    std::vector<candidate> heap_;
    std::vector<std::int32_t> next_, previous_;
};

// word -> ids, bounded: when full it starts again empty, which a stream of text refills at once.
class word_cache {
public:
    static constexpr std::size_t longest_word = 64;

    word_cache() : slots_(std::size_t{1} << 16) {}

    // The ids of a word, or nothing (an empty word never occurs). Valid until the next insert.
    std::span<const row_index> find(std::string_view word) {
        hash_ = hash(word);
        for (std::size_t i = hash_ & (slots_.size() - 1); slots_[i].count != 0; i = (i + 1) & (slots_.size() - 1)) {
            const slot& s = slots_[i];
            if (s.hash == hash_ && std::string_view(text_).substr(s.text, s.length) == word)
                return {ids_.data() + s.ids, s.count};
        }
        return {};
    }
    // After a find() of the same word that found nothing.
    void insert(std::string_view word, std::span<const row_index> ids) {
        if (used_ * 2 >= slots_.size()) clear();
        std::size_t i = hash_ & (slots_.size() - 1);
        while (slots_[i].count != 0) i = (i + 1) & (slots_.size() - 1);
        slots_[i] = {hash_, static_cast<std::uint32_t>(text_.size()), static_cast<std::uint32_t>(ids_.size()),
                     static_cast<std::uint16_t>(word.size()), static_cast<std::uint16_t>(ids.size())};
        text_ += word;
        ids_.insert(ids_.end(), ids.begin(), ids.end());
        ++used_;
    }

private:
    struct slot {
        std::uint64_t hash = 0;
        std::uint32_t text = 0, ids = 0;
        std::uint16_t length = 0, count = 0;
    };
    static std::uint64_t hash(std::string_view word) {
        std::uint64_t h = word.size() * 0x9e3779b97f4a7c15u;
        const auto mix = [&](std::uint64_t x) {
            h = (h ^ x) * 0xd6e8feb86659fd93u;
            h ^= h >> 32;
        };
        std::size_t i = 0;
        for (; i + 8 <= word.size(); i += 8) {
            std::uint64_t x;
            std::memcpy(&x, word.data() + i, 8);
            mix(x);
        }
        std::uint64_t rest = 0;
        std::memcpy(&rest, word.data() + i, word.size() - i);
        mix(rest);
        return h;
    }
    void clear() {
        std::fill(slots_.begin(), slots_.end(), slot{});
        text_.clear();
        ids_.clear();
        used_ = 0;
    }

    std::vector<slot> slots_;
    std::string text_;
    std::vector<row_index> ids_;
    std::size_t used_ = 0;
    std::uint64_t hash_ = 0;
};

}  // namespace spectral
