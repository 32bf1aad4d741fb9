// SPDX-License-Identifier: Apache-2.0
// tests/packaging/fetch_content/main.cpp: a matrix product on the CPU, and the version
#include <spectral/core/tensor.hpp>
#include <spectral/cpu.hpp>
#include <spectral/version.hpp>

int main() {
    using exec = spectral::cpu::executor;
    exec ex{1};
    spectral::tensor<exec, float, 2> x{ex, {1, 2}, std::array{1.f, 2.f}}, w{ex, {1, 2}, std::array{3.f, 4.f}},
        y{ex, {1, 1}};
    spectral::linear_forward<exec, float>(ex, x, w, {}, y);
    return y.to_host()[0] == 11.f && spectral::version_major >= 0 ? 0 : 1;
}
