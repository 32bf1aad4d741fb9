// SPDX-License-Identifier: Apache-2.0
// examples/operator.cpp: include one operator and run it: the spectral entropy of two rows
#include <spectral/cpu.hpp>

#include <cstdio>

int main() {
    using executor = spectral::cpu::executor;
    executor ex;
    const std::array<float, 16> rows{1, 2, 3, 4, 5, 6, 7, 8, 3, -1, 4, 1, -5, 9, -2, 6};
    const spectral::tensor<executor, float, 2> x{ex, {2, 8}, rows};
    const spectral::tensor<executor, float> entropy{ex, {2}};
    spectral::spectral_entropy_forward(ex, x.view(), spectral::dct_norm::ortho, entropy.view());

    const auto h = entropy.to_host();
    std::printf("spectral entropy, 0 to 1: smooth row %.3f, noisy row %.3f\n", h[0], h[1]);
    return h[0] < h[1] ? 0 : 1;
}
