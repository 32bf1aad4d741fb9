// SPDX-License-Identifier: Apache-2.0
// tests/layers/layer_norm_test.cpp: layer norm with its parameters, alone and after a residual sum
#include <spectral/layers/layer_norm.hpp>
#include <spectral/ops/elementwise.hpp>
#include <spectral/ops/row_scale.hpp>
#include "layer_test.hpp"

namespace spectral::test::layer_norm_test {

namespace {
// y = LN(x), or y = LN(x + r) with r = x / 2: the gradient of the sum reaches x once directly and once through r
template <class Rig>
struct norm_calls {
    Rig& rig;
    bool residual;
    template <class Pass, class X, class Y, class Saved>
    void forward(Pass& p, X x, Y y, Saved& s) {
        if (!residual) return rig.layer.forward(p, x, y, s);
        auto half = p.matrix(1, x.rows()), r = p.matrix(x.rows(), x.width());
        rig.put(half, std::vector<double>(static_cast<std::size_t>(x.rows()), 0.5));
        scale_rows<typename Rig::executor, typename Rig::T>(p.ex, x,
                                                            matrix_view<typename Rig::T>{half.data, {x.rows(), 1}}, r);
        rig.layer.forward_add(p, x, r, y, s);
    }
    template <class Pass, class Y, class X, class Saved>
    void backward(Pass& p, Y dL_dy, X dL_dx, Saved& s) {
        if (!residual) return rig.layer.backward(p, dL_dy, dL_dx, s, write::accumulate);
        auto dL_ds = p.matrix(dL_dx.rows(), dL_dx.width());
        rig.layer.backward(p, dL_dy, dL_ds, s);
        auto v = rig.wide(dL_ds);
        for (double& e : v) e *= 1.5;
        rig.put(dL_ds, v);
        add(p.ex, dL_ds, dL_dx);
    }
};
}  // namespace

TEMPLATE_LIST_TEST_CASE("layer_norm", "[layers][layer_norm]", targets) {
    const layer_case c;
    for (bool residual : {false, true}) {
        const std::string about = residual ? "after a sum" : "alone";
        compare_with_oracle<TestType>("layer_norm", about, [&]<class On>() {
            using Layer = layer_norm<typename On::executor, typename On::scalar>;
            layer_rig<On, Layer> rig(c, c.width);
            return rig.template results<typename Layer::saved>(norm_calls<decltype(rig)>{rig, residual});
        });
        if constexpr (std::is_same_v<TestType, oracle>) {
            using Layer = layer_norm<reference::executor, double>;
            layer_rig<oracle, Layer> rig(c, c.width);
            rig.template require_gradients<Layer::saved>(norm_calls<decltype(rig)>{rig, residual},
                                                         "layer_norm, " + about);
        }
    }
}

}  // namespace spectral::test::layer_norm_test
