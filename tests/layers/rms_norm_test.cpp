// SPDX-License-Identifier: Apache-2.0
// tests/layers/rms_norm_test.cpp: root-mean-square norm with its parameter, trained and frozen
#include <spectral/layers/rms_norm.hpp>
#include <spectral/ops/elementwise.hpp>
#include "layer_test.hpp"

namespace spectral::test::rms_norm_test {

namespace {
template <class Exec, class T>
struct frozen_rms_norm : rms_norm<Exec, T> {
    frozen_rms_norm(index width, double eps, bool frozen) : rms_norm<Exec, T>(width, eps) {
        this->weight.trainable = !frozen;
    }
};

template <class Rig>
struct rms_calls {
    Rig& rig;
    write mode;
    template <class Pass, class X, class Y, class Saved>
    void forward(Pass& p, X x, Y y, Saved& s) {
        rig.layer.forward(p, x, y, s);
    }
    template <class Pass, class Y, class X, class Saved>
    void backward(Pass& p, Y dL_dy, X dL_dx, Saved& s) {
        if (mode == write::accumulate) return rig.layer.backward(p, dL_dy, dL_dx, s, dL_dx);
        auto fresh = p.matrix(dL_dx.rows(), dL_dx.width());
        rig.layer.backward(p, dL_dy, fresh, s);
        add(p.ex, fresh, dL_dx);
    }
};
}  // namespace

TEMPLATE_LIST_TEST_CASE("rms_norm layer: values and gradients", "[layers][rms_norm]", targets) {
    const layer_case c;
    for (bool frozen : {false, true})
        for (double eps : {1e-6, 0.5})  // the second is felt
            for (write mode : {write::accumulate, write::overwrite}) {
                const std::string about = std::string(frozen ? "frozen" : "trained") + ", eps " + std::to_string(eps) +
                                          (mode == write::accumulate ? ", +=" : ", =");
                compare_with_oracle<TestType>("rms_norm", about, [&]<class On>() {
                    using Layer = frozen_rms_norm<typename On::executor, typename On::scalar>;
                    layer_rig<On, Layer> rig(c, c.width, eps, frozen);
                    return rig.template results<typename Layer::saved>(rms_calls<decltype(rig)>{rig, mode});
                });
                if constexpr (std::is_same_v<TestType, oracle>) {
                    using Layer = frozen_rms_norm<reference::executor, double>;
                    layer_rig<oracle, Layer> rig(c, c.width, eps, frozen);
                    rig.require_gradients<Layer::saved>(rms_calls<decltype(rig)>{rig, mode}, "rms_norm, " + about);
                }
            }
}

// What the norm is for: rows of root mean square 1 times the weight, whatever the size of x.
TEMPLATE_LIST_TEST_CASE("rms_norm layer: rows have root mean square 1", "[layers][rms_norm]", targets) {
    using T = typename TestType::scalar;
    using Layer = frozen_rms_norm<typename TestType::executor, T>;
    const layer_case c;
    layer_rig<TestType, Layer> rig(c, c.width, 0.0, false);
    rms_calls<decltype(rig)> calls{rig, write::accumulate};
    rig.put(rig.layer.weight.value, std::vector<double>(static_cast<std::size_t>(c.width), 1.0));
    rig.template loss<typename Layer::saved>(calls);
    const auto y = rig.y;
    std::vector<double> squares, ones(static_cast<std::size_t>(c.rows()), 1.0);
    for (index n = 0; n < c.rows(); ++n) {
        double sum = 0;
        for (index i = 0; i < c.width; ++i) sum += std::pow(y[static_cast<std::size_t>(n * c.width + i)], 2);
        squares.push_back(sum / static_cast<double>(c.width));
    }
    const subject about{"rms_norm", "mean square", TestType::executor_name(), scalar_name<T>, "(10, 8)"};
    compare(squares, ones, allowed<T>(2.0 * static_cast<double>(c.width), 2), about);

    auto x = rig.wide(rig.x.view());
    for (double& v : x) v *= 1024;
    rig.put(rig.x.view(), x);
    rig.template loss<typename Layer::saved>(calls);
    compare(rig.y, y, allowed<T>(2.0 * static_cast<double>(c.width), 4), about);
}

}  // namespace spectral::test::rms_norm_test
