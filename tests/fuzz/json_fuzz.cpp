// SPDX-License-Identifier: Apache-2.0
// tests/fuzz/json_fuzz.cpp: any bytes as JSON: refused with our exception, or valid and stable when written again
#include <spectral/io/json.hpp>

#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    try {
        const auto value = spectral::parse_json(text, "input");
        const std::string written = value.dump();
        if (spectral::parse_json(written, "written").dump() != written) std::abort();
    } catch (const spectral::error& e) {
        if (std::string_view(e.what()).size() > 1000) std::abort();
    }
    return 0;
}
