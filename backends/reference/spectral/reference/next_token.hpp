// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/next_token.hpp: the next token, rows that move on
#pragma once
#include <spectral/ops/next_token.hpp>
#include <spectral/reference/executor.hpp>

#include <cmath>

namespace spectral::reference {

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

// In float, as sampling.hpp orders logits; by sorting all of them.
template <class T>
void draw_tokens_kernel(executor&, view<const T, 2> logits, index known, const_vector<row_index> sequence,
                        const_vector<row_index> position, const sampling_options& how, matrix_view<unsigned char> seen,
                        out_vector<row_index> ids, out_matrix<row_index> chosen) {
    for (index n = 0; n < ids.size(); ++n) {
        const index s = sequence[n];
        const auto z = penalised_row(std::span(logits.row(s), static_cast<std::size_t>(known)),
                                     seen.data ? seen.row(s) : nullptr, how.repetition_penalty);
        const bool broken = std::any_of(z.begin(), z.end(), [](float v) { return std::isnan(v); });
        const auto value = [&](row_index v) { return z[static_cast<std::size_t>(v)]; };
        std::vector<row_index> order(z.size());
        std::iota(order.begin(), order.end(), 0);
        if (!broken)
            std::stable_sort(order.begin(), order.end(), [&](row_index a, row_index b) { return value(a) > value(b); });
        order.resize(static_cast<std::size_t>(how.candidates(known)));
        const double largest = value(order[0]);
        std::size_t drawn = 0;
        if (how.temperature > 0 && std::isfinite(largest)) {
            std::vector<double> p;
            double total = 0, mass = 0;
            for (row_index v : order) total += p.emplace_back(std::exp((value(v) - largest) / how.temperature));
            std::size_t kept = 0;
            while (kept < p.size() && (kept == 0 || (mass < how.top_p * total && p[kept] >= how.min_p)))
                mass += p[kept++];
            double at = how.draws().uniform(draw_number(s, position[n] + 1)) * mass;
            while (drawn + 1 < kept && (at -= p[drawn]) >= 0) ++drawn;
        }
        const row_index id = broken ? 0 : order[drawn];
        ids[n] = id;
        chosen(n, position[n]) = broken ? -1 : id;
        if (seen.data) seen(s, id) = 1;
    }
}

inline void advance_rows_kernel(executor&, vector_view<row_index> position) {
    for (index n = 0; n < position.size(); ++n) position[n] += 1;
}

}  // namespace spectral::reference
