// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/decode_step.hpp: one more token of some sequences, in memory that stays where it is
//
// Ids, row map and logits of a step do not move, and positions advance where they lie: so the step's work can be
// recorded once and repeated (core/recording.hpp), and the host may let tokens choose themselves for a while without
// looking.
#pragma once
#include <spectral/core/recording.hpp>
#include <spectral/core/rows.hpp>
#include <spectral/core/tensor.hpp>
#include <spectral/ops/sampling.hpp>

namespace spectral {

template <executor Exec, class T>
struct decode_step {
    std::vector<index> lengths;  // by sequence: 1, or 0 for one that waits
    std::vector<std::size_t> sequences;  // of each row
    tensor<Exec, row_index> ids, map;  // (N); begin (S), end (S), position (N), sequence (N)
    tensor<Exec, row_index, 2> chosen;  // (N, positions) the token chosen after each position
    tensor<Exec, T, 2> logits;  // (S, V)
    repeated_work<Exec> given, choosing;  // tokens from the host; tokens chosen by the step
    index known = 0;  // ids that `choosing` chooses from
    sampling_options how;  // and as this says
    tensor<Exec, unsigned char, 2> seen;  // (S, V) ids that have come, where a penalty asks for them

    decode_step(Exec& ex, std::span<const index> lengths_, index capacity, index vocabulary)
        : lengths(lengths_.begin(), lengths_.end()) {
        const auto S = static_cast<index>(lengths.size());
        std::vector<row_index> begin, end, sequence;
        for (std::size_t s = 0; s < lengths.size(); ++s) {
            begin.push_back(static_cast<row_index>(sequences.size()));
            if (lengths[s]) sequences.push_back(s), sequence.push_back(static_cast<row_index>(s));
            end.push_back(static_cast<row_index>(sequences.size()));
        }
        const auto N = static_cast<index>(sequences.size());
        std::vector<row_index> host = begin;
        host.insert(host.end(), end.begin(), end.end());
        host.resize(host.size() + sequence.size(), -1);
        host.insert(host.end(), sequence.begin(), sequence.end());
        map = tensor<Exec, row_index>(ex, {2 * S + 2 * N}, host);
        ids = tensor<Exec, row_index>(ex, {N});
        chosen = tensor<Exec, row_index, 2>(ex, {N, capacity});
        logits = tensor<Exec, T, 2>(ex, {S, vocabulary});
    }

    row_map rows() const {
        const view<const row_index, 1> all = map.view();
        const auto S = static_cast<index>(lengths.size()), N = ids.size();
        return {all.slice(0, S), all.slice(S, S), all.slice(2 * S, N), all.slice(2 * S + N, N)};
    }
    vector_view<row_index> position() const {
        return map.view().slice(2 * static_cast<index>(lengths.size()), ids.size());
    }

    // the next tokens, of sequences that are `seen` rows long
    void feed(Exec& ex, std::span<const row_index> tokens, const std::vector<index>& seen) {
        ex.copy_from_host(ids.data(), tokens.data(), tokens.size_bytes());
        bool there = at_.size() == sequences.size();
        for (std::size_t n = 0; there && n < sequences.size(); ++n) there = at_[n] == seen[sequences[n]];
        if (there) return;
        at_.clear();
        for (std::size_t s : sequences) at_.push_back(static_cast<row_index>(seen[s]));
        ex.copy_from_host(position().data, at_.data(), at_.size() * sizeof(row_index));
    }
    // what `choosing` does from now on; what was recorded for other options is gone
    void choose_by(index known_, const sampling_options& how_) {
        if (known == known_ && how == how_) return;
        known = known_;
        how = how_;
        choosing = {};
    }
    // The ids that every sequence has seen, where the penalty needs them; the step marks what it chooses by itself.
    void mark(Exec& ex, std::span<const std::vector<row_index>> before) {
        if (how.repetition_penalty == 1) return;
        const index S = logits.view().rows(), V = logits.view().width();
        check_equal(static_cast<index>(before.size()), S, "choose", "sequences of what was seen before");
        if (seen.size() == 0) seen = tensor<Exec, unsigned char, 2>(ex, {S, V}), marked_.resize(before.size());
        for (std::size_t s : sequences) {
            if (marked_[s] == before[s]) continue;
            std::vector<unsigned char> row(static_cast<std::size_t>(V));
            for (row_index id : before[s])
                if (id >= 0 && id < V) row[static_cast<std::size_t>(id)] = 1;
            ex.copy_from_host(seen.view().row(static_cast<index>(s)), row.data(), row.size());
            marked_[s] = before[s];
        }
    }
    void chose(std::size_t s, std::span<const row_index> ids_of_s) {
        if (!marked_.empty() && !how.likeliest())  // the most likely are chosen without a mark
            marked_[s].insert(marked_[s].end(), ids_of_s.begin(), ids_of_s.end());
    }
    void advanced() {
        for (row_index& p : at_) ++p;
    }

private:
    std::vector<row_index> at_;  // the positions that lie in `map`
    std::vector<std::vector<row_index>> marked_;  // by sequence, what is marked in `seen`
};

}  // namespace spectral
