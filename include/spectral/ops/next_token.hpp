// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/next_token.hpp: the next token where the logits are, and rows that move on by one
//   id = one of v < known, chosen from logits[sequence[n]] as sampling.hpp says: the largest (the first of equals), or
//   drawn, number draw_number(sequence[n], position[n] + 1);   ids[n] = id;  chosen[n, position[n]] = id
// If a logit is NaN, chosen gets -1 (the host says so when it looks) and ids 0.
// Shapes: logits (S, V); sequence, position, ids (N); chosen (N, positions). seen (S, V), for a repetition penalty
// alone: not 0 where an id has come in a sequence; it is read, and a drawn id is marked.
// Throws error for other shapes, for `known` outside [1, V] and for options that sampling.hpp refuses.
#pragma once
#include <spectral/core/executor.hpp>
#include <spectral/ops/sampling.hpp>

namespace spectral {

template <executor Exec, class T>
void choose_tokens(Exec& ex, const_matrix<T> logits, index known, const_vector<row_index> sequence,
                   const_vector<row_index> position, out_vector<row_index> ids, out_matrix<row_index> chosen,
                   const sampling_options& how = {.temperature = 0}, out_matrix<unsigned char> seen = {}) {
    check(known > 0 && known <= logits.width(), "choose_tokens", "known ids: expected 1 to ", logits.width(),
          ", found ", known);
    check_shape(sequence, {ids.size()}, "choose_tokens", "sequence");
    check_shape(position, {ids.size()}, "choose_tokens", "position");
    check_equal(chosen.rows(), ids.size(), "choose_tokens", "rows of chosen");
    how.validate("choose_tokens");
    if (how.likeliest()) {
        SPECTRAL_CALL_KERNEL(choose_tokens_kernel, ex, logits, known, sequence, position, ids, chosen);
        return;
    }
    if (how.penalises()) check_shape(seen, {logits.rows(), logits.width()}, "choose_tokens", "seen");
    SPECTRAL_CALL_KERNEL(draw_tokens_kernel, ex, logits, known, sequence, position, how, seen, ids, chosen);
}

// position[n] += 1
template <executor Exec>
void advance_rows(Exec& ex, vector_view<row_index> position) {
    SPECTRAL_CALL_KERNEL(advance_rows_kernel, ex, position);
}

}  // namespace spectral
