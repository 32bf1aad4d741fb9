// SPDX-License-Identifier: Apache-2.0
// tests/models/skip_gates_test.cpp: each sequence by its own gates: alone, among others, with a cache, in a generation
#include <spectral/data/padding.hpp>
#include <spectral/models/generate.hpp>
#include "gated_qwen2.hpp"

namespace spectral::test::skip_gates_test {

using namespace gated_qwen2;

namespace {
// the gates at bias 0: the bias drawn leaves all open, or all closed
template <class Model>
void let_gates_decide(Model& m) {
    using T = typename Model::scalar;
    for (auto& gate : m.stack.gates) {
        const T middle = 0;
        m.ex.copy_from_host(gate.bias.value.data, &middle, sizeof middle);
    }
}

// Gates that decide by what they read: about half of (block, sequence) closed.
template <class Target>
struct routed_model : made<Target> {
    explicit routed_model(skip_gate_options o) : made<Target>(with(o)) {}
    static layer_route_model with(const skip_gate_options& o) {
        auto m = adapted();
        m.route.gates = o;
        return m;
    }
    // nats of each row of sequence `ids`, whose prompt is its first `prompt` tokens, without a cache
    double nats(const std::vector<std::vector<row_index>>& sequences, const std::vector<index>& prompts) {
        batch b;
        b.prompt_lengths = prompts;
        for (const auto& ids : sequences) {
            b.lengths.push_back(static_cast<index>(ids.size()) - 1);
            b.ids.insert(b.ids.end(), ids.begin(), ids.end() - 1);
            b.targets.insert(b.targets.end(), ids.begin() + 1, ids.end());
        }
        for (std::size_t s = 0, row = 0; s < prompts.size(); row += sequences[s++].size() - 1)
            std::fill_n(b.targets.begin() + static_cast<std::ptrdiff_t>(row), prompts[s] - 1, -1);  // the answer alone
        return this->model.run(b, phase::evaluation).nats;
    }
    // the same from a generation of all sequences side by side: prefill, then token by token
    double decoded_nats(const std::vector<std::vector<row_index>>& sequences, const std::vector<index>& prompts) {
        auto state = this->stack().make_decode_state(this->model.ex, static_cast<index>(sequences.size()), 16);
        double sum = 0;
        for (index step = 0;; ++step) {
            std::vector<row_index> ids;
            std::vector<index> lengths(sequences.size());
            for (std::size_t s = 0; s < sequences.size(); ++s) {
                const auto first = step == 0 ? 0 : prompts[s] + step - 1, last = prompts[s] + step;
                if (last >= static_cast<index>(sequences[s].size())) continue;
                ids.insert(ids.end(), sequences[s].begin() + first, sequences[s].begin() + last);
                lengths[s] = last - first;
            }
            if (ids.empty()) return sum;
            const auto host = to_host(this->model.ex, this->model.decode(ids, lengths, state));
            for (std::size_t s = 0; s < sequences.size(); ++s) {
                if (lengths[s] == 0) continue;
                const auto z =
                    rows_of({host.begin(), host.end()}, vocabulary, static_cast<index>(s), static_cast<index>(s) + 1);
                double total = 0;
                for (double v : z) total += std::exp(v);
                sum += std::log(total) -
                       z[static_cast<std::size_t>(sequences[s][static_cast<std::size_t>(prompts[s] + step)])];
            }
        }
    }
};
}  // namespace

TEMPLATE_LIST_TEST_CASE("layer_route: each sequence follows its own gates, alone, in a batch and with a cache",
                        "[models][layer_route]", model_targets) {
    using T = typename TestType::scalar;
    const double bound = std::is_same_v<T, double> ? 1e-12 : 1e-5;
    std::vector<std::vector<row_index>> sequences;
    std::vector<index> prompts;
    for (index n : {4, 9, 6, 12, 2, 7}) {
        prompts.push_back(n);
        sequences.push_back(random_ids(n + 3, vocabulary, 30 + static_cast<std::uint64_t>(n)));
    }
    for (gate_scope scope : scopes)
        for (gate_pool pool : {gate_pool::prompt, gate_pool::last_prompt_token}) {
            INFO(name_of(scope) << ", pool " << static_cast<int>(pool));
            routed_model<TestType> m({.pool = pool, .scope = scope});
            let_gates_decide(m.model);
            double alone = 0, closed = 0;
            for (std::size_t s = 0; s < sequences.size(); ++s) {
                alone += m.nats({sequences[s]}, {prompts[s]});
                for (double g : m.model.gates().hard) closed += 1 - g;
            }
            CHECK(closed > 2);
            CHECK(closed < static_cast<double>(blocks * static_cast<index>(sequences.size())) - 2);
            CHECK(m.nats(sequences, prompts) == Approx(alone).epsilon(bound));
            CHECK(m.decoded_nats(sequences, prompts) == Approx(alone).epsilon(bound));
        }
}

// Logits of a sequence alone against those among others: at prefill and at every later token, whatever its mates decide
// and whichever side the batch came padded on.
TEMPLATE_LIST_TEST_CASE("layer_route: logits do not depend on batch mates or padding", "[models][layer_route]",
                        model_targets) {
    using T = typename TestType::scalar;
    const double bound = std::is_same_v<T, double> ? 1e-12 : 1e-5;
    constexpr index longest = 12, answer = 3;
    std::vector<std::vector<row_index>> sequences;
    for (index n : {4, 9, 12, 2}) sequences.push_back(random_ids(n, vocabulary, 30 + static_cast<std::uint64_t>(n)));
    std::vector<row_index> left, right, left_mask, right_mask;
    for (const auto& ids : sequences) {
        const std::size_t padding = longest - ids.size();
        left.insert(left.end(), padding, 0), left_mask.insert(left_mask.end(), padding, 0);
        left.insert(left.end(), ids.begin(), ids.end()), left_mask.insert(left_mask.end(), ids.size(), 1);
        right.insert(right.end(), ids.begin(), ids.end()), right_mask.insert(right_mask.end(), ids.size(), 1);
        right.insert(right.end(), padding, 0), right_mask.insert(right_mask.end(), padding, 0);
    }
    for (gate_scope scope : scopes) {
        INFO(name_of(scope));
        routed_model<TestType> m({.scope = scope});
        let_gates_decide(m.model);
        // logits of the prompts' last rows, then of three further tokens each, (token, sequence, V)
        const auto logits = [&](const std::vector<std::vector<row_index>>& prompts) {
            const auto S = static_cast<index>(prompts.size());
            auto state = m.stack().make_decode_state(m.model.ex, S, longest + answer);
            std::vector<row_index> ids;
            std::vector<index> lengths;
            for (const auto& p : prompts)
                ids.insert(ids.end(), p.begin(), p.end()), lengths.push_back(static_cast<index>(p.size()));
            std::vector<double> out;
            for (index t = 0; t <= answer; ++t) {
                const auto host = to_host(m.model.ex, m.model.decode(ids, lengths, state));
                out.insert(out.end(), host.begin(), host.end());
                ids.assign(prompts.size(), static_cast<row_index>(5 + 7 * t));
                lengths.assign(prompts.size(), 1);
            }
            std::set<std::vector<char>> decisions;  // by sequence
            for (std::size_t s = 0; s < prompts.size(); ++s) {
                std::vector<char> open;
                for (const auto& block : state.open) open.push_back(block[s]);
                decisions.insert(open);
            }
            return std::pair{out, decisions.size()};
        };
        std::vector<std::vector<double>> alone;
        alone.reserve(sequences.size());
        for (const auto& ids : sequences) alone.push_back(logits({ids}).first);
        for (const auto& batch : {without_padding(left, left_mask, 4), without_padding(right, right_mask, 4)}) {
            CHECK(batch == sequences);
            const auto [together, different] = logits(batch);
            CHECK(different > 1);  // the mates do not all go the same way
            for (index s = 0; s < 4; ++s)
                for (index t = 0; t <= answer; ++t) {
                    const auto got = rows_of(together, vocabulary, 4 * t + s, 4 * t + s + 1),
                               want = rows_of(alone[static_cast<std::size_t>(s)], vocabulary, t, t + 1);
                    INFO("sequence " << s << ", token " << t);
                    for (std::size_t v = 0; v < got.size(); ++v)
                        CHECK(std::abs(got[v] - want[v]) <= bound * std::max(1.0, largest(want)));
                }
        }
    }
}

// Gates read the prompt alone: what comes after a token of the answer changes no loss up to it, to the last bit.
TEMPLATE_LIST_TEST_CASE("layer_route: with gates frozen no token sees a later one", "[models][layer_route]",
                        model_targets) {
    for (gate_scope scope : scopes)
        for (gate_pool pool : {gate_pool::prompt, gate_pool::last_prompt_token}) {
            INFO(name_of(scope) << ", pool " << static_cast<int>(pool));
            routed_model<TestType> m({.pool = pool, .scope = scope});
            let_gates_decide(m.model);
            constexpr index prompt = 5, length = 11;
            const auto nats = [&](std::vector<row_index> ids, index last) {  // of the targets up to row `last`
                batch b;
                b.lengths = {length};
                b.prompt_lengths = {prompt};
                b.targets.assign(ids.begin() + 1, ids.end());
                std::fill(b.targets.begin() + last + 1, b.targets.end(), -1);
                ids.pop_back();
                b.ids = ids;
                return m.model.run(b, phase::evaluation).nats;
            };
            const auto ids = random_ids(length + 1, vocabulary, 21);
            for (index last = prompt - 1; last + 2 < length; ++last) {
                auto other = ids;
                for (index i = last + 2; i < length; ++i) {
                    auto& id = other[static_cast<std::size_t>(i)];
                    id = static_cast<row_index>((id + 1) % vocabulary);
                }
                CHECK(nats(other, last) == nats(ids, last));
                CHECK(nats(other, last + 2) != nats(ids, last + 2));
            }
        }
}

// Closed for the prompt, open for the token after it: with write_kv that token still attends to the prompt. In the last
// block it then computes what a block that was always open does, for nothing reads what the prompt's rows became.
TEMPLATE_LIST_TEST_CASE("layer_route: write_kv keeps the keys of rows that a block left out", "[models][layer_route]",
                        model_targets) {
    using T = typename TestType::scalar;
    const auto ids = random_ids(8, vocabulary, 4);
    for (gate_scope scope : {gate_scope::block, gate_scope::attention})
        for (index sequences : {1, 2})
            for (bool write_kv : {true, false}) {
                INFO(name_of(scope) << ", " << sequences << " sequences, write_kv " << write_kv);
                routed_model<TestType> m({.scope = scope, .write_kv = write_kv});
                const auto last = [&](std::vector<char> marks_of_last) {  // logits of one more token
                    m.stack().forced_open = {1, 1, 0};
                    auto state = m.stack().make_decode_state(m.model.ex, sequences, 16);
                    if (marks_of_last.empty()) m.stack().forced_open = {1, 1, 1};
                    std::vector<row_index> prompts, next;
                    for (index s = 0; s < sequences; ++s)
                        prompts.insert(prompts.end(), ids.begin(), ids.end() - 1), next.push_back(ids.back());
                    const std::vector<index> whole(static_cast<std::size_t>(sequences), 7),
                        one(static_cast<std::size_t>(sequences), 1);
                    m.model.decode(prompts, whole, state);
                    if (!marks_of_last.empty()) state.open[2] = marks_of_last;  // a policy that decides by token
                    const auto host = to_host(m.model.ex, m.model.decode(next, one, state));
                    return rows_of({host.begin(), host.end()}, vocabulary, sequences - 1, sequences);
                };
                const auto want = last({});
                std::vector<char> marks(static_cast<std::size_t>(sequences), 0);
                marks.back() = 1;
                const auto got = last(marks);
                if (write_kv)
                    compare(got, want, model_tolerance<T>(want),
                            {"write_kv", "logits", TestType::executor_name(), scalar_name<T>, name_of(scope)});
                else
                    CHECK(got != want);
            }
}

// Two of three sequences skip a block: it keeps keys and values of one. The next prompts of the same state may decide
// otherwise.
TEMPLATE_LIST_TEST_CASE("layer_route: a sequence that skips a block has no room in its cache", "[models][layer_route]",
                        model_targets) {
    using T = typename TestType::scalar;
    constexpr index capacity = 16, width = 8;  // two heads of 4
    for (gate_scope scope : scopes)
        for (bool write_kv : {false, true}) {
            INFO(name_of(scope) << ", write_kv " << write_kv);
            routed_model<TestType> m({.scope = scope, .write_kv = write_kv});
            let_gates_decide(m.model);
            auto state = m.stack().make_decode_state(m.model.ex, 3, capacity);
            bool some = false;
            for (std::uint64_t turn = 0; turn < 4; ++turn) {
                std::vector<std::vector<row_index>> prompts;
                std::vector<row_index> ids;
                const std::vector<index> lengths{5, 3, 7}, one{1, 1, 1};
                for (index n : lengths) {
                    prompts.push_back(random_ids(n, vocabulary, 10 * turn + static_cast<std::uint64_t>(n)));
                    ids.insert(ids.end(), prompts.back().begin(), prompts.back().end());
                }
                state.restart(m.model.ex);
                m.model.decode(ids, lengths, state);
                for (std::size_t l = 0; l < blocks; ++l) {
                    const auto open = std::count(state.open[l].begin(), state.open[l].end(), char(1));
                    some = some || (open > 0 && open < 3);
                    const auto& cache = state.layers[l];
                    if (write_kv || scope == gate_scope::feed_forward)
                        CHECK(cache.k.size() == 3 * capacity * width);
                    else if (turn == 0) {
                        CHECK(cache.k.size() == open * capacity * width);
                        CHECK(cache.v.size() == cache.k.size());
                    }
                }
                const auto got = to_host(m.model.ex, m.model.decode(std::vector<row_index>{1, 2, 3}, one, state));
                for (index s = 0; s < 3; ++s) {
                    auto alone = m.stack().make_decode_state(m.model.ex, 1, capacity);
                    const auto& prompt = prompts[static_cast<std::size_t>(s)];
                    m.model.decode(prompt, std::vector<index>{lengths[static_cast<std::size_t>(s)]}, alone);
                    const auto host =
                        to_host(m.model.ex, m.model.decode(std::vector<row_index>{static_cast<row_index>(s + 1)},
                                                           std::vector<index>{1}, alone));
                    const std::vector<double> want(host.begin(), host.end());
                    compare(rows_of({got.begin(), got.end()}, vocabulary, s, s + 1), want, model_tolerance<T>(want),
                            {"room", "logits", TestType::executor_name(), scalar_name<T>, name_of(scope)});
                }
            }
            CHECK(some);
        }
    routed_model<TestType> m({});
    auto state = m.stack().make_decode_state(m.model.ex, 2, 16);
    const std::vector<index> two{2, 2}, one{1, 1};
    for (auto& gate : m.stack().gates) m.model.parameters.assign(gate.weight, std::vector<T>(16));
    m.model.decode(std::vector<row_index>{1, 2, 3, 4}, two, state);
    state.layers[1].room = {1, 0};
    state.open[1] = {1, 1};
    check_throws(
        [&] {
            m.model.decode(std::vector<row_index>{1, 2}, one, state);
        },
        {"qwen2", "block 1, sequence 1", "write_kv"});
}

TEMPLATE_LIST_TEST_CASE("layer_route: a generation stops at every end id", "[models][layer_route]", model_targets) {
    routed_model<TestType> m({});
    const std::vector<std::vector<row_index>> prompts{random_ids(4, vocabulary, 1), random_ids(6, vocabulary, 2)};
    generation_options o{.max_new_tokens = 12, .sampling = {.seed = 5}};
    const auto free = generate(m.model, prompts, o);
    for (std::size_t s = 0; s < prompts.size(); ++s) {
        REQUIRE(free[s].size() == 12);
        for (row_index end : free[s])
            for (const auto& ends : {std::vector<row_index>{end}, {row_index{1000}, end}, {end, 1001}}) {
                o.end_ids = ends;
                const auto got = generate(m.model, prompts, o);
                for (std::size_t q = 0; q < prompts.size(); ++q) {
                    const auto stop = std::find(free[q].begin(), free[q].end(), end);
                    CHECK(got[q] == std::vector<row_index>(free[q].begin(), stop));
                }
            }
    }
    o.end_ids = {free[0][3], free[1][5]};  // each ends by whichever comes first
    const auto got = generate(m.model, prompts, o);
    for (std::size_t q = 0; q < prompts.size(); ++q) {
        const auto stop = std::find_first_of(free[q].begin(), free[q].end(), o.end_ids.begin(), o.end_ids.end());
        CHECK(got[q] == std::vector<row_index>(free[q].begin(), stop));
    }
}

TEMPLATE_LIST_TEST_CASE("layer_route: a drawn answer does not depend on batch mates", "[models][layer_route]",
                        model_targets) {
    routed_model<TestType> m({});
    const generation_options o{.max_new_tokens = 12, .sampling = {.seed = 5}};
    std::vector<std::vector<row_index>> prompts{random_ids(4, vocabulary, 1)};
    const auto alone = generate(m.model, prompts, o);
    for (std::uint64_t mate : {2, 3}) {
        prompts.push_back(random_ids(6, vocabulary, mate));
        const auto together = generate(m.model, prompts, o);
        CHECK(together[0] == alone[0]);
        CHECK(together.back() != alone[0]);  // nor does it copy theirs
    }
}

}  // namespace spectral::test::skip_gates_test
