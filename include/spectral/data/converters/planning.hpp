// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/converters/planning.hpp: GSM8K, StrategyQA, OlympiadBench: a question, and an answer worked out
// in steps
#pragma once
#include <spectral/data/converters/parts.hpp>

namespace spectral::detail {

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

}  // namespace spectral::detail
