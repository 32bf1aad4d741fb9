// SPDX-License-Identifier: Apache-2.0
// tests/layers/dct_mixer_test.cpp: the DCT mixer, fused and with a feed-forward of its own, on every kind of selection
#include <spectral/layers/dct_mixer.hpp>
#include "layer_test.hpp"

namespace spectral::test::dct_mixer_test {

TEMPLATE_LIST_TEST_CASE("dct_mixer: fused", "[layers][dct_mixer]", targets) {
    for (dct_norm norm : {dct_norm::ortho, dct_norm::reference})
        check_operator<TestType, dct_mixer>("dct_mixer", {.norm = norm},
                                            norm == dct_norm::ortho ? "ortho" : "reference");
}

TEMPLATE_LIST_TEST_CASE("dct_mixer: with a feed-forward of its own, with dropout", "[layers][dct_mixer]", targets) {
    for (double dropout : {0.0, 0.3})
        check_operator<TestType, dct_mixer>("dct_mixer",
                                            {.dropout = dropout, .norm = dct_norm::reference, .own_feed_forward = true},
                                            "own feed-forward, dropout " + std::to_string(dropout));
}

// With w = c everywhere the filter is c·x (ortho): LN((1 + c) x) = LN(x) up to eps, whatever c is.
TEMPLATE_LIST_TEST_CASE("dct_mixer: a flat filter is the identity mixer", "[layers][dct_mixer]", targets) {
    using Op = dct_mixer<typename TestType::executor, typename TestType::scalar>;
    const layer_case c{.width = 16};
    std::vector<double> first;
    for (double flat : {1.0, 3.0}) {
        layer_rig<TestType, Op> rig(c, operator_config_of<TestType>(c));
        rig.put(rig.layer.w.value, std::vector<double>(16, flat));
        auto y = rig.template results<typename Op::saved>(operator_calls<decltype(rig)>{rig})[0].second;
        if (first.empty())
            first = y;
        else
            compare(y, first, 1e-4,
                    {"dct_mixer", "y", TestType::executor_name(), "",
                     "flat filter"});  // eps 1e-5 against a variance of at least 0.3
    }
}

}  // namespace spectral::test::dct_mixer_test
