// SPDX-License-Identifier: Apache-2.0
// tests/ops/dct_plan_test.cpp: DCT plans and spectral tiles against plain O(n^2) sums in double
//
// Tolerance: a fast transform adds log2 n layers of roundings to each number, each relative to the norm of the row, so
// an element is off by about eps sqrt(log2 n) |x|; 4 covers the worst of many. Filters run two transforms and
// multiply by at most max |w|.
#include <support/catch.hpp>

#include <spectral/cpu/detail/spectral_tile.hpp>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <numbers>
#include <random>
#include <thread>
#include <vector>

namespace {

namespace sv = spectral::cpu::detail;
using count_t = std::int64_t;
using numbers = std::vector<double>;

constexpr count_t widths[] = {1,  2,  3,  4,  5,   6,   7,   8,   10,  12,  14,  16,  17,  18,  24,   30,   31,  32,
                              42, 48, 64, 97, 100, 128, 255, 256, 257, 384, 500, 512, 768, 896, 1000, 1022, 1024};

template <class T>
double allowed(count_t n, double norm) {
    const double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
    return 4 * eps * std::sqrt(1 + std::log2(static_cast<double>(n))) * norm;
}

numbers cosines(count_t n) {  // C, row-major
    numbers c(static_cast<std::size_t>(n * n));
    for (count_t k = 0; k < n; ++k)
        for (count_t i = 0; i < n; ++i)
            c[static_cast<std::size_t>(k * n + i)] = std::sqrt((k == 0 ? 1.0 : 2.0) / static_cast<double>(n)) *
                                                     std::cos(std::numbers::pi / static_cast<double>(2 * n) *
                                                              static_cast<double>((2 * i + 1) * k % (4 * n)));
    return c;
}
numbers dct(const numbers& c, const numbers& x) {
    const std::size_t n = x.size();
    numbers y(n);
    for (std::size_t k = 0; k < n; ++k)
        for (std::size_t i = 0; i < n; ++i) y[k] += c[k * n + i] * x[i];
    return y;
}
numbers idct(const numbers& c, const numbers& x) {
    const std::size_t n = x.size();
    numbers y(n);
    for (std::size_t k = 0; k < n; ++k)
        for (std::size_t i = 0; i < n; ++i) y[i] += c[k * n + i] * x[k];
    return y;
}
double norm(const numbers& x) {
    double s = 0;
    for (double v : x) s += v * v;
    return std::sqrt(s);
}
double distance(const numbers& a, const numbers& b) {
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        worst = std::max(worst, std::isnan(a[i]) ? 1e300 : std::abs(a[i] - b[i]));
    return worst;
}

// rows x n random numbers of type T, rows `stride` apart
template <class T>
struct matrix {
    count_t rows, n, stride;
    std::vector<T> data;
    matrix(count_t rows_, count_t n_, unsigned seed, double mean = 0, count_t pad = 3)
        : rows(rows_), n(n_), stride(n_ + pad), data(static_cast<std::size_t>(rows_ * (n_ + pad))) {
        std::mt19937 g(seed);
        std::normal_distribution<double> normal(mean, 1.0);
        for (T& v : data) v = static_cast<T>(normal(g));
    }
    numbers row(count_t r) const {
        const auto at = data.begin() + static_cast<std::ptrdiff_t>(r * stride);
        return numbers(at, at + static_cast<std::ptrdiff_t>(n));
    }
    sv::listed_rows<const T> in(const std::int32_t* list = nullptr) const { return {data.data(), stride, list}; }
    sv::listed_rows<T> out(const std::int32_t* list = nullptr) { return {data.data(), stride, list}; }
};

template <class T>
std::vector<T> random_vector(count_t n, unsigned seed, double mean, double spread) {
    std::mt19937 g(seed);
    std::normal_distribution<double> normal(mean, spread);
    std::vector<T> v(static_cast<std::size_t>(n));
    for (T& x : v) x = static_cast<T>(normal(g));
    return v;
}

}  // namespace

TEMPLATE_TEST_CASE("dct_plan: forward and inverse against the sums", "[dct_plan]", float, double) {
    using T = TestType;
    for (count_t n : widths) {
        const sv::dct_plan<T> plan(n);
        const numbers c = cosines(n);
        const count_t L = plan.lanes;
        auto time = sv::make_aligned<T>(plan.tile_size()), spectrum = sv::make_aligned<T>(plan.tile_size());
        auto scratch = sv::make_aligned<T>(plan.scratch_size() + 1);
        for (count_t count : {L, count_t{1}, L - 1}) {
            const matrix<T> x(std::max<count_t>(count, 1), n, static_cast<unsigned>(n), 0.5);
            plan.load(x.in(), count, time.get());
            plan.forward(time.get(), spectrum.get(), scratch.get());
            for (count_t l : {count_t{0}, count - 1}) {
                if (l < 0) continue;
                numbers got;
                for (count_t k = 0; k < n; ++k) got.push_back(static_cast<double>(spectrum.get()[k * L + l]));
                INFO("width " << n << ", row " << l << " of " << count);
                CHECK(distance(got, dct(c, x.row(l))) <= allowed<T>(n, norm(x.row(l))));
            }
            plan.inverse(spectrum.get(), time.get(), scratch.get());
            matrix<T> back(x.rows, n, 7);
            plan.store(time.get(), count, [&](count_t l, count_t i, auto v) {
                sv::store_as<T>(back.data.data() + l * back.stride + i, v);
            });
            for (count_t l = 0; l < count; ++l) {
                INFO("width " << n << ", row " << l << " of " << count << ", there and back");
                CHECK(distance(back.row(l), x.row(l)) <= 2 * allowed<T>(n, norm(x.row(l))));
            }
        }
    }
}

TEMPLATE_TEST_CASE("spectral_tile: filter, residual and LayerNorm", "[dct_plan]", float, double) {
    using T = TestType;
    for (count_t n : widths) {
        const sv::dct_plan<T> plan(n);
        const numbers c = cosines(n);
        const count_t rows = plan.lanes + 3;
        const double gain = n % 3 == 0 ? 2 : 1, eps = 1e-5;
        const matrix<T> x(rows, n, static_cast<unsigned>(n), 2.0);
        matrix<T> y(rows, n, 1), z(rows, n, 2);
        const auto w = random_vector<T>(n, 3, 1, 0.3);
        const auto gamma = random_vector<T>(n, 4, 1, 0.1), beta = random_vector<T>(n, 5, 0, 0.1);
        auto table = sv::make_aligned<T>(plan.filter_size()), work = sv::make_aligned<T>(sv::spectral_workspace(plan));
        std::vector<T> mean(static_cast<std::size_t>(rows)), rstd(mean.size());

        plan.filter_table(w.data(), gain, 1, true, table.get());
        sv::filter_norm_tile<T>(plan, table.get(), x.in(), rows, gamma.data(), beta.data(), eps, y.out(),
                                {mean.data(), 1}, {rstd.data(), 1}, work.get());
        plan.filter_table(w.data(), gain, 0, false, table.get());
        sv::filter_tile<T>(plan, table.get(), x.in(), rows, z.out(), work.get());

        double largest = 0;
        for (T v : w) largest = std::max(largest, std::abs(static_cast<double>(v)));
        for (count_t r : {count_t{0}, plan.lanes - 1, rows - 1}) {
            numbers s = dct(c, x.row(r));
            for (std::size_t k = 0; k < s.size(); ++k) s[k] *= gain * static_cast<double>(w[k]);
            s = idct(c, s);
            const double off = 2 * allowed<T>(n, norm(x.row(r))) * (1 + gain * largest);
            INFO("width " << n << ", row " << r);
            CHECK(distance(z.row(r), s) <= off);
            double m = 0, var = 0;
            const numbers row = x.row(r);
            for (std::size_t i = 0; i < s.size(); ++i) m += s[i] += row[i];
            m /= static_cast<double>(n);
            for (double& v : s) v -= m, var += v * v;
            const double scale = 1 / std::sqrt(var / static_cast<double>(n) + eps);
            // y = (s - m) scale gamma + beta: the error of s - m, once directly and once more through scale
            numbers want(s);
            for (std::size_t i = 0; i < s.size(); ++i)
                want[i] = s[i] * scale * static_cast<double>(gamma[i]) + static_cast<double>(beta[i]);
            const double at = static_cast<double>(std::numeric_limits<T>::epsilon());
            CHECK(std::abs(static_cast<double>(mean[static_cast<std::size_t>(r)]) - m) <= off + 4 * at * std::abs(m));
            CHECK(distance(y.row(r), want) <= 2 * (2 * off * scale + 4 * at * std::sqrt(static_cast<double>(n))));
        }
    }
}

TEMPLATE_TEST_CASE("spectral_tile: entropy and gradients", "[dct_plan]", float, double) {
    using T = TestType;
    for (count_t n : std::initializer_list<count_t>{1, 2, 5, 8, 31, 48, 97, 256, 768}) {
        const sv::dct_plan<T> plan(n);
        const numbers c = cosines(n);
        const count_t rows = plan.lanes + 2;
        const double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
        const matrix<T> x(rows, n, static_cast<unsigned>(n)), g(rows, n, 9);
        auto work = sv::make_aligned<T>(sv::filter_backward_workspace(plan));
        const auto w = random_vector<T>(n, 3, 2, 0.3);
        INFO("width " << n);

        // dL_dx += C^T(w . C g), sums += (C g)(C x)
        matrix<T> dx(rows, n, 11);
        const matrix<T> before = dx;
        std::vector<T> sums(static_cast<std::size_t>(n));
        sv::filter_backward_tile<T>(plan, w.data(), g.in(), x.in(), rows, dx.out(), sums.data(), work.get());
        numbers want_sums(static_cast<std::size_t>(n));
        double scale = 0;
        for (count_t r = 0; r < rows; ++r) {
            const numbers X = dct(c, x.row(r));
            numbers G = dct(c, g.row(r));
            for (std::size_t k = 0; k < G.size(); ++k) want_sums[k] += G[k] * X[k], G[k] *= static_cast<double>(w[k]);
            scale += norm(x.row(r)) * norm(g.row(r));
            numbers want = idct(c, G);
            for (std::size_t i = 0; i < want.size(); ++i) want[i] += before.row(r)[i];
            CHECK(distance(dx.row(r), want) <= 2 * allowed<T>(n, 3 * norm(g.row(r)) + norm(before.row(r))));
        }
        CHECK(distance(numbers(sums.begin(), sums.end()), want_sums) <= 2 * allowed<T>(n, scale));

        for (bool reference : {false, true}) {
            const double s0 = reference ? 2 * std::sqrt(2.0) : 1, s1 = reference ? 2 : 1;
            const auto entropy = [&](const numbers& row) {
                numbers X = dct(c, row);
                double u = 1e-8, h = 0;
                for (std::size_t k = 0; k < X.size(); ++k) X[k] *= k == 0 ? s0 : s1, u += X[k] * X[k];
                for (double v : X) h -= v * v / u * std::log(v * v / u + 1e-8);
                return h / (std::log(static_cast<double>(n)) + 1e-8);
            };
            std::vector<T> H(static_cast<std::size_t>(rows)), dH(H.size(), T(0.5));
            sv::entropy_tile<T>(plan, s0, s1, x.in(), rows, H.data(), work.get());
            matrix<T> dxh(rows, n, 13);
            const matrix<T> was = dxh;
            sv::entropy_backward_tile<T>(plan, s0, s1, x.in(), dH.data(), rows, dxh.out(), work.get());
            // a relative error e of P moves -sum P ln P by at most e (1 + ln n) after the division by ln n; at width 1
            // the denominator is 1e-8 and H = -ln(1 + 1e-8) / 1e-8, which float cannot tell from 0 or 12
            if (n == 1) continue;
            for (count_t r : {count_t{0}, rows - 1}) {
                const numbers row = x.row(r);
                const double relative = 8 * eps * (2 + std::log2(static_cast<double>(n)));
                CHECK(std::abs(static_cast<double>(H[static_cast<std::size_t>(r)]) - entropy(row)) <= relative);
                for (std::size_t i = 0; i < row.size(); i += row.size() / 3 + 1) {
                    numbers a = row, b = row;
                    const double step = 1e-4;
                    a[i] += step;
                    b[i] -= step;
                    const double slope = 0.5 * (entropy(a) - entropy(b)) / (2 * step);
                    const double got = static_cast<double>(dxh.row(r)[i]) - was.row(r)[i];
                    CHECK(std::abs(got - slope) <= 1e-6 + relative * (1 + std::abs(was.row(r)[i])));
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("spectral_tile: a row's bits do not depend on its neighbours", "[dct_plan]", float, double) {
    using T = TestType;
    for (count_t n : {count_t{48}, count_t{97}, count_t{256}}) {
        const sv::dct_plan<T> plan(n);
        const count_t rows = 2 * plan.lanes + 1;
        matrix<T> x(rows, n, 1), y(rows, n, 2), z(rows, n, 3);
        const auto w = random_vector<T>(n, 3, 1, 0.3);
        const auto gamma = random_vector<T>(n, 4, 1, 0.1), beta = random_vector<T>(n, 5, 0, 0.1);
        auto table = sv::make_aligned<T>(plan.filter_size()), work = sv::make_aligned<T>(sv::spectral_workspace(plan));
        plan.filter_table(w.data(), 1, 1, true, table.get());
        const sv::listed_rows<T> none{nullptr, 1};
        const auto run = [&](sv::listed_rows<const T> in, count_t count, sv::listed_rows<T> out) {
            sv::filter_norm_tile<T>(plan, table.get(), in, count, gamma.data(), beta.data(), 1e-5, out, none, none,
                                    work.get());
        };
        run(x.in(), rows, y.out());
        std::vector<std::int32_t> backwards;
        for (count_t r = rows; r-- > 0;) backwards.push_back(static_cast<std::int32_t>(r));
        run(x.in(backwards.data()), rows, z.out(backwards.data()));  // other lanes, other tiles
        CHECK(y.data.size() == z.data.size());
        for (count_t r = 0; r < rows; ++r) CHECK(y.row(r) == z.row(r));
        const std::int32_t one = 3;
        run(x.in(&one), 1, z.out());  // alone
        CHECK(z.row(0) == y.row(3));
        // a broken row stays alone
        x.data[static_cast<std::size_t>(x.stride)] = std::numeric_limits<T>::quiet_NaN();
        run(x.in(), rows, z.out());
        for (double v : z.row(1)) CHECK(std::isnan(v));
        for (count_t r = 0; r < rows; ++r)
            if (r != 1) CHECK(z.row(r) == y.row(r));
        // in place
        run(x.in(), rows, x.out());
        CHECK(x.row(rows - 1) == y.row(rows - 1));
    }
}

TEMPLATE_TEST_CASE("dct_plan: two threads share a plan while others are made", "[dct_plan]", float, double) {
    using T = TestType;
    for (count_t n : {count_t{97}, count_t{256}}) {
        const sv::dct_plan<T> plan(n);
        const count_t rows = 64;
        const matrix<T> x(rows, n, 1);
        const auto w = random_vector<T>(n, 3, 1, 0.3);
        auto table = sv::make_aligned<T>(plan.filter_size());
        plan.filter_table(w.data(), 1, 1, false, table.get());
        matrix<T> results[3] = {{rows, n, 1}, {rows, n, 2}, {rows, n, 3}};
        const auto run = [&](matrix<T>& y) {
            auto work = sv::make_aligned<T>(sv::spectral_workspace(plan));
            for (int repeat = 0; repeat < 20; ++repeat) {
                const sv::dct_plan<T> other(n + 2 * repeat);
                sv::filter_tile<T>(plan, table.get(), x.in(), rows, y.out(), work.get());
            }
        };
        run(results[0]);
        std::thread a([&] { run(results[1]); }), b([&] { run(results[2]); });
        a.join();
        b.join();
        for (count_t r = 0; r < rows; ++r) {
            CHECK(results[1].row(r) == results[0].row(r));
            CHECK(results[2].row(r) == results[0].row(r));
        }
    }
}
