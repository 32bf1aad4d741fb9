// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/sampling.hpp: the next token from logits
//   repetition penalty -> temperature -> top-k -> top-p -> min-p -> draw
// The penalty divides positive logits of tokens seen before and multiplies negative ones (Keskar et al. 2019). top-p
// keeps the smallest set of most likely tokens whose probability reaches p; min-p keeps tokens with at least min-p
// times the largest probability. Temperature 0 takes the most likely token. A draw is a function of the seed and of the
// token's place: the same on every executor, whoever else is in the batch.
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/core/random.hpp>
#include <spectral/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

namespace spectral {

// How the next token is drawn from logits; temperature 0: the largest.
struct sampling_options {
    double temperature = 1, top_p = 1, min_p = 0, repetition_penalty = 1;
    index top_k = 0;  // 0: all
    std::uint64_t seed = 0;

    void validate(std::string_view where = "sampling") const {
        check(temperature >= 0 && std::isfinite(temperature), where, "temperature: expected at least 0, found ",
              temperature);
        check(top_k >= 0, where, "top_k: expected at least 0, found ", top_k);
        check(top_p > 0 && top_p <= 1, where, "top_p: expected a number in (0, 1], found ", top_p);
        check(min_p >= 0 && min_p <= 1, where, "min_p: expected a number in [0, 1], found ", min_p);
        check(repetition_penalty > 0 && std::isfinite(repetition_penalty), where,
              "repetition_penalty: expected more than 0, found ", repetition_penalty);
    }
    // of `tokens` tokens, how many top-k leaves
    index candidates(index tokens) const { return top_k > 0 ? std::min(top_k, tokens) : tokens; }
    bool restricts() const { return top_p < 1 || min_p > 0; }
    // no draw, no penalty: the largest logit is the token
    bool likeliest() const { return temperature == 0 && !penalises(); }
    bool penalises() const { return repetition_penalty != 1; }  // it asks for the ids that have come
    random_stream draws() const { return {seed, stream_of("sample_token")}; }
    bool operator==(const sampling_options&) const = default;
};

// The number of a draw: of the token that follows the first `before` of sequence s.
SPECTRAL_HOST_DEVICE inline std::uint64_t draw_number(index s, index before) {
    return static_cast<std::uint64_t>(s) << 32 | static_cast<std::uint64_t>(before);
}
// The logit of a token that was seen before; in float, in which tokens are put in order.
SPECTRAL_HOST_DEVICE inline float penalised(float logit, double penalty) {
    return static_cast<float>(logit > 0 ? logit / penalty : logit * penalty);
}

// The logits of a row in float, those of marked ids after the penalty; no marks, no penalty
template <class T>
std::vector<float> penalised_row(std::span<const T> logits, const unsigned char* marks, double penalty) {
    std::vector<float> z;
    z.reserve(logits.size());
    for (T v : logits) z.push_back(static_cast<float>(v));
    for (std::size_t id = 0; marks && id < z.size(); ++id)
        if (marks[id]) z[id] = penalised(z[id], penalty);
    return z;
}
// One of the ids of these logits, the penalty apart; where the largest is infinite, the first of the largest. Throws
// error for a NaN among them.
inline row_index draw_token(std::span<const float> logits, const sampling_options& o, std::uint64_t number) {
    check(!logits.empty(), "sample_token", "no logits");
    for (float v : logits)
        if (std::isnan(v)) fail("sample_token", "a logit is NaN: the model's weights are broken");
    const auto likeliest = std::max_element(logits.begin(), logits.end());
    if (o.temperature == 0 || !std::isfinite(*likeliest)) return static_cast<row_index>(likeliest - logits.begin());

    const auto z = [&](row_index id) { return logits[static_cast<std::size_t>(id)]; };
    const double largest = *likeliest;  // chances are over its
    const auto chance = [&](row_index id) { return std::exp((z(id) - largest) / o.temperature); };
    // a heap of ids, the most likely first, ties by id: few of them are ever asked for
    const auto less_likely = [&](row_index a, row_index b) { return z(a) != z(b) ? z(a) < z(b) : a > b; };
    std::vector<row_index> heap(logits.size()), order;
    std::iota(heap.begin(), heap.end(), 0);
    std::make_heap(heap.begin(), heap.end(), less_likely);
    const auto nth = [&](std::size_t n) {  // the n-th most likely
        while (order.size() <= n) {
            std::pop_heap(heap.begin(), heap.end(), less_likely);
            order.push_back(heap.back());
            heap.pop_back();
        }
        return order[n];
    };
    const auto candidates = static_cast<std::size_t>(o.candidates(static_cast<index>(logits.size())));
    double total = 0;
    if (candidates < logits.size())
        for (std::size_t i = 0; i < candidates; ++i) total += chance(nth(i));
    else
        for (std::size_t id = 0; id < logits.size(); ++id) total += chance(static_cast<row_index>(id));
    std::size_t kept = candidates;
    double mass = total;
    if (o.restricts()) {
        kept = 1;
        mass = 1;
        for (; kept < candidates && mass < o.top_p * total; ++kept) {
            const double p = chance(nth(kept));
            if (p < o.min_p) break;
            mass += p;
        }
    }
    double at = o.draws().uniform(number) * mass;
    for (std::size_t i = 0; i + 1 < kept; ++i)
        if ((at -= chance(nth(i))) < 0) return order[i];
    return nth(kept - 1);
}

// `seen`: the tokens of the prompt and of the answer so far.
inline row_index sample_token(std::span<const float> logits, std::span<const row_index> seen, const sampling_options& o,
                              std::uint64_t number) {
    if (!o.penalises()) return draw_token(logits, o, number);
    std::vector<float> z(logits.begin(), logits.end());
    for (row_index id : seen)  // an id of the prompt beyond these is never drawn
        if (static_cast<std::size_t>(id) < z.size())
            z[static_cast<std::size_t>(id)] =
                penalised(logits[static_cast<std::size_t>(id)], o.repetition_penalty);  // once, however often
    return draw_token(z, o, number);
}

}  // namespace spectral
