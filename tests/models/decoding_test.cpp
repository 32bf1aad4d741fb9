// SPDX-License-Identifier: Apache-2.0
// tests/models/decoding_test.cpp: cached generation gives the logits of the whole sequence, however its tokens arrive
#include "model_test.hpp"

namespace spectral::test::decoding_test {

namespace {
// new tokens of every sequence, call by call
struct arrival {
    const char* name;
    std::vector<std::vector<index>> calls;
};
const std::vector<arrival> arrivals{
    {"one token at a time", {{1}, {1}, {1}, {1}, {1}, {1}, {1}}},
    {"several at once", {{3}, {2}, {4}}},
    {"one by one after a prefill", {{6}, {1}, {1}, {1}}},
    {"three sequences of unequal length", {{3, 1, 5}, {1, 1, 1}, {2, 3, 1}, {1, 1, 2}}},
    {"sequences that wait", {{4, 2, 0}, {0, 1, 3}, {1, 0, 1}}},
};

// every call's logits against those of each sequence alone and without a cache
template <class Target, class Model>
void check_arrival(Model& model, const arrival& a, const std::string& about) {
    using T = typename Target::scalar;
    const index V = model.config.vocab_size, S = static_cast<index>(a.calls.front().size());
    std::vector<std::vector<row_index>> ids;
    std::vector<std::vector<double>> want;
    for (index s = 0; s < S; ++s) {
        index total = 0;
        for (const auto& call : a.calls) total += call[static_cast<std::size_t>(s)];
        ids.push_back(random_ids(total, V, 70 + static_cast<std::uint64_t>(s)));
        want.push_back(logits_of(model, ids.back(), 1));
    }
    auto state = model.stack.make_decode_state(model.ex, S, 16);
    for (std::size_t call = 0; call < a.calls.size(); ++call) {
        std::vector<row_index> now;
        for (std::size_t s = 0; s < ids.size(); ++s) {
            const auto first = ids[s].begin() + state.length[s];
            now.insert(now.end(), first, first + a.calls[call][s]);
        }
        const auto host = to_host(model.ex, model.decode(now, a.calls[call], state));
        const std::vector<double> got(host.begin(), host.end());
        for (index s = 0; s < S; ++s) {
            if (a.calls[call][static_cast<std::size_t>(s)] == 0) {
                CHECK(largest(rows_of(got, V, s, s + 1)) == 0);
                continue;
            }
            const index t = state.length[static_cast<std::size_t>(s)];
            const auto expected = rows_of(want[static_cast<std::size_t>(s)], V, t - 1, t);
            compare(rows_of(got, V, s, s + 1), expected, model_tolerance<T>(expected),
                    {"decode", "logits", Target::executor_name(), scalar_name<T>,
                     about + ", " + a.name + ", call " + std::to_string(call) + ", sequence " + std::to_string(s)});
        }
    }
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("decode: cached equals uncached", "[models][decoding]", model_targets) {
    for (const named_config& entry : causal_configs())
        with_model<TestType>(entry.config, [&](auto& model) {
            for (const auto& a : arrivals) check_arrival<TestType>(model, a, entry.name);
        });
}

// A gate pooled over a batch or a sequence is fixed at prefill: the prompt's logits are exact, what follows keeps its
// gate.
TEMPLATE_LIST_TEST_CASE("decode: batch and sequence pooling keep the prompt's gate", "[models][decoding]",
                        model_targets) {
    using T = typename TestType::scalar;
    for (meta_pool pool : {meta_pool::batch, meta_pool::sequence}) {
        auto c = tiny_config();
        c.meta_pool = pool;
        with_model<TestType>(c, [&](auto& model) {
            const auto ids = random_ids(12, c.vocab_size, 3);
            const auto whole = logits_of(model, ids, 2);
            auto state = model.stack.make_decode_state(model.ex, 2, 16);
            route_trace trace;
            model.trace = &trace;
            const std::vector<index> prompt{6, 6}, next{1, 1};
            const auto host = to_host(model.ex, model.decode(ids, prompt, state));
            const std::vector<double> got(host.begin(), host.end());
            for (index s = 0; s < 2; ++s) {
                const auto want = rows_of(whole, c.vocab_size, 6 * s + 5, 6 * s + 6);
                compare(rows_of(got, c.vocab_size, s, s + 1), want, model_tolerance<T>(want),
                        {"decode", "prompt", TestType::executor_name(), scalar_name<T>, ""});
            }
            const auto gate = trace.meta_gate;
            CHECK(gate.size() == (pool == meta_pool::batch ? 1 : 2));
            for (row_index id : {1, 2, 3}) {
                model.decode(std::vector<row_index>{id, id}, next, state);
                CHECK(trace.meta_gate == gate);
            }
        });
    }
}

// A fresh state starts over; the order in which sequences lie in a batch is of no account.
TEMPLATE_LIST_TEST_CASE("decode: states are independent", "[models][decoding]", model_targets) {
    const auto c = tiny_config();
    with_model<TestType>(c, [&](auto& model) {
        const auto one = random_ids(5, c.vocab_size, 8), two = random_ids(5, c.vocab_size, 9);
        const std::vector<index> all{5};
        auto first = model.stack.make_decode_state(model.ex, 1, 8),
             second = model.stack.make_decode_state(model.ex, 1, 8);
        const auto a = to_host(model.ex, model.decode(one, all, first));
        model.decode(two, all, second);
        auto third = model.stack.make_decode_state(model.ex, 1, 8);
        CHECK(to_host(model.ex, model.decode(one, all, third)) == a);
    });
}

// Tokens chosen where the logits are, the most likely or drawn, are those the host would choose; a restarted state
// begins anew.
TEMPLATE_LIST_TEST_CASE("decode: tokens that choose themselves", "[models][decoding]", model_targets) {
    auto hard = tiny_config();
    hard.routing_mode = routing_mode::hard;
    for (const auto& c : {tiny_config(), hard})
        with_model<TestType>(c, [&](auto& model) {
            const std::vector<index> prompt{4, 2}, one{1, 1};
            const auto ids = random_ids(6, c.vocab_size, 8);
            auto state = model.stack.make_decode_state(model.ex, 2, 16),
                 other = model.stack.make_decode_state(model.ex, 2, 16);
            const auto likeliest = [&](auto logits) {
                const auto z = to_host(model.ex, logits);
                std::vector<row_index> out;
                for (index s = 0; s < 2; ++s) {
                    const auto row = z.begin() + s * c.vocab_size;
                    out.push_back(static_cast<row_index>(std::max_element(row, row + c.vocab_size) - row));
                }
                return out;
            };
            for (int turn = 0; turn < 3; ++turn) {  // recorded steps of the first turn serve the others
                std::vector<std::vector<row_index>> want{likeliest(model.decode(ids, prompt, state))};
                for (int t = 0; t < 7; ++t) want.push_back(likeliest(model.decode(want.back(), one, state)));
                const auto first = likeliest(model.decode(ids, prompt, other));
                CHECK(first == want[0]);
                auto got = model.choose(first, one, 3, 0, other);
                const auto more = model.choose(std::vector<row_index>{got[2], got[5]}, one, 4, c.vocab_size, other);
                for (std::size_t s = 0; s < 2; ++s)
                    for (std::size_t t = 0; t < 7; ++t)
                        CHECK((t < 3 ? got[3 * s + t] : more[4 * s + t - 3]) == want[t + 1][s]);
                CHECK(other.length == state.length);
                state.restart(model.ex);
                other.restart(model.ex);
            }
            // With a penalty, without, and with it again: marks on the device must follow. Prompts of one length: what
            // was marked for one must go before the next.
            const sampling_options penalty{.temperature = 1.5, .top_p = 0.9, .repetition_penalty = 1.3, .seed = 4};
            sampling_options drawn = penalty;
            drawn.repetition_penalty = 1;
            for (const auto& between : {drawn, sampling_options{.temperature = 0}})
                for (std::uint64_t turn = 0; turn < 6; ++turn) {
                    const auto begin = random_ids(6, c.vocab_size, 20 + turn);
                    std::vector<std::vector<row_index>> seen{{begin.begin(), begin.begin() + 4},
                                                             {begin.begin() + 4, begin.end()}};
                    const auto draw = [&](auto logits, const sampling_options& how) {
                        const auto z = to_host_widened(model.ex, logits);
                        const std::vector<float> values(z.begin(), z.end());
                        std::vector<row_index> out;
                        for (std::size_t s = 0; s < 2; ++s) {
                            const auto V = static_cast<std::size_t>(c.vocab_size);
                            const auto number = draw_number(static_cast<index>(s), static_cast<index>(seen[s].size()));
                            out.push_back(sample_token(std::span(values).subspan(s * V, V), seen[s], how, number));
                            seen[s].push_back(out[s]);
                        }
                        return out;
                    };
                    auto last = draw(model.decode(begin, prompt, state), penalty);
                    model.decode(begin, prompt, other);
                    for (const auto& how : {penalty, between, penalty}) {
                        const auto got = model.choose(last, one, 3, 0, other, how, seen);
                        std::vector<row_index> want(6);
                        for (std::size_t t = 0; t < 3; ++t) {
                            last = draw(model.decode(last, one, state), how);
                            want[t] = last[0], want[3 + t] = last[1];
                        }
                        CHECK(got == want);
                    }
                    state.restart(model.ex);
                    other.restart(model.ex);
                }
        });
}

// What a penalty reads is marked whichever steps drew, with it or without.
TEMPLATE_LIST_TEST_CASE("decode: a penalty sees what other steps drew", "[models][decoding]", model_targets) {
    const auto c = tiny_config();
    with_model<TestType>(c, [&](auto& model) {
        // so hot that nearly every draw is an id that had not come
        const sampling_options penalty{.temperature = 30, .repetition_penalty = 1.8, .seed = 4};
        sampling_options plain = penalty;
        plain.repetition_penalty = 1;
        const std::vector<index> prompt{2, 2}, both{1, 1}, one{1, 0};
        const auto begin = random_ids(4, c.vocab_size, 20);
        auto state = model.stack.make_decode_state(model.ex, 2, 24),
             other = model.stack.make_decode_state(model.ex, 2, 24);
        std::vector<std::vector<row_index>> seen{{begin[0], begin[1]}, {begin[2], begin[3]}};
        {  // so that the arena does not grow, and steps are not recorded anew, when the penalty comes
            auto first = model.stack.make_decode_state(model.ex, 2, 24);
            model.decode(begin, prompt, first);
            model.choose(std::vector<row_index>{begin[1], begin[3]}, both, 1, 0, first, penalty, seen);
        }
        model.decode(begin, prompt, state);
        model.decode(begin, prompt, other);
        for (int turn = 0; turn < 16; ++turn) {  // the steps without a penalty are recorded before the first with one
            const bool penalises = turn > 6 && turn % 2;
            const auto& lengths = penalises ? one : both;
            const auto& how = penalises ? penalty : plain;
            std::vector<row_index> last{seen[0].back()};
            if (lengths[1]) last.push_back(seen[1].back());
            // the prompt's last token is read once more: any id may follow
            const auto z = to_host_widened(model.ex, model.decode(last, lengths, state));
            const std::vector<float> values(z.begin(), z.end());
            std::vector<row_index> want;
            for (std::size_t s = 0; s < last.size(); ++s) {
                const auto V = static_cast<std::size_t>(c.vocab_size);
                want.push_back(sample_token(std::span(values).subspan(s * V, V), seen[s], how,
                                            draw_number(static_cast<index>(s), state.length[s])));
            }
            CHECK(model.choose(last, lengths, 1, 0, other, how, seen) == want);
            for (std::size_t s = 0; s < want.size(); ++s) seen[s].push_back(want[s]);
            if (!penalises) continue;
            std::vector<unsigned char> marks(static_cast<std::size_t>(c.vocab_size));
            for (row_index id : seen[0]) marks[static_cast<std::size_t>(id)] = 1;
            CHECK(to_host(model.ex, vector_view<unsigned char>(other.memory_of_steps->seen.view().row(0),
                                                               {c.vocab_size})) == marks);
        }
    });
}

// The steps of a state share their memory, whichever sequences go on; those used longest ago are forgotten.
TEMPLATE_LIST_TEST_CASE("decode: many steps of one state", "[models][decoding]", model_targets) {
    using T = typename TestType::scalar;
    auto c = tiny_config();
    c.max_seq_len = 260;
    with_model<TestType>(c, [&](auto& model) {
        auto& ex = model.ex;
        const index S = 8, V = c.vocab_size;
        std::vector<std::vector<row_index>> ids;
        for (index s = 0; s < S; ++s) ids.push_back(random_ids(260, V, 40 + static_cast<std::uint64_t>(s)));
        auto state = model.stack.make_decode_state(ex, S, 260);
        std::vector<double> last(static_cast<std::size_t>(S * V));  // logits of each sequence's last row
        const auto take = [&](const std::vector<index>& lengths) {
            std::vector<row_index> now;
            for (std::size_t s = 0; s < lengths.size(); ++s)
                for (index n = 0; n < lengths[s]; ++n)
                    now.push_back(ids[s][static_cast<std::size_t>(state.length[s] + n)]);
            const auto got = to_host(ex, model.decode(now, lengths, state));
            for (std::size_t s = 0; s < lengths.size(); ++s)
                if (lengths[s])
                    for (std::size_t v = s * static_cast<std::size_t>(V); v < (s + 1) * static_cast<std::size_t>(V);
                         ++v)
                        last[v] = static_cast<double>(got[v]);
        };
        const std::vector<index> all(static_cast<std::size_t>(S), 1);
        take(std::vector<index>(static_cast<std::size_t>(S), 2));
        for (int i = 0; i < 3; ++i) take(all);
        const auto before = ex.allocations();
        std::vector<index> some(static_cast<std::size_t>(S));
        for (int i = 0; i < 75; ++i) {  // the last five are the first ones again, forgotten by then
            const int bits = 1 + i % 70 * 37 % 255;
            for (std::size_t s = 0; s < some.size(); ++s) some[s] = bits >> s & 1;
            for (int time = 0; time < 4; ++time) take(some);  // as it is, recorded, repeated
            take(all);
        }
        CHECK(ex.allocations() == before);
        CHECK(state.steps.size() <= 64);
        for (index s = 0; s < S; ++s) {
            const index t = state.length[static_cast<std::size_t>(s)];
            const auto& own = ids[static_cast<std::size_t>(s)];
            const auto want = rows_of(logits_of(model, {own.begin(), own.begin() + t}, 1), V, t - 1, t);
            compare(rows_of(last, V, s, s + 1), want, model_tolerance<T>(want),
                    {"decode", "logits", TestType::executor_name(), scalar_name<T>, "sequence " + std::to_string(s)});
        }
    });
}

// A recorded step names its scratch memory: where the caller holds some of the arena it is another step.
TEMPLATE_LIST_TEST_CASE("decode: inside a caller's scope of the arena", "[models][decoding]", model_targets) {
    const auto c = tiny_config();
    with_model<TestType>(c, [&](auto& model) {
        auto& ex = model.ex;
        const auto ids = random_ids(12, c.vocab_size, 3);
        const std::vector<index> prompt{4}, one{1};
        auto state = model.stack.make_decode_state(ex, 1, 16), other = model.stack.make_decode_state(ex, 1, 16);
        const auto first = std::span<const row_index>(ids).first(4);
        model.decode(first, prompt, state);
        model.decode(first, prompt, other);
        for (std::size_t t = 4; t < ids.size(); ++t) {
            const auto now = std::span<const row_index>(ids).subspan(t, 1);
            const auto want = to_host(ex, model.decode(now, one, state));
            arena_scope scope(ex);
            vector_view<row_index> held;
            if (t > 8) held = ex.memory().template vector<row_index>(5000);
            ex.fill_bytes(held.data, 0, static_cast<std::size_t>(held.size()) * sizeof(row_index));
            CHECK(to_host(ex, model.decode(now, one, other)) == want);
            CHECK(to_host(ex, held) == std::vector<row_index>(static_cast<std::size_t>(held.size())));
        }
    });
}

TEST_CASE("decode: sentences", "[models][decoding]") {
    const auto c = tiny_config();
    with_model<oracle>(c, [&](auto& model) {
        auto state = model.stack.make_decode_state(model.ex, 1, 8);
        const auto ids = random_ids(30, c.vocab_size, 8);
        const auto decode = [&](index n, std::vector<index> lengths) {
            model.decode(std::span<const row_index>(ids).first(static_cast<std::size_t>(n)), lengths, state);
        };
        check_throws([&] { decode(25, {25}); },
                     {"decode", "sequence 0", "at most 24 tokens (the model's context)", "found 25"});
        check_throws([&] { decode(9, {9}); },
                     {"decode", "sequence 0", "at most 8 tokens (capacity of the state)", "found 9"});
        check_throws([&] { decode(2, {1, 1}); }, {"decode", "sequences", "expected 1", "found 2"});
        check_throws([&] { decode(3, {2}); }, {"decode", "ids", "expected 2", "found 3"});
        check_throws([&] { model.decode(std::vector<row_index>{29}, std::vector<index>{1}, state); },
                     {"ids", "id 0", "expected 0 to 28 (vocab_size)", "found 29"});
        CHECK(state.length[0] == 0);
        decode(8, {8});
        check_throws([&] { decode(1, {1}); }, {"capacity", "found 9"});
    });
    auto bidirectional = c;
    bidirectional.layer_variant = layer_variant::dct_rbf_attn;
    bidirectional.rbf_causal = false;
    with_model<oracle>(bidirectional, [&](auto& model) {
        auto state = model.stack.make_decode_state(model.ex, 1, 8);
        check_throws([&] { model.decode(std::vector<row_index>{1}, std::vector<index>{1}, state); },
                     {"rbf_mixer", "bidirectional", "cannot generate"});
    });
}

}  // namespace spectral::test::decoding_test
