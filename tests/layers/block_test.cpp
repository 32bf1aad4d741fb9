// SPDX-License-Identifier: Apache-2.0
// tests/layers/block_test.cpp: a token operator and the feed-forward that follows it, with dropout in both
#include <spectral/layers/block.hpp>
#include <spectral/layers/dct_mixer.hpp>
#include <spectral/layers/self_attention.hpp>
#include "layer_test.hpp"

namespace spectral::test::block_test {

namespace {
template <class Target, template <class, class> class Operator>
void check_block(const std::string& about) {
    for (double dropout : {0.0, 0.3}) {
        const layer_case c{.dropout = dropout};
        const std::string text = about + ", dropout " + std::to_string(dropout);
        compare_with_oracle<Target>(
            "block", text,
            [&]<class On>() {
                using Exec = typename On::executor;
                using T = typename On::scalar;
                using Layer = block<Exec, T, Operator<Exec, T>>;
                const auto o = operator_config_of<On>(c);
                layer_rig<On, Layer> rig(c, o, o);
                return rig.template results<typename Layer::saved>(layer_calls<decltype(rig)>{rig});
            },
            4096);
        if constexpr (std::is_same_v<Target, oracle>) {
            using Layer = block<reference::executor, double, Operator<reference::executor, double>>;
            const auto o = operator_config_of<oracle>(c);
            layer_rig<oracle, Layer> rig(c, o, o);
            rig.template require_gradients<typename Layer::saved>(layer_calls<decltype(rig)>{rig}, "block, " + text);
        }
    }
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("block: DCT, then feed-forward", "[layers][block]", targets) {
    check_block<TestType, dct_mixer>("dct_mixer");
}
TEMPLATE_LIST_TEST_CASE("block: attention, then feed-forward", "[layers][block]", targets) {
    check_block<TestType, self_attention>("self_attention");
}

TEST_CASE("block: names of its parameters", "[layers][block]") {
    const layer_case c;
    const auto o = operator_config_of<oracle>(c);
    layer_rig<oracle, block<reference::executor, double, dct_mixer<reference::executor, double>>> rig(c, o, o);
    std::vector<std::string> names;
    for (const auto& [name, p] : rig.store.named()) names.push_back(name);
    CHECK(names == std::vector<std::string>{"dct_mix.w", "dct_mix.norm.weight", "dct_mix.norm.bias", "ffn.0.weight",
                                            "ffn.0.bias", "ffn.3.weight", "ffn.3.bias", "ffn_norm.weight",
                                            "ffn_norm.bias"});
}

}  // namespace spectral::test::block_test
