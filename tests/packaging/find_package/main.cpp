// SPDX-License-Identifier: Apache-2.0
// tests/packaging/find_package/main.cpp: a DCT and its inverse on the CPU
#include <spectral/core/tensor.hpp>
#include <spectral/cpu.hpp>

#include <cmath>

int main() {
    spectral::cpu::executor ex;
    spectral::tensor<spectral::cpu::executor, float, 2> x{ex, {1, 4}, std::array{1.f, 2.f, 3.f, 5.f}}, y{ex, {1, 4}};
    spectral::dct_forward<spectral::cpu::executor, float>(ex, x, spectral::dct_norm::ortho, y);
    spectral::idct_forward<spectral::cpu::executor, float>(ex, y, spectral::dct_norm::ortho, x);
    return std::abs(x.to_host()[3] - 5.f) < 1e-5f ? 0 : 1;
}
