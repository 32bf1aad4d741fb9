// SPDX-License-Identifier: Apache-2.0
// tests/ops/vector_math_test.cpp: the vectorised functions against std:: in double, and at the edges
//
// Bounds are the errors stated in vector_math.hpp with room for code without fused multiply-add: an ulp bound says how
// far from the rounded result, an absolute one holds where a result near 0 or 1 has no relative accuracy to keep.
#include <support/catch.hpp>

#include <spectral/cpu/detail/vector_math.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace {

namespace sv = spectral::cpu::detail;

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

// units in the last place of the float nearest `want`; 2^-149 below the normal range
double ulps(float got, double want) {
    int e = 0;
    std::frexp(std::max(std::abs(want), 1.1754943508222875e-38), &e);
    return std::abs(static_cast<double>(got) - want) / std::ldexp(1.0, e - 24);
}

// every 4099th float from `from` to `to`, both of one sign
std::vector<float> floats(float from, float to) {
    std::vector<float> x;
    const std::uint32_t a = std::bit_cast<std::uint32_t>(from), b = std::bit_cast<std::uint32_t>(to);
    for (std::uint32_t u = std::min(a, b); u <= std::max(a, b); u += 4099) x.push_back(std::bit_cast<float>(u));
    return x;
}

struct worst {
    double ulp = 0, absolute = 0;
};

template <class F, class G>
worst errors(const std::vector<float>& x, F fast, G exact) {
    std::vector<float> y(x.size());
    const float* in = x.data();
    float* out = y.data();
#pragma omp simd
    for (std::size_t i = 0; i < x.size(); ++i) out[i] = fast(in[i]);
    worst w;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double want = exact(static_cast<double>(x[i]));
        w.ulp = std::max(w.ulp, ulps(y[i], want));
        w.absolute = std::max(w.absolute, std::abs(static_cast<double>(y[i]) - want));
    }
    return w;
}

double phi(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
double gelu(double x) { return x * phi(x); }
double gelu_derivative(double x) { return phi(x) + x * std::exp(-x * x / 2) / std::sqrt(2 * 3.14159265358979323846); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double silu(double x) { return x * sigmoid(x); }
double silu_derivative(double x) { return sigmoid(x) * (1 + x * sigmoid(-x)); }

}  // namespace

TEST_CASE("vector_math: exp, log and erf over the floats", "[vector_math]") {
    const auto fast_exp = [](float x) { return sv::exp(x); };
    const auto fast_log = [](float x) { return sv::log(x); };
    const auto fast_erf = [](float x) { return sv::erf(x); };
    const auto exact_exp = [](double x) { return std::exp(x); };
    const auto exact_log = [](double x) { return std::log(x); };
    const auto exact_erf = [](double x) { return std::erf(x); };
    CHECK(errors(floats(0.0f, 88.7f), fast_exp, exact_exp).ulp < 2);
    CHECK(errors(floats(-0.0f, -110.0f), fast_exp, exact_exp).ulp < 2);
    const std::vector<float> positive = floats(std::bit_cast<float>(1u), std::numeric_limits<float>::max());
    CHECK(errors(positive, fast_log, exact_log).ulp < 2);
    CHECK(errors(floats(0.5f, 2.0f), fast_log, exact_log).ulp < 2);  // close to log 1 = 0 the accuracy is relative too
    CHECK(errors(floats(0.0f, 20.0f), fast_erf, exact_erf).ulp < 2.5);
    CHECK(errors(floats(-0.0f, -20.0f), fast_erf, exact_erf).absolute < 1.5e-7);
}

TEST_CASE("vector_math: activations and their derivatives", "[vector_math]") {
    const auto fast_gelu = [](float x) { return sv::gelu(x); };
    CHECK(errors(floats(0.0f, 100.0f), fast_gelu, gelu).ulp < 4);
    CHECK(errors(floats(-0.0f, -100.0f), fast_gelu, gelu).absolute < 1.5e-7);
    const auto fast_gelu_derivative = [](float x) { return sv::gelu_derivative(x); };
    CHECK(errors(floats(0.0f, 100.0f), fast_gelu_derivative, gelu_derivative).absolute < 3e-7);
    CHECK(errors(floats(-0.0f, -100.0f), fast_gelu_derivative, gelu_derivative).absolute < 3e-7);
    const auto fast_sigmoid = [](float x) { return sv::sigmoid(x); };
    CHECK(errors(floats(0.0f, 100.0f), fast_sigmoid, sigmoid).ulp < 4);
    CHECK(errors(floats(-0.0f, -87.0f), fast_sigmoid, sigmoid).ulp < 4);
    const auto fast_silu = [](float x) { return sv::silu(x); };
    CHECK(errors(floats(0.0f, 100.0f), fast_silu, silu).ulp < 5);
    CHECK(errors(floats(-0.0f, -87.0f), fast_silu, silu).ulp < 5);
    const auto fast_silu_derivative = [](float x) { return sv::silu_derivative(x); };
    CHECK(errors(floats(0.0f, 100.0f), fast_silu_derivative, silu_derivative).absolute < 2e-6);
    CHECK(errors(floats(-0.0f, -100.0f), fast_silu_derivative, silu_derivative).absolute < 5e-7);
}

TEST_CASE("vector_math: infinities, NaN, zeros and huge arguments", "[vector_math]") {
    // through arrays, so that the vectorised code is what runs
    const std::vector<float> x = {inf,  -inf, not_a_number, 0.0f, -0.0f, 1e-45f, 1e30f, -1e30f,
                                  1.0f, 2.0f, 3.0f,         4.0f, 5.0f,  6.0f,   7.0f,  8.0f};
    const auto apply = [&](auto f) {
        std::vector<float> y(x.size());
        const float* in = x.data();
        float* out = y.data();
#pragma omp simd
        for (std::size_t i = 0; i < x.size(); ++i) out[i] = f(in[i]);
        return y;
    };
    const std::vector<float> e = apply([](float v) { return sv::exp(v); });
    CHECK(e[0] == inf);
    CHECK(e[1] == 0.0f);
    CHECK(std::isnan(e[2]));
    CHECK(e[3] == 1.0f);
    CHECK(e[4] == 1.0f);
    CHECK(e[6] == inf);
    CHECK(e[7] == 0.0f);
    const std::vector<float> l = apply([](float v) { return sv::log(v); });
    CHECK(l[0] == inf);
    CHECK(std::isnan(l[1]));
    CHECK(std::isnan(l[2]));
    CHECK(l[3] == -inf);
    CHECK(l[4] == -inf);
    CHECK(ulps(l[5], -149 * std::log(2.0)) < 2);
    CHECK(std::isnan(l[7]));
    CHECK(l[8] == 0.0f);
    const std::vector<float> r = apply([](float v) { return sv::erf(v); });
    CHECK(r[0] == 1.0f);
    CHECK(r[1] == -1.0f);
    CHECK(std::isnan(r[2]));
    CHECK(r[3] == 0.0f);
    CHECK((r[4] == 0.0f && std::signbit(r[4])));
    CHECK(r[6] == 1.0f);
    CHECK(r[7] == -1.0f);
    const std::vector<float> g = apply([](float v) { return sv::gelu(v); });
    const std::vector<float> s = apply([](float v) { return sv::silu(v); });
    for (const auto& y : {g, s}) {
        CHECK(y[0] == inf);
        CHECK(y[1] == 0.0f);
        CHECK(std::isnan(y[2]));
        CHECK(y[3] == 0.0f);
        CHECK(y[6] == 1e30f);
        CHECK(y[7] == 0.0f);
    }
    const std::vector<float> dg = apply([](float v) { return sv::gelu_derivative(v); }),
                             ds = apply([](float v) { return sv::silu_derivative(v); });
    for (const auto& y : {dg, ds}) {
        CHECK(y[0] == 1.0f);
        CHECK(y[1] == 0.0f);
        CHECK(std::isnan(y[2]));
        CHECK(y[3] == 0.5f);
        CHECK(y[6] == 1.0f);
        CHECK(y[7] == 0.0f);
    }
    const std::vector<float> p = apply([](float v) { return sv::sigmoid(v); });
    CHECK(p[0] == 1.0f);
    CHECK(p[1] == 0.0f);
    CHECK(std::isnan(p[2]));
    CHECK(p[3] == 0.5f);
}

TEST_CASE("vector_math: double is the standard library", "[vector_math]") {
    for (double x : {-30.0, -3.5, -1e-9, 0.0, 0.25, 1.0, 7.0, 30.0}) {
        CHECK(sv::exp(x) == std::exp(x));
        CHECK(sv::erf(x) == std::erf(x));
        if (x > 0) CHECK(sv::log(x) == std::log(x));
        CHECK(std::abs(sv::gelu(x) - gelu(x)) <= 1e-14 * std::abs(x));
        CHECK(std::abs(sv::gelu_derivative(x) - gelu_derivative(x)) <= 1e-14);
        CHECK(std::abs(sv::silu_derivative(x) - silu_derivative(x)) <= 1e-14 * std::max(1.0, std::abs(x)));
    }
}

TEST_CASE("vector_math: rows", "[vector_math]") {
    for (int n : {0, 1, 15, 16, 17, 1000}) {
        std::vector<float> x(static_cast<std::size_t>(n)), y(x.size());
        double sum = 0;
        float largest = -inf;
        for (int i = 0; i < n; ++i) {
            const float v = static_cast<float>(std::sin(3.0 * i) * 10);
            x[static_cast<std::size_t>(i)] = v;
            largest = std::max(largest, v);
        }
        for (float v : x) sum += std::exp(static_cast<double>(v) - static_cast<double>(largest));
        CHECK(sv::row_max(x.data(), n) == largest);
        if (n == 0) continue;
        const double allowed = 4 * 1.2e-7 * std::sqrt(n) * sum;  // sum of n positive terms of 2 ulp each
        CHECK(std::abs(static_cast<double>(sv::row_sum_exp(x.data(), n, largest)) - sum) < allowed);
        CHECK(std::abs(static_cast<double>(sv::row_exp(x.data(), n, largest, y.data())) - sum) < allowed);
        CHECK(sv::row_exp(x.data(), n, largest, x.data()) > 0);
        CHECK(x == y);
    }
}
