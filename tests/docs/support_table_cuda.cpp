// SPDX-License-Identifier: Apache-2.0
// tests/docs/support_table_cuda.cpp: the cuda executor's rows of the table
#include <docs/support_table.hpp>
#include <spectral/cuda.hpp>

namespace spectral::support {

std::vector<row> cuda_rows(const std::string& scalar) {
    using exec = cuda::executor;
    return scalar == "float" ? rows<exec, float>() : scalar == "double" ? rows<exec, double>() : rows<exec, bfloat16>();
}

}  // namespace spectral::support
