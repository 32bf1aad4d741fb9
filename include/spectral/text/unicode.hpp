// SPDX-License-Identifier: Apache-2.0
// include/spectral/text/unicode.hpp: character classes and NFC, from utf8proc with a fast path for ASCII
#pragma once
#include <spectral/text/utf8.hpp>

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace spectral {

// The partition that the split patterns use: \p{L}, \p{N}, \s (Unicode White_Space) and everything else.
enum class char_class : std::uint8_t { letter, number, space, other };

namespace detail {
inline char_class classify_any(char32_t c) {
    switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
        case UTF8PROC_CATEGORY_LU:
        case UTF8PROC_CATEGORY_LL:
        case UTF8PROC_CATEGORY_LT:
        case UTF8PROC_CATEGORY_LM:
        case UTF8PROC_CATEGORY_LO: return char_class::letter;
        case UTF8PROC_CATEGORY_ND:
        case UTF8PROC_CATEGORY_NL:
        case UTF8PROC_CATEGORY_NO: return char_class::number;
        case UTF8PROC_CATEGORY_ZS:
        case UTF8PROC_CATEGORY_ZL:
        case UTF8PROC_CATEGORY_ZP: return char_class::space;
        default: return (c >= 9 && c <= 13) || c == 0x85 ? char_class::space : char_class::other;
    }
}
constexpr std::array<char_class, 128> ascii_classes() {
    std::array<char_class, 128> out{};
    for (int c = 0; c < 128; ++c) {
        const int lower = c | 0x20;
        out[static_cast<std::size_t>(c)] = lower >= 'a' && lower <= 'z'      ? char_class::letter
                                           : c >= '0' && c <= '9'            ? char_class::number
                                           : c == ' ' || (c >= 9 && c <= 13) ? char_class::space
                                                                             : char_class::other;
    }
    return out;
}
inline constexpr std::array<char_class, 128> ascii_class = ascii_classes();
}  // namespace detail

// Letter, number, white space or other, as \p{L}, \p{N} and \s of PCRE2 say.
inline char_class classify(char32_t c) { return c < 128 ? detail::ascii_class[c] : detail::classify_any(c); }

namespace detail {
// NFC of one piece: decompose, sort runs of combining marks, compose. utf8proc_map() would do, but it sorts long runs
// of marks in quadratic time, and text is untrusted.
inline void append_nfc(std::string& out, std::string_view text, std::vector<utf8proc_int32_t>& codes) {
    codes.clear();
    std::array<utf8proc_int32_t, 32> parts;
    for (std::size_t i = 0; i < text.size();) {
        const utf8_step step = read_utf8(text.substr(i));
        i += step.length;
        int boundary = 0;
        const auto room = static_cast<utf8proc_ssize_t>(parts.size());
        const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(step.code_point), parts.data(), room,
                                               UTF8PROC_DECOMPOSE, &boundary);
        check(n > 0 && n <= room, "NFC", "a code point cannot be decomposed");
        codes.insert(codes.end(), parts.begin(), parts.begin() + n);
    }
    const auto mark = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
    for (auto begin = codes.begin(); begin != codes.end();) {
        const auto end = std::find_if(begin, codes.end(), [&](auto c) { return mark(c) == 0; });
        if (end - begin > 1) std::stable_sort(begin, end, [&](auto a, auto b) { return mark(a) < mark(b); });
        begin = end == codes.end() ? end : end + 1;
    }
    const auto n = utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
                                            static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    check(n >= 0 && n <= static_cast<utf8proc_ssize_t>(codes.size()), "NFC", "the text cannot be composed");
    codes.resize(static_cast<std::size_t>(n));
    for (utf8proc_int32_t c : codes) append_utf8(out, static_cast<char32_t>(c));
}
}  // namespace detail

// The text (valid UTF-8) in normal form C. An ASCII character never combines with what stands before it, so the text
// is cut before each and only pieces with a code point from U+0300 on (lead byte 0xCC) can change.
inline std::string to_nfc(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    std::vector<utf8proc_int32_t> codes;
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t plain = ascii_prefix(text.substr(i));
        const bool ended = i + plain == text.size();
        std::size_t begin = i + plain;
        if (!ended && plain > 0) --begin;  // the ASCII character that the marks belong to
        out.append(text.substr(i, begin - i));
        if (ended) break;
        std::size_t end = i + plain;
        bool may_change = false;
        for (; end < text.size() && static_cast<unsigned char>(text[end]) >= 0x80; ++end)
            may_change |= static_cast<unsigned char>(text[end]) >= 0xcc;
        const std::string_view piece = text.substr(begin, end - begin);
        if (may_change)
            detail::append_nfc(out, piece, codes);
        else
            out.append(piece);
        i = end;
    }
    return out;
}

}  // namespace spectral
