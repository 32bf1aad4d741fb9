// SPDX-License-Identifier: Apache-2.0
// include/spectral/text/byte_level.hpp: the printable alphabet in which byte-level vocabularies write bytes
//
// Bytes 33-126, 161-172 and 174-255 are written as the code point of the same number, the other 68 as U+0100, U+0101,
// ... in byte order: a space is U+0120.
#pragma once
#include <spectral/text/utf8.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace spectral {

namespace detail {
struct byte_alphabet {
    std::array<std::uint16_t, 256> code_point{};  // of each byte
    std::array<std::int16_t, 324> byte{};  // of each code point, or -1
    std::array<std::uint8_t, 256> order{};  // bytes by the ids GPT-2 gives them: printable ones first

    constexpr byte_alphabet() {
        for (auto& b : byte) b = -1;
        std::uint16_t moved = 256;
        std::size_t printable = 0;
        for (std::uint16_t b = 0; b < 256; ++b) {
            const bool kept = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
            code_point[b] = kept ? b : moved++;
            byte[code_point[b]] = static_cast<std::int16_t>(b);
            if (kept) order[printable++] = static_cast<std::uint8_t>(b);
        }
        for (std::uint16_t c = 256; c < 324; ++c) order[printable++] = static_cast<std::uint8_t>(byte[c]);
    }
};
inline constexpr byte_alphabet alphabet{};
}  // namespace detail

// Each byte as one character of the alphabet.
inline std::string to_byte_level(std::string_view bytes) {
    std::string out;
    for (char b : bytes) append_utf8(out, detail::alphabet.code_point[static_cast<unsigned char>(b)]);
    return out;
}

// The bytes that a token's text stands for, or nothing when a character is outside the alphabet.
inline std::optional<std::string> from_byte_level(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size();) {
        const utf8_step step = read_utf8(text.substr(i));
        if (step.kind != utf8_step::kind::valid || step.code_point >= detail::alphabet.byte.size() ||
            detail::alphabet.byte[step.code_point] < 0)
            return std::nullopt;
        out += static_cast<char>(detail::alphabet.byte[step.code_point]);
        i += step.length;
    }
    return out;
}

}  // namespace spectral
