// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/converters/bfcl.hpp: the Berkeley function-calling leaderboard: questions, functions, accepted
// calls
#pragma once
#include <spectral/data/converters/parts.hpp>
#include <spectral/data/converters/python_calls.hpp>

namespace spectral::detail {

// Lists of acceptable values.
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

}  // namespace spectral::detail
