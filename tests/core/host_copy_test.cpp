// SPDX-License-Identifier: Apache-2.0
// tests/core/host_copy_test.cpp: values on their way to the host are those of when the copy began
#include <spectral/core/host_copy.hpp>
#include <spectral/core/tensor.hpp>
#include <support/catch.hpp>
#include <support/executors.hpp>

namespace spectral::test::host_copy_test {

TEMPLATE_LIST_TEST_CASE("host_copy: values of when it began", "[core]", targets) {
    using Exec = typename TestType::executor;
    auto& ex = TestType::instance();
    tensor<Exec, float, 2> x(ex, {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6});
    host_copy<Exec, float> copy;
    CHECK(copy.finish().empty());
    copy.start(ex, x.view());
    x.assign(std::vector<float>{7, 7, 7, 7, 7, 7});
    const auto values = [&] {
        const auto v = copy.finish();
        return std::vector<float>(v.begin(), v.end());
    };
    CHECK(values() == std::vector<float>{1, 2, 3, 4, 5, 6});
    CHECK(values() == std::vector<float>{1, 2, 3, 4, 5, 6});  // they stay
    const tensor<Exec, float> longer(ex, {1000}, std::vector<float>(1000, 2));
    copy.start(ex, longer.view());
    CHECK(values() == std::vector<float>(1000, 2));
    copy.start(ex, std::as_const(x).view().slice(1, 1));
    CHECK(values() == std::vector<float>{7, 7, 7});
    copy.start(ex, longer.view().slice(0, 0));
    CHECK(values().empty());
}

}  // namespace spectral::test::host_copy_test
