// SPDX-License-Identifier: Apache-2.0
// tests/layers/skip_gate_test.cpp: LayerRoute's gate: every pool and kind, its gradients, and what evaluation leaves
// out
#include <spectral/layers/grouped_attention.hpp>
#include <spectral/layers/skip_gate.hpp>
#include "layer_test.hpp"

namespace spectral::test::skip_gate_test {

namespace {
constexpr std::array pools{gate_pool::sequence, gate_pool::prompt, gate_pool::last_prompt_token};
constexpr std::array kinds{gate_kind::straight_through, gate_kind::hard_concrete};

struct gate_case {
    skip_gate_options options;
    std::vector<index> prompts{};  // empty: whole sequences
    std::vector<double> dL_dsoft{};  // what an objective asks; empty: nothing
    bool frozen = false;  // the gate: its input still feels it
};

std::string describe(const gate_case& g) {
    static const char* names[] = {"sequence", "prompt", "last prompt token"};
    return std::string(names[static_cast<int>(g.options.pool)]) +
           (g.options.kind == gate_kind::straight_through ? ", straight-through" : ", hard concrete") +
           (g.options.skip_first_position ? ", without the first row" : "") + (g.prompts.empty() ? "" : ", prompts") +
           (g.dL_dsoft.empty() ? "" : ", an objective") + (g.frozen ? ", frozen" : "");
}

// The gate and the block behind it: attention, which reads other rows of its sequence.
template <class Exec, class T>
struct gated_block {
    struct saved {
        typename skip_gate<Exec, T>::saved gate;
        typename grouped_attention<Exec, T>::saved inner;
        row_map rows;
    };
    gate_case g;
    grouped_attention<Exec, T> inner;
    skip_gate<Exec, T> gate;

    gated_block(Exec& ex, const layer_case& c, const gate_case& g_)
        : g(g_),
          inner(c.width, 2, 1, 4, 1e-6, c.layer,
                std::make_shared<tensor<Exec, T, 2>>(ex, std::array<index, 2>{32, 4}, rotary_table<T>(32, 4, 100))),
          gate(ex, c.width, c.layer, g_.options) {
        gate.weight.trainable = gate.bias.trainable = !g.frozen;
    }

    auto run_inner(saved& s) {
        return [this, &s](pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y) { inner.forward(p, x, y, s.inner); };
    }
    void decide(pass<Exec, T>& p, const_matrix<T> x, saved& s) {
        s.rows = gate_rows(p.ex, p.rows, p.lengths_of_sequences(), g.prompts, g.options);
        gate.decide(p, x, s.rows, p.statistics(2, p.rows.sequences()), s.gate);
        const auto soft = to_host(p.ex, s.gate.soft);
        for (std::size_t i = 0; i < g.dL_dsoft.size(); ++i) p.auxiliary_loss += g.dL_dsoft[i] * soft[i];
    }
    void forward(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y, saved& s) {
        decide(p, x, s);
        gate.blend(p, run_inner(s), x, y, s.gate);
    }
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s,
                  write mode = write::accumulate) {
        const auto inner_backward = [&](auto dy, auto out) { inner.backward(p, dy, out, s.inner); };
        vector_view<double> wanted;
        if (!g.dL_dsoft.empty()) {
            wanted = p.ex.memory().template vector<double>(static_cast<index>(g.dL_dsoft.size()));
            p.ex.copy_from_host(wanted.data, g.dL_dsoft.data(), g.dL_dsoft.size() * sizeof(double));
        }
        gate.backward(p, inner_backward, s.rows, wanted, dL_dy, dL_dx, s.gate, mode);
    }
    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        inner.visit_parameters(f, prefix);
        gate.visit_parameters(f, prefix + "gate.");
    }
};

template <class Target>
struct gate_rig : layer_rig<Target, gated_block<typename Target::executor, typename Target::scalar>> {
    using executor = typename Target::executor;
    using T = typename Target::scalar;
    using layer_type = gated_block<executor, T>;
    using saved = typename layer_type::saved;
    gate_rig(const layer_case& c, const gate_case& g) : layer_rig<Target, layer_type>(c, Target::instance(), c, g) {
        this->put(this->layer.gate.bias.value, {-0.1});
    }

    // f(pass, saved) with the gates decided
    template <class F>
    void decided(F&& f) {
        arena_scope scratch(this->ex);
        pass<executor, T> p{.ex = this->ex,
                            .rows = pack_rows(this->ex, std::span<const index>(this->c.lengths)),
                            .phase = this->c.phase,
                            .seed = this->c.seed,
                            .step = this->c.step};
        saved s;
        this->layer.decide(p, this->x.view(), s);
        f(p, s);
    }
    std::vector<double> soft() {
        std::vector<double> out;
        decided([&](auto&, saved& s) { out = this->wide(s.gate.soft); });
        return out;
    }
    std::vector<double> gates() {
        std::vector<double> out;
        decided([&](auto&, saved& s) { out = this->wide(s.gate.gate); });
        return out;
    }
};

// Six sequences, one of a single row; gates on both sides of the threshold.
layer_case many(phase ph = phase::training) { return {.lengths = {5, 1, 4, 3, 6, 2}, .phase = ph}; }
const std::vector<index> some_prompts{3, 1, 4, 2, 5, 1};

std::vector<gate_case> cases() {
    std::vector<gate_case> out;
    for (gate_pool pool : pools)
        for (gate_kind kind : kinds) {
            const skip_gate_options o{.pool = pool, .kind = kind};
            out.push_back({o});
            out.push_back({o, some_prompts, {0.3, -0.2, 0.7, 0, 1, -1}});
            out.push_back({o, some_prompts, {}, true});
            if (pool != gate_pool::prompt) continue;
            out.push_back({o, some_prompts});
            out.back().options.skip_first_position = true;
        }
    return out;
}

index count_if(const std::vector<double>& v, auto&& f) { return std::count_if(v.begin(), v.end(), f); }
}  // namespace

TEMPLATE_LIST_TEST_CASE("skip_gate: values and gradients on every executor", "[layers][skip_gate]", targets) {
    for (const auto& g : cases())
        compare_with_oracle<TestType>(
            "skip_gate", describe(g),
            [&]<class On>() {
                gate_rig<On> rig(many(), g);
                return rig.template results<typename gate_rig<On>::saved>(layer_calls<gate_rig<On>>{rig});
            },
            4096);
}

// The hard concrete gate is a function of s almost everywhere. Straight-through takes dg/ds = 1: the gradient is that
// of the same blend with g = [s₀ > threshold] + s − s₀.
TEST_CASE("skip_gate: gradients", "[layers][skip_gate]") {
    for (const auto& g : cases()) {
        gate_rig<oracle> rig(many(), g);
        layer_calls<gate_rig<oracle>> calls{rig};
        const auto gate = rig.gates(), soft = rig.soft();
        INFO(describe(g));
        if (g.options.kind == gate_kind::hard_concrete) {
            // the case is of use: gates inside (0, 1), whose gradient is not 0
            CHECK(count_if(gate, [](double v) { return v > 0 && v < 1; }) >= 2);
            rig.require_gradients<gate_rig<oracle>::saved>(calls, describe(g));
            continue;
        }
        CHECK(count_if(gate, [](double v) { return v == 1; }) >= 1);
        CHECK(count_if(gate, [](double v) { return v == 0; }) >= 1);
        const auto surrogate = [&] {
            double sum = 0;
            rig.decided([&](auto& p, auto& s) {
                auto blended = rig.wide(s.gate.soft);
                for (std::size_t i = 0; i < blended.size(); ++i) blended[i] += gate[i] - soft[i];
                rig.put(s.gate.gate, blended);
                auto y = p.matrix(rig.c.rows(), rig.c.width);
                rig.layer.gate.blend(p, rig.layer.run_inner(s), rig.x.view(), y, s.gate);
                const auto host = rig.wide(y);
                sum = p.auxiliary_loss;
                for (std::size_t i = 0; i < host.size(); ++i) sum += rig.dL_dy[i] * host[i];
            });
            return sum;
        };
        CHECK(surrogate() == Approx(rig.loss<gate_rig<oracle>::saved>(calls)).epsilon(1e-12));
        rig.require_gradients_of<gate_rig<oracle>::saved>(calls, surrogate, describe(g));
    }
}

// s = σ(w · pool + b), computed here from the rows that each pool may read
TEMPLATE_LIST_TEST_CASE("skip_gate: what each pool reads", "[layers][skip_gate]", targets) {
    using T = typename TestType::scalar;
    for (const auto& g : cases()) {
        gate_rig<TestType> rig(many(), g);
        const layer_case& c = rig.c;
        const auto x = rig.wide(rig.x.view()), w = rig.wide(rig.layer.gate.weight.value);
        const double b = rig.wide(rig.layer.gate.bias.value)[0];
        const bool normed = g.options.pool != gate_pool::sequence;
        std::vector<double> want;
        index start = 0;
        for (std::size_t s = 0; s < c.lengths.size(); ++s) {
            index first = start, last = start + c.lengths[s];
            if (normed && !g.prompts.empty()) last = start + g.prompts[s];
            if (g.options.pool == gate_pool::last_prompt_token) first = last - 1;
            if (g.options.skip_first_position && last - first > 1) ++first;
            double z = b;
            for (index n = first; n < last; ++n) {
                double dot = 0, squares = 0;
                for (index i = 0; i < c.width; ++i) {
                    const double v = x[static_cast<std::size_t>(n * c.width + i)];
                    dot += w[static_cast<std::size_t>(i)] * v;
                    squares += v * v;
                }
                z += dot / (normed ? std::sqrt(squares / static_cast<double>(c.width) + 1e-6) : 1) /
                     static_cast<double>(last - first);
            }
            want.push_back(1 / (1 + std::exp(-z)));
            start += c.lengths[s];
        }
        compare(rig.soft(), want, allowed<T>(4.0 * static_cast<double>(c.width), 4),
                {"skip_gate", "soft", TestType::executor_name(), scalar_name<T>, describe(g)});
    }
}

// z = clip(1.2 σ((logit u + logit s) / β) − 0.1): over many draws the mean of [z > 0] is its closed form (Louizos et
// al.), P(z > 0) = σ(logit s − β ln(0.1 / 1.1)). At evaluation the gate is hard.
TEST_CASE("skip_gate: hard concrete draws", "[layers][skip_gate]") {
    const gate_case g{{.kind = gate_kind::hard_concrete}};
    gate_rig<oracle> rig(many(), g);
    const auto soft = rig.soft();
    std::vector<double> open(soft.size()), shut(soft.size());
    constexpr int draws = 4000;
    for (int i = 0; i < draws; ++i) {
        rig.c.step = static_cast<std::uint64_t>(i);
        const auto z = rig.gates();
        for (std::size_t s = 0; s < z.size(); ++s) {
            open[s] += (z[s] > 0) / static_cast<double>(draws);
            shut[s] += (z[s] < 1) / static_cast<double>(draws);
            CHECK_FALSE((z[s] < 0 || z[s] > 1));
        }
    }
    for (std::size_t s = 0; s < soft.size(); ++s) {
        const double logit = std::log(soft[s] / (1 - soft[s])), beta = 2.0 / 3;
        CHECK(open[s] == Approx(1 / (1 + std::exp(-(logit - beta * std::log(0.1 / 1.1))))).margin(0.04));
        CHECK(shut[s] == Approx(1 / (1 + std::exp(logit + beta * std::log(0.1 / 1.1)))).margin(0.04));
    }
    rig.c.phase = phase::evaluation;
    const auto gate = rig.gates();
    for (std::size_t s = 0; s < soft.size(); ++s) CHECK(gate[s] == (soft[s] > 0.5));
}

// Evaluation computes open sequences only; that equals the blend with gates of 0 and 1, which computes all of them.
TEMPLATE_LIST_TEST_CASE("skip_gate: run_open equals the blend of forced gates", "[layers][skip_gate]", targets) {
    using T = typename TestType::scalar;
    gate_rig<TestType> rig(many(phase::evaluation), {});
    const layer_case& c = rig.c;
    const auto x = rig.wide(rig.x.view());
    for (unsigned mask : {0u, 1u, 2u, 22u, 42u, 45u, 62u, 63u}) {  // bit s: sequence s is open
        std::vector<char> open;
        std::vector<double> forced, left_out;
        index start = 0, open_rows = 0;
        for (std::size_t s = 0; s < c.lengths.size(); ++s) {
            open.push_back(static_cast<char>(mask >> s & 1));
            forced.push_back(open.back());
            const auto from = x.begin() + start * c.width;
            if (!open.back()) left_out.insert(left_out.end(), from, from + c.lengths[s] * c.width);
            open_rows += open.back() ? c.lengths[s] : 0;
            start += c.lengths[s];
        }
        std::vector<double> want, got, closed_rows;
        rig.decided([&](auto& p, auto& s) {
            auto y = p.matrix(c.rows(), c.width);
            rig.put(s.gate.gate, forced);
            rig.layer.gate.blend(p, rig.layer.run_inner(s), rig.x.view(), y, s.gate);
            want = rig.wide(y);
        });
        route_trace trace(route_trace::mode::count);
        rig.decided([&](auto& p, auto& s) {
            p.trace = &trace;
            auto y = p.matrix(c.rows(), c.width);
            rig.put(y, std::vector<double>(static_cast<std::size_t>(y.size()), nan));
            const auto closed = [&](auto& part, const_matrix<T> rows) {
                const auto host = to_host(rig.ex, rows);
                closed_rows.assign(host.begin(), host.end());
                CHECK(part.rows.rows() == rows.rows());
                CHECK(part.rows.sequences() == static_cast<index>(c.lengths.size()));
            };
            rig.layer.gate.run_open(p, open, rig.layer.run_inner(s), closed, rig.x.view(), y);
            got = rig.wide(y);
        });
        const std::string about = "open " + std::to_string(mask);
        INFO(about);
        compare(got, want, allowed<T>(256, 4), {"skip_gate", "y", TestType::executor_name(), scalar_name<T>, about});
        CHECK(closed_rows == left_out);
        CHECK(trace.counts[c.layer].work.attention_rows == open_rows);
    }
}

TEST_CASE("skip_gate: a closed gate is the identity, forward and backward", "[layers][skip_gate]") {
    gate_rig<oracle> rig(many(), {});
    rig.put(rig.layer.gate.weight.value, std::vector<double>(static_cast<std::size_t>(rig.c.width)));
    rig.put(rig.layer.gate.bias.value, {-1});
    const auto values = rig.results<gate_rig<oracle>::saved>(layer_calls<gate_rig<oracle>>{rig});
    CHECK(values[0].second == rig.wide(rig.x.view()));
    const auto dense = rig.dL_dy;
    compare(values[1].second, dense, 1e-14, {"skip_gate", "dL_dx", "reference", "double", "closed"});
    for (const auto& [name, gradient] : values)  // a gate may still learn to open; the block learns nothing
        if (name.find("self_attn") != std::string::npos) CHECK(largest(gradient) == 0);
}

TEST_CASE("skip_gate: training repeats the gates of a recorded pass", "[layers][skip_gate]") {
    gate_rig<oracle> rig(many(), {.options = {.kind = gate_kind::hard_concrete}});
    route_trace trace;
    const auto traced = [&] {
        std::vector<double> gates;
        arena_scope scratch(rig.ex);
        pass<gate_rig<oracle>::executor, gate_rig<oracle>::T> p{
            .ex = rig.ex,
            .rows = pack_rows(rig.ex, std::span<const index>(rig.c.lengths)),
            .phase = phase::training,
            .step = rig.c.step,
            .trace = &trace};
        gate_rig<oracle>::saved s;
        rig.layer.decide(p, rig.x.view(), s);
        return rig.wide(s.gate.gate);
    };
    const auto recorded = traced();
    ++rig.c.step;  // other draws
    trace.how = route_trace::mode::count;
    CHECK(traced() != recorded);
    trace.how = route_trace::mode::replay;
    CHECK(traced() == recorded);
    trace.layers[rig.c.layer].gates.pop_back();
    check_throws(traced, {"route_trace", "recorded gates", "expected 6", "found 5"});
    trace.layers.clear();
    check_throws(traced, {"route_trace", "no gates recorded for block 3"});
}

TEST_CASE("skip_gate: sentences", "[layers][skip_gate]") {
    auto& ex = oracle::instance();
    arena_scope scratch(ex);
    const std::vector<index> lengths{3, 2};
    const row_map map = pack_rows(ex, lengths);
    const std::vector<index> beyond{3, 4}, negative{-1, 2};
    check_throws([&] { gate_rows(ex, map, lengths, beyond, {}); },
                 {"gate_rows", "sequence 1", "expected 0 to 2", "found 4"});
    check_throws([&] { gate_rows(ex, map, lengths, negative, {}); },
                 {"gate_rows", "sequence 0", "expected 0 to 3", "found -1"});
}

}  // namespace spectral::test::skip_gate_test
