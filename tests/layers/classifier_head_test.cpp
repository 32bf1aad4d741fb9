// SPDX-License-Identifier: Apache-2.0
// tests/layers/classifier_head_test.cpp: mean over the real tokens of a sequence, two linear maps, dropout between
#include <spectral/models/task_model.hpp>
#include "layer_test.hpp"

namespace spectral::test::classifier_head_test {

TEMPLATE_LIST_TEST_CASE("classifier_head", "[layers][classifier_head]", targets) {
    constexpr index classes = 5;
    for (double dropout : {0.0, 0.4}) {
        const layer_case c{.dropout = dropout};
        const std::string about = "dropout " + std::to_string(dropout);
        const auto sequences = static_cast<index>(c.lengths.size());
        compare_with_oracle<TestType>("classifier_head", about, [&]<class On>() {
            using Layer = classifier_head<typename On::executor, typename On::scalar>;
            layer_rig<On, Layer> rig(c, c.width, classes, dropout);
            rig.output(sequences, classes);
            return rig.template results<typename Layer::saved>(layer_calls<decltype(rig)>{rig});
        });
        if constexpr (std::is_same_v<TestType, oracle>) {
            using Layer = classifier_head<reference::executor, double>;
            layer_rig<oracle, Layer> rig(c, c.width, classes, dropout);
            rig.output(sequences, classes);
            rig.template require_gradients<Layer::saved>(layer_calls<decltype(rig)>{rig}, "classifier_head, " + about);
        }
    }
}

}  // namespace spectral::test::classifier_head_test
