// SPDX-License-Identifier: Apache-2.0
// tests/layers/identity_mixer_test.cpp: the control in the DCT mixer's place, on every kind of selection
#include <spectral/layers/identity_mixer.hpp>
#include "layer_test.hpp"

namespace spectral::test::identity_mixer_test {

TEMPLATE_LIST_TEST_CASE("identity_mixer", "[layers][identity_mixer]", targets) {
    check_operator<TestType, identity_mixer>("identity_mixer", {}, "width 8");
}

}  // namespace spectral::test::identity_mixer_test
