// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/converters.hpp: public data sets to conversations, as data/conversations.hpp reads them
//
// Tool calls:  bfcl (Berkeley function-calling leaderboard), sgd (schema-guided dialogues), glaive.
// Planning:    gsm8k, strategyqa, olympiadbench: a question, and an answer worked out in steps.
//
// Turns with calls have step_type "tool_call", turns of a tool conversation without calls "reply", worked answers
// "planning". Tools take OpenAI's form, {"type": "function", "function": {"name", "description", "parameters"}}, their
// parameters JSON Schema's type names. Nothing is made up: what has no answer in the file is left out and counted.
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

// ---- Python's calls: "mv(source='a', destination=['b', 2])" ----
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

// ---- BFCL: lists of acceptable values ----
// The first value, or nothing where the parameter may be left out ("" comes first, or nothing is listed).
inline std::optional<chat_json> first_accepted(const chat_json& accepted);
inline chat_json resolved(const chat_json& value) {
    if (value.is_array()) {
        chat_json out = chat_json::array();
        for (const auto& entry : value) out.push_back(resolved(entry));
        return out;
    }
    if (!value.is_object()) return value;
    chat_json out = chat_json::object();
    for (const auto& [key, accepted] : value.items()) {
        if (!accepted.is_array())
            out[key] = accepted;
        else if (auto chosen = first_accepted(accepted))
            out[key] = std::move(*chosen);
    }
    return out;
}
inline std::optional<chat_json> first_accepted(const chat_json& accepted) {
    if (accepted.empty() || accepted[0] == "") return std::nullopt;
    return resolved(accepted[0]);
}

inline void count_turns(conversion_report& report, const chat_json& line) {
    for (const auto& message : line["messages"])
        if (message["role"] == "assistant" && message.value("weight", 1) != 0)
            ++report.turns[message.contains("step_type") ? message["step_type"].get<std::string>()
                                                         : line["step_type"].get<std::string>()];
}

// each(example, where) for a file that is a JSON array, or JSON lines
template <class Each>
void for_each_example(std::string_view text, const std::string& name, Each&& each) {
    const std::size_t first = text.find_first_not_of(" \t\r\n");
    if (first != text.npos && text[first] == '[') {
        const chat_json all = parse_chat_json(text, name);
        for (std::size_t n = 0; n < all.size(); ++n)
            if (!each(all[n], name + ": entry " + std::to_string(n + 1))) return;
        return;
    }
    bool more = true;
    for_each_json_line(text, name, [&](const chat_json& line, index number) {
        more = more && each(line, name + ": line " + std::to_string(number));
    });
}

using converter =
    std::function<std::optional<chat_json>(const chat_json&, const std::string& where, std::string& why_not)>;

// ---- BFCL ----
inline std::string bfcl_file_of(const std::string& service) {
    static const std::map<std::string, std::string> files = {{"GorillaFileSystem", "gorilla_file_system.json"},
                                                             {"MathAPI", "math_api.json"},
                                                             {"MessageAPI", "message_api.json"},
                                                             {"TwitterAPI", "posting_api.json"},
                                                             {"TicketAPI", "ticket_api.json"},
                                                             {"TradingBot", "trading_bot.json"},
                                                             {"TravelAPI", "travel_booking.json"},
                                                             {"VehicleControlAPI", "vehicle_control.json"}};
    const auto found = files.find(service);
    return found == files.end() ? "" : found->second;
}

// Messages of one turn of a question; what an assistant says in it is context, not ground truth.
inline void append_question(chat_json& messages, const chat_json& turn, const std::string& where) {
    check(turn.is_array(), where, "question: expected an array of turns, found ", turn.type_name());
    for (const auto& message : turn) {
        messages.push_back(said_by(text_of(message, "role", where).c_str(), text_of(message, "content", where)));
        if (messages.back()["role"] == "assistant") messages.back()["weight"] = 0;
    }
}

// The calls of a turn stand in one message, results are not in the file: the dialogue ends where a turn has no calls.
inline chat_json bfcl_dialogue(const chat_json& example, const chat_json& schema, const std::string& where) {
    chat_json tools = chat_json::array();
    std::map<std::string, const chat_json*> definitions;
    const chat_json& excluded = example.contains("excluded_function") ? example["excluded_function"] : schema["none"];
    for (const auto& service : list_of(example, "involved_classes", where)) {
        const std::string file = service.is_string() ? bfcl_file_of(service.get<std::string>()) : "";
        check(!file.empty() && schema.contains(file), where,
              "involved_classes: expected one that the schema describes, found ", in_quotes(python_json(service)));
        for (const auto& function : schema[file]) {
            if (std::find(excluded.begin(), excluded.end(), text_of(function, "name", where)) != excluded.end())
                continue;
            tools.push_back(tool_of(function, where));
            definitions[function["name"].get<std::string>()] = &function;
        }
    }
    chat_json messages = chat_json::array();
    const chat_json& question = list_of(example, "question", where);
    const chat_json& truth = list_of(example, "ground_truth", where);
    for (std::size_t t = 0; t < question.size() && t < truth.size(); ++t) {
        if (question[t].empty() || truth[t].empty()) break;
        append_question(messages, question[t], where);
        chat_json calls = chat_json::array();
        for (const auto& written : truth[t]) {
            check(written.is_string(), where, "ground_truth: expected calls as strings, found ", written.type_name());
            auto call = python_call_reader(written.get_ref<const std::string&>(), where).read();
            const auto definition = definitions.find(call.name);
            check(definition != definitions.end(), where, "ground_truth: function ", in_quotes(call.name),
                  " is not in the schema");
            chat_json arguments = chat_json::object();
            auto parameter = (*definition->second)["parameters"]["properties"].items().begin();
            const auto last = (*definition->second)["parameters"]["properties"].items().end();
            for (auto& value : call.positional) {
                check(parameter != last, where, "ground_truth: more arguments than ", in_quotes(call.name),
                      " has parameters");
                arguments[parameter.key()] = std::move(value);
                ++parameter;
            }
            for (auto& [name, value] : call.named.items()) arguments[name] = value;
            calls.push_back(call_of(call.name, std::move(arguments)));
        }
        messages.push_back(calls_of(std::move(calls)));
    }
    return tool_conversation(std::move(messages), std::move(tools));
}

inline converter bfcl_converter(const conversion_options& options) {
    chat_json schema;
    if (!options.schema.empty()) {
        schema = parse_chat_json(options.schema, options.schema_name);
        check(schema.is_object(), options.schema_name, "expected an object: file name -> functions, found ",
              schema.type_name());
        schema["none"] = chat_json::array();
    }
    return
        [schema](const chat_json& example, const std::string& where, std::string& why_not) -> std::optional<chat_json> {
            const std::string& category = text_of(example, "category", where);
            if (category.starts_with("multi_turn")) {
                if (category != "multi_turn_base")
                    why_not = "the same dialogues as multi_turn_base";
                else if (schema.is_null())
                    why_not = "dialogues of several turns need --schema";
                if (!why_not.empty()) return std::nullopt;
                return bfcl_dialogue(example, schema, where);
            }
            if (!example.contains("ground_truth") || example["ground_truth"].empty()) {
                why_not = "no ground truth";
                return std::nullopt;
            }
            chat_json tools = chat_json::array(), messages = chat_json::array(), calls = chat_json::array();
            for (const auto& function : list_of(example, "function", where)) tools.push_back(tool_of(function, where));
            for (const auto& turn : list_of(example, "question", where)) append_question(messages, turn, where);
            for (const auto& call : list_of(example, "ground_truth", where)) {
                check(call.is_object() && call.size() == 1, where,
                      "ground_truth: expected objects of one function each, found ", in_quotes(python_json(call)));
                check(call.front().is_object(), where, "ground_truth: expected arguments, found ",
                      call.front().type_name());
                calls.push_back(call_of(call.items().begin().key(), resolved(call.front())));
            }
            messages.push_back(calls_of(std::move(calls)));
            return tool_conversation(std::move(messages), std::move(tools));
        };
}

// ---- SGD ----
// One function per intent; every slot is a string. "dontcare" is no default that a caller could write.
inline chat_json sgd_tool(const chat_json& service, const chat_json& intent, const std::string& name,
                          const std::string& where) {
    chat_json properties = chat_json::object();
    const auto add = [&](const std::string& slot_name, const chat_json* standard) {
        for (const auto& slot : list_of(service, "slots", where)) {
            if (text_of(slot, "name", where) != slot_name) continue;
            chat_json& property =
                properties[slot_name] = {{"type", "string"}, {"description", text_of(slot, "description", where)}};
            if (const auto& values = list_of(slot, "possible_values", where);
                slot.value("is_categorical", false) && !values.empty())
                property["enum"] = values;
            if (standard && *standard != "dontcare") property["default"] = *standard;
            return;
        }
        fail(where, "intent ", in_quotes(name), ": slot ", in_quotes(slot_name), " is not among the service's");
    };
    const chat_json& required = list_of(intent, "required_slots", where);
    for (const auto& slot : required) add(slot.get<std::string>(), nullptr);
    const chat_json& optional = field_of(intent, "optional_slots", where);
    for (const auto& [slot, standard] : optional.items()) add(slot, &standard);
    return {{"type", "function"},
            {"function",
             {{"name", name},
              {"description", text_of(intent, "description", where)},
              {"parameters", {{"type", "object"}, {"properties", std::move(properties)}, {"required", required}}}}}};
}

inline converter sgd_converter(const conversion_options& options) {
    check(!options.schema.empty(), "sgd", "the schema is missing: the split's schema.json describes the tools");
    const chat_json schema = parse_chat_json(options.schema, options.schema_name);
    check(schema.is_array(), options.schema_name, "expected an array of services, found ", schema.type_name());
    return [schema, schema_name = options.schema_name, most = options.most_results](
               const chat_json& example, const std::string& where, std::string& why_not) -> std::optional<chat_json> {
        std::vector<const chat_json*> services;
        std::map<std::string, int> methods;  // services of this dialogue that have a method of the name
        for (const auto& name : list_of(example, "services", where)) {
            for (const auto& service : schema)
                if (text_of(service, "service_name", schema_name) == name) services.push_back(&service);
            check(!services.empty() && (*services.back())["service_name"] == name, where,
                  "services: expected one that the schema describes, found ", in_quotes(python_json(name)));
            for (const auto& intent : list_of(*services.back(), "intents", schema_name))
                ++methods[text_of(intent, "name", schema_name)];
        }
        const auto name_of = [&](const std::string& service, const std::string& method) {
            return methods[method] > 1 ? service + "_" + method : method;
        };
        chat_json tools = chat_json::array(), messages = chat_json::array();
        for (const auto* service : services)
            for (const auto& intent : (*service)["intents"])
                tools.push_back(
                    sgd_tool(*service, intent, name_of((*service)["service_name"], intent["name"]), schema_name));
        bool called = false;
        for (const auto& turn : list_of(example, "turns", where)) {
            const std::string& speaker = text_of(turn, "speaker", where);
            check(speaker == "USER" || speaker == "SYSTEM", where, "speaker: expected USER or SYSTEM, found ",
                  in_quotes(speaker));
            if (turn.contains("calls")) {
                chat_json calls = chat_json::array();
                std::vector<chat_json> results;
                for (const auto& entry : list_of(turn, "calls", where)) {
                    const chat_json& call = field_of(entry, "service_call", where);
                    calls.push_back(call_of(name_of(text_of(entry, "service", where), text_of(call, "method", where)),
                                            field_of(call, "parameters", where)));
                    chat_json found = list_of(entry, "service_results", where);
                    if (most > 0 && static_cast<index>(found.size()) > most)
                        found.get_ref<chat_json::array_t&>().resize(static_cast<std::size_t>(most));
                    results.push_back(said_by("tool", python_json(found)));
                }
                if (!calls.empty())
                    messages.push_back(calls_of(std::move(calls)));  // before the utterance of its own turn
                for (auto& result : results) messages.push_back(std::move(result));
                called = true;
            }
            const std::string& utterance = text_of(turn, "utterance", where);
            messages.push_back(speaker == "USER" ? said_by("user", utterance) : reply(utterance));
        }
        if (!called) {
            why_not = "no call";
            return std::nullopt;
        }
        return tool_conversation(std::move(messages), std::move(tools));
    };
}

// ---- Glaive, as LLaMA-Factory's demo has it ----
inline std::optional<chat_json> glaive_conversation(const chat_json& example, const std::string& where,
                                                    std::string& why_not) {
    chat_json tools = chat_json::array(), messages = chat_json::array();
    if (example.contains("system") && example["system"].is_string() && !example["system"].empty())
        messages.push_back(said_by("system", text_of(example, "system", where)));
    if (example.contains("tools")) {
        const std::string& written = text_of(example, "tools", where);
        if (!written.empty()) {
            const chat_json listed = parse_chat_json(written, where + ": tools");
            check(listed.is_array(), where, "tools: expected a list, found ", listed.type_name());
            for (const auto& tool : listed) tools.push_back(tool_of(tool, where));
        }
    }
    for (const auto& entry : list_of(example, "conversations", where)) {
        const std::string& from = text_of(entry, "from", where);
        const std::string& value = text_of(entry, "value", where);
        if (from == "human")
            messages.push_back(said_by("user", value));
        else if (from == "gpt")
            messages.push_back(reply(value));
        else if (from == "observation")
            messages.push_back(said_by("tool", value));
        else if (from == "function_call") {
            const chat_json call = parse_chat_json(value, where + ": function_call");
            chat_json calls = chat_json::array();
            const auto add = [&](const chat_json& one) {
                calls.push_back(call_of(text_of(one, "name", where), field_of(one, "arguments", where)));
            };
            if (call.is_array())
                std::for_each(call.begin(), call.end(), add);
            else
                add(call);
            messages.push_back(calls_of(std::move(calls)));
        } else {
            fail(where, "from: expected human, gpt, function_call or observation, found ", in_quotes(from));
        }
    }
    if (messages.empty()) {
        why_not = "no messages";
        return std::nullopt;
    }
    return tool_conversation(std::move(messages), std::move(tools));
}

// ---- planning ----
// GSM8K's calculator notes, <<48/2=24>>, are for its own decoder: they go. "#### 72", the result, stays.
inline std::string without_calculator_notes(std::string_view text) {
    std::string out;
    while (!text.empty()) {
        const std::size_t open = text.find("<<");
        const std::size_t close = open == text.npos ? open : text.find(">>", open);
        out += text.substr(0, close == text.npos ? text.npos : open);
        text.remove_prefix(close == text.npos ? text.size() : close + 2);
    }
    return out;
}
inline std::optional<chat_json> gsm8k_conversation(const chat_json& example, const std::string& where, std::string&) {
    return planning(text_of(example, "question", where), without_calculator_notes(text_of(example, "answer", where)));
}
inline std::optional<chat_json> strategyqa_conversation(const chat_json& example, const std::string& where,
                                                        std::string&) {
    std::string answer;
    for (const auto& step : list_of(example, "steps", where)) {
        check(step.is_string(), where, "steps: expected strings, found ", step.type_name());
        answer += step.get_ref<const std::string&>() + "\n";
    }
    return planning(text_of(example, "question", where), answer + "Answer: " + text_of(example, "answer", where));
}
inline std::optional<chat_json> olympiadbench_conversation(const chat_json& example, const std::string& where,
                                                           std::string& why_not) {
    std::string question = text_of(example, "question", where);
    if (example.contains("context") && example["context"].is_string())
        question = text_of(example, "context", where) + "\n\n" + question;
    const chat_json& solutions = list_of(example, "solution", where);
    if (solutions.empty()) {
        why_not = "no solution";
        return std::nullopt;
    }
    check(solutions[0].is_string(), where, "solution: expected strings, found ", solutions[0].type_name());
    std::string answer = solutions[0].get<std::string>(), result;
    if (example.contains("final_answer") && example["final_answer"].is_array())
        for (const auto& one : example["final_answer"])
            if (one.is_string()) result += (result.empty() ? "" : ", ") + one.get<std::string>();
    if (!result.empty()) answer += "\n\nFinal answer: " + result;
    return planning(question, answer);
}
}  // namespace detail

// The sources that convert_conversations() reads.
inline const std::vector<std::string>& conversion_sources() {
    static const std::vector<std::string> names = {"bfcl", "sgd", "glaive", "gsm8k", "strategyqa", "olympiadbench"};
    return names;
}

// Converts the text of one file; `write` gets one conversation after another. Errors name the file's line or entry.
//   convert_conversations("gsm8k", read_text_file(path), path, {}, [&](const chat_json& c) { lines.push_back(c); });
inline conversion_report convert_conversations(const std::string& source, std::string_view text,
                                               const std::string& name, const conversion_options& options,
                                               const conversation_sink& write) {
    check(options.limit >= 0, name, "limit: expected at least 0, found ", options.limit);
    detail::converter convert;
    if (source == "bfcl")
        convert = detail::bfcl_converter(options);
    else if (source == "sgd")
        convert = detail::sgd_converter(options);
    else if (source == "glaive")
        convert = detail::glaive_conversation;
    else if (source == "gsm8k")
        convert = detail::gsm8k_conversation;
    else if (source == "strategyqa")
        convert = detail::strategyqa_conversation;
    else if (source == "olympiadbench")
        convert = detail::olympiadbench_conversation;
    else
        fail(name, "source: expected bfcl, sgd, glaive, gsm8k, strategyqa or olympiadbench, found ", in_quotes(source));
    conversion_report report;
    detail::for_each_example(text, name, [&](const chat_json& example, const std::string& where) {
        if (options.limit > 0 && report.written >= options.limit) return false;
        ++report.read;
        std::string why_not;
        const auto line = convert(example, where, why_not);
        if (!line) {
            ++report.left_out[why_not];
            return true;
        }
        render_chat((*line)["messages"], line->contains("tools") ? (*line)["tools"] : chat_json(), false,
                    where);  // checks it
        detail::count_turns(report, *line);
        ++report.written;
        write(*line);
        return true;
    });
    check(report.read > 0, name, "the file has no examples");
    return report;
}

}  // namespace spectral
