// SPDX-License-Identifier: Apache-2.0
// tests/backend_stub/backend_stub_test.cpp: the stub's kernels against the reference executor, as docs/04 shows it
#include <spectral/core/random.hpp>
#include <spectral/reference.hpp>
#include <spectral/stub.hpp>
#include <support/catch.hpp>
#include <support/compare.hpp>

namespace spectral {

namespace {

constexpr index N = 7, I = 5, O = 3;

std::vector<double> numbers(index count, std::uint64_t stream) {
    std::vector<double> out(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = random_stream{1, stream}.normal(i);
    return out;
}

// y, dL_dx, dL_dw and dL_db of the same numbers, on any executor and in any scalar
template <class Exec, class T>
std::vector<std::vector<double>> run() {
    Exec ex;
    const auto as = [](const std::vector<double>& v) { return std::vector<T>(v.begin(), v.end()); };
    const tensor<Exec, T, 2> x{ex, {N, I}, as(numbers(N * I, 1))}, w{ex, {O, I}, as(numbers(O * I, 2))};
    const tensor<Exec, T, 2> dL_dy{ex, {N, O}, as(numbers(N * O, 3))};
    const tensor<Exec, T> b{ex, {O}, as(numbers(O, 4))}, dL_db{ex, {O}};
    const tensor<Exec, T, 2> y{ex, {N, O}}, dL_dx{ex, {N, I}}, dL_dw{ex, {O, I}};
    linear_forward<Exec, T>(ex, x, w, b, y);
    linear_backward_input<Exec, T>(ex, dL_dy, w, dL_dx);
    linear_backward_weight<Exec, T>(ex, dL_dy, x, dL_dw, dL_db);
    std::vector<std::vector<double>> out;
    for (const auto& v : {y.to_host(), dL_dx.to_host(), dL_dw.to_host(), dL_db.to_host()})
        out.emplace_back(v.begin(), v.end());
    return out;
}

}  // namespace

TEMPLATE_TEST_CASE("linear: the stub agrees with the reference", "[backend_stub]", float, double) {
    const auto want = run<reference::executor, double>();
    const auto got = run<stub::executor, TestType>();
    const char* values[] = {"y", "dL_dx", "dL_dw", "dL_db"};
    for (std::size_t i = 0; i < want.size(); ++i)
        test::compare(got[i], want[i], test::allowed<TestType>(N, test::largest(want[i])),
                      {"linear", values[i], "stub", "", "(7, 5) (3, 5)"});
}

TEST_CASE("linear: wrong shapes are refused before the stub is asked", "[backend_stub]") {
    stub::executor ex;
    const tensor<stub::executor, float, 2> x{ex, {N, I}}, w{ex, {O, I + 1}}, y{ex, {N, O}};
    CHECK_THROWS_AS((linear_forward<stub::executor, float>(ex, x, w, {}, y)), error);
}

}  // namespace spectral
