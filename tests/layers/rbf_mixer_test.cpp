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

TEST_CASE("rbf_mixer: omega is fixed", "[layers][rbf_mixer]") {
    const layer_case c;
    layer_rig<oracle, rbf_mixer<reference::executor, double>> rig(c, operator_config_of<oracle>(c));
    CHECK(rig.layer.omega.grad.data == nullptr);
    CHECK(rig.layer.omega.value.data != nullptr);
}

}  // namespace spectral::test::rbf_mixer_test
