// SPDX-License-Identifier: Apache-2.0
// include/spectral/text/utf8.hpp: reading, writing, checking and repairing UTF-8
#pragma once
#include <spectral/core/check.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace spectral {

// What the bytes at some position are: a code point, a prefix of one that the text ends in, or neither.
struct utf8_step {
    enum class kind : std::uint8_t { valid, incomplete, invalid };
    char32_t code_point;
    std::uint8_t length;  // bytes of the code point, or of the longest prefix of one (at least 1)
    enum kind kind;
};

// text must not be empty. Follows the Unicode table of well-formed sequences: no surrogates, nothing above U+10FFFF,
// no longer form than needed.
inline utf8_step read_utf8(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = byte(0);
    if (first < 0x80) return {first, 1, utf8_step::kind::valid};
    if (first < 0xc2 || first > 0xf4) return {0, 1, utf8_step::kind::invalid};
    const std::uint8_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    char32_t code = first & (0x7fu >> length);
    for (std::uint8_t i = 1; i < length; ++i) {
        if (i == text.size()) return {0, i, utf8_step::kind::incomplete};
        unsigned char lowest = 0x80, highest = 0xbf;
        if (i == 1) {
            if (first == 0xe0) lowest = 0xa0;
            if (first == 0xed) highest = 0x9f;
            if (first == 0xf0) lowest = 0x90;
            if (first == 0xf4) highest = 0x8f;
        }
        if (byte(i) < lowest || byte(i) > highest) return {0, i, utf8_step::kind::invalid};
        code = (code << 6) | (byte(i) & 0x3fu);
    }
    return {code, length, utf8_step::kind::valid};
}

// Bytes from the start that are ASCII, eight at a time.
inline std::size_t ascii_prefix(std::string_view text) {
    std::size_t i = 0;
    for (; i + 8 <= text.size(); i += 8) {
        std::uint64_t word;
        std::memcpy(&word, text.data() + i, 8);
        if (word & 0x8080808080808080u) break;
    }
    while (i < text.size() && static_cast<unsigned char>(text[i]) < 0x80) ++i;
    return i;
}

// Throws a sentence with the offset of the first byte that is not UTF-8.
inline void check_utf8(std::string_view text, std::string_view where) {
    for (std::size_t i = ascii_prefix(text); i < text.size(); i += ascii_prefix(text.substr(i))) {
        const utf8_step step = read_utf8(text.substr(i));
        check(step.kind == utf8_step::kind::valid, where, "the text is not valid UTF-8 at byte offset ", i);
        i += step.length;
    }
}

// Appends one code point; it must be valid.
inline void append_utf8(std::string& out, char32_t code) {
    const auto put = [&](char32_t byte) { out += static_cast<char>(static_cast<unsigned char>(byte)); };
    if (code < 0x80) {
        put(code);
    } else if (code < 0x800) {
        put(0xc0 | (code >> 6));
        put(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        put(0xe0 | (code >> 12));
        put(0x80 | ((code >> 6) & 0x3f));
        put(0x80 | (code & 0x3f));
    } else {
        put(0xf0 | (code >> 18));
        put(0x80 | ((code >> 12) & 0x3f));
        put(0x80 | ((code >> 6) & 0x3f));
        put(0x80 | (code & 0x3f));
    }
}

// Appends bytes as UTF-8, each longest ill-formed part replaced by U+FFFD; returns how many bytes it used. A prefix of
// a code point at the very end is left for later unless `last`.
inline std::size_t append_repaired(std::string& out, std::string_view bytes, bool last) {
    std::size_t i = 0;
    while (i < bytes.size()) {
        const std::size_t plain = ascii_prefix(bytes.substr(i));
        out.append(bytes.substr(i, plain));
        i += plain;
        if (i == bytes.size()) break;
        const utf8_step step = read_utf8(bytes.substr(i));
        if (step.kind == utf8_step::kind::incomplete && !last) return i;
        if (step.kind == utf8_step::kind::valid)
            out.append(bytes.substr(i, step.length));
        else
            out += "\xef\xbf\xbd";
        i += step.length;
    }
    return i;
}

}  // namespace spectral
