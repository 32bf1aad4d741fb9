// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/batch.hpp: what one training or evaluation step reads
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/core/view.hpp>

#include <string>
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

}  // namespace spectral
