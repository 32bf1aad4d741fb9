// SPDX-License-Identifier: Apache-2.0
// tests/train/adamw_test.cpp: AdamW over a store: a learning rate for each parameter, frozen ones, the norm of all
#include <spectral/train/adamw.hpp>
#include <support/operator_test.hpp>

namespace spectral::test {

namespace {
constexpr int steps = 5;
const adamw_options usual{0.01, 0.9, 0.95, 1e-8, 0.1};

struct part {
    std::string name;
    index size;
    double rate;
    bool trainable = true;
};

template <class T>
struct toy {
    std::vector<std::pair<std::string, parameter<T>>> parameters;
    explicit toy(const std::vector<part>& parts) {
        for (const part& o : parts) {
            parameters.emplace_back(o.name, parameter<T>({o.size}, initializer::normal(1)));
            parameters.back().second.rate = o.rate;
            parameters.back().second.trainable = o.trainable;
        }
    }
    template <class F>
    void visit_parameters(F&& f, const std::string&) {
        for (auto& [name, p] : parameters) f(name, p);
    }
};

// values by name after some steps with gradients that follow from the name
template <class Target>
std::map<std::string, std::vector<double>> trained(const std::vector<part>& parts, adamw_options o,
                                                   double gradient_scale = 1, double max_norm = 0) {
    using Exec = typename Target::executor;
    using T = typename Target::scalar;
    auto& ex = Target::instance();
    toy<T> model(parts);
    parameter_store<Exec, T> store(ex, model);
    store.initialize(1);
    store.zero_gradients();
    adamw<Exec, T> optimizer(ex, store);
    for (int step = 0; step < steps; ++step) {
        for (const auto& [name, p] : store.named()) {
            if (!p->trainable) continue;
            std::vector<T> g;
            for (double v : normals(p->size(), stream_of(name) % 1000 + static_cast<std::uint64_t>(step)))
                g.push_back(static_cast<T>(v * gradient_scale));
            ex.copy_from_host(p->grad.data, g.data(), g.size() * sizeof(T));
        }
        optimizer.step(o, max_norm);
    }
    CHECK(optimizer.steps() == steps);
    std::map<std::string, std::vector<double>> out;
    for (const auto& [name, p] : store.named()) {
        const auto host = to_host(ex, p->value);
        out[name].assign(host.begin(), host.end());
    }
    return out;
}
}  // namespace

// Sizes that leave padding; neighbours of one rate are one range, and a frozen parameter between them is not in it.
TEMPLATE_LIST_TEST_CASE("adamw: a parameter's rate is a run of its own at that rate", "[train][adamw]", targets) {
    using T = typename TestType::scalar;
    for (const auto& parts :
         {std::vector<part>{{"a", 7, 1}, {"b", 5, 10}},
          {{"b", 33, 10}, {"a", 3, 1}},
          {{"a", 17, 1}, {"frozen", 9, 10, false}, {"b", 16, 10}, {"c", 2, 10}, {"d", 40, 1}, {"e", 1, 0}}}) {
        const auto together = trained<TestType>(parts, usual);
        for (const part& o : parts) {
            adamw_options own = usual;
            own.learning_rate *= o.rate;
            const auto want = trained<TestType>({{o.name, o.size, 1, o.trainable}}, own).at(o.name);
            compare(together.at(o.name), want, allowed<T>(8.0 * steps, std::max(1.0, largest(want))),
                    {"adamw", o.name, TestType::executor_name(), scalar_name<T>, "rate " + std::to_string(o.rate)});
        }
    }
    CHECK(trained<oracle>({{"a", 7, 1}}, usual) != trained<oracle>({{"a", 7, 10}}, usual));
    CHECK(trained<oracle>({{"a", 7, 0}}, usual) ==
          trained<oracle>({{"a", 7, 1, false}}, usual));  // rate 0 stands still
}

TEMPLATE_LIST_TEST_CASE("adamw: one norm clips all, whatever their rates", "[train][adamw]", targets) {
    using Exec = typename TestType::executor;
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    toy<T> model({{"a", 2, 1}, {"b", 2, 10}});
    parameter_store<Exec, T> store(ex, model);
    store.zero_gradients();
    adamw<Exec, T> optimizer(ex, store);
    const std::vector<T> three{3, 0}, four{0, 4};
    ex.copy_from_host(store.named()[0].second->grad.data, three.data(), 2 * sizeof(T));
    ex.copy_from_host(store.named()[1].second->grad.data, four.data(), 2 * sizeof(T));
    CHECK(optimizer.gradient_norm() == Approx(5));
    CHECK(optimizer.step(usual, 1) == Approx(5));  // the norm before clipping
    const auto m = optimizer.first_moments().to_host();
    CHECK(static_cast<double>(m[0]) == Approx(0.1 * 3 / 5).epsilon(1e-5));  // (1 - β₁) c g
    const auto second = static_cast<std::size_t>(store.named()[1].second->value.data - store.masters().data);
    CHECK(static_cast<double>(m[second + 1]) == Approx(0.1 * 4 / 5).epsilon(1e-5));
}

}  // namespace spectral::test
