// SPDX-License-Identifier: Apache-2.0
// include/spectral/io/names.hpp: quoting and suggesting names in error sentences
#pragma once
#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace spectral {

// "name" in quotes, fit for a terminal: control characters as '?', long names cut. Names in files are untrusted.
inline std::string in_quotes(std::string_view name, std::size_t longest = 80) {
    std::string out = "\"";
    std::size_t kept = std::min(name.size(), longest);
    while (kept < name.size() && kept > 0 && (static_cast<unsigned char>(name[kept]) & 0xc0) == 0x80) --kept;
    for (char c : name.substr(0, kept)) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    if (kept < name.size()) out += "...";
    return out + '"';
}

// Levenshtein distance in bytes, one row at a time.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
        }
    }
    return row[b.size()];
}

// The candidate nearest to `name`, or "" when none is near enough to be worth suggesting (more than a third of the
// letters differ). The first of equals wins.
//   nearest_name("vocab_siez", std::vector<std::string>{"hidden_size", "vocab_size"}) == "vocab_size"
template <class Candidates>
std::string nearest_name(std::string_view name, const Candidates& candidates) {
    std::string best;
    std::size_t best_distance = name.size() / 3 + 2;
    for (const auto& candidate : candidates) {
        const std::string_view c = candidate;
        const std::size_t gap = c.size() > name.size() ? c.size() - name.size() : name.size() - c.size();
        if (gap >= best_distance) continue;  // the distance is at least the difference in length
        const std::size_t distance = edit_distance(name, c);
        if (distance < best_distance) {
            best_distance = distance;
            best = std::string(c);
        }
    }
    return best;
}

// "; did you mean "x"?" or nothing: the end of an error sentence
template <class Candidates>
std::string suggestion(std::string_view name, const Candidates& candidates) {
    const std::string near = nearest_name(name, candidates);
    return near.empty() ? std::string() : "; did you mean " + in_quotes(near) + "?";
}

}  // namespace spectral
