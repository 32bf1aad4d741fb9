// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/few_rows.hpp: the halves of a block as one operator each, where a backend has them for few rows
//   attention half      y = x + W_o attention(rot(W_q x̂ + b_q)) + b_o over the cache, which takes
//                       rot(W_k x̂ + b_k) and W_v x̂ + b_v
//   feed-forward half   y = x + W_down (SiLU(W_gate x̂) ⊙ W_up x̂)
//   head                logits = W x̂                              x̂ = RMSNorm(x), or x where γ is empty
// Decoding reads every weight once a token and does little else, so what counts is that reading never pauses: a backend
// may fuse a half into few kernels that read weights ahead. Each function answers whether it did the work: false means
// that the backend has no such kernel, or none for these shapes, and the caller composes smaller operators.
// Parameters are read ahead of the work queued before: a kernel queued directly before must not be writing them.
// Throws error where y or the logits have another shape, and where a row attends that appends no key.
#pragma once
#include <spectral/core/rows.hpp>
#include <spectral/ops/kv_cache.hpp>
#include <spectral/ops/linear.hpp>

#include <cstdint>
#include <variant>

namespace spectral {

// W x + b + scale · B A x
template <class T>
struct projection {
    weight_view<T> weight;  // (O, I)
    view<const T, 1> bias;  // (O), or empty
    view<const T, 2> a = {}, b = {};  // (r, I), (O, r); empty without an adapter
    double scale = 0;
};

// A block's attention with the norm before it and the residual.
template <class T>
struct attention_half {
    view<const T, 1> gamma;  // (C) of the norm before; empty: none
    double eps = 0;
    projection<T> q, k, v, o;  // to H·D, Hkv·D, Hkv·D and back to C
    view<const statistic<T>, 2> rotary;  // (positions, D); empty: no rotation
    index heads = 1, kv_heads = 1;
    double scale = 1;  // of the scores
    std::array<weight_view<T>, 3> next = {};  // read after this half: may be brought nearer meanwhile
};

// A block's gated feed-forward with the norm before it and the residual.
template <class T>
struct feed_forward_half {
    view<const T, 1> gamma;
    double eps = 0;
    projection<T> gate, up, down;
};

// A half of a block in a step of decoding, where every row is the next of its sequence: the rows that take part, bit n
// for row n, and those that append their keys and values. Other rows keep their x.
template <class T>
struct block_half {
    std::variant<attention_half<T>, feed_forward_half<T>> half;
    std::uint32_t rows = ~0u, keys = ~0u;
    kv_cache<T> cache = {};  // of attention
};

// Causal; rows of `rows` continue their sequences in `cache`. y may not be the memory of x.
template <executor Exec, class T>
bool attention_half_forward(Exec& ex, const_matrix<T> x, const std::type_identity_t<attention_half<T>>& half,
                            const row_map& rows, kv_cache<T> cache, matrix_view<T> y) {
    check_shape(y, {x.rows(), x.width()}, "attention_half_forward", "y");
    if constexpr (requires { attention_half_kernel(ex, x, half, rows, cache, y); })
        return attention_half_kernel(ex, x, half, rows, cache, y);
    else
        return false;
}

template <executor Exec, class T>
bool feed_forward_half_forward(Exec& ex, const_matrix<T> x, const std::type_identity_t<feed_forward_half<T>>& half,
                               matrix_view<T> y) {
    check_shape(y, {x.rows(), x.width()}, "feed_forward_half_forward", "y");
    if constexpr (requires { feed_forward_half_kernel(ex, x, half, y); })
        return feed_forward_half_kernel(ex, x, half, y);
    else
        return false;
}

// y = the halves one after another on x: a whole step, but for embedding and head.
template <executor Exec, class T>
bool block_halves_forward(Exec& ex, const_matrix<T> x, std::type_identity_t<std::span<const block_half<T>>> halves,
                          const row_map& rows, matrix_view<T> y) {
    check_shape(y, {x.rows(), x.width()}, "block_halves_forward", "y");
    for (const auto& h : halves)
        check(!std::holds_alternative<attention_half<T>>(h.half) || (h.rows & ~h.keys) == 0, "block_halves_forward",
              "a row that attends appends its key: expected rows among keys");
    if constexpr (requires { block_halves_kernel(ex, x, halves, rows, y); })
        return block_halves_kernel(ex, x, halves, rows, y);
    else
        return false;
}

template <executor Exec, class T>
bool head_forward(Exec& ex, const_matrix<T> x, const_vector<T> gamma, double eps, const_weight<T> weight,
                  matrix_view<T> logits) {
    check_shape(logits, {x.rows(), weight.rows()}, "head_forward", "logits");
    if constexpr (requires { head_kernel(ex, x, gamma, eps, weight, logits); })
        return head_kernel(ex, x, gamma, eps, weight, logits);
    else
        return false;
}

}  // namespace spectral
