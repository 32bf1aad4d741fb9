// SPDX-License-Identifier: Apache-2.0
// examples/consumer/main.cpp: a low-pass filter on the CPU: the upper half of a row's spectrum set to zero
#include <spectral/cpu.hpp>

#include <cmath>
#include <cstdio>

int main() {
    using executor = spectral::cpu::executor;
    executor ex;
    const spectral::tensor<executor, float, 2> x{ex, {1, 8}, std::array{1.f, 3.f, 2.f, 4.f, 3.f, 5.f, 4.f, 6.f}};
    const spectral::tensor<executor, float> keep{ex, {8}, std::array{1.f, 1.f, 1.f, 1.f, 0.f, 0.f, 0.f, 0.f}};
    const spectral::tensor<executor, float, 2> y{ex, {1, 8}};
    spectral::spectral_filter_forward(ex, x, keep, spectral::dct_norm::ortho, y.view());

    const auto in = x.to_host(), out = y.to_host();
    float change = 0;  // the mean is the first coefficient, which is kept
    for (std::size_t i = 0; i < in.size(); ++i) {
        std::printf("%.2f -> %.2f\n", in[i], out[i]);
        change += out[i] - in[i];
    }
    return std::abs(change) < 1e-4f && std::abs(out[1] - in[1]) > 0.1f ? 0 : 1;
}
