// SPDX-License-Identifier: Apache-2.0
// tests/layers/rbf_mixer_test.cpp: the random-feature mixer of v1, causal and bidirectional, on every kind of selection
#include <spectral/layers/rbf_mixer.hpp>
#include "layer_test.hpp"

namespace spectral::test::rbf_mixer_test {

TEMPLATE_LIST_TEST_CASE("rbf_mixer: causal and bidirectional, with dropout", "[layers][rbf_mixer]", targets) {
    for (bool causal : {true, false})
        for (double dropout : {0.0, 0.3}) {
            if (!causal && dropout > 0) continue;
            check_operator<TestType, rbf_mixer>(
                "rbf_mixer", {.dropout = dropout, .rbf_causal = causal},
                std::string(causal ? "causal" : "bidirectional") + ", dropout " + std::to_string(dropout));
        }
}

TEST_CASE("rbf_mixer: counts what it runs", "[layers][rbf_mixer]") {
    for (bool causal : {true, false}) {
        const layer_case c{.rbf_causal = causal};  // sequences of 5, 1 and 4
        using Layer = rbf_mixer<reference::executor, double>;
        layer_rig<oracle, Layer> rig(c, operator_config_of<oracle>(c));
        rig.rows = {1, 4, 5, 9};
        route_trace trace(route_trace::mode::count);
        rig.trace = &trace;
        operator_calls<decltype(rig)> calls{rig};
        rig.loss<Layer::saved>(calls);
        const auto& work = trace.counts.at(c.layer).work;
        CHECK(work.rbf_rows == 4);
        CHECK(work.rbf_key_rows == 10);
        CHECK(work.rbf_pairs == (causal ? 2 + 5 + 1 + 4 : 5 + 5 + 1 + 4));
    }
}

TEST_CASE("rbf_mixer: omega is fixed", "[layers][rbf_mixer]") {
    const layer_case c;
    layer_rig<oracle, rbf_mixer<reference::executor, double>> rig(c, operator_config_of<oracle>(c));
    CHECK(rig.layer.omega.grad.data == nullptr);
    CHECK(rig.layer.omega.value.data != nullptr);
}

}  // namespace spectral::test::rbf_mixer_test
