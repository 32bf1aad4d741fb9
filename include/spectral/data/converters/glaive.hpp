// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/converters/glaive.hpp: Glaive's function calls, as LLaMA-Factory's demo has them
#pragma once
#include <spectral/data/converters/parts.hpp>

namespace spectral::detail {

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

}  // namespace spectral::detail
