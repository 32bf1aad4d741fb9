// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/executor.hpp: the executor of OpenMP threads, vector kernels and FFTW
#pragma once
#include <spectral/core/host_memory.hpp>

#include <omp.h>

#include <map>
#include <memory>
#include <typeindex>
#include <utility>

namespace spectral::cpu {

// Runs on `threads` OpenMP threads of the host. The number belongs to the executor, not to the process: two executors
// may run side by side. Work is divided by a fixed rule, so the same threads and input give the same bits.
class executor : public spectral::detail::host_memory<executor> {
public:
    static constexpr const char* name = "cpu";
    explicit executor(int threads = omp_get_max_threads()) : threads_(threads) {
        check(threads >= 1, "cpu::executor", "number of threads must be at least 1, found ", threads);
    }
    int threads() const { return threads_; }

    // What kernels prepare once for a width and keep: plan<dct_plan<float>>(1024) is made at its first use.
    template <class Plan>
    const Plan& plan(index width) {
        auto& kept = plans_[{std::type_index(typeid(Plan)), width}];
        if (!kept) kept = std::make_shared<const Plan>(width);
        return *static_cast<const Plan*>(kept.get());
    }

private:
    int threads_;
    std::map<std::pair<std::type_index, index>, std::shared_ptr<const void>> plans_;
};

}  // namespace spectral::cpu
