// SPDX-License-Identifier: Apache-2.0
// tests/packaging/cuda/main.cu: y += 2 x on a GPU; where there is none, one sentence says so and the test passes
#include <spectral/cuda.hpp>

#include <cstdio>

int main() {
    using exec = spectral::cuda::executor;
    try {
        exec ex;
        spectral::tensor<exec, float, 2> x{ex, {1, 2}, std::array{1.f, 2.f}}, y{ex, {1, 2}, std::array{3.f, 4.f}};
        spectral::add<exec, float>(ex, x, y, 2);
        return y.to_host() == std::vector{5.f, 8.f} ? 0 : 1;
    } catch (const spectral::error& e) {
        std::printf("%s\n", e.what());
        return e.where() == exec::name ? 0 : 1;
    }
}
