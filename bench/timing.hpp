// SPDX-License-Identifier: Apache-2.0
// bench/timing.hpp: the clock of what is timed in turns, and the middle of its times
#pragma once
#include <algorithm>
#include <chrono>
#include <vector>

namespace spectral::bench {

inline double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
inline double median(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return (v[v.size() / 2] + v[(v.size() - 1) / 2]) / 2;
}

}  // namespace spectral::bench
