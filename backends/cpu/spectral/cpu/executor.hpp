// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/executor.hpp: the executor of Eigen, FFTW and OpenMP
#pragma once
#include <spectral/core/host_memory.hpp>

#include <omp.h>

namespace spectral::cpu {

// Runs on `threads` OpenMP threads of the host. The number belongs to the executor, not to the process: two executors
// may run side by side. Work is divided by a fixed rule, so the same threads and input give the same bits.
class executor : public detail::host_memory<executor> {
public:
    static constexpr const char* name = "cpu";
    explicit executor(int threads = omp_get_max_threads()) : threads_(threads) {
        check(threads >= 1, "cpu::executor", "number of threads must be at least 1, found ", threads);
    }
    int threads() const { return threads_; }

private:
    int threads_;
};

}  // namespace spectral::cpu
