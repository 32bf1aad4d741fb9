// SPDX-License-Identifier: Apache-2.0
// tests/packaging/add_subdirectory/main.cpp: a DCT on the reference executor, and the exception of a wrong shape
#include <spectral/core/tensor.hpp>
#include <spectral/reference.hpp>

int main() {
    using exec = spectral::reference::executor;
    exec ex;
    spectral::tensor<exec, double, 2> x{ex, {2, 3}}, y{ex, {2, 3}}, narrow{ex, {2, 2}};
    spectral::dct_forward<exec, double>(ex, x, spectral::dct_norm::ortho, y);
    try {
        spectral::dct_forward<exec, double>(ex, x, spectral::dct_norm::ortho, narrow);
    } catch (const spectral::error&) {
        return 0;
    }
    return 1;
}
