// SPDX-License-Identifier: Apache-2.0
// tests/layers/meta_router_test.cpp: the gate on the first layer under every pooling, and hard gating at evaluation
#include <spectral/layers/block.hpp>
#include <spectral/layers/dct_mixer.hpp>
#include <spectral/layers/meta_router.hpp>
#include "layer_test.hpp"

namespace spectral::test::meta_router_test {

namespace {
// The MetaRouter and the layer it gates, as one layer with parameters.
template <class Exec, class T>
struct gated {
    using layer_type = block<Exec, T, dct_mixer<Exec, T>>;
    using saved = typename meta_router<Exec, T>::template saved<layer_type>;
    layer_type first;
    meta_router<Exec, T> gate;

    gated(const operator_config<Exec, T>& c, const meta_options& o) : first(c, c), gate(c.width, o) {}
    void forward(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y, saved& s) { gate.forward(p, first, x, y, s); }
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s) {
        gate.backward(p, first, dL_dy, dL_dx, s);
    }
    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        first.visit_parameters(f, prefix);
        gate.visit_parameters(f, prefix + "meta_router.");
    }
};

constexpr std::array pools{meta_pool::batch, meta_pool::sequence, meta_pool::causal, meta_pool::fixed};
const char* name_of(meta_pool p) {
    return p == meta_pool::batch      ? "batch"
           : p == meta_pool::sequence ? "sequence"
           : p == meta_pool::causal   ? "causal"
                                      : "fixed";
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("meta_router: values and gradients", "[layers][meta_router]", targets) {
    for (meta_pool pool : pools)
        for (double dropout : {0.0, 0.3}) {
            const layer_case c{.dropout = dropout};
            const meta_options o{.pool = pool, .fixed_gate = 0.3};
            const std::string about = std::string(name_of(pool)) + ", dropout " + std::to_string(dropout);
            compare_with_oracle<TestType>(
                "meta_router", about,
                [&]<class On>() {
                    using Layer = gated<typename On::executor, typename On::scalar>;
                    layer_rig<On, Layer> rig(c, operator_config_of<On>(c), o);
                    return rig.template results<typename Layer::saved>(layer_calls<decltype(rig)>{rig});
                },
                4096);
            if constexpr (std::is_same_v<TestType, oracle>) {
                using Layer = gated<reference::executor, double>;
                layer_rig<oracle, Layer> rig(c, operator_config_of<oracle>(c), o);
                rig.template require_gradients<Layer::saved>(layer_calls<decltype(rig)>{rig}, "meta_router, " + about);
            }
        }
}

// A gate below the threshold leaves its rows as they are, and runs L1 on the others alone. In training nothing is
// skipped.
TEMPLATE_LIST_TEST_CASE("meta_router: hard gating at evaluation", "[layers][meta_router]", targets) {
    using T = typename TestType::scalar;
    using Layer = gated<typename TestType::executor, T>;
    for (meta_pool pool : pools) {
        INFO(name_of(pool));
        const auto y_of = [&](double skip_below, phase ph, route_trace* trace) {
            const layer_case c{.phase = ph};
            layer_rig<TestType, Layer> rig(c, operator_config_of<TestType>(c), meta_options{pool, 0.3, skip_below});
            rig.trace = trace;
            layer_calls<decltype(rig)> calls{rig};
            rig.template loss<typename Layer::saved>(calls);
            return rig.y;
        };
        route_trace open;
        const auto blended = y_of(0, phase::evaluation, &open);
        auto gates = open.meta_gate;
        std::sort(gates.begin(), gates.end());
        const double threshold =
            gates.size() == 1 ? 0.99 : (gates[gates.size() / 2 - 1] + gates[gates.size() / 2]) / 2;  // skips about half
        REQUIRE(threshold > gates.front());

        const layer_case c;
        const auto x = normals(c.rows() * c.width, 90);
        route_trace trace;
        const auto hard = y_of(threshold, phase::evaluation, &trace);
        const auto all_open = y_of(gates.front() * 0.99, phase::evaluation, nullptr);
        std::vector<double> want = blended;
        index run = 0, row = 0;
        for (std::size_t s = 0; s < c.lengths.size(); ++s)
            for (index t = 0; t < c.lengths[s]; ++t, ++row) {
                const double g = open.meta_gate[pool == meta_pool::causal     ? static_cast<std::size_t>(row)
                                                : pool == meta_pool::sequence ? s
                                                                              : 0];
                run += g >= threshold;
                for (index i = 0; i < c.width && g < threshold; ++i)
                    want[static_cast<std::size_t>(row * c.width + i)] = x[static_cast<std::size_t>(row * c.width + i)];
            }
        const subject about{"meta_router", "y", TestType::executor_name(), scalar_name<T>, name_of(pool)};
        compare(hard, want, allowed<T>(256, 4), about);
        compare(all_open, blended, allowed<T>(256, 4), about);
        CHECK(trace.counts[3].work.dct_rows == run);
        CHECK(run < c.rows());
        compare(y_of(threshold, phase::training, nullptr), blended, allowed<T>(256, 4), about);
    }
}

}  // namespace spectral::test::meta_router_test
