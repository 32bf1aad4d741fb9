// SPDX-License-Identifier: Apache-2.0
// tests/layers/gated_feed_forward_test.cpp: SwiGLU with its norm and residual: values, gradients, adapters
#include <spectral/layers/gated_feed_forward.hpp>
#include "layer_test.hpp"

namespace spectral::test::gated_feed_forward_test {

namespace {
enum class trained {
    all,
    adapters,
    first_adapters
};  // first: of gate and up; nothing reads what the last map was given

template <class Exec, class T>
struct feed_forward_of : gated_feed_forward<Exec, T> {
    feed_forward_of(const layer_case& c, trained what) : gated_feed_forward<Exec, T>(c.width, 11, 1e-6, c.layer) {
        if (what == trained::all) return;
        this->visit_parameters([](const std::string&, parameter<T>& p) { p.trainable = false; }, "");
        for (auto [map, name] :
             {std::pair{&this->gate_proj, "gate_proj"}, {&this->up_proj, "up_proj"}, {&this->down_proj, "down_proj"}})
            if (what == trained::adapters || map != &this->down_proj)
                map->adapt({.rank = 2, .alpha = 3, .dropout = c.dropout}, name);
    }
};
}  // namespace

TEMPLATE_LIST_TEST_CASE("gated_feed_forward: values and gradients", "[layers][gated_feed_forward]", targets) {
    for (trained what : {trained::all, trained::adapters, trained::first_adapters})
        for (double dropout : {0.0, 0.3}) {
            const layer_case c{.dropout = dropout};
            const std::string about = std::string(what == trained::all        ? "all"
                                                  : what == trained::adapters ? "adapters"
                                                                              : "first adapters") +
                                      " trained, dropout " + std::to_string(dropout);
            compare_with_oracle<TestType>("gated_feed_forward", about, [&]<class On>() {
                using Layer = feed_forward_of<typename On::executor, typename On::scalar>;
                layer_rig<On, Layer> rig(c, c, what);
                return rig.template results<typename Layer::saved>(layer_calls<decltype(rig)>{rig});
            });
            if constexpr (std::is_same_v<TestType, oracle>) {
                using Layer = feed_forward_of<reference::executor, double>;
                layer_rig<oracle, Layer> rig(c, c, what);
                rig.require_gradients<Layer::saved>(layer_calls<decltype(rig)>{rig}, "gated_feed_forward, " + about);
            }
        }
}

// The definition, computed here: x + W_down (SiLU(W_gate x̂) ⊙ W_up x̂), x̂ = RMSNorm(x)
TEMPLATE_LIST_TEST_CASE("gated_feed_forward: the definition", "[layers][gated_feed_forward]", targets) {
    using T = typename TestType::scalar;
    using Layer = feed_forward_of<typename TestType::executor, T>;
    const layer_case c;
    layer_rig<TestType, Layer> rig(c, c, trained::all);
    layer_calls<decltype(rig)> calls{rig};
    rig.template loss<typename Layer::saved>(calls);
    const auto product = [](const std::vector<double>& w, const std::vector<double>& x) {
        std::vector<double> out(w.size() / x.size());
        for (std::size_t o = 0; o < out.size(); ++o)
            for (std::size_t i = 0; i < x.size(); ++i) out[o] += w[o * x.size() + i] * x[i];
        return out;
    };
    const auto all = rig.wide(rig.x.view()), gamma = rig.wide(rig.layer.norm.weight.value),
               w_gate = rig.wide(rig.layer.gate_proj.weight.value), w_up = rig.wide(rig.layer.up_proj.weight.value),
               w_down = rig.wide(rig.layer.down_proj.weight.value);
    std::vector<double> want;
    for (index n = 0; n < c.rows(); ++n) {
        std::vector<double> x(all.begin() + n * c.width, all.begin() + (n + 1) * c.width), x_hat = x;
        double squares = 0;
        for (double v : x) squares += v * v;
        const double rms = std::sqrt(squares / static_cast<double>(c.width) + 1e-6);
        for (std::size_t i = 0; i < x.size(); ++i) x_hat[i] *= gamma[i] / rms;
        auto hidden = product(w_gate, x_hat);
        const auto up = product(w_up, x_hat);
        for (std::size_t i = 0; i < hidden.size(); ++i) hidden[i] *= up[i] / (1 + std::exp(-hidden[i]));
        const auto down = product(w_down, hidden);
        for (std::size_t i = 0; i < x.size(); ++i) want.push_back(x[i] + down[i]);
    }
    compare(rig.y, want, allowed<T>(64, std::max(4.0, largest(want))),
            {"gated_feed_forward", "y", TestType::executor_name(), scalar_name<T>, "(10, 8)"});
}

TEST_CASE("gated_feed_forward: keeps its hidden rows only where a gradient needs them",
          "[layers][gated_feed_forward]") {
    using Layer = feed_forward_of<reference::executor, double>;
    for (auto [what, kept] :
         {std::pair{trained::all, true}, {trained::adapters, true}, {trained::first_adapters, false}}) {
        layer_rig<oracle, Layer> rig(layer_case{}, layer_case{}, what);
        arena_scope scratch(rig.ex);
        pass<reference::executor, double> p{.ex = rig.ex, .phase = phase::training};
        Layer::saved s;
        rig.layer.forward(p, rig.x.view(), p.matrix(rig.c.rows(), rig.c.width), s);
        CHECK((s.hidden.data != nullptr) == kept);
    }
}

TEST_CASE("gated_feed_forward: counts its rows", "[layers][gated_feed_forward]") {
    using Layer = feed_forward_of<reference::executor, double>;
    const layer_case c;
    layer_rig<oracle, Layer> rig(c, c, trained::all);
    layer_calls<decltype(rig)> calls{rig};
    route_trace trace(route_trace::mode::count);
    rig.trace = &trace;
    rig.loss<Layer::saved>(calls);
    CHECK(trace.counts.at(c.layer).work.rows == c.rows());
}

}  // namespace spectral::test::gated_feed_forward_test
