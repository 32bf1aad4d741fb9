// SPDX-License-Identifier: Apache-2.0
// tests/fuzz/safetensors_fuzz.cpp: any bytes as a safetensors file: refused with our exception, or readable
#include <spectral/io/safetensors.hpp>

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const spectral::safetensors_file file(std::as_bytes(std::span(data, size)), "input");
        std::size_t total = 0;
        for (const auto& [name, tensor] : file.tensors()) {
            total += tensor.data.size();
            if (tensor.size() > static_cast<std::int64_t>(2 * size)) continue;  // a zero dimension beside huge ones
            try {
                file.read<float>(name);
            } catch (const spectral::error&) {}
            try {
                file.read<std::int32_t>(name);
            } catch (const spectral::error&) {}
        }
        if (total > size) std::abort();
    } catch (const spectral::error&) {}
    return 0;
}
