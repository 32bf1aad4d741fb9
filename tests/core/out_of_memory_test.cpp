// SPDX-License-Identifier: Apache-2.0
// tests/core/out_of_memory_test.cpp: more memory than any machine has is refused by a sentence, and what was there works on
#include <spectral/core/tensor.hpp>
#include <spectral/ops/linear.hpp>
#include <support/catch.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::out_of_memory_test {

#if !SPECTRAL_TEST_SANITIZED  // an allocator that ends the program where this one returns null
TEMPLATE_LIST_TEST_CASE("out of memory: sizes are named, and everything is as it was", "[core]", targets) {
    using Exec = typename TestType::executor;
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    const std::vector<T> values{T(1), T(2), T(3), T(4), T(5), T(6)};
    const tensor<Exec, T, 2> x(ex, {2, 3}, values), w(ex, {1, 3}, std::vector<T>{T(1), T(10), T(100)});
    tensor<Exec, T, 2> y(ex, {2, 1});
    const auto product = [&] {
        y.assign(std::vector<T>(2));  // of before: only a product that is made gives what is wanted
        arena_scope step(ex);
        linear_forward<Exec, T>(ex, x.view(), view<const T, 2>(w.view()), {}, y.view());
        return y.to_host();
    };
    const auto want = product();
    REQUIRE(static_cast<double>(want[0]) == Approx(321).epsilon(0.01));
    constexpr index many = index{1} << 48;  // more bytes than a processor addresses
    {
        check_throws([&] { tensor<Exec, T>(ex, {many}); },
                     {"out of memory", std::to_string(many * static_cast<index>(sizeof(T))) + " bytes asked for"});
        arena_scope step(ex);
        check_throws([&] { ex.memory().template vector<T>(many); }, {"out of memory"});
        CHECK(ex.memory().template vector<T>(16).size() == 16);
    }
    CHECK(x.to_host() == values);
    CHECK(product() == want);
}
#endif

}  // namespace spectral::test::out_of_memory_test
