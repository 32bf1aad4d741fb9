// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/sampling.hpp: the next token from logits
//   repetition penalty -> temperature -> top-k -> top-p -> min-p -> draw
// The penalty divides positive logits of tokens seen before and multiplies negative ones (Keskar et al. 2019). top-p
// keeps the smallest set of most likely tokens whose probability reaches p; min-p keeps tokens with at least min-p
// times the largest probability. Temperature 0 takes the most likely token. The n-th draw is a function of (seed, n).
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
        check(repetition_penalty > 0, where, "repetition_penalty: expected more than 0, found ", repetition_penalty);
    }
};

// `seen`: the tokens of the prompt and of the answer so far; `draw_number`: which token of which sequence this is.
inline row_index sample_token(std::span<const float> logits, std::span<const row_index> seen, const sampling_options& o,
                              std::uint64_t draw_number) {
    check(!logits.empty(), "sample_token", "no logits");
    std::vector<double> z(logits.begin(), logits.end());
    for (double& v : z)
        if (std::isnan(v)) fail("sample_token", "a logit is NaN: the model's weights are broken");
    if (o.repetition_penalty != 1) {
        std::vector<row_index> once(seen.begin(), seen.end());
        std::sort(once.begin(), once.end());
        once.erase(std::unique(once.begin(), once.end()), once.end());
        for (row_index id : once) {
            if (static_cast<std::size_t>(id) >= z.size()) break;  // an id of the prompt that is never drawn
            double& v = z[static_cast<std::size_t>(id)];
            v = v > 0 ? v / o.repetition_penalty : v * o.repetition_penalty;
        }
    }
    if (o.temperature == 0) return static_cast<row_index>(std::max_element(z.begin(), z.end()) - z.begin());

    std::vector<row_index> order(z.size());
    std::iota(order.begin(), order.end(), 0);
    const auto more_likely = [&](row_index a, row_index b) {  // ties by id: the same choice everywhere
        const double za = z[static_cast<std::size_t>(a)], zb = z[static_cast<std::size_t>(b)];
        return za != zb ? za > zb : a < b;
    };
    if (o.top_k > 0 && o.top_k < static_cast<index>(order.size())) {
        std::nth_element(order.begin(), order.begin() + o.top_k, order.end(), more_likely);
        order.resize(static_cast<std::size_t>(o.top_k));
    }
    std::sort(order.begin(), order.end(), more_likely);
    std::vector<double> p(order.size());
    const double largest = z[static_cast<std::size_t>(order[0])];
    double total = 0;
    for (std::size_t i = 0; i < p.size(); ++i)
        total += p[i] = std::exp((z[static_cast<std::size_t>(order[i])] - largest) / o.temperature);
    std::size_t kept = 0;
    double mass = 0;
    while (kept < p.size() && (kept == 0 || (mass < o.top_p * total && p[kept] >= o.min_p * p[0]))) mass += p[kept++];

    const random_stream draw{o.seed, stream_of("sample_token")};
    double at = draw.uniform(draw_number) * mass;
    for (std::size_t i = 0; i < kept; ++i)
        if ((at -= p[i]) < 0) return order[i];
    return order[kept - 1];
}

}  // namespace spectral
