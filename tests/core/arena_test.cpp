// SPDX-License-Identifier: Apache-2.0
// tests/core/arena_test.cpp: stack memory: alignment, scopes, growth, and no allocation in the second step
#include <spectral/core/arena.hpp>
#include <spectral/core/tensor.hpp>
#include <support/catch.hpp>
#include <support/executors.hpp>

namespace spectral::test {

TEMPLATE_LIST_TEST_CASE("arena: memory is aligned, disjoint and writable", "[core][arena]", targets) {
    auto ex = make_executor<typename TestType::executor>(1);
    arena_scope scope(ex);
    std::vector<view<std::byte, 1>> all;
    for (index n : {1, 63, 64, 65, 1000, 0, 100000}) {
        auto v = ex.memory().template vector<std::byte>(n);
        CHECK(v.size() == n);
        CHECK(reinterpret_cast<std::uintptr_t>(v.data) % 64 == 0);
        ex.fill_bytes(v.data, static_cast<int>(all.size() + 1), static_cast<std::size_t>(n));
        all.push_back(v);
    }
    for (std::size_t i = 0; i < all.size(); ++i)
        for (std::byte b : to_host(ex, all[i])) REQUIRE(b == static_cast<std::byte>(i + 1));
}

TEMPLATE_LIST_TEST_CASE("arena: shapes and zeros", "[core][arena]", targets) {
    using T = typename TestType::scalar;
    auto ex = make_executor<typename TestType::executor>(1);
    arena_scope scope(ex);
    auto m = ex.memory().template matrix<T>(3, 5);
    CHECK(m.rows() == 3);
    CHECK(m.width() == 5);
    CHECK(m.contiguous());
    auto z = ex.memory().template zeros<T, 3>({2, 3, 4});
    CHECK(z.size() == 24);
    for (T x : to_host(ex, z)) CHECK(x == T(0));
}

TEMPLATE_LIST_TEST_CASE("arena: a scope gives its memory back", "[core][arena]", targets) {
    auto ex = make_executor<typename TestType::executor>(1);
    auto& memory = ex.memory();
    arena_scope outer(ex);
    auto a = memory.template vector<float>(100);
    float* inner_data = nullptr;
    {
        arena_scope inner(ex);
        inner_data = memory.template vector<float>(100).data;
    }
    CHECK(memory.template vector<float>(100).data == inner_data);
    CHECK(a.data != inner_data);
    CHECK(memory.peak() == 2 * 448);  // 400 bytes each, rounded up to 64
}

TEMPLATE_LIST_TEST_CASE("arena: the second step of a shape allocates nothing", "[core][arena]", targets) {
    auto ex = make_executor<typename TestType::executor>(1);
    auto& memory = ex.memory();
    const auto step = [&](index n) {
        arena_scope scope(ex);
        for (index i = 0; i < 5; ++i) {
            arena_scope inner(ex);
            memory.template vector<std::byte>(n);
            memory.template vector<std::byte>(3 * n);
        }
        memory.template vector<std::byte>(n);
    };
    step(1000);
    step(3'000'000);  // several blocks at first, one when the arena is empty again
    const auto settled = memory.allocations();
    const auto peak = memory.peak();
    CHECK(memory.capacity() >= peak);
    for (int i = 0; i < 3; ++i) step(3'000'000);
    step(1000);
    CHECK(memory.allocations() == settled);
    CHECK(memory.peak() == peak);
}

TEMPLATE_LIST_TEST_CASE("arena: growing leaves earlier memory alone", "[core][arena]", targets) {
    auto ex = make_executor<typename TestType::executor>(1);
    auto& memory = ex.memory();
    arena_scope scope(ex);
    auto first = memory.template vector<std::byte>(1000);
    ex.fill_bytes(first.data, 42, 1000);
    {
        arena_scope inner(ex);
        auto big = memory.template vector<std::byte>(5'000'000);
        ex.fill_bytes(big.data, 7, 5'000'000);
    }
    for (std::byte b : to_host(ex, first)) REQUIRE(b == std::byte{42});
    auto again = memory.template vector<std::byte>(5'000'000);  // reuses the block it grew by
    CHECK(memory.allocations() == 2);
    ex.fill_bytes(again.data, 9, 5'000'000);
    for (std::byte b : to_host(ex, first)) REQUIRE(b == std::byte{42});
}

TEMPLATE_LIST_TEST_CASE("arena: reserve makes the first step free too", "[core][arena]", targets) {
    auto ex = make_executor<typename TestType::executor>(1);
    auto& memory = ex.memory();
    memory.reserve(10'000'000);
    const auto before = memory.allocations();
    {
        arena_scope scope(ex);
        memory.template vector<std::byte>(9'000'000);
    }
    CHECK(memory.allocations() == before);
    memory.reserve(1000);  // smaller than what is there: nothing happens
    CHECK(memory.allocations() == before);
}

#ifndef NDEBUG
TEMPLATE_LIST_TEST_CASE("arena: a debug build poisons what is released", "[core][arena]", targets) {
    auto ex = make_executor<typename TestType::executor>(1);
    view<float, 1> v;
    arena_scope outer(ex);
    {
        arena_scope scope(ex);
        v = ex.memory().template vector<float>(16);
        ex.fill_bytes(v.data, 0, 64);
    }
    for (float x : to_host(ex, v)) CHECK(std::isnan(x));
}
#endif

}  // namespace spectral::test
