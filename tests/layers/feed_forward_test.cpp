// SPDX-License-Identifier: Apache-2.0
// tests/layers/feed_forward_test.cpp: the feed-forward, its two dropouts, and both ways to write its gradient
#include <spectral/layers/feed_forward.hpp>
#include <spectral/ops/elementwise.hpp>
#include "layer_test.hpp"

namespace spectral::test::feed_forward_test {

namespace {
template <class Rig>
struct feed_forward_calls {
    Rig& rig;
    write mode;
    template <class Pass, class X, class Y, class Saved>
    void forward(Pass& p, X x, Y y, Saved& s) {
        rig.layer.forward(p, x, y, s);
    }
    template <class Pass, class Y, class X, class Saved>
    void backward(Pass& p, Y dL_dy, X dL_dx, Saved& s) {
        if (mode == write::accumulate) return rig.layer.backward(p, dL_dy, dL_dx, s, mode);
        auto fresh = p.matrix(dL_dx.rows(), dL_dx.width());  // overwritten, then added
        rig.layer.backward(p, dL_dy, fresh, s, mode);
        add(p.ex, fresh, dL_dx);
    }
};
}  // namespace

TEMPLATE_LIST_TEST_CASE("feed_forward", "[layers][feed_forward]", targets) {
    for (double dropout : {0.0, 0.4})
        for (write mode : {write::accumulate, write::overwrite}) {
            const layer_case c{.dropout = dropout};
            const auto run = [&]<class On>(auto use) {
                using Layer = feed_forward<typename On::executor, typename On::scalar>;
                layer_rig<On, Layer> rig(c, c.width, dropout, index{3}, index{1});
                return use(rig, feed_forward_calls<decltype(rig)>{rig, mode});
            };
            const std::string about =
                "dropout " + std::to_string(dropout) + (mode == write::accumulate ? ", +=" : ", =");
            compare_with_oracle<TestType>("feed_forward", about, [&]<class On>() {
                return run.template operator()<On>([](auto& rig, auto calls) {
                    return rig.template results<typename std::remove_reference_t<decltype(rig.layer)>::saved>(calls);
                });
            });
            if constexpr (std::is_same_v<TestType, oracle>)
                run.template operator()<oracle>([&](auto& rig, auto calls) {
                    rig.template require_gradients<typename std::remove_reference_t<decltype(rig.layer)>::saved>(
                        calls, "feed_forward, " + about);
                });
        }
}

TEST_CASE("feed_forward: dropout draws anew for every step, and only in training", "[layers][feed_forward]") {
    using Layer = feed_forward<reference::executor, double>;
    const auto y_of = [](std::uint64_t step, phase ph, double dropout) {
        const layer_case c{.dropout = dropout, .phase = ph, .step = step};
        layer_rig<oracle, Layer> rig(c, c.width, dropout, index{3}, index{1});
        feed_forward_calls<decltype(rig)> calls{rig, write::accumulate};
        rig.loss<Layer::saved>(calls);
        return rig.y;
    };
    CHECK(y_of(1, phase::training, 0.5) == y_of(1, phase::training, 0.5));
    CHECK(y_of(1, phase::training, 0.5) != y_of(2, phase::training, 0.5));
    CHECK(y_of(1, phase::evaluation, 0.5) == y_of(1, phase::evaluation, 0));
}

}  // namespace spectral::test::feed_forward_test
