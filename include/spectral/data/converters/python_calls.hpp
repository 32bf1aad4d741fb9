// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/converters/python_calls.hpp: Python's calls as text: "mv(source='a', destination=['b', 2])"
#pragma once
#include <spectral/text/chat_template.hpp>

namespace spectral::detail {

class python_call_reader {
public:
    python_call_reader(std::string_view text, const std::string& where) : text_(text), where_(where) {}

    struct call {
        std::string name;
        std::vector<chat_json> positional;
        chat_json named = chat_json::object();
    };
    call read() {
        call out;
        out.name = word();
        if (out.name.empty()) problem("the name of a function");
        expect('(');
        while (!take(')')) {
            const std::size_t start = at_;
            const std::string name = word();
            if (!name.empty() && take('=')) {
                if (out.named.contains(name)) problem("each argument once");
                out.named[name] = value();
            } else {
                at_ = start;
                out.positional.push_back(value());
            }
            if (!take(',') && peek() != ')') problem("a comma or a closing bracket");
        }
        if (peek() != '\0' || at_ < text_.size()) problem("nothing after the call");
        return out;
    }

private:
    [[noreturn]] void problem(const char* expected) const {
        fail(where_, "call ", in_quotes(text_, 200), ": expected ", expected, " at byte ", at_);
    }
    char peek() {
        while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
        return at_ < text_.size() ? text_[at_] : '\0';
    }
    bool take(char c) {
        if (peek() != c) return false;
        ++at_;
        return true;
    }
    void expect(char c) {
        const char expected[] = {c, '\0'};
        if (!take(c)) problem(expected);
    }
    std::string word() {
        peek();
        const std::size_t start = at_;
        const auto letter = [&](char c) {
            return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
                   (at_ > start && ((c >= '0' && c <= '9') || c == '.'));
        };
        while (at_ < text_.size() && letter(text_[at_])) ++at_;
        return std::string(text_.substr(start, at_ - start));
    }
    chat_json value() {
        if (++depth_ > 50) problem("at most 50 levels");
        chat_json out = bare_value();
        --depth_;
        return out;
    }
    chat_json bare_value() {
        const char c = peek();
        if (c == '\'' || c == '"') return string();
        if (c == '[' || c == '(') {
            ++at_;
            const char close = c == '[' ? ']' : ')';
            chat_json list = chat_json::array();
            while (!take(close)) {
                list.push_back(value());
                if (!take(',') && peek() != close) problem("a comma or a closing bracket");
            }
            return list;
        }
        if (c == '{') {
            ++at_;
            chat_json object = chat_json::object();
            while (!take('}')) {
                const chat_json key = value();
                if (!key.is_string()) problem("a string as key");
                expect(':');
                object[key.get<std::string>()] = value();
                if (!take(',') && peek() != '}') problem("a comma or a closing bracket");
            }
            return object;
        }
        if (const std::string name = word(); !name.empty()) {
            if (name == "True") return true;
            if (name == "False") return false;
            if (name == "None") return nullptr;
            problem("a value");
        }
        const std::size_t start = at_;
        while (at_ < text_.size() && std::string_view("+-.0123456789eE").find(text_[at_]) != std::string_view::npos)
            ++at_;
        if (at_ == start) problem("a value");
        return parse_chat_json(text_.substr(start, at_ - start), where_);
    }
    chat_json string() {
        const char quote = text_[at_++];
        std::string out;
        for (; at_ < text_.size() && text_[at_] != quote; ++at_) {
            if (text_[at_] != '\\') {
                out += text_[at_];
                continue;
            }
            if (++at_ == text_.size()) break;
            switch (text_[at_]) {
                case 'n': out += '\n'; break;
                case 't': out += '\t'; break;
                case 'r': out += '\r'; break;
                case '\\':
                case '\'':
                case '"': out += text_[at_]; break;
                default: problem("a known escape");
            }
        }
        if (at_ >= text_.size()) problem("the end of a string");
        ++at_;
        return out;
    }

    std::string_view text_;
    const std::string& where_;
    std::size_t at_ = 0;
    int depth_ = 0;
};

}  // namespace spectral::detail
