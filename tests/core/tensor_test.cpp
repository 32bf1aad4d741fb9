// SPDX-License-Identifier: Apache-2.0
// tests/core/tensor_test.cpp: owned memory: zero at first, moves, round trips to the host
#include <spectral/core/tensor.hpp>
#include <support/catch.hpp>
#include <support/executors.hpp>

#include <numeric>

namespace spectral::test {

TEMPLATE_LIST_TEST_CASE("tensor: zero at construction, assign and read back", "[core][tensor]", targets) {
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    tensor<typename TestType::executor, T, 2> t(ex, {3, 5});
    for (T x : t.to_host()) CHECK(x == T(0));
    std::vector<T> values(15);
    std::iota(values.begin(), values.end(), T(1));
    t.assign(values);
    CHECK(t.to_host() == values);
    CHECK(to_host(ex, t.view()) == values);
    CHECK(to_host(ex, t.view().slice(1, 2)) == std::vector<T>(values.begin() + 5, values.end()));
    CHECK(reinterpret_cast<std::uintptr_t>(t.data()) % 64 == 0);
    CHECK_THROWS_AS(to_host(ex, t.view().columns(1, 2)), error);
}

TEMPLATE_LIST_TEST_CASE("tensor: moves carry the memory", "[core][tensor]", targets) {
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    const std::vector<T> values{1, 2, 3, 4};
    tensor<typename TestType::executor, T> a(ex, {4}, values);
    T* data = a.data();
    tensor<typename TestType::executor, T> b = std::move(a);
    CHECK(b.data() == data);
    tensor<typename TestType::executor, T> c(ex, {9});
    c = std::move(b);
    CHECK(c.data() == data);
    CHECK(c.size() == 4);
    CHECK(c.to_host() == values);
}

TEMPLATE_LIST_TEST_CASE("tensor: empty shapes, and errors", "[core][tensor]", targets) {
    using T = typename TestType::scalar;
    using matrix = tensor<typename TestType::executor, T, 2>;
    auto& ex = TestType::instance();
    matrix empty(ex, {0, 7});
    CHECK(empty.size() == 0);
    CHECK(empty.to_host().empty());
    empty.assign({});
    CHECK(matrix().size() == 0);
    CHECK_THROWS_AS(matrix(ex, {-1, 2}), error);
    const std::vector<T> three(3);
    CHECK_THROWS_AS(matrix(ex, {2, 2}, three), error);
}

}  // namespace spectral::test
