// SPDX-License-Identifier: Apache-2.0
// tests/layers/lora_test.cpp: low-rank adapters: gradients with and without dropout, merged = unmerged, a new one
// changes nothing
#include <spectral/layers/linear.hpp>
#include "layer_test.hpp"

namespace spectral::test::lora_test {

namespace {
constexpr index outputs_of_map = 5;

struct adapted_case {
    lora_options lora{.rank = 3, .alpha = 5, .dropout = 0, .rank_stabilized = false};
    bool frozen = true;  // the map below the adapter
    index first = 0, count = outputs_of_map;
    std::string name = "q_proj";
};

template <class Exec, class T>
struct adapted_map : linear<Exec, T> {
    struct saved {
        const_matrix<T> x;
    };
    adapted_map(index in, index out, const adapted_case& o) : linear<Exec, T>(in, out) {
        this->weight.trainable = this->bias.trainable = !o.frozen;
        this->adapt(o.lora, o.name);
    }
};

template <class Rig>
struct adapted_calls {
    Rig& rig;
    index first, count;
    template <class Pass, class X, class Y, class Saved>
    void forward(Pass& p, X x, Y y, Saved& s) {
        s.x = x;
        rig.layer.forward_part(p, first, count, x, y);
    }
    template <class Pass, class Y, class X, class Saved>
    void backward(Pass& p, Y dL_dy, X dL_dx, Saved& s) {
        rig.layer.backward_part(p, first, count, dL_dy, s.x, dL_dx, write::accumulate);
    }
};

// use(rig, calls) of an adapted map 8 -> 5 on a target
template <class On, class F>
auto with_adapted(const layer_case& c, const adapted_case& o, F&& use) {
    using Layer = adapted_map<typename On::executor, typename On::scalar>;
    layer_rig<On, Layer> rig(c, c.width, outputs_of_map, o);
    rig.output(c.rows(), o.count);
    return use(rig, adapted_calls<decltype(rig)>{rig, o.first, o.count});
}
template <class Rig>
using saved_of = typename std::remove_reference_t<decltype(std::declval<Rig>().layer)>::saved;

std::string describe(const adapted_case& o) {
    return "dropout " + std::to_string(o.lora.dropout) + (o.lora.rank_stabilized ? ", rank-stabilised" : "") +
           (o.frozen ? ", frozen map" : "") + ", outputs " + std::to_string(o.first) + " + " + std::to_string(o.count);
}

std::vector<adapted_case> cases() {
    std::vector<adapted_case> out;
    for (double dropout : {0.0, 0.4})
        for (bool stable : {false, true})
            for (bool frozen : {false, true})
                for (auto [first, count] : {std::pair<index, index>{0, 5}, {2, 3}})
                    out.push_back({{3, 5, dropout, stable}, frozen, first, count});
    return out;
}

std::vector<double> y_of(const adapted_case& o, const layer_case& c) {
    return with_adapted<oracle>(c, o, [](auto& rig, auto calls) {
        rig.template loss<saved_of<decltype(rig)>>(calls);
        return rig.y;
    });
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("lora: values and gradients", "[layers][lora]", targets) {
    const layer_case c;
    for (const auto& o : cases()) {
        compare_with_oracle<TestType>("lora", describe(o), [&]<class On>() {
            return with_adapted<On>(
                c, o, [](auto& rig, auto calls) { return rig.template results<saved_of<decltype(rig)>>(calls); });
        });
        if constexpr (std::is_same_v<TestType, oracle>)
            with_adapted<oracle>(c, o, [&](auto& rig, auto calls) {
                rig.template require_gradients<saved_of<decltype(rig)>>(calls, "lora, " + describe(o));
                CHECK(rig.store.named().size() == 4);
                for (const auto& [name, p] : rig.store.named())  // a frozen map keeps no gradients
                    CHECK((p->grad.data != nullptr) == (!o.frozen || name.starts_with("lora_")));
            });
    }
}

// The definition: y = x (W + scale B A)ᵀ + b, computed here.
TEMPLATE_LIST_TEST_CASE("lora: merged equals unmerged equals the definition", "[layers][lora]", targets) {
    using T = typename TestType::scalar;
    for (bool stable : {false, true}) {
        adapted_case o;
        o.lora.rank_stabilized = stable;
        o.lora.dropout = 0.4;  // not at evaluation
        const layer_case c{.phase = phase::evaluation};
        with_adapted<TestType>(c, o, [&](auto& rig, auto calls) {
            using Saved = saved_of<decltype(rig)>;
            const index R = o.lora.rank, C = c.width, O = outputs_of_map;
            const double scale = 5 / (stable ? std::sqrt(3.0) : 3.0);
            const auto x = rig.wide(rig.x.view()), w = rig.wide(rig.layer.weight.value),
                       bias = rig.wide(rig.layer.bias.value), a = rig.wide(rig.layer.adapter->a.value),
                       b = rig.wide(rig.layer.adapter->b.value);
            const auto at = [](const std::vector<double>& m, index width, index row, index column) {
                return m[static_cast<std::size_t>(row * width + column)];
            };
            std::vector<double> want;
            for (index n = 0; n < c.rows(); ++n)
                for (index out = 0; out < O; ++out) {
                    double sum = bias[static_cast<std::size_t>(out)];
                    for (index i = 0; i < C; ++i) {
                        double weight = at(w, C, out, i);
                        for (index r = 0; r < R; ++r) weight += scale * at(b, R, out, r) * at(a, C, r, i);
                        sum += at(x, C, n, i) * weight;
                    }
                    want.push_back(sum);
                }
            const double bound = allowed<T>(static_cast<double>(C + R + 2), std::max(4.0, largest(want)));
            const std::string about = stable ? "rank-stabilised" : "plain";
            rig.template loss<Saved>(calls);
            compare(rig.y, want, bound, {"lora", "unmerged", TestType::executor_name(), scalar_name<T>, about});
            rig.layer.merge(rig.ex);
            CHECK(!rig.layer.adapter);
            rig.template loss<Saved>(calls);
            compare(rig.y, want, bound, {"lora", "merged", TestType::executor_name(), scalar_name<T>, about});
        });
    }
}

TEST_CASE("lora: a new adapter changes nothing", "[layers][lora]") {
    using Layer = adapted_map<reference::executor, double>;
    const layer_case c;
    const adapted_case o;
    const auto initial = [&](bool adapted) {
        layer_rig<oracle, Layer> rig(c, c.width, outputs_of_map, o);
        rig.output(c.rows(), o.count);
        rig.store.initialize(4);
        CHECK(largest(rig.wide(rig.layer.adapter->a.value)) > 0);
        if (!adapted) rig.layer.adapter.reset();
        adapted_calls<decltype(rig)> calls{rig, o.first, o.count};
        rig.loss<Layer::saved>(calls);
        return rig.y;
    };
    CHECK(initial(true) == initial(false));
}

TEST_CASE("lora: dropout draws anew for every step and adapter, and only in training", "[layers][lora]") {
    adapted_case o;
    o.lora.dropout = 0.5;
    const auto at = [&](std::uint64_t step, phase ph) { return y_of(o, {.phase = ph, .step = step}); };
    const auto first = at(1, phase::training);
    CHECK(at(1, phase::training) == first);
    CHECK(at(2, phase::training) != first);
    const auto evaluated = at(1, phase::evaluation);
    CHECK(evaluated != first);
    o.name = "k_proj";
    CHECK(at(1, phase::training) != first);
    CHECK(at(1, phase::evaluation) == evaluated);
    o.lora.dropout = 0;
    CHECK(at(1, phase::training) == evaluated);
}

TEST_CASE("lora: sentences", "[layers][lora]") {
    using Layer = lora<reference::executor, double>;
    check_throws([] { Layer(4, 4, {.rank = 0}, "q_proj"); }, {"q_proj", "rank", "at least 1", "found 0"});
    check_throws([] { Layer(4, 4, {.dropout = 1}, "q_proj"); }, {"q_proj", "dropout", "[0, 1)", "found 1"});
}

}  // namespace spectral::test::lora_test
