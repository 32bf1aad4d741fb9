// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/parallel.hpp: one parallel region over contiguous ranges
#pragma once
#include <spectral/cpu/executor.hpp>

#include <algorithm>
#include <exception>

namespace spectral::cpu::detail {

// Calls f(first, last, thread) on disjoint ranges that cover [0, n), one range a thread, each a multiple of `grain`
// (but the last). Ranges depend on n, grain and the number of threads alone. Small work runs on the caller; any other
// on a team of one size, though some may have nothing to do: libgomp ends the threads that a smaller team leaves over,
// and their memory with them, and starts new ones for the next.
template <class F>
void parallel_ranges(const executor& ex, index n, index grain, F&& f) {
    if (n <= 0) return;
    const index units = (n + grain - 1) / grain;
    const int ranges = static_cast<int>(std::min<index>(ex.threads(), units));
    if (ranges <= 1) return f(index{0}, n, 0);
    std::exception_ptr failure;
#pragma omp parallel num_threads(ex.threads())
    for (int t = omp_get_thread_num(); t < ranges; t += omp_get_num_threads()) {
        const index first = units * t / ranges * grain, last = std::min(n, units * (t + 1) / ranges * grain);
        try {
            f(first, last, t);
        } catch (...) {
#pragma omp critical
            failure = std::current_exception();
        }
    }
    if (failure) std::rethrow_exception(failure);
}

}  // namespace spectral::cpu::detail
