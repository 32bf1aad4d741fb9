// SPDX-License-Identifier: Apache-2.0
// include/spectral/text/split.hpp: cutting text into words before byte-pair encoding
//
// Two patterns are scanned by hand, because nearly all models use one of them:
//   GPT-2
//     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   Qwen2
//     (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
// Any other goes to PCRE2. The scanners and PCRE2 are compared in the tests. Text is valid UTF-8 everywhere here.
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/text/unicode.hpp>

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace spectral {

// How GPT-2 and Qwen2 cut text into the pieces that merges stay inside.
inline constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view qwen2_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

namespace detail {
struct scanned {
    char_class kind;
    std::size_t length;
};
inline scanned scan(std::string_view text, std::size_t i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80) return {ascii_class[byte], 1};
    const utf8_step step = read_utf8(text.substr(i));
    return {classify(step.code_point), step.length};
}
// The end of the run of this class that starts at i; `last` becomes the start of the run's last character.
inline std::size_t run_end(std::string_view text, std::size_t i, char_class kind, std::size_t& last) {
    while (i < text.size()) {
        const scanned s = scan(text, i);
        if (s.kind != kind) break;
        last = i;
        i += s.length;
    }
    return i;
}
inline std::size_t run_end(std::string_view text, std::size_t i, char_class kind) {
    std::size_t last = i;
    return run_end(text, i, kind, last);
}

// Length of 's 't 're 've 'm 'll 'd at i, where an apostrophe stands, or 0.
template <bool any_case>
std::size_t contraction(std::string_view text, std::size_t i) {
    const auto letter = [&](std::size_t k) -> char {
        if (i + k >= text.size()) return '\0';
        const char c = text[i + k];
        return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    };
    switch (letter(1)) {
        case 's':
        case 't':
        case 'm':
        case 'd': return 2;
        case 'r':
        case 'v': return letter(2) == 'e' ? 3 : 0;
        case 'l': return letter(2) == 'l' ? 3 : 0;
        case '\xc5': return any_case && letter(2) == '\xbf' ? 3 : 0;  // U+017F, long s, is an s without regard to case
        default: return 0;
    }
}

// \s+(?!\S)|\s+ : all of a run of spaces but its last, which belongs to the word after it
inline std::size_t spaces_end(std::string_view text, std::size_t begin) {
    std::size_t last = begin;
    const std::size_t end = run_end(text, begin, char_class::space, last);
    return end < text.size() && last > begin ? last : end;
}

inline std::size_t gpt2_word_end(std::string_view text, std::size_t begin) {
    if (text[begin] == '\'')
        if (const std::size_t n = contraction<false>(text, begin)) return begin + n;
    std::size_t i = begin;
    if (text[i] == ' ' && i + 1 < text.size() && scan(text, i + 1).kind != char_class::space) ++i;
    const char_class kind = scan(text, i).kind;
    return kind == char_class::space ? spaces_end(text, begin) : run_end(text, i, kind);
}

inline std::size_t qwen2_word_end(std::string_view text, std::size_t begin) {
    const auto newline = [&](std::size_t i) { return text[i] == '\n' || text[i] == '\r'; };
    if (text[begin] == '\'')
        if (const std::size_t n = contraction<true>(text, begin)) return begin + n;
    const scanned first = scan(text, begin);
    const std::size_t second = begin + first.length;
    if (first.kind == char_class::letter) return run_end(text, second, char_class::letter);
    if (first.kind == char_class::number) return second;
    const bool has_second = second < text.size();
    const char_class next = has_second ? scan(text, second).kind : char_class::space;
    if (next == char_class::letter && !newline(begin)) return run_end(text, second, char_class::letter);
    if (first.kind == char_class::other || (text[begin] == ' ' && next == char_class::other)) {
        std::size_t end = run_end(text, first.kind == char_class::other ? begin : second, char_class::other);
        while (end < text.size() && newline(end)) ++end;
        return end;
    }
    std::size_t last = begin;
    const std::size_t end = run_end(text, begin, char_class::space, last);
    for (std::size_t i = end; i > begin; --i)
        if (newline(i - 1)) return i;  // \s*[\r\n]+ ends after the last line break of the run
    return end < text.size() && last > begin ? last : end;
}

class regex {
public:
    regex(std::string_view pattern, std::string_view where) {
        int code = 0;
        PCRE2_SIZE offset = 0;
        // MULTILINE: ^ and $ mean lines, as in the library that these patterns are written for
        const std::uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
        code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &code, &offset,
                                  nullptr));
        if (!code_) fail(where, "split pattern: ", message(code), " at offset ", offset, " of ", pattern);
        pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, matching works without it
    }
    // Each match and each gap between matches is a piece.
    template <class Emit>
    void split(std::string_view text, std::string_view where, Emit&& emit) const {
        const std::unique_ptr<pcre2_match_data, freer> found(pcre2_match_data_create(1, nullptr));
        const std::unique_ptr<pcre2_match_context, freer> limits(pcre2_match_context_create(nullptr));
        check(found && limits, where, "out of memory while splitting text");
        pcre2_set_match_limit(limits.get(), 1'000'000);
        std::size_t done = 0, from = 0;
        while (from < text.size()) {
            const int n = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                      PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, found.get(), limits.get());
            if (n == PCRE2_ERROR_NOMATCH) break;
            check(n >= 0, where, "split pattern: ", message(n), " at byte offset ", from);
            const PCRE2_SIZE begin = pcre2_get_ovector_pointer(found.get())[0];
            const PCRE2_SIZE end = pcre2_get_ovector_pointer(found.get())[1];
            check(begin >= done && end > begin, where, "split pattern: no advance at byte offset ", from);
            if (begin > done) emit(text.substr(done, begin - done));
            emit(text.substr(begin, end - begin));
            done = from = end;
        }
        if (done < text.size()) emit(text.substr(done));
    }

private:
    struct freer {
        void operator()(pcre2_code* p) const { pcre2_code_free(p); }
        void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
        void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
    };
    static std::string message(int code) {
        PCRE2_UCHAR text[256];
        const bool known = pcre2_get_error_message(code, text, sizeof text) > 0;
        return known ? reinterpret_cast<const char*>(text) : "unknown error";
    }
    std::unique_ptr<pcre2_code, freer> code_;
};
}  // namespace detail

// One way of cutting text: a pattern, known or not.
//   splitter(qwen2_pattern, "tokenizer.json").split("It's 10", [](std::string_view word) { ... });  // It 's ' ' 1 0
class splitter {
public:
    splitter(std::string_view pattern, std::string_view where) : pattern_(pattern), where_(where) {
        if (pattern == gpt2_pattern)
            kind_ = kind::gpt2;
        else if (pattern == qwen2_pattern)
            kind_ = kind::qwen2;
        else
            regex_ = std::make_shared<const detail::regex>(pattern, where);
    }
    const std::string& pattern() const { return pattern_; }

    template <class Emit>
    void split(std::string_view text, Emit&& emit) const {
        switch (kind_) {
            case kind::gpt2: return cut(text, detail::gpt2_word_end, emit);
            case kind::qwen2: return cut(text, detail::qwen2_word_end, emit);
            case kind::regex: return regex_->split(text, where_, emit);
        }
    }

private:
    template <class End, class Emit>
    static void cut(std::string_view text, End word_end, Emit&& emit) {
        for (std::size_t begin = 0; begin < text.size();) {
            const std::size_t end = word_end(text, begin);
            emit(text.substr(begin, end - begin));
            begin = end;
        }
    }
    enum class kind { gpt2, qwen2, regex } kind_ = kind::regex;
    std::string pattern_, where_;
    std::shared_ptr<const detail::regex> regex_;
};

}  // namespace spectral
