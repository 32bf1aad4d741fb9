// SPDX-License-Identifier: Apache-2.0
// bench/event_timing.hpp: what a call takes on the device: the median of event times, in milliseconds
#pragma once
#include <spectral/cuda/executor.hpp>

#include "timing.hpp"

namespace spectral::bench {

template <class F>
double event_ms(cuda::executor& ex, F f, int repeats = 15) {
    cudaEvent_t begin, end;
    cuda::detail::checked(cudaEventCreate(&begin), "cudaEventCreate");
    cuda::detail::checked(cudaEventCreate(&end), "cudaEventCreate");
    for (int i = 0; i < 3; ++i) f();
    std::vector<double> times;
    for (int i = 0; i < repeats; ++i) {
        cuda::detail::checked(cudaEventRecord(begin, ex.stream()), "cudaEventRecord");
        f();
        cuda::detail::checked(cudaEventRecord(end, ex.stream()), "cudaEventRecord");
        cuda::detail::checked(cudaEventSynchronize(end), "cudaEventSynchronize");
        float ms = 0;
        cuda::detail::checked(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
        times.push_back(ms);
    }
    cuda::detail::noted(cudaEventDestroy(begin), "cudaEventDestroy");
    cuda::detail::noted(cudaEventDestroy(end), "cudaEventDestroy");
    return median(std::move(times));
}

}  // namespace spectral::bench
