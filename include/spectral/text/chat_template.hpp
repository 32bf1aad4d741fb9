// SPDX-License-Identifier: Apache-2.0
// include/spectral/text/chat_template.hpp: conversations as text of the Qwen2.5 chat template, and where turns lie
//
// A turn is "<|im_start|>ROLE\n" CONTENT "<|im_end|>\n". Tools are listed in the system turn, one JSON object a line;
// the assistant writes its calls as JSON between <tool_call> tags; results come back in a user turn, between
// <tool_response> tags. A conversation that does not begin with a system turn gets Qwen's. JSON is printed as Python's
// json.dumps does (ensure_ascii=False), because that is what the model has read: keys in their order, ", " and ": ",
// floats by repr.
//
//   messages  {"role": "system"|"user"|"tool", "content": "..."}
//             {"role": "assistant", "content": "..." or null,
//              "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
//   tools     any JSON values, as a rule {"type": "function", "function": {"name", "description", "parameters"}}
#pragma once
#include <spectral/core/view.hpp>
#include <spectral/io/json.hpp>
#include <spectral/text/tokenizer.hpp>

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace spectral {

// JSON that keeps the order of its keys. Integers beyond 64 bits are kept as their digits, in a binary value: see
// parse_chat_json and python_json.
using chat_json = nlohmann::ordered_json;

namespace detail {
// Builds a chat_json. nlohmann's own builder turns integers beyond 64 bits into floating point; its event for them
// still has the digits.
class chat_json_builder : public nlohmann::json_sax<chat_json> {
public:
    chat_json_builder(std::string_view where, std::size_t deepest) : where_(where), deepest_(deepest) {}
    chat_json take() { return std::move(root_); }

    bool null() override { return put(nullptr); }
    bool boolean(bool value) override { return put(value); }
    bool number_integer(number_integer_t value) override { return put(value); }
    bool number_unsigned(number_unsigned_t value) override { return put(value); }
    bool number_float(number_float_t value, const string_t& written) override {
        if (written.find_first_of(".eE") != written.npos) return put(value);
        return put(chat_json::binary(std::vector<std::uint8_t>(written.begin(), written.end())));
    }
    bool string(string_t& value) override { return put(std::move(value)); }
    bool binary(binary_t&) override { return false; }  // not in JSON text
    bool start_object(std::size_t) override { return open(chat_json::object()); }
    bool start_array(std::size_t) override { return open(chat_json::array()); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }
    bool key(string_t& name) override {
        if (!open_.back().keys.insert(name).second)
            fail(where_, "key ", in_quotes(name), " appears twice in one JSON object");
        key_ = std::move(name);
        return true;
    }
    bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& problem) override {
        fail(where_, "not valid JSON: ", json_problem(problem.what()));
    }

private:
    struct opened {
        chat_json value;
        std::string key;  // in the parent
        std::unordered_set<std::string> keys;
    };
    bool put(chat_json value) { return place(std::move(key_), std::move(value)); }
    bool place(std::string&& key, chat_json&& value) {
        if (open_.empty())
            root_ = std::move(value);
        else if (auto& parent = open_.back().value; parent.is_array())
            parent.push_back(std::move(value));
        else
            parent.get_ref<chat_json::object_t&>().emplace_back(std::move(key), std::move(value));
        return true;
    }
    bool open(chat_json empty) {
        check(open_.size() < deepest_, where_, "JSON is nested deeper than ", deepest_, " levels");
        open_.push_back({std::move(empty), std::move(key_), {}});
        return true;
    }
    bool close() {
        opened done = std::move(open_.back());
        open_.pop_back();
        return place(std::move(done.key), std::move(done.value));
    }

    std::string_view where_;
    std::size_t deepest_;
    chat_json root_;
    std::vector<opened> open_;
    std::string key_;
};

inline void append_python_string(std::string& out, std::string_view text) {
    out += '"';
    for (char c : text) {
        switch (c) {
            case '"': out += "\\\""; break;
            case '\\': out += "\\\\"; break;
            case '\n': out += "\\n"; break;
            case '\r': out += "\\r"; break;
            case '\t': out += "\\t"; break;
            case '\b': out += "\\b"; break;
            case '\f': out += "\\f"; break;
            default:
                if (const auto code = static_cast<unsigned char>(c); code < 0x20) {
                    out += code < 0x10 ? "\\u000" : "\\u001";
                    out += "0123456789abcdef"[code & 15];
                } else {
                    out += c;
                }
        }
    }
    out += '"';
}

// repr(float): the shortest digits that read back as this number; 0.0001 to 1e16 without an exponent.
inline void append_python_float(std::string& out, double value) {
    char text[40];
    const auto [end, problem] = std::to_chars(text, text + sizeof text, value, std::chars_format::scientific);
    check(problem == std::errc() && value - value == 0, "python_json", "number: expected a finite one");
    const std::string_view all(text, static_cast<std::size_t>(end - text));  // [-]d[.ddd]e±xx
    const std::size_t e = all.find('e');
    std::string_view mantissa = all.substr(0, e);
    if (mantissa.starts_with('-')) out += '-', mantissa.remove_prefix(1);
    int exponent = 0;
    const std::string_view power = all.substr(e + 1 + (all[e + 1] == '+'));
    std::from_chars(power.data(), power.data() + power.size(), exponent);
    if (exponent < -4 || exponent >= 16) {
        out.append(mantissa).append(all.substr(e));  // to_chars writes the exponent as Python does: e+16, e-05, e+100
        return;
    }
    std::string digits(mantissa.substr(0, 1));
    if (mantissa.size() > 1) digits += mantissa.substr(2);
    if (exponent < 0) {
        out.append("0.").append(static_cast<std::size_t>(-exponent - 1), '0').append(digits);
        return;
    }
    const auto whole = static_cast<std::size_t>(exponent + 1);
    if (digits.size() < whole) digits.append(whole - digits.size(), '0');
    out.append(digits, 0, whole).append(".").append(digits.size() > whole ? digits.substr(whole) : "0");
}

inline void append_python_json(std::string& out, const chat_json& value) {
    bool first = true;
    const auto separator = [&] {
        if (!first) out += ", ";
        first = false;
    };
    switch (value.type()) {
        case chat_json::value_t::object:
            out += '{';
            for (const auto& [key, entry] : value.items()) {
                separator();
                append_python_string(out, key);
                out += ": ";
                append_python_json(out, entry);
            }
            out += '}';
            break;
        case chat_json::value_t::array:
            out += '[';
            for (const auto& entry : value) separator(), append_python_json(out, entry);
            out += ']';
            break;
        case chat_json::value_t::string: append_python_string(out, value.get_ref<const std::string&>()); break;
        case chat_json::value_t::boolean: out += value.get<bool>() ? "true" : "false"; break;
        case chat_json::value_t::number_integer: out += std::to_string(value.get<std::int64_t>()); break;
        case chat_json::value_t::number_unsigned: out += std::to_string(value.get<std::uint64_t>()); break;
        case chat_json::value_t::number_float: append_python_float(out, value.get<double>()); break;
        case chat_json::value_t::binary:
            for (std::uint8_t digit : value.get_binary()) out += static_cast<char>(digit);
            break;
        default: out += "null";
    }
}
}  // namespace detail

// The text as JSON, as strict as parse_json; `where` names its file and line in errors.
inline chat_json parse_chat_json(std::string_view text, std::string_view where, std::size_t deepest = 100) {
    detail::chat_json_builder builder(where, deepest);
    chat_json::sax_parse(text.begin(), text.end(), &builder);
    return builder.take();
}

// What json.dumps(value, ensure_ascii=False) prints: R"({"a": [1, 2.0, 1e-05, true, null], "é": "\n"})"
inline std::string python_json(const chat_json& value) {
    std::string out;
    detail::append_python_json(out, value);
    return out;
}

// The bytes that one message wrote: [begin, end) of the text. [content, content_end) is what its author said: for the
// assistant everything after "<|im_start|>assistant\n", calls included, up to "<|im_end|>".
struct chat_part {
    index message = -1;  // its number, -1: the system turn that the template adds
    std::string role;
    std::size_t begin = 0, content = 0, content_end = 0, end = 0;
    bool opens = true;  // begins with <|im_start|>; not so for a tool result that follows another one
    bool operator==(const chat_part&) const = default;
};

// A conversation as text, with the place of every turn.
struct rendered_chat {
    std::string text;
    std::vector<chat_part> parts;  // one after another from the first byte on; the generation prompt is in none
    // [begin, end) of the control tokens that the template wrote itself, in order
    std::vector<std::pair<std::size_t, std::size_t>> controls;
};

// What the template says where a conversation has no system turn.
inline constexpr std::string_view qwen_system_prompt =
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

namespace detail {
class chat_renderer {
public:
    explicit chat_renderer(std::string_view where) : where_(where) {}

    rendered_chat render(const chat_json& messages, const chat_json& tools, bool add_generation_prompt) {
        check(messages.is_array() && !messages.empty(), where_, "messages: expected an array of at least one, found ",
              messages.is_array() ? "none" : messages.type_name());
        check(tools.is_array() || tools.is_null(), where_, "tools: expected an array or null, found ",
              tools.type_name());
        check_messages(messages);
        system_turn(messages[0], tools);
        for (std::size_t m = 0; m < messages.size(); ++m) {
            const std::string& role = messages[m]["role"].get_ref<const std::string&>();
            if (role == "system" && m == 0) continue;
            if (role == "tool")
                tool_result(messages, m);
            else
                turn(messages[m], m, role);
        }
        if (add_generation_prompt) control("<|im_start|>"), out_.text += "assistant\n";
        return std::move(out_);
    }

private:
    void control(std::string_view token) {
        out_.controls.emplace_back(out_.text.size(), out_.text.size() + token.size());
        out_.text += token;
    }
    std::string at(std::size_t m) const { return join("message ", m + 1); }

    void check_messages(const chat_json& messages) const {
        for (std::size_t m = 0; m < messages.size(); ++m) {
            const chat_json& message = messages[m];
            check(message.is_object(), where_, at(m), ": expected an object, found ", message.type_name());
            const auto role_at = message.find("role");
            check(role_at != message.end() && role_at->is_string(), where_, at(m), ", role: expected a string, found ",
                  role_at == message.end() ? "none" : role_at->type_name());
            const std::string& role = role_at->get_ref<const std::string&>();
            check(role == "system" || role == "user" || role == "assistant" || role == "tool", where_, at(m),
                  ", role: expected system, user, assistant or tool, found ", in_quotes(role));
            const bool calls = has_calls(message, m);
            check(!calls || role == "assistant", where_, at(m),
                  ", tool_calls: expected in turns of the assistant, found in one of ", role);
            const auto content = message.find("content");
            const bool none = content == message.end() || content->is_null();
            if (!none || !calls)
                check(!none && content->is_string(), where_, at(m), ", content: expected a string, found ",
                      content == message.end() ? "none" : content->type_name());
        }
    }
    bool has_calls(const chat_json& message, std::size_t m) const {
        const auto calls = message.find("tool_calls");
        if (calls == message.end() || calls->is_null()) return false;
        check(calls->is_array(), where_, at(m), ", tool_calls: expected an array, found ", calls->type_name());
        for (std::size_t c = 0; c < calls->size(); ++c) {
            const chat_json& call = function_of((*calls)[c]);
            check(call.is_object() && call.contains("name") && call["name"].is_string() && call.contains("arguments"),
                  where_, at(m), ", tool call ", c + 1, ": expected an object with a name and arguments, found ",
                  in_quotes(python_json(call)));
        }
        return !calls->empty();
    }
    static const chat_json& function_of(const chat_json& call) {
        return call.is_object() && call.contains("function") ? call["function"] : call;
    }
    static const std::string& content_of(const chat_json& message) {
        static const std::string empty;
        const auto content = message.find("content");
        return content == message.end() || content->is_null() ? empty : content->get_ref<const std::string&>();
    }

    void begin(index message, std::string_view role, std::string_view shown_role) {
        chat_part part;
        part.message = message;
        part.role = role;
        part.begin = out_.text.size();
        control("<|im_start|>");
        out_.text += shown_role;
        out_.parts.push_back(std::move(part));
    }
    void finish() {
        control("<|im_end|>");
        out_.text += '\n';
        out_.parts.back().end = out_.text.size();
    }
    void system_turn(const chat_json& first, const chat_json& tools) {
        const bool given = first["role"] == "system";
        begin(given ? 0 : -1, "system", "system\n");
        out_.parts.back().content = out_.text.size();
        out_.text += given ? content_of(first) : qwen_system_prompt;
        out_.parts.back().content_end = out_.text.size();
        if (!tools.empty()) list(tools);
        finish();
    }
    void list(const chat_json& tools) {
        out_.text +=
            "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
            "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
        for (const chat_json& tool : tools) {
            out_.text += '\n';
            append_python_json(out_.text, tool);
        }
        out_.text +=
            "\n</tools>\n\nFor each function call, return a json object with function name and arguments within ";
        control("<tool_call>");
        control("</tool_call>");
        out_.text += " XML tags:\n";
        control("<tool_call>");
        out_.text += "\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n";
        control("</tool_call>");
    }
    void turn(const chat_json& message, std::size_t m, const std::string& role) {
        begin(static_cast<index>(m), role, role);
        out_.text += '\n';
        const std::size_t content = out_.text.size();
        out_.text += content_of(message);
        if (has_calls(message, m)) {
            for (const chat_json& entry : message["tool_calls"]) {
                const chat_json& call = function_of(entry);
                if (out_.text.size() > content) out_.text += '\n';
                control("<tool_call>");
                out_.text.append("\n{\"name\": \"").append(call["name"].get_ref<const std::string&>());
                out_.text += "\", \"arguments\": ";
                append_python_json(out_.text, call["arguments"]);
                out_.text += "}\n";
                control("</tool_call>");
            }
        }
        out_.parts.back().content = content;
        out_.parts.back().content_end = out_.text.size();
        finish();
    }
    void tool_result(const chat_json& messages, std::size_t m) {
        const auto is_tool = [&](std::size_t k) { return k < messages.size() && messages[k]["role"] == "tool"; };
        if (m > 0 && is_tool(m - 1)) {
            chat_part part;
            part.message = static_cast<index>(m);
            part.role = "tool";
            part.begin = out_.text.size();
            part.opens = false;
            out_.parts.push_back(std::move(part));
        } else {
            begin(static_cast<index>(m), "tool", "user");
        }
        out_.text += "\n<tool_response>\n";
        out_.parts.back().content = out_.text.size();
        out_.text += content_of(messages[m]);
        out_.parts.back().content_end = out_.text.size();
        out_.text += "\n</tool_response>";
        out_.parts.back().end = out_.text.size();
        if (!is_tool(m + 1)) finish();
    }

    std::string_view where_;
    rendered_chat out_;
};
}  // namespace detail

// Throws a sentence that begins with `where` and names the message and field.
//   const auto chat = parse_chat_json(R"([{"role": "user", "content": "Hi"}])", "chat");
//   const std::vector<row_index> prompt = tok.encode(render_chat(chat, nullptr, true).text);
inline rendered_chat render_chat(const chat_json& messages, const chat_json& tools = nullptr,
                                 bool add_generation_prompt = false, std::string_view where = "chat") {
    return detail::chat_renderer(where).render(messages, tools, add_generation_prompt);
}

// Who may write control tokens. as_written: everybody, as in Hugging Face: "<|im_end|>" in a user's words ends the
// turn. guarded: the template alone; the same characters in somebody's words become ordinary tokens. Without such
// words both give the same ids.
enum class chat_controls { as_written, guarded };

// The ids of bytes [begin, end) of the chat. The cut falls on the bounds, where a control token does as a rule.
inline std::vector<row_index> encode_chat(const tokenizer& tok, const rendered_chat& chat, std::size_t begin,
                                          std::size_t end, chat_controls who = chat_controls::as_written) {
    const std::string_view text = chat.text;
    if (who == chat_controls::as_written) return tok.encode(text.substr(begin, end - begin));
    std::vector<row_index> ids;
    const auto append = [&](const std::vector<row_index>& more) { ids.insert(ids.end(), more.begin(), more.end()); };
    std::size_t done = begin;
    for (const auto& [from, to] : chat.controls) {
        if (from < begin || to > end) continue;
        append(tok.encode_ordinary(text.substr(done, from - done)));
        append(tok.encode(text.substr(from, to - from)));
        done = to;
    }
    append(tok.encode_ordinary(text.substr(done, end - done)));
    return ids;
}
// The whole conversation's ids.
inline std::vector<row_index> encode_chat(const tokenizer& tok, const rendered_chat& chat,
                                          chat_controls who = chat_controls::as_written) {
    return encode_chat(tok, chat, 0, chat.text.size(), who);
}

}  // namespace spectral
