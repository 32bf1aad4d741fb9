// SPDX-License-Identifier: Apache-2.0
// tests/core/parameters_test.cpp: named parameters in one block: layout, initial values, frozen ones
#include <spectral/core/parameters.hpp>
#include <support/catch.hpp>
#include <support/executors.hpp>

namespace spectral::test {

namespace {
template <class T>
struct toy {
    parameter<T> weight{{7, 5}, initializer::normal(0.5)}, bias{{7}, initializer::zeros()};
    parameter<T> scale{{3}, initializer::constant(2.5)}, spread{{1000}, initializer::uniform(0.25)}, unused;

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        f(prefix + "weight", weight);
        f(prefix + "bias", bias);
        f(prefix + "scale", scale);
        f(prefix + "spread", spread);
        f(prefix + "unused", unused);
    }
};
}  // namespace

TEMPLATE_LIST_TEST_CASE("parameter_store: one block, aligned views, padding", "[core][parameters]", targets) {
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    toy<T> model;
    CHECK(count_parameters(model) == 35 + 7 + 3 + 1000);
    parameter_store<typename TestType::executor, T> store(ex, model);
    CHECK(store.named().size() == 4);
    CHECK(store.named()[1].first == "bias");
    CHECK(store.masters().size() == store.gradients_view().size());
    CHECK(store.masters().size() % (64 / static_cast<index>(sizeof(T))) == 0);
    const T *first = store.masters().data, *last = first + store.masters().size();
    for (const auto& [name, p] : store.named()) {
        INFO(name);
        CHECK(reinterpret_cast<std::uintptr_t>(p->value.data) % 64 == 0);
        CHECK(p->value.size() == p->size());
        CHECK(p->grad.data - store.gradients_view().data == p->value.data - first);
        CHECK(p->value.data >= first);
        CHECK(p->value.data + p->size() <= last);
    }
    CHECK(model.weight.value.rows() == 7);
    CHECK(model.bias.value.rows() == 1);
    CHECK(model.bias.vector().size() == 7);
}

TEMPLATE_LIST_TEST_CASE("parameter_store: initial values", "[core][parameters]", targets) {
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    toy<T> model;
    parameter_store<typename TestType::executor, T> store(ex, model);
    store.initialize(11);
    const random_stream draw{11, stream_of("weight")};
    const auto w = to_host(ex, model.weight.value);
    for (std::size_t i = 0; i < w.size(); ++i) CHECK(w[i] == static_cast<T>(0.5 * draw.normal(i)));
    for (T b : to_host(ex, model.bias.value)) CHECK(b == T(0));
    for (T s : to_host(ex, model.scale.value)) CHECK(s == T(2.5));
    double low = 1, high = -1;
    for (T u : to_host(ex, model.spread.value)) low = std::min<double>(low, u), high = std::max<double>(high, u);
    CHECK((low >= -0.25 && low < -0.24));
    CHECK((high < 0.25 && high > 0.24));

    toy<T> again;
    parameter_store<typename TestType::executor, T> other(ex, again);
    other.initialize(12);
    CHECK(to_host(ex, again.weight.value) != w);
    other.initialize(11);
    CHECK(to_host(ex, other.masters()) == to_host(ex, store.masters()));
}

TEMPLATE_LIST_TEST_CASE("parameter_store: frozen parameters have values and no gradients", "[core][parameters]",
                        targets) {
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    toy<T> model;
    model.weight.trainable = false;
    parameter_store<typename TestType::executor, T> store(ex, model);
    CHECK(model.weight.grad.data == nullptr);
    CHECK(model.weight.value.size() == 35);
    CHECK(model.bias.grad.data != nullptr);
    const index unit = 32;  // values, whatever the scalar
    CHECK(store.masters().size() == unit + unit + (1000 + unit - 1) / unit * unit);
    store.initialize(1);
    ex.copy_from_host(model.bias.grad.data, std::vector<T>(7, T(3)).data(), 7 * sizeof(T));
    store.zero_gradients();
    for (T g : to_host(ex, store.gradients_view())) CHECK(g == T(0));

    toy<T> inference;
    parameter_store<typename TestType::executor, T> no_gradients(ex, inference, gradients::none);
    CHECK(no_gradients.gradients_view().size() == 0);
    CHECK(inference.bias.grad.data == nullptr);
    no_gradients.zero_gradients();
}

TEMPLATE_LIST_TEST_CASE("parameter_store: forgotten gradients are whole once settled", "[core][parameters]", targets) {
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    toy<T> model;
    model.weight.written_first = true;
    parameter_store<typename TestType::executor, T> store(ex, model);
    store.initialize(1);
    const auto& w = model.weight;
    const auto set = [&](index first, index count, double value) {
        const std::vector<statistic<T>> host(static_cast<std::size_t>(count * w.grad.width()), statistic<T>(value));
        ex.copy_from_host(w.grad.row(first), host.data(), host.size() * sizeof host[0]);
    };
    const index rows = w.grad.rows();
    REQUIRE(rows >= 4);
    set(0, rows, 3);
    store.forget_gradients();
    CHECK(model.weight.write_mode(1, 1) == write::overwrite);
    set(1, 1, 5);
    CHECK(model.weight.write_mode(1, 1) == write::accumulate);
    CHECK(model.weight.write_mode(3, 1) == write::overwrite);
    set(3, 1, 7);
    CHECK_THROWS_AS(model.weight.write_mode(2, 2), error);  // half of it was written as another part
    store.settle_gradients();
    CHECK(model.weight.write_mode(0, rows) == write::accumulate);
    const auto host = to_host(ex, w.grad);
    for (index r = 0; r < rows; ++r)
        CHECK(host[static_cast<std::size_t>(r * w.grad.width())] == statistic<T>(r == 1 ? 5 : r == 3 ? 7 : 0));
    for (auto g : to_host(ex, model.bias.grad)) CHECK(g == statistic<T>(0));
}

TEST_CASE("parameter: rank 1 or 2", "[core][parameters]") {
    CHECK_THROWS_AS(parameter<float>({2, 3, 4}, initializer::zeros()), error);
    CHECK_FALSE(parameter<float>().used());
    CHECK(parameter<float>({2, 3}, initializer::zeros()).size() == 6);
}

}  // namespace spectral::test
