// SPDX-License-Identifier: Apache-2.0
// tests/backend_stub/spectral/stub/executor.hpp: the executor of a backend in the making
#pragma once
#include <spectral/core/host_memory.hpp>

namespace spectral::stub {

// host_memory gives what the concept asks for: allocation, copies, an arena. A device has functions of its own there.
class executor : public spectral::detail::host_memory<executor> {
public:
    static constexpr const char* name = "stub";
};
static_assert(spectral::executor<executor>);

}  // namespace spectral::stub
