// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/decode_step.hpp: one more token of some sequences, in memory that stays where it is
//
// Ids, row map and logits of a step do not move, and positions advance where they lie: so the step's work can be
// recorded once and repeated (core/recording.hpp), and the host may let tokens choose themselves for a while without
// looking. All steps of a state share that memory: one more step, of other sequences or other open blocks, costs its
// recording alone.
#pragma once
#include <spectral/core/recording.hpp>
#include <spectral/core/rows.hpp>
#include <spectral/core/tensor.hpp>
#include <spectral/ops/sampling.hpp>

namespace spectral {

template <executor Exec, class T>
struct step_memory {
    tensor<Exec, row_index> ids, map;  // (S); begin (S), end (S), position (N), sequence (N): 4 S at most
    tensor<Exec, row_index, 2> chosen;  // (S, positions) the token chosen after each position, by row of the step
    tensor<Exec, T, 2> logits;  // (S, V)
    tensor<Exec, unsigned char, 2> seen;  // (S, V) ids that have come, where a penalty asks for them

    step_memory(Exec& ex, index sequences, index capacity, index vocabulary)
        : ids(ex, {sequences}),
          map(ex, {4 * sequences}),
          chosen(ex, {sequences, capacity}),
          logits(ex, {sequences, vocabulary}) {}

    // These rows lie in `map` from now on.
    void place(Exec& ex, const std::vector<row_index>& rows) {
        if (rows == placed_) return;
        ex.copy_from_host(map.data(), rows.data(), rows.size() * sizeof(row_index));
        placed_ = rows;
    }
    // as the step did where they lie: positions are rows [first, first + count) of the map
    void advance(index first, index count) {
        for (index n = first; n < first + count; ++n) ++placed_[static_cast<std::size_t>(n)];
    }
    // The ids that these sequences have seen. A step with a penalty marks by itself what it draws: `drew` says so.
    void mark(Exec& ex, std::span<const std::size_t> sequences, std::span<const std::vector<row_index>> before) {
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
    void drew(std::size_t s, std::span<const row_index> ids_of_s) {
        marked_[s].insert(marked_[s].end(), ids_of_s.begin(), ids_of_s.end());
    }

private:
    std::vector<row_index> placed_;  // what lies in `map`
    std::vector<std::vector<row_index>> marked_;  // by sequence, what is marked in `seen`
};

template <executor Exec, class T>
struct decode_step {
    step_memory<Exec, T>* memory;
    std::vector<index> lengths;  // by sequence: 1, or 0 for one that waits
    std::vector<std::size_t> sequences;  // of each row
    repeated_work<Exec> given, choosing;  // tokens from the host; tokens chosen by the step
    index known = 0;  // ids that `choosing` chooses from
    sampling_options how;  // and as this says
    std::uint64_t used = 0;  // which call used it last

    decode_step(step_memory<Exec, T>& memory_, std::span<const index> lengths_)
        : memory(&memory_), lengths(lengths_.begin(), lengths_.end()) {
        const std::size_t S = lengths.size();
        rows_.resize(2 * S);
        for (std::size_t s = 0; s < S; ++s) {
            rows_[s] = static_cast<row_index>(sequences.size());
            if (lengths[s]) sequences.push_back(s);
            rows_[S + s] = static_cast<row_index>(sequences.size());
        }
        rows_.resize(2 * S + sequences.size());
        rows_.insert(rows_.end(), sequences.begin(), sequences.end());
    }

    index rows() const { return static_cast<index>(sequences.size()); }
    row_map map() const {
        const view<const row_index, 1> all = memory->map.view();
        const auto S = static_cast<index>(lengths.size()), N = rows();
        return {all.slice(0, S), all.slice(S, S), all.slice(2 * S, N), all.slice(2 * S + N, N)};
    }
    vector_view<row_index> ids() const { return memory->ids.view().slice(0, rows()); }
    vector_view<row_index> position() const {
        return memory->map.view().slice(2 * static_cast<index>(lengths.size()), rows());
    }
    matrix_view<row_index> chosen() const { return memory->chosen.view().slice(0, rows()); }
    // read and marked with a penalty alone: a step that was recorded without one leaves no marks
    matrix_view<unsigned char> seen() const {
        return how.penalises() ? memory->seen.view() : matrix_view<unsigned char>{};
    }

    // the next tokens, of sequences that are `seen` rows long
    void feed(Exec& ex, std::span<const row_index> tokens, const std::vector<index>& seen) {
        ex.copy_from_host(memory->ids.data(), tokens.data(), tokens.size_bytes());
        for (std::size_t n = 0; n < sequences.size(); ++n)
            rows_[2 * lengths.size() + n] = static_cast<row_index>(seen[sequences[n]]);
        memory->place(ex, rows_);
    }
    // what `choosing` does from now on; what was recorded for other options is gone
    void choose_by(index known_, const sampling_options& how_) {
        if (known == known_ && how == how_) return;
        known = known_;
        how = how_;
        choosing = {};
    }
    void advanced() { memory->advance(2 * static_cast<index>(lengths.size()), rows()); }

private:
    std::vector<row_index> rows_;  // begin, end, position, sequence
};

}  // namespace spectral
