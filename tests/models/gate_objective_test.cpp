// SPDX-License-Identifier: Apache-2.0
// tests/models/gate_objective_test.cpp: what fine-tuning asks of the skip gates: values, gradients, a budget that is
// met
#include <spectral/core/random.hpp>
#include <spectral/models/gate_objective.hpp>
#include <support/compare.hpp>

#include <numeric>

namespace spectral::test::gate_objective_test {

namespace {
using types = std::vector<std::string>;
constexpr index layers = 3;
const types four{"plan", "tool", "plan", "answer"};

// gates inside (0, 1), none of them within a difference quotient of the threshold
gate_values some_gates(index sequences) {
    gate_values g(layers, sequences);
    const random_stream draw{3, 9};
    for (std::size_t i = 0; i < g.soft.size(); ++i) {
        const double u = draw.uniform(i);
        g.soft[i] = u < 0.5 ? 0.05 + 0.8 * u : 0.15 + 0.8 * u;
        g.hard[i] = g.soft[i] > 0.5 ? 1 : 0;
    }
    return g;
}

// loss and dL/ds of one call, with the learnt numbers as they were before
struct asked {
    double loss;
    std::vector<double> dL_ds;
};
asked ask(const gate_objective& o, const gate_values& g, std::span<const std::string> t) {
    std::vector<double> before;
    for (const auto& learnt : o.state) before.push_back(*learnt);
    asked a{0, {99}};  // what it held is overwritten
    a.loss = o(g, t, a.dL_ds);
    for (std::size_t i = 0; i < before.size(); ++i) *o.state[i] = before[i];
    return a;
}

// dL/ds against central differences of the loss in `of` (soft, or hard where the gradient passes straight through)
void check_gradient(const gate_objective& o, gate_values g, std::span<const std::string> t,
                    std::vector<double> gate_values::*of, const std::string& about) {
    INFO(about);
    const asked at = ask(o, g, t);
    REQUIRE(at.dL_ds.size() == g.soft.size());
    constexpr double step = 1e-5;
    std::vector<double> numeric;
    for (std::size_t i = 0; i < g.soft.size(); ++i) {
        const double value = (g.*of)[i];
        (g.*of)[i] = value + step;
        const double above = ask(o, g, t).loss;
        (g.*of)[i] = value - step;
        const double below = ask(o, g, t).loss;
        (g.*of)[i] = value;
        numeric.push_back((above - below) / (2 * step));
    }
    compare(at.dL_ds, numeric, 1e-8, {"gate_objective", "dL_ds", "host", "double", about});
    CHECK(largest(at.dL_ds) > 0);
}

double mean_of(const gate_values& g, const types& t, const std::string& type) {
    double sum = 0, count = 0;
    for (index s = 0; s < g.sequences; ++s)
        for (index l = 0; l < g.layers && t[static_cast<std::size_t>(s)] == type; ++l, ++count)
            sum += g.soft[g.at(l, s)];
    return sum / count;
}

gate_objective supervised() { return supervised_objective(0.7, {{"plan", {1}}, {"tool", {0, 0.25, 1}}}); }
gate_objective budget(const std::map<std::string, double>& targets, double multiplier) {
    gate_objective o = skip_budget{.targets = targets}.objective();
    for (const auto& mu : o.state) *mu = multiplier;
    return o;
}
}  // namespace

TEST_CASE("gate_objective: gradients of the losses of s", "[models][gates]") {
    const gate_values g = some_gates(4);
    const auto soft = &gate_values::soft;
    check_gradient(mean_gate_objective(0.3), g, four, soft, "mean");
    check_gradient(mean_gate_objective(0.3), g, {}, soft, "mean, without step types");
    check_gradient(differential_objective(0.6, "tool", "plan"), g, four, soft, "differential");
    check_gradient(differential_objective(0.6, "plan", "nobody"), g, four, soft, "differential, one type alone");
    check_gradient(supervised(), g, four, soft, "supervised");
    check_gradient(sum_of({mean_gate_objective(0.3), supervised(), differential_objective(0.6, "plan", "answer")}), g,
                   four, soft, "sum");
}

TEST_CASE("gate_objective: the budget's gradient passes straight through", "[models][gates]") {
    const gate_values g = some_gates(4);
    for (double mu : {0.0, 0.7, -2.0}) {
        const std::string about = "multiplier " + std::to_string(mu);
        for (const std::map<std::string, double>& targets : {std::map<std::string, double>{{"plan", 0.2}},
                                                             {{"plan", 0.2}, {"tool", 0.9}},
                                                             {{"", 0.8}},
                                                             {{"", 0.8}, {"plan", 0.1}}}) {
            const gate_objective o = budget(targets, mu);
            check_gradient(o, g, four, &gate_values::hard, about);
            gate_values other = g;  // the skip is counted on the gates that run: s alone changes nothing
            for (double& s : other.soft) s = 0.5;
            CHECK(ask(o, other, four).loss == ask(o, g, four).loss);
            CHECK(ask(o, other, four).dL_ds == ask(o, g, four).dL_ds);
        }
        check_gradient(budget({{"", 0.8}}, mu), g, {}, &gate_values::hard, about + ", without step types");
    }
    const auto soft_and_hard = sum_of({mean_gate_objective(0.3), budget({{"tool", 0.9}}, 0.4)});
    const asked both = ask(soft_and_hard, g, four), mean = ask(mean_gate_objective(0.3), g, four),
                tool = ask(budget({{"tool", 0.9}}, 0.4), g, four);
    CHECK(both.loss == Approx(mean.loss + tool.loss));
    for (std::size_t i = 0; i < both.dL_ds.size(); ++i) CHECK(both.dL_ds[i] == Approx(mean.dL_ds[i] + tool.dL_ds[i]));
}

TEST_CASE("gate_objective: losses are what they say", "[models][gates]") {
    const gate_values g = some_gates(4);
    double all = 0;
    for (double s : g.soft) all += s;
    CHECK(ask(mean_gate_objective(0.3), g, four).loss == Approx(0.3 * all / 12));
    CHECK(ask(differential_objective(0.6, "tool", "plan"), g, four).loss ==
          Approx(0.6 * (mean_of(g, four, "tool") - mean_of(g, four, "plan"))));

    double entropy = 0;
    const std::vector<double> tool{0, 0.25, 1};
    for (index l = 0; l < layers; ++l) {
        for (index s : {0, 2}) entropy -= std::log(g.soft[g.at(l, s)]);
        const double t = tool[static_cast<std::size_t>(l)], v = g.soft[g.at(l, 1)];
        entropy -= t * std::log(v) + (1 - t) * std::log(1 - v);
    }
    CHECK(ask(supervised(), g, four).loss == Approx(0.7 * entropy / 12));
    gate_values sure = g;
    for (double& s : sure.soft) s = 1;
    CHECK(std::isfinite(ask(supervised(), sure, four).loss));

    double skip = 0;
    for (index l = 0; l < layers; ++l)
        for (index s : {0, 2}) skip += (1 - g.hard[g.at(l, s)]) / 6;
    const double off = skip - 0.2;
    REQUIRE(off != 0);
    const gate_objective o = budget({{"plan", 0.2}}, 0.7);
    CHECK(ask(o, g, four).loss == Approx(0.7 * off + 5 * off * off));
}

TEST_CASE("gate_objective: what concerns nobody asks nothing", "[models][gates]") {
    const gate_values g = some_gates(4);
    const std::vector<double> zeros(g.soft.size());
    std::vector<double> dL_ds;
    CHECK(gate_objective{}(g, four, dL_ds) == 0);
    CHECK(dL_ds == zeros);
    CHECK(mean_gate_objective(1)(gate_values{}, {}, dL_ds) == 0);
    CHECK(dL_ds.empty());
    for (const auto& o :
         {differential_objective(1, "a", "b"), supervised_objective(1, {{"a", {1}}}), budget({{"a", 0.5}}, 1)})
        for (std::span<const std::string> t : {std::span<const std::string>(four), std::span<const std::string>()}) {
            CHECK(o(g, t, dL_ds) == 0);
            CHECK(dL_ds == zeros);
        }
    const gate_objective o = budget({{"a", 0.5}, {"tool", 0.5}}, 1);
    o(g, four, dL_ds);
    REQUIRE(o.state.size() == 2);
    CHECK(*o.state[0] == 1);  // no sequence of that type: its multiplier waits
    CHECK(*o.state[1] != 1);
}

TEST_CASE("gate_objective: the budget's multipliers are its state, and each objective has its own", "[models][gates]") {
    const skip_budget plan{.targets = {{"plan", 0.25}}, .ascent_rate = 0.5};
    const gate_objective a = plan.objective(), b = plan.objective(), copy = a;
    gate_values g(2, 2);
    g.hard = {1, 0, 0, 0};
    const types t{"plan", "plan"};
    std::vector<double> dL_ds;
    REQUIRE(a.state.size() == 1);
    CHECK(a(g, t, dL_ds) == Approx(10.0 / 2 * 0.25));
    CHECK(*a.state[0] == Approx(0.5 * 0.5));  // off by 3/4 - 1/4
    CHECK(a(g, t, dL_ds) == Approx(0.25 * 0.5 + 10.0 / 2 * 0.25));
    CHECK(*copy.state[0] == *a.state[0]);  // of the copy as well: a runner keeps one, a checkpoint reads the other
    CHECK(*b.state[0] == 0);
    CHECK(sum_of({a, mean_gate_objective(1), b}).state == std::vector{a.state[0], b.state[0]});
}

namespace {
// Gates s = σ(bias of the sequence's type + offset of the layer), trained by plain gradient descent on the budget and
// on a task that pulls every gate open. `hard(s, number)` is the gate that runs. Mean skip by type over the last steps.
struct toy {
    std::map<std::string, double> bias{{"plan", 1}, {"tool", 1}};
    double spread = 0;  // of the layers' offsets
    double pull = 0;  // mean dL/ds of the task, by type

    template <class Hard>
    std::map<std::string, double> train(const gate_objective& o, Hard&& hard) {
        constexpr index deep = 20, steps = 6000, last = 2000;
        const types t{"plan", "tool", "tool", "plan"};
        std::map<std::string, double> skip;
        std::uint64_t number = 0;
        for (index step = 0; step < steps; ++step) {
            gate_values g(deep, 4);
            for (index l = 0; l < deep; ++l)
                for (index s = 0; s < 4; ++s) {
                    const double offset = spread * (2 * static_cast<double>(l) / (deep - 1) - 1);
                    const double v = 1 / (1 + std::exp(-bias[t[static_cast<std::size_t>(s)]] - offset));
                    g.soft[g.at(l, s)] = v;
                    g.hard[g.at(l, s)] = hard(v, number++);
                }
            std::vector<double> dL_ds;
            o(g, t, dL_ds);
            std::map<std::string, double> dL_dbias;
            for (index l = 0; l < deep; ++l)
                for (index s = 0; s < 4; ++s) {
                    const double v = g.soft[g.at(l, s)];
                    const std::string& type = t[static_cast<std::size_t>(s)];
                    dL_dbias[type] += (dL_ds[g.at(l, s)] - pull / (2 * deep)) * v * (1 - v);
                    if (step >= steps - last) skip[type] += (1 - g.hard[g.at(l, s)]) / (2 * deep * last);
                }
            for (auto& [type, b] : bias) b -= 0.05 * dL_dbias[type];
        }
        return skip;
    }
};
double threshold(double s, std::uint64_t) { return s > 0.5 ? 1 : 0; }
double drawn(double s, std::uint64_t number) { return random_stream{7, 1}.uniform(number) < s ? 1 : 0; }
const std::map<std::string, double> wanted{{"plan", 0.2}, {"tool", 0.65}};
}  // namespace

TEST_CASE("skip_budget: every step type comes to its share", "[models][gates]") {
    for (const bool random : {false, true})
        for (double pull : {0.0, 2.0}) {
            INFO((random ? "gates drawn" : "gates at the threshold") << ", pull " << pull);
            toy gates{.spread = random ? 0.0 : 2.0, .pull = pull};
            const gate_objective o = skip_budget{.targets = wanted}.objective();
            const auto skip = gates.train(o, random ? drawn : threshold);
            for (const auto& [type, target] : wanted) {
                INFO(type << ": skip " << skip.at(type));
                CHECK(std::abs(skip.at(type) - target) < 0.03);
            }
            for (const auto& mu : o.state)
                CHECK(std::abs(*mu + pull) < 0.5);  // they pay for the task's pull, and no more
        }
}

TEST_CASE("skip_budget: without ascent the task's pull is not met", "[models][gates]") {
    toy gates{.pull = 4};
    const auto skip = gates.train(skip_budget{.targets = wanted, .ascent_rate = 0}.objective(), drawn);
    for (const auto& [type, target] : wanted) CHECK(skip.at(type) < target - 0.1);
}

TEST_CASE("skip_budget: one share for all leaves open who skips", "[models][gates]") {
    toy gates{.bias = {{"plan", 2}, {"tool", -1}}};
    const auto skip = gates.train(skip_budget{.targets = {{"", 0.5}}}.objective(), drawn);
    CHECK(std::abs((skip.at("plan") + skip.at("tool")) / 2 - 0.5) < 0.03);
    CHECK(skip.at("tool") > skip.at("plan") + 0.1);
}

}  // namespace spectral::test::gate_objective_test
