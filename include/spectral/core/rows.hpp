// SPDX-License-Identifier: Apache-2.0
// include/spectral/core/rows.hpp: packed sequences (row_map) and subsets of their rows (selection)
//
// Activations are packed rows (N, C): the sequences of a batch one after another, without padding, so that no operator
// needs a mask and no result depends on padding. A row_map says where each sequence lies and where each row stands in
// its sequence. A selection is what a router sends to one operator: ascending row numbers and their count, both kept in
// the executor's memory.
#pragma once
#include <spectral/core/arena.hpp>

#include <span>
#include <vector>

namespace spectral {

// Where packed sequences lie: views of the executor's memory, mostly of its arena.
struct row_map {
    view<const row_index, 1> begin;  // (S) first row of each sequence
    view<const row_index, 1> end;  // (S) one past its last row
    view<const row_index, 1> position;  // (N) position of each row in its sequence
    view<const row_index, 1> sequence;  // (N) which sequence a row belongs to

    index sequences() const { return begin.size(); }
    index rows() const { return position.size(); }
};

// Sequences of the given lengths, packed; the first row of sequence s stands at position first_position[s] (0 if empty:
// decoding continues later in a sequence).
template <executor Exec>
row_map pack_rows(Exec& ex, std::span<const index> lengths, std::span<const index> first_position = {}) {
    index rows = 0;
    for (index n : lengths) {
        check(n >= 0, "pack_rows", "negative sequence length ", n);
        rows += n;
    }
    const auto s = static_cast<index>(lengths.size());
    static thread_local std::vector<row_index> host;  // kept: packing a batch of a known size allocates nothing
    host.resize(static_cast<std::size_t>(s + 1 + 2 * rows));
    host[0] = 0;
    row_index *offset = host.data(), *position = offset + s + 1, *sequence = position + rows;
    for (index i = 0; i < s; ++i) {
        offset[i + 1] = static_cast<row_index>(offset[i] + lengths[i]);
        for (index t = 0; t < lengths[i]; ++t) {
            position[offset[i] + t] = static_cast<row_index>((first_position.empty() ? 0 : first_position[i]) + t);
            sequence[offset[i] + t] = static_cast<row_index>(i);
        }
    }
    auto memory = ex.memory().template vector<row_index>(static_cast<index>(host.size()));
    ex.copy_from_host(memory.data, host.data(), host.size() * sizeof(row_index));
    view<const row_index, 1> all = memory;
    return {all.slice(0, s), all.slice(1, s), all.slice(s + 1, rows), all.slice(s + 1 + rows, rows)};
}

// A batch of B sequences of T rows each.
template <executor Exec>
row_map uniform_rows(Exec& ex, index batch, index time) {
    return pack_rows(ex, std::vector<index>(static_cast<std::size_t>(batch), time));
}

// Counts that an executor sends to the host while further work is queued: ex.send_counts(from, n) -> ticket,
// ex.receive_count(ticket, &count) waits for them; false if they are no longer kept.
struct count_ticket {
    std::int64_t number = -1;
    int which = 0;
};
template <class Exec>
inline constexpr bool sends_counts = requires(Exec& ex, const row_index* from, row_index& to) {
    ex.receive_count(ex.send_counts(from, 1), to);
};

// Which rows an operator runs on. `rows` null: all of 0 .. capacity-1 (the dense model). Otherwise the first *count
// entries of rows are the ascending row numbers; capacity bounds the count.
struct selection {
    const row_index* rows = nullptr;
    const row_index* count = nullptr;
    index capacity = 0;
    count_ticket sent = {};  // the count is on its way to the host, on executors that queue work
    index known = -1;  // the count, where the host made the selection

    static selection all(index n) { return {.capacity = n, .known = n}; }
    bool is_all() const { return rows == nullptr; }
    // the i-th selected row, where the host can read `rows`
    index row(index i) const { return rows ? rows[i] : i; }
};

// These ascending row numbers out of 0 .. capacity-1, copied to the executor's memory.
template <executor Exec>
selection select_list(Exec& ex, std::span<const row_index> rows, index capacity) {
    const auto count = static_cast<row_index>(rows.size());
    auto memory = ex.memory().template vector<row_index>(count + 1);
    if (count) ex.copy_from_host(memory.data, rows.data(), rows.size_bytes());
    ex.copy_from_host(memory.data + count, &count, sizeof count);
    return {.rows = memory.data, .count = memory.data + count, .capacity = capacity, .known = count};
}

// Number of rows the host sizes buffers and launches for: exact where counts are readable by the host (reference, cpu).
template <executor Exec>
index selected_rows(Exec& ex, const selection& s) {
    if (s.known >= 0) return s.known;
    row_index n = 0;
    if constexpr (sends_counts<Exec>)
        if (ex.receive_count(s.sent, n)) return n;
    ex.copy_to_host(&n, s.count, sizeof n);
    return n;
}

}  // namespace spectral
