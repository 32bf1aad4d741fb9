// SPDX-License-Identifier: Apache-2.0
// tests/fuzz/config_fuzz.cpp: any JSON as each of the configurations: refused with our exception, or valid when written
// again
#include <spectral/io/chiar_config_json.hpp>
#include <spectral/io/hugging_face.hpp>

#include <cstdint>
#include <cstdlib>

// f refuses with our exception or returns; anything else that it throws ends the fuzzer
template <class F>
static void refused_or_done(F&& f) {
    try {
        f();
    } catch (const spectral::error& e) {
        if (std::string_view(e.what()).size() > 4000) std::abort();
    }
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace spectral;
    nlohmann::json json;
    try {
        json = parse_json(std::string_view(reinterpret_cast<const char*>(data), size), "input");
    } catch (const error&) {
        return 0;
    }
    refused_or_done([&] {
        const std::string written = write_chiar_config(parse_chiar_config(json, "config.json"));
        if (write_chiar_config(parse_chiar_config(parse_json(written, "written"), "written")) != written) std::abort();
    });
    refused_or_done([&] {
        const std::string written = write_qwen2_config(parse_qwen2_config(json, "config.json"));
        if (write_qwen2_config(parse_qwen2_config(parse_json(written, "written"), "written")) != written) std::abort();
    });
    return 0;
}
