// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/gaussian_null.hpp: the spectral entropy of pure noise: what a router's entropies are held
// against
//
// A DCT only rotates a vector of independent normal numbers, so its spectrum is one too: entropies of noise are drawn
// without any transform. Where a model's entropies lie as the noise's do, its spectra carry no information.
#pragma once
#include <spectral/core/random.hpp>
#include <spectral/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace spectral {

// Entropies of `draws` spectra of d normal numbers (ops/spectral_entropy.hpp has the formula), ascending. `reference`:
// the transform in which the first coefficient counts double.
inline std::vector<double> gaussian_null(index d, bool reference, index draws = 4000, std::uint64_t seed = 0) {
    const random_stream draw{seed, stream_of("gaussian null")};
    std::vector<double> out, power(static_cast<std::size_t>(d));
    std::uint64_t n = 0;
    for (index i = 0; i < draws; ++i) {
        double total = 1e-8, h = 0;
        for (double& p : power) {
            const double x = draw.normal(n++);
            p = x * x;
        }
        if (reference && d > 0) power[0] *= 2;
        for (double p : power) total += p;
        for (double p : power) h -= p / total * std::log(p / total + 1e-8);
        out.push_back(h / (std::log(static_cast<double>(d)) + 1e-8));
    }
    std::sort(out.begin(), out.end());
    return out;
}

// Density of a sample at x: a sum of normal bells (Silverman's width).
class sample_density {
public:
    explicit sample_density(std::vector<double> sample) : sample_(std::move(sample)) {
        const double n = static_cast<double>(sample_.size());
        double sum = 0, squares = 0;
        for (double v : sample_) sum += v, squares += v * v;
        mean_ = sum / n;
        deviation_ = std::sqrt(std::max(squares / n - mean_ * mean_, 0.0));
        width_ = std::max(1.06 * deviation_ * std::pow(n, -0.2), 1e-9);
    }
    double operator()(double x) const {
        double sum = 0;
        for (double v : sample_) sum += std::exp(-0.5 * (x - v) * (x - v) / (width_ * width_));
        return sum / (static_cast<double>(sample_.size()) * width_ * std::sqrt(2 * 3.14159265358979323846));
    }
    double mean() const { return mean_; }
    double deviation() const { return deviation_; }
    // share of the sample above x
    double above(double x) const {
        const auto first = std::upper_bound(sample_.begin(), sample_.end(), x);
        return static_cast<double>(sample_.end() - first) / static_cast<double>(sample_.size());
    }

private:
    std::vector<double> sample_;
    double mean_ = 0, deviation_ = 0, width_ = 1;
};

}  // namespace spectral
