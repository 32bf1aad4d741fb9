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
#include <spectral/data/converters/bfcl.hpp>
#include <spectral/data/converters/glaive.hpp>
#include <spectral/data/converters/planning.hpp>
#include <spectral/data/converters/sgd.hpp>

namespace spectral {

namespace detail {
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
