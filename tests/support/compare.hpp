// SPDX-License-Identifier: Apache-2.0
// tests/support/compare.hpp: derived tolerances, and comparisons that say what failed and by how much
#pragma once
#include <support/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace spectral::test {

// Largest error a correct kernel may show: a result of `terms` roundings of random sign, each of half an eps of
// `scale`, is off by about eps/2 · sqrt(terms) · scale; the factor 4 covers the worst of many elements. Never tuned to
// pass: `terms` is the length of the longest chain of operations, `scale` the size of what is being added up.
template <class T>
double allowed(double terms, double scale) {
    return 4.0 * static_cast<double>(std::numeric_limits<T>::epsilon()) * std::sqrt(std::max(terms, 1.0)) * scale;
}

// What a comparison is about; printed when it fails.
struct subject {
    std::string op, value, executor, scalar, shape;
};

// The worst share of the allowed error, by operator and executor; printed at the end if SPECTRAL_TEST_REPORT is set.
class error_report {
public:
    static error_report& instance() {
        static error_report r;
        return r;
    }
    void add(const subject& s, double share) {
        double& worst = worst_[s.op + " " + s.value + " (" + s.executor + ", " + s.scalar + ")"];
        worst = std::max(worst, share);
    }
    ~error_report() {
        if (std::getenv("SPECTRAL_TEST_REPORT"))
            for (const auto& [name, share] : worst_)
                std::printf("%5.1f %% of the allowed error: %s\n", 100 * share, name.c_str());
    }

private:
    std::map<std::string, double> worst_;
};

inline double largest(const std::vector<double>& v) {
    double m = 0;
    for (double x : v)
        if (std::isfinite(x)) m = std::max(m, std::abs(x));
    return m;
}

// |got − want| ≤ bound for every element; NaN and infinities must agree exactly.
inline bool compare(const std::vector<double>& got, const std::vector<double>& want, double bound, const subject& s) {
    const std::string about = s.op + ": " + s.value + " on " + s.executor + ", " + s.scalar + ", shape " + s.shape;
    if (got.size() != want.size()) {
        FAIL_CHECK(about << ": " << got.size() << " values instead of " << want.size());
        return false;
    }
    double worst = -1;
    std::size_t at = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
        const bool same = got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]));
        double share = same ? 0 : std::abs(got[i] - want[i]) / bound;
        if (std::isnan(share)) share = std::numeric_limits<double>::infinity();
        if (share > worst) worst = share, at = i;
    }
    if (worst > 1) {
        FAIL_CHECK(about << ": worst at " << at << " of " << got.size() << ": got " << got[at] << ", want " << want[at]
                         << ", " << 100 * worst << " % of the allowed error " << bound);
        return false;
    }
    error_report::instance().add(s, std::max(worst, 0.0));
    CHECK(true);  // counts as one assertion
    return true;
}

}  // namespace spectral::test
