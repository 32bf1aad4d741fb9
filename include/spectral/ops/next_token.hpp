// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/next_token.hpp: the next token where the logits are, and rows that move on by one
//   id = argmax_v logits[sequence[n], v], v < known (the first of equals);  ids[n] = id;  chosen[n, position[n]] = id
// If a logit is NaN, chosen gets -1 (the host says so when it looks) and ids 0.
// Shapes: logits (S, V); sequence, position, ids (N); chosen (N, positions).
// Throws error for other shapes and for `known` outside [1, V].
#pragma once
#include <spectral/core/executor.hpp>

namespace spectral {

template <executor Exec, class T>
void choose_tokens(Exec& ex, const_matrix<T> logits, index known, const_vector<row_index> sequence,
                   const_vector<row_index> position, out_vector<row_index> ids, out_matrix<row_index> chosen) {
    check(known > 0 && known <= logits.width(), "choose_tokens", "known ids: expected 1 to ", logits.width(),
          ", found ", known);
    check_shape(sequence, {ids.size()}, "choose_tokens", "sequence");
    check_shape(position, {ids.size()}, "choose_tokens", "position");
    check_equal(chosen.rows(), ids.size(), "choose_tokens", "rows of chosen");
    SPECTRAL_CALL_KERNEL(choose_tokens_kernel, ex, logits, known, sequence, position, ids, chosen);
}

// position[n] += 1
template <executor Exec>
void advance_rows(Exec& ex, vector_view<row_index> position) {
    SPECTRAL_CALL_KERNEL(advance_rows_kernel, ex, position);
}

}  // namespace spectral
