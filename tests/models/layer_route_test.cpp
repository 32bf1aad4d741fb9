// SPDX-License-Identifier: Apache-2.0
// tests/models/layer_route_test.cpp: Qwen2 with gates forced open or shut and adapters switched off: what equals what
#include <spectral/train/layer_route_runner.hpp>
#include "model_test.hpp"

namespace spectral::test {

namespace {
constexpr index vocabulary = 29, blocks = 3;
constexpr std::array scopes{gate_scope::block, gate_scope::attention, gate_scope::feed_forward};
const char* name_of(gate_scope s) {
    static const char* names[] = {"block", "attention", "feed-forward"};
    return names[static_cast<int>(s)];
}

layer_route_model tiny(index layers = blocks) {
    layer_route_model m;
    m.backbone = {.vocab_size = vocabulary,
                  .hidden_size = 16,
                  .intermediate_size = 24,
                  .num_hidden_layers = layers,
                  .num_attention_heads = 4,
                  .num_key_value_heads = 2,
                  .max_position_embeddings = 24,
                  .eos_token_ids = {}};
    return m;
}
layer_route_model gated(gate_scope scope = gate_scope::block) {
    auto m = tiny();
    m.route.gates = skip_gate_options{.scope = scope};
    return m;
}
layer_route_model adapted() {
    auto m = tiny();
    m.route.lora = lora_options{.rank = 3, .alpha = 5, .dropout = 0.1};
    m.route.lora_targets = {"q_proj", "v_proj", "down_proj"};
    return m;
}

// Values that follow from a parameter's name: models of other parts share those that they have in common.
template <class Model>
void fill(Model& model) {
    using T = typename Model::scalar;
    for (const auto& [name, p] : model.parameters.named()) {
        const random_stream draw{77, stream_of(name)};
        const bool unit = p->init.how == initializer::kind::constant && p->init.scale == 1 && !is_router(name);
        std::vector<T> host;
        for (index i = 0; i < p->size(); ++i)
            host.push_back(static_cast<T>((unit ? 1 : 0) + 0.25 * draw.normal(static_cast<std::uint64_t>(i))));
        model.ex.copy_from_host(p->value.data, host.data(), host.size() * sizeof(T));
    }
}
// the gates of these blocks open and the others shut, by weight 0 and bias ±100
template <class Model>
void set_gates(Model& model, const std::vector<char>& open) {
    using T = typename Model::scalar;
    for (std::size_t l = 0; l < open.size(); ++l) {
        auto& gate = model.stack.gates[l];
        const std::vector<T> weight(static_cast<std::size_t>(gate.weight.size()));
        const T bias = open[l] ? T(100) : T(-100);
        model.ex.copy_from_host(gate.weight.value.data, weight.data(), weight.size() * sizeof(T));
        model.ex.copy_from_host(gate.bias.value.data, &bias, sizeof bias);
    }
}

template <class Target>
struct made {
    using Exec = typename Target::executor;
    qwen2<Exec, typename Target::scalar> model;
    explicit made(const layer_route_model& m) : model(Target::instance(), m) { fill(model); }
    auto& stack() { return model.stack; }
    std::vector<double> logits() { return logits_of(model, random_ids(14, vocabulary, 4), 2); }
};

std::vector<std::vector<char>> masks() {
    std::vector<std::vector<char>> out;
    for (unsigned bits = 0; bits < 1u << blocks; ++bits) {
        out.emplace_back();
        for (unsigned l = 0; l < blocks; ++l) out.back().push_back(static_cast<char>(bits >> l & 1));
    }
    return out;
}
std::string describe(const std::vector<char>& mask) {
    std::string out = "open ";
    for (char c : mask) out += c ? '1' : '0';
    return out;
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("layer_route: forced open is the model without gates", "[models][layer_route]", targets) {
    made<TestType> plain(tiny());
    const auto want = plain.logits();
    for (gate_scope scope : scopes) {
        INFO(name_of(scope));
        made<TestType> m(gated(scope));
        set_gates(m.model, {0, 0, 0});
        CHECK(m.logits() != want);  // the gates close
        m.stack().forced_open = {1, 1, 1};
        CHECK(m.logits() == want);
        m.stack().forced_open.clear();
        CHECK(m.logits() != want);
    }
}

TEMPLATE_LIST_TEST_CASE("layer_route: forced blocks are those that gates open and close", "[models][layer_route]",
                        targets) {
    for (gate_scope scope : scopes) {
        made<TestType> forced(gated(scope)), decided(gated(scope));
        std::set<std::vector<double>> different;
        for (const auto& mask : masks()) {
            INFO(name_of(scope) << ", " << describe(mask));
            forced.stack().forced_open = mask;
            set_gates(decided.model, mask);
            const auto got = forced.logits();
            CHECK(got == decided.logits());
            different.insert(got);
        }
        CHECK(different.size() == masks().size());
    }
}

TEMPLATE_LIST_TEST_CASE("layer_route: a model without gates can be forced as well", "[models][layer_route]", targets) {
    made<TestType> plain(tiny()), with_gates(gated());
    for (const auto& mask : masks()) {
        INFO(describe(mask));
        plain.stack().forced_open = with_gates.stack().forced_open = mask;
        CHECK(plain.logits() == with_gates.logits());
    }
    // every block shut: embedding, norm, head, however many blocks there are
    made<TestType> shallow(tiny(1));
    plain.stack().forced_open = {0, 0, 0};
    shallow.stack().forced_open = {0};
    CHECK(plain.logits() == shallow.logits());
}

TEMPLATE_LIST_TEST_CASE("layer_route: a forced generation gives the logits of the whole", "[models][layer_route]",
                        targets) {
    using T = typename TestType::scalar;
    const auto ids = random_ids(10, vocabulary, 4);
    std::vector<layer_route_model> models{tiny()};
    for (gate_scope scope : scopes) models.push_back(gated(scope));
    for (const auto& config : models)
        for (const auto& mask : masks()) {
            made<TestType> m(config);
            m.stack().forced_open = mask;
            const auto want = logits_of(m.model, ids, 1);
            auto state = m.stack().make_decode_state(m.model.ex, 1, 16);
            for (auto [first, count] : {std::pair<index, index>{0, 4}, {4, 1}, {5, 5}}) {
                if (first == 5 && config.route.gates) m.stack().forced_open.clear();  // frozen since the prefill
                const std::vector<index> length{count};
                const auto host =
                    to_host(m.model.ex, m.model.decode(std::span(ids).subspan(first, count), length, state));
                const auto expected = rows_of(want, vocabulary, first + count - 1, first + count);
                compare({host.begin(), host.end()}, expected, model_tolerance<T>(expected),
                        {"layer_route", "logits", TestType::executor_name(), scalar_name<T>, describe(mask)});
            }
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

TEMPLATE_LIST_TEST_CASE("layer_route: each sequence follows its own gates, alone, in a batch and with a cache",
                        "[models][layer_route]", targets) {
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
            for (auto& gate : m.stack().gates) {  // the bias drawn leaves all open, or all closed
                const T middle = 0;
                m.model.ex.copy_from_host(gate.bias.value.data, &middle, sizeof middle);
            }
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

TEMPLATE_LIST_TEST_CASE("layer_route: a new adapter and open gates are the backbone, bit for bit",
                        "[models][layer_route]", targets) {
    made<TestType> plain(tiny());
    auto config = adapted();
    config.route.gates = skip_gate_options{};
    made<TestType> m(config);
    set_gates(m.model, {1, 1, 1});
    CHECK(m.logits() != plain.logits());
    for (const auto& [name, p] : m.model.parameters.named())
        if (name.ends_with("lora_B.weight"))
            m.model.parameters.assign(*p, std::vector<typename TestType::scalar>(static_cast<std::size_t>(p->size())));
    CHECK(m.logits() == plain.logits());
}

TEST_CASE("layer_route: training runs every block, whatever evaluation is forced to", "[models][layer_route]") {
    const batch b = language_batch({5, 3}, vocabulary, 9);
    for (const auto& config : {tiny(), gated()}) {
        made<oracle> m(config);
        const double want = m.model.run(b, phase::training).loss, evaluated = m.model.run(b, phase::evaluation).loss;
        m.stack().forced_open = {0, 1, 0};
        CHECK(m.model.run(b, phase::training).loss == want);
        CHECK(m.model.run(b, phase::evaluation).loss != evaluated);
    }
}

TEMPLATE_LIST_TEST_CASE("layer_route: adapters switched off are no adapters", "[models][layer_route]", targets) {
    made<TestType> plain(tiny()), m(adapted());
    const auto adapters = [&](bool on) {
        for_each_linear(m.stack(), [on](const std::string&, auto& l) { l.adapter_on = on; });
    };
    const auto want = plain.logits(), with = m.logits();
    CHECK(with != want);
    adapters(false);
    CHECK(m.logits() == want);
    const batch b = language_batch({5, 3}, vocabulary, 9);
    CHECK(m.model.run(b, phase::training).loss == plain.model.run(b, phase::training).loss);
    for (const auto& [name, p] : m.model.parameters.named())
        if (p->trainable) {
            const auto g = to_host(m.model.ex, p->grad);
            CHECK(largest({g.begin(), g.end()}) == 0);
        }
    adapters(true);
    CHECK(m.logits() == with);
    // one map's adapter alone makes a difference
    for_each_linear(
        m.stack(), [&](const std::string& path, auto& l) { l.adapter_on = path != "model.layers.1.self_attn.v_proj"; });
    CHECK(m.logits() != with);
}

TEST_CASE("layer_route: what a runner can force", "[models][layer_route]") {
    auto config = adapted();
    config.route.gates = skip_gate_options{};
    const auto r = make_runner<reference::executor, double>(std::make_unique<reference::executor>(), config, false);
    r->initialize(3);
    fill(static_cast<layer_route_runner<reference::executor, double>&>(*r).model());
    layer_route_controls* route = r->layer_route();
    REQUIRE(route);
    CHECK(route->config().backbone.num_hidden_layers == blocks);
    const auto ids = random_ids(7, vocabulary, 4);
    const auto logits = [&] { return r->logits(ids, 1).values; };

    made<oracle> plain(tiny());
    const auto want = logits_of(plain.model, ids, 1);
    route->use_adapters(false);
    route->force_open({1, 1, 1});
    CHECK(logits() == want);
    route->force_open({1, 0, 1});
    const auto without_second = logits();
    plain.stack().forced_open = {1, 0, 1};
    CHECK(without_second == logits_of(plain.model, ids, 1));
    route->use_adapters(true);
    CHECK(logits() != without_second);

    r->start_decoding(2, 16);
    r->decode(ids, std::vector<index>{3, 4});
    CHECK(route->open_shares() == std::vector<double>{2.0 / 3, 2.0 / 3});
    check_throws([&] { route->force_open({1, 0}); }, {"force_open", "expected 3 or none", "found 2"});
    route->force_open({});
}

}  // namespace spectral::test
