// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/executor.hpp: the executor of plain loops
#pragma once
#include <spectral/core/host_memory.hpp>

namespace spectral::reference {

// One thread, plain loops, sums in double: the oracle of every other executor and the readable specification.
class executor : public spectral::detail::host_memory<executor> {
public:
    static constexpr const char* name = "reference";
    int threads() const { return 1; }
};

}  // namespace spectral::reference
