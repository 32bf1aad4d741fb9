// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/generate.hpp: prompts -> prefill -> one token per sequence and call, with a key/value cache
#pragma once
#include <spectral/models/sampling.hpp>
#include <spectral/models/task_model.hpp>

#include <functional>

namespace spectral {

// When to stop, and how to draw.
struct generation_options {
    index max_new_tokens = 100;
    sampling_options sampling = {};
    std::vector<row_index> end_ids = {};  // any of these ends a sequence
    // ids from here on are padding of the vocabulary and never drawn; 0: none are
    index known_ids = 0;
};

// on_token(sequence, id) sees each new token as it comes and returns false to end its sequence (a stop string).
using token_callback = std::function<bool(index, row_index)>;

namespace detail {
// `most_tokens`: prompt and answer together. Prompts, start(sequences, capacity), then decode(ids, lengths) -> logits (S, V) for each further token.
template <class Start, class Decode>
std::vector<std::vector<row_index>> continue_prompts(index most_tokens, bool classifies,
                                                     const std::vector<std::vector<row_index>>& prompts,
                                                     const generation_options& o, const token_callback& on_token,
                                                     Start&& start, Decode&& decode) {
    o.sampling.validate();
    check(!classifies, "generate", "a classifier has no next token");
    check(!prompts.empty(), "generate", "no prompt");
    index longest = 0;
    for (std::size_t s = 0; s < prompts.size(); ++s) {
        check(!prompts[s].empty(), "generate", "prompt ", s, " is empty: at least one token is needed");
        check(static_cast<index>(prompts[s].size()) <= most_tokens, "generate", "prompt ", s, ": expected at most ",
              most_tokens, " tokens (max_seq_len), found ", prompts[s].size());
        longest = std::max(longest, static_cast<index>(prompts[s].size()));
    }
    check(o.max_new_tokens >= 0, "generate", "max_new_tokens: expected at least 0, found ", o.max_new_tokens);
    start(static_cast<index>(prompts.size()), longest + std::min(o.max_new_tokens, most_tokens - longest));

    const auto count = prompts.size();
    std::vector<std::vector<row_index>> seen = prompts, out(count);
    std::vector<index> lengths(count);
    std::vector<row_index> ids;
    for (std::size_t s = 0; s < count; ++s) {
        lengths[s] = static_cast<index>(prompts[s].size());
        ids.insert(ids.end(), prompts[s].begin(), prompts[s].end());
    }
    std::vector<bool> open(count, true);
    for (index n = 0; n < o.max_new_tokens && std::find(open.begin(), open.end(), true) != open.end(); ++n) {
        const std::vector<float> logits = decode(std::span<const row_index>(ids), std::span<const index>(lengths));
        const std::size_t V = logits.size() / count;
        ids.clear();
        for (std::size_t s = 0; s < count; ++s) {
            lengths[s] = 0;
            if (!open[s]) continue;
            const row_index id =
                sample_token(std::span(logits).subspan(
                                 s * V, o.known_ids > 0 ? std::min(V, static_cast<std::size_t>(o.known_ids)) : V),
                             seen[s], o.sampling, static_cast<std::uint64_t>(n) * count + s);
            const bool ends = std::find(o.end_ids.begin(), o.end_ids.end(), id) != o.end_ids.end();
            if (!ends) {
                out[s].push_back(id);
                seen[s].push_back(id);
            }
            const bool full = static_cast<index>(seen[s].size()) >= most_tokens;
            open[s] = !ends && (!on_token || on_token(static_cast<index>(s), id)) && !full;
            if (!open[s]) continue;
            ids.push_back(id);
            lengths[s] = 1;
        }
    }
    return out;
}
}  // namespace detail

// Continues every prompt. Ended sequences are dropped from the batch's work but keep their cache.
template <executor Exec, class T, class Stack>
std::vector<std::vector<row_index>> generate(task_model<Exec, T, Stack>& model,
                                             const std::vector<std::vector<row_index>>& prompts,
                                             const generation_options& o, const token_callback& on_token = {}) {
    decode_state<Exec, T> state;
    return detail::continue_prompts(
        model.stack.longest(), model.is_classifier(), prompts, o, on_token,
        [&](index sequences, index capacity) { state = model.stack.make_decode_state(model.ex, sequences, capacity); },
        [&](auto ids, auto lengths) {
            const auto logits = to_host_widened(model.ex, model.decode(ids, lengths, state));
            return std::vector<float>(logits.begin(), logits.end());
        });
}

// The same of a runner (models/runner.hpp), which keeps the state itself.
template <class Runner>
    requires requires(Runner& r, index n) { r.start_decoding(n, n); }
std::vector<std::vector<row_index>> generate(Runner& r, const std::vector<std::vector<row_index>>& prompts,
                                             const generation_options& o, const token_callback& on_token = {}) {
    return detail::continue_prompts(
        r.facts().longest, r.facts().classifies, prompts, o, on_token,
        [&](index sequences, index capacity) { r.start_decoding(sequences, capacity); },
        [&](auto ids, auto lengths) { return r.decode(ids, lengths); });
}

}  // namespace spectral
