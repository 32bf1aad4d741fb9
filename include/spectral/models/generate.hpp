// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/generate.hpp: prompts -> prefill -> one token per sequence and call, with a key/value cache
#pragma once
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
// How a model or a runner decodes: start(sequences, capacity), decode(ids, lengths) -> logits (S, V); choose(ids,
// lengths, count, known, how, seen) -> `count` further ids of each sequence that goes on, or none where it cannot
// choose by itself.
template <class Start, class Decode, class Choose>
struct decoding {
    index most_tokens;  // prompt and answer together
    bool classifies;
    Start start;
    Decode decode;
    Choose choose;
};
template <class Start, class Decode, class Choose>  // clang 14 makes none for an aggregate
decoding(index, bool, Start, Decode, Choose)->decoding<Start, Decode, Choose>;

// Tokens that are chosen without the host looking: an answer that ends among them cost the rest of these.
inline constexpr index chosen_at_once = 8;

template <class Decoding>
std::vector<std::vector<row_index>> continue_prompts(Decoding&& with,
                                                     const std::vector<std::vector<row_index>>& prompts,
                                                     const generation_options& o, const token_callback& on_token) {
    o.sampling.validate();
    check(!with.classifies, "generate", "a classifier has no next token");
    check(!prompts.empty(), "generate", "no prompt");
    index longest = 0;
    for (std::size_t s = 0; s < prompts.size(); ++s) {
        check(!prompts[s].empty(), "generate", "prompt ", s, " is empty: at least one token is needed");
        check(static_cast<index>(prompts[s].size()) <= with.most_tokens, "generate", "prompt ", s,
              ": expected at most ", with.most_tokens, " tokens (the model's context), found ", prompts[s].size());
        longest = std::max(longest, static_cast<index>(prompts[s].size()));
    }
    check(o.max_new_tokens >= 0, "generate", "max_new_tokens: expected at least 0, found ", o.max_new_tokens);
    with.start(static_cast<index>(prompts.size()), longest + std::min(o.max_new_tokens, with.most_tokens - longest));

    const auto count = prompts.size();
    std::vector<std::vector<row_index>> seen = prompts, out(count);
    std::vector<index> lengths(count);
    std::vector<row_index> ids;
    for (std::size_t s = 0; s < count; ++s) {
        lengths[s] = static_cast<index>(prompts[s].size());
        ids.insert(ids.end(), prompts[s].begin(), prompts[s].end());
    }
    std::vector<char> open(count, true);
    // takes a new token of an open sequence; false: that was its last
    const auto take = [&](std::size_t s, row_index id) {
        const bool ends = std::find(o.end_ids.begin(), o.end_ids.end(), id) != o.end_ids.end();
        if (!ends) {
            out[s].push_back(id);
            seen[s].push_back(id);
        }
        const bool full = static_cast<index>(seen[s].size()) >= with.most_tokens;
        return !ends && (!on_token || on_token(static_cast<index>(s), id)) && !full;
    };
    for (index n = 0; n < o.max_new_tokens && std::find(open.begin(), open.end(), true) != open.end();) {
        index chosen = std::min(chosen_at_once, o.max_new_tokens - n);
        for (std::size_t s = 0; s < count; ++s)
            if (open[s]) chosen = std::min(chosen, with.most_tokens - static_cast<index>(seen[s].size()));
        std::vector<row_index> tokens;  // (sequences that go on, chosen)
        if (n > 0 && chosen > 0) tokens = with.choose(ids, lengths, chosen, o.known_ids, o.sampling, seen);
        if (tokens.empty()) {
            const std::vector<float> logits =
                with.decode(std::span<const row_index>(ids), std::span<const index>(lengths));
            const std::size_t V = logits.size() / count;
            const std::size_t known = o.known_ids > 0 ? std::min(V, static_cast<std::size_t>(o.known_ids)) : V;
            chosen = 1;
            for (std::size_t s = 0; s < count; ++s)
                if (open[s])
                    tokens.push_back(
                        sample_token(std::span(logits).subspan(s * V, known), seen[s], o.sampling,
                                     draw_number(static_cast<index>(s), static_cast<index>(seen[s].size()))));
        }
        ids.clear();
        for (std::size_t s = 0, row = 0; s < count; ++s) {
            lengths[s] = 0;
            if (!open[s]) continue;
            for (index i = 0; i < chosen && open[s]; ++i)
                open[s] = take(s, tokens[row * static_cast<std::size_t>(chosen) + static_cast<std::size_t>(i)]);
            ++row;
            if (!open[s]) continue;
            ids.push_back(seen[s].back());
            lengths[s] = 1;
        }
        n += chosen;
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
        detail::decoding{model.stack.longest(), model.is_classifier(),
                         [&](index sequences, index capacity) {
                             state = model.stack.make_decode_state(model.ex, sequences, capacity);
                         },
                         [&](auto ids, auto lengths) {
                             const auto logits = to_host_widened(model.ex, model.decode(ids, lengths, state));
                             return std::vector<float>(logits.begin(), logits.end());
                         },
                         [&](auto& ids, auto& lengths, index count, index known, auto& how, auto& seen) {
                             if (!model.chooses(lengths, state)) return std::vector<row_index>{};
                             return model.choose(ids, lengths, count, known, state, how, seen);
                         }},
        prompts, o, on_token);
}

// The same of a runner (models/runner.hpp), which keeps the state itself.
template <class Runner>
    requires requires(Runner& r, index n) { r.start_decoding(n, n); }
std::vector<std::vector<row_index>> generate(Runner& r, const std::vector<std::vector<row_index>>& prompts,
                                             const generation_options& o, const token_callback& on_token = {}) {
    return detail::continue_prompts(
        detail::decoding{r.facts().longest, r.facts().classifies,
                         [&](index sequences, index capacity) { r.start_decoding(sequences, capacity); },
                         [&](auto ids, auto lengths) { return r.decode(ids, lengths); },
                         [&](auto& ids, auto& lengths, index count, index known, auto& how, auto& seen) {
                             return r.choose(ids, lengths, count, known, how, seen);
                         }},
        prompts, o, on_token);
}

}  // namespace spectral
