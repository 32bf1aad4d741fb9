// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/converters/parts.hpp: what the converters of data/converters.hpp share
#pragma once
#include <spectral/data/conversations.hpp>

#include <functional>

namespace spectral {

// What a converter needs besides the file itself.
struct conversion_options {
    std::string schema = {};  // text of the file with the tool definitions: SGD's schema, BFCL's multi-turn functions
    std::string schema_name = {};
    index limit = 0;  // conversations; 0: all
    index most_results = 0;  // SGD: keep only the first results of a call; 0: all
};

// What became of a file's entries.
struct conversion_report {
    index read = 0, written = 0;
    std::map<std::string, index> left_out;  // why -> how many
    std::map<std::string, index> turns;  // step type -> turns of the assistant
};

// Takes one line of the result.
using conversation_sink = std::function<void(const chat_json&)>;

namespace detail {
// One example of a file to a conversation, or to nothing with a reason.
using converter =
    std::function<std::optional<chat_json>(const chat_json&, const std::string& where, std::string& why_not)>;

// ---- reading fields, with sentences ----
inline const chat_json& field_of(const chat_json& object, const char* key, const std::string& where) {
    check(object.is_object(), where, "expected an object, found ", object.type_name());
    const auto found = object.find(key);
    check(found != object.end(), where, key, " is missing");
    return *found;
}
inline const std::string& text_of(const chat_json& object, const char* key, const std::string& where) {
    const chat_json& value = field_of(object, key, where);
    check(value.is_string(), where, key, ": expected a string, found ", value.type_name());
    return value.get_ref<const std::string&>();
}
inline const chat_json& list_of(const chat_json& object, const char* key, const std::string& where) {
    const chat_json& value = field_of(object, key, where);
    check(value.is_array(), where, key, ": expected an array, found ", value.type_name());
    return value;
}

// ---- parts of a conversation ----
inline chat_json said_by(const char* role, const std::string& content) {
    return {{"role", role}, {"content", content}};
}
inline chat_json reply(const std::string& content) {
    chat_json message = said_by("assistant", content);
    message["step_type"] = "reply";
    return message;
}
inline chat_json call_of(const std::string& name, chat_json arguments) {
    return {{"type", "function"}, {"function", {{"name", name}, {"arguments", std::move(arguments)}}}};
}
inline chat_json calls_of(chat_json calls) {
    chat_json message = said_by("assistant", "");
    message["tool_calls"] = std::move(calls);
    return message;
}
inline chat_json planning(const std::string& question, const std::string& answer) {
    chat_json messages = chat_json::array();
    messages.push_back(said_by("user", question));
    messages.push_back(said_by("assistant", answer));
    return {{"messages", std::move(messages)}, {"step_type", "planning"}};
}
inline chat_json tool_conversation(chat_json messages, chat_json tools) {
    chat_json line{{"messages", std::move(messages)}};
    if (!tools.empty()) line["tools"] = std::move(tools);
    line["step_type"] = "tool_call";
    return line;
}

// ---- function definitions ----
// JSON Schema's name for a type that a definition borrows from Python, Java or JavaScript; "" if any value will do.
inline std::string schema_type(const std::string& name) {
    static const std::map<std::string, std::string> names = {
        {"dict", "object"},     {"HashMap", "object"},  {"object", "object"},   {"float", "number"},
        {"double", "number"},   {"number", "number"},   {"long", "integer"},    {"integer", "integer"},
        {"int", "integer"},     {"tuple", "array"},     {"list", "array"},      {"Array", "array"},
        {"ArrayList", "array"}, {"array", "array"},     {"String", "string"},   {"char", "string"},
        {"string", "string"},   {"Boolean", "boolean"}, {"boolean", "boolean"}, {"bool", "boolean"}};
    const auto found = names.find(name);
    return found == names.end() ? "" : found->second;
}
// `schema` with JSON Schema's type names, all the way down. A property that is called "type" is no type.
inline chat_json with_schema_types(const chat_json& schema) {
    if (!schema.is_object()) return schema;
    chat_json out = chat_json::object();
    for (const auto& [key, value] : schema.items()) {
        if (key == "type" && value.is_string()) {
            if (const std::string type = schema_type(value.get<std::string>()); !type.empty()) out["type"] = type;
        } else if (key == "properties" && value.is_object()) {
            chat_json& properties = out["properties"] = chat_json::object();
            for (const auto& [name, property] : value.items()) properties[name] = with_schema_types(property);
        } else {
            out[key] = key == "items" || key == "additionalProperties" ? with_schema_types(value) : value;
        }
    }
    return out;
}
inline chat_json tool_of(const chat_json& definition, const std::string& where) {
    chat_json function{{"name", text_of(definition, "name", where)}};
    if (definition.contains("description")) function["description"] = definition["description"];
    if (definition.contains("parameters")) function["parameters"] = with_schema_types(definition["parameters"]);
    return {{"type", "function"}, {"function", std::move(function)}};
}
}  // namespace detail

}  // namespace spectral
