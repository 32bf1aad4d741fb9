// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/statistics.hpp: means with their uncertainty
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/core/random.hpp>
#include <spectral/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace spectral {

// 0 of none.
inline double mean_of(const std::vector<double>& v) {
    double sum = 0;
    for (double x : v) sum += x;
    return v.empty() ? 0 : sum / static_cast<double>(v.size());
}
// unbiased; 0 of fewer than two
inline double variance_of(const std::vector<double>& v) {
    const double mean = mean_of(v);
    double sum = 0;
    for (double x : v) sum += (x - mean) * (x - mean);
    return v.size() < 2 ? 0 : sum / static_cast<double>(v.size() - 1);
}

// Pearson's r; 0 where one side does not vary.
inline double correlation(const std::vector<double>& x, const std::vector<double>& y) {
    check_equal(x.size(), y.size(), "correlation", "number of values");
    const double mx = mean_of(x), my = mean_of(y);
    double xy = 0, xx = 0, yy = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        xy += (x[i] - mx) * (y[i] - my);
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
    }
    return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0;
}

// Correlation of x and y with z held fixed.
inline double partial_correlation(const std::vector<double>& x, const std::vector<double>& y,
                                  const std::vector<double>& z) {
    const double xy = correlation(x, y), xz = correlation(x, z), yz = correlation(y, z);
    const double rest = (1 - xz * xz) * (1 - yz * yz);
    return rest > 1e-12 ? (xy - xz * yz) / std::sqrt(rest) : 0;
}

// The same values dealt anew by a rule that sees `key` alone: the largest to the largest keys, equal keys share alike.
inline std::vector<double> dealt_by(const std::vector<double>& key, std::vector<double> values) {
    check_equal(key.size(), values.size(), "dealt_by", "number of values");
    std::sort(values.begin(), values.end());
    std::vector<std::size_t> order(key.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return key[a] < key[b]; });
    std::vector<double> out(key.size());
    for (std::size_t first = 0, last = 0; first < order.size(); first = last) {
        double sum = 0;
        for (; last < order.size() && key[order[last]] == key[order[first]]; ++last) sum += values[last];
        for (std::size_t i = first; i < last; ++i) out[order[i]] = sum / static_cast<double>(last - first);
    }
    return out;
}

// Ends of a confidence interval.
struct interval {
    double low = 0, high = 0;
};

// 95 % percentile bootstrap of mean(a) − mean(b); b may be empty: of mean(a).
inline interval bootstrap_difference(const std::vector<double>& a, const std::vector<double>& b, index resamples,
                                     std::uint64_t seed = 0) {
    if (a.empty() || resamples < 1) return {};
    const random_stream draw{seed, stream_of("bootstrap")};
    std::uint64_t n = 0;
    const auto resampled = [&](const std::vector<double>& v) {
        double sum = 0;
        for (std::size_t i = 0; i < v.size(); ++i) {
            const auto at = static_cast<std::size_t>(draw.uniform(n++) * static_cast<double>(v.size()));
            sum += v[std::min(at, v.size() - 1)];
        }
        return v.empty() ? 0 : sum / static_cast<double>(v.size());
    };
    std::vector<double> found;
    for (index i = 0; i < resamples; ++i) {
        const double first = resampled(a);
        found.push_back(first - resampled(b));
    }
    std::sort(found.begin(), found.end());
    const auto rank = [&](double q) {
        return found[static_cast<std::size_t>(std::lround(q * static_cast<double>(found.size() - 1)))];
    };
    return {rank(0.025), rank(0.975)};
}

// 95 % interval of a mean from few independent values, by Student's t; empty range of fewer than two.
inline interval student_interval(const std::vector<double>& v) {
    static constexpr double t[] = {0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228};
    const double mean = mean_of(v);
    if (v.size() < 2) return {mean, mean};
    const double factor = v.size() <= 11 ? t[v.size() - 1] : 1.96 + 2.5 / static_cast<double>(v.size() - 1);
    const double half = factor * std::sqrt(variance_of(v) / static_cast<double>(v.size()));
    return {mean - half, mean + half};
}

}  // namespace spectral
