// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/next_token.hpp: the next token, rows that move on
#pragma once
#include <spectral/cpu/executor.hpp>
#include <spectral/ops/next_token.hpp>

#include <cmath>

namespace spectral::cpu {

template <class T>
void choose_tokens_kernel(executor&, view<const T, 2> logits, index known, const_vector<row_index> sequence,
                          const_vector<row_index> position, out_vector<row_index> ids, out_matrix<row_index> chosen) {
    for (index n = 0; n < ids.size(); ++n) {
        const T* z = logits.row(sequence[n]);
        row_index best = 0;
        bool broken = false;
        for (index v = 0; v < known; ++v) {
            if (static_cast<double>(z[v]) > static_cast<double>(z[best])) best = static_cast<row_index>(v);
            broken = broken || std::isnan(static_cast<double>(z[v]));
        }
        ids[n] = broken ? 0 : best;
        chosen(n, position[n]) = broken ? -1 : best;
    }
}

// In float, as sampling.hpp orders logits.
template <class T>
void draw_tokens_kernel(executor&, view<const T, 2> logits, index known, const_vector<row_index> sequence,
                        const_vector<row_index> position, const sampling_options& how, matrix_view<unsigned char> seen,
                        out_vector<row_index> ids, out_matrix<row_index> chosen) {
    for (index n = 0; n < ids.size(); ++n) {
        const index s = sequence[n];
        const auto z = penalised_row(std::span(logits.row(s), static_cast<std::size_t>(known)),
                                     seen.data ? seen.row(s) : nullptr, how.repetition_penalty);
        const bool broken = std::any_of(z.begin(), z.end(), [](float v) { return std::isnan(v); });
        const row_index id = broken ? 0 : draw_token(z, how, draw_number(s, position[n] + 1));
        ids[n] = id;
        chosen(n, position[n]) = broken ? -1 : id;
        if (seen.data) seen(s, id) = 1;
    }
}

inline void advance_rows_kernel(executor&, vector_view<row_index> position) {
    for (index n = 0; n < position.size(); ++n) position[n] += 1;
}

}  // namespace spectral::cpu
