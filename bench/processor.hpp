// SPDX-License-Identifier: Apache-2.0
// bench/processor.hpp: the name of the processor that a result belongs to
#pragma once
#include <fstream>
#include <string>

namespace spectral::bench {

inline std::string processor() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);)
        if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
    return "unknown";
}

}  // namespace spectral::bench
