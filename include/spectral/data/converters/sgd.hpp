// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/converters/sgd.hpp: schema-guided dialogues: services as tools, calls and their results
//
// As published, a system turn has `frames`, of which some carry a service_call; files reduced to what a conversation needs
// have `calls` in their place. A call is {service, service_call {method, parameters}, service_results} in both.
#pragma once
#include <spectral/data/converters/parts.hpp>

namespace spectral::detail {

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
                if (chat_json(text_of(service, "service_name", schema_name)) == name) services.push_back(&service);
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
            if (const char* key = turn.contains("calls") ? "calls" : turn.contains("frames") ? "frames" : nullptr) {
                chat_json calls = chat_json::array();
                std::vector<chat_json> results;
                for (const auto& entry : list_of(turn, key, where)) {
                    if (!entry.contains("service_call") && std::string_view(key) == "frames") continue;
                    const chat_json& call = field_of(entry, "service_call", where);
                    calls.push_back(call_of(name_of(text_of(entry, "service", where), text_of(call, "method", where)),
                                            field_of(call, "parameters", where)));
                    chat_json found = list_of(entry, "service_results", where);
                    if (most > 0 && static_cast<index>(found.size()) > most)
                        found.get_ref<chat_json::array_t&>().resize(static_cast<std::size_t>(most));
                    results.push_back(said_by("tool", python_json(found)));
                }
                called = called || !calls.empty();
                if (!calls.empty())
                    messages.push_back(calls_of(std::move(calls)));  // before the utterance of its own turn
                for (auto& result : results) messages.push_back(std::move(result));
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

}  // namespace spectral::detail
