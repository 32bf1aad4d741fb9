// SPDX-License-Identifier: Apache-2.0
// tests/data/converters_test.cpp: each public format, in a few made-up lines, to conversations
#include "support/golden.hpp"

#include <spectral/data/converters.hpp>

namespace converters_test {
using namespace spectral;
using index = spectral::index;

struct converted {
    std::vector<chat_json> lines;
    conversion_report report;
};
converted convert(const std::string& source, const std::string& text, const conversion_options& o = {}) {
    converted out;
    out.report =
        convert_conversations(source, text, "a.json", o, [&](const chat_json& line) { out.lines.push_back(line); });
    return out;
}
std::string problem(const std::string& source, const std::string& text, const conversion_options& o = {}) {
    return test::sentence_of([&] { convert(source, text, o); });
}

TEST_CASE("bfcl: functions in OpenAI's form, the first accepted value of each argument", "[data]") {
    const std::string text =
        R"({"category": "simple", "id": "1", "question": [[{"role": "system", "content": "s"}, {"role": "user", )"
        R"("content": "q"}]],)"
        R"("function": [{"name": "m.f", "description": "d", "parameters": {"type": "dict", "properties": {)"
        R"("a": {"type": "float"}, "type": {"type": "String"}, "t": {"type": "tuple", "items": {"type": "any"}}}, )"
        R"("required": ["a"]}, "response": {}}],)"
        R"("ground_truth": [{"m.f": {"a": [1.5, 2], "type": ["", "x"], "t": [[1, 2]], "o": [{"k": ["v", "w"], )"
        R"("l": ["", 3]}], "p": [[{"z": [7]}]], "q": []}}]})"
        "\n"
        R"({"category": "irrelevance", "id": "2", "question": [[{"role": "user", "content": "q"}]], "function": []})";
    const auto out = convert("bfcl", text);
    REQUIRE(out.lines.size() == 1);
    CHECK(python_json(out.lines[0]) ==
          R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, )"
          R"({"role": "assistant", "content": "", )"
          R"("tool_calls": [{"type": "function", "function": {"name": "m.f", "arguments": {"a": 1.5, "t": [1, 2], )"
          R"("o": {"k": "v"}, "p": [{"z": 7}]}}}]}], )"
          R"("tools": [{"type": "function", "function": {"name": "m.f", "description": "d", )"
          R"("parameters": {"type": "object", "properties": {)"
          R"("a": {"type": "number"}, "type": {"type": "string"}, "t": {"type": "array", "items": {}}}, )"
          R"("required": ["a"]}}}], "step_type": "tool_call"})");
    CHECK(out.report.read == 2);
    CHECK(out.report.left_out == std::map<std::string, index>{{"no ground truth", 1}});
    CHECK(out.report.turns == std::map<std::string, index>{{"tool_call", 1}});
}

TEST_CASE("bfcl: dialogues of several turns, with Python's calls", "[data]") {
    const conversion_options with_schema{
        .schema = R"({"math_api.json": [{"name": "add", "description": "d", "parameters": {"type": "dict", )"
                  R"("properties": {"a": {"type": "float"}, "b": {"type": "float"}}}},)"
                  R"({"name": "old", "description": "d", "parameters": {}}]})",
        .schema_name = "s.json"};
    const std::string text =
        R"({"category": "multi_turn_base", "id": "1", "question": [[{"role": "user", "content": "one"}], )"
        R"([{"role": "user", "content": "two"}], [{"role": "user", "content": "three"}], [{"role": "user", )"
        R"("content": "four"}]],)"
        R"("involved_classes": ["MathAPI"], "excluded_function": ["old"],)"
        R"j("ground_truth": [["add(1, b=-2.5)", "add('it\\'s', [True, None, {'k': (1, 2)}])"], )j"
        R"j(["add( a = \"x,)\" )"], [], ["add(a=1)"]]})j"
        "\n"
        R"({"category": "multi_turn_miss_func"})";
    const auto out = convert("bfcl", text, with_schema);
    REQUIRE(out.lines.size() == 1);
    CHECK(out.report.left_out == std::map<std::string, index>{{"the same dialogues as multi_turn_base", 1}});
    const auto& messages = out.lines[0]["messages"];
    REQUIRE(messages.size() == 4);  // ends before the turn without calls
    CHECK(out.lines[0]["tools"].size() == 1);
    CHECK(python_json(messages[1]["tool_calls"][0]["function"]) ==
          R"({"name": "add", "arguments": {"a": 1, "b": -2.5}})");
    CHECK(python_json(messages[1]["tool_calls"][1]["function"]["arguments"]) ==
          R"({"a": "it's", "b": [true, null, {"k": [1, 2]}]})");
    CHECK(python_json(messages[3]["tool_calls"][0]["function"]["arguments"]) == "{\"a\": \"x,)\"}");
    CHECK(convert("bfcl", text).report.left_out.at("dialogues of several turns need --schema") == 1);

    const auto call_problem = [&](const std::string& call) {
        return problem("bfcl",
                       R"({"category": "multi_turn_base", "question": [[{"role": "user", "content": "x"}]], )"
                       R"("involved_classes": ["MathAPI"], "ground_truth": [[")" +
                           call + "\"]]}",
                       with_schema);
    };
    CHECK(call_problem("add(1, 2, 3)") == "a.json: line 1: ground_truth: more arguments than \"add\" has parameters");
    CHECK(call_problem("sub(1)") == "a.json: line 1: ground_truth: function \"sub\" is not in the schema");
    CHECK(call_problem("add(1") == "a.json: line 1: call \"add(1\": expected a comma or a closing bracket at byte 5");
    CHECK(call_problem("add(a=1, a=2)") ==
          "a.json: line 1: call \"add(a=1, a=2)\": expected each argument once at byte 11");
    CHECK(call_problem("add('x") == "a.json: line 1: call \"add('x\": expected the end of a string at byte 6");
    CHECK(call_problem("add(x)") == "a.json: line 1: call \"add(x)\": expected a value at byte 5");
    CHECK(call_problem("(1)") == "a.json: line 1: call \"(1)\": expected the name of a function at byte 0");
    CHECK(call_problem("add(1) x") == "a.json: line 1: call \"add(1) x\": expected nothing after the call at byte 7");
    CHECK(call_problem("add(" + std::string(100, '[')).find("expected at most 50 levels") != std::string::npos);
}

const char* const sgd_schema =
    R"([{"service_name": "Eat_1", "slots": [{"name": "city", "description": "where", "is_categorical": false, )"
    R"("possible_values": []},)"
    R"({"name": "price", "description": "how dear", "is_categorical": true, "possible_values": ["low", "high"]}],)"
    R"("intents": [{"name": "Find", "description": "finds", "required_slots": ["city"], )"
    R"("optional_slots": {"price": "dontcare"}}]},)"
    R"({"service_name": "Eat_2", "slots": [{"name": "city", "description": "where", "is_categorical": false, )"
    R"("possible_values": []}],)"
    R"("intents": [{"name": "Find", "description": "finds too", "required_slots": [], )"
    R"("optional_slots": {"city": "Bern"}}]}])";

TEST_CASE("sgd: services as tools, the call before the utterance of its turn", "[data]") {
    const conversion_options o{.schema = sgd_schema, .schema_name = "s.json", .most_results = 1};
    const std::string turns =
        R"("turns": [{"speaker": "USER", "utterance": "hungry"}, {"speaker": "SYSTEM", "utterance": "found", )"
        R"("calls": [{"service": "Eat_1",)"
        R"("service_call": {"method": "Find", "parameters": {"city": "Bern"}}, "service_results": [{"name": "a"}, )"
        R"({"name": "b"}]}]}]})";
    const auto out = convert("sgd", R"({"services": ["Eat_1"], )" + turns, o);
    REQUIRE(out.lines.size() == 1);
    CHECK(python_json(out.lines[0]) ==
          R"({"messages": [{"role": "user", "content": "hungry"}, {"role": "assistant", "content": "", )"
          R"("tool_calls": [{"type": "function", )"
          R"("function": {"name": "Find", "arguments": {"city": "Bern"}}}]}, {"role": "tool", )"
          R"("content": "[{\"name\": \"a\"}]"}, )"
          R"({"role": "assistant", "content": "found", "step_type": "reply"}], "tools": [{"type": "function", )"
          R"("function": {"name": "Find", )"
          R"("description": "finds", "parameters": {"type": "object", "properties": {"city": {"type": "string", )"
          R"("description": "where"}, )"
          R"("price": {"type": "string", "description": "how dear", "enum": ["low", "high"]}}, )"
          R"("required": ["city"]}}}], "step_type": "tool_call"})");
    CHECK(out.report.turns == std::map<std::string, index>{{"reply", 1}, {"tool_call", 1}});
    // the same as published: frames, of which one carries the call
    const std::string frames =
        R"("turns": [{"speaker": "USER", "utterance": "hungry", "frames": [{"service": "Eat_1", "state": {}}]}, )"
        R"({"speaker": "SYSTEM", "utterance": "found", "frames": [{"service": "Eat_1", "actions": [], "slots": []}, )"
        R"({"service": "Eat_1", "service_call": {"method": "Find", "parameters": {"city": "Bern"}}, )"
        R"("service_results": [{"name": "a"}, {"name": "b"}]}]}]})";
    const auto published = convert("sgd", R"({"services": ["Eat_1"], )" + frames, o);
    REQUIRE(published.lines.size() == 1);
    CHECK(published.lines[0] == out.lines[0]);
    // two services with a method of the same name
    const auto both = convert("sgd", R"({"services": ["Eat_1", "Eat_2"], )" + turns, o);
    CHECK(both.lines[0]["tools"][1]["function"]["name"] == "Eat_2_Find");
    CHECK(both.lines[0]["tools"][1]["function"]["parameters"]["properties"]["city"]["default"] == "Bern");
    CHECK(both.lines[0]["messages"][1]["tool_calls"][0]["function"]["name"] == "Eat_1_Find");
    CHECK(convert("sgd", R"({"services": ["Eat_1"], "turns": [{"speaker": "USER", "utterance": "x"}]})", o)
              .report.left_out.at("no call") == 1);

    CHECK(problem("sgd", "{}").find("sgd: the schema is missing") == 0);
    CHECK(problem("sgd", R"({"services": ["Sleep_1"], "turns": []})", o) ==
          "a.json: line 1: services: expected one that the schema describes, found \"\"Sleep_1\"\"");
    CHECK(problem("sgd", R"({"services": ["Eat_1"], "turns": [{"speaker": "BOT", "utterance": "x"}]})", o) ==
          "a.json: line 1: speaker: expected USER or SYSTEM, found \"BOT\"");
}

TEST_CASE("glaive: calls, observations, replies", "[data]") {
    const std::string text =
        R"([{"conversations": [{"from": "human", "value": "h"}, {"from": "function_call", )"
        R"("value": "{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": 2}}"},)"
        R"({"from": "observation", "value": "{}"}, {"from": "gpt", "value": "g"}], "tools": "[{\"name\": \"f\", )"
        R"(\"parameters\": {\"type\": \"object\"}}]"},)"
        R"({"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}], "tools": "[]"}])";
    const auto out = convert("glaive", text);
    REQUIRE(out.lines.size() == 2);
    CHECK(python_json(out.lines[0]) ==
          R"({"messages": [{"role": "user", "content": "h"}, {"role": "assistant", "content": "", )"
          R"("tool_calls": [{"type": "function", "function": )"
          R"({"name": "f", "arguments": {"b": 1, "a": 2}}}]}, {"role": "tool", "content": "{}"}, )"
          R"({"role": "assistant", "content": "g", "step_type": "reply"}], )"
          R"("tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}], )"
          R"("step_type": "tool_call"})");
    CHECK_FALSE(out.lines[1].contains("tools"));
    CHECK(convert("glaive", text, {.limit = 1}).lines.size() == 1);
    CHECK(problem("glaive", R"([{"conversations": [{"from": "cat", "value": "h"}]}])") ==
          "a.json: entry 1: from: expected human, gpt, function_call or observation, found \"cat\"");
    CHECK(problem("glaive", R"([{"conversations": [{"from": "function_call", "value": "{"}]}])")
              .starts_with("a.json: entry 1: function_call: not valid JSON"));
}

TEST_CASE("planning: questions and answers in steps", "[data]") {
    const auto answer = [](const converted& c) { return c.lines.at(0)["messages"][1]["content"].get<std::string>(); };
    const auto gsm = convert("gsm8k", R"({"question": "q", "answer": "2+2 = <<2+2=4>>4 << x\n#### 4"})");
    CHECK(python_json(gsm.lines.at(0)) == R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", )"
                                          R"("content": "2+2 = 4 << x\n#### 4"}], "step_type": "planning"})");
    CHECK(answer(convert("strategyqa", R"([{"question": "q", "answer": "No.", "steps": ["a", "b"]}])")) ==
          "a\nb\nAnswer: No.");
    const auto olympiad = convert(
        "olympiadbench", R"({"question": "q", "context": "c", "solution": ["s", "t"], "final_answer": ["1", "2"]})");
    CHECK(answer(olympiad) == "s\n\nFinal answer: 1, 2");
    CHECK(olympiad.lines[0]["messages"][0]["content"] == "c\n\nq");
    CHECK(convert("olympiadbench", R"({"question": "q", "solution": []})").report.left_out.at("no solution") == 1);
    CHECK(gsm.report.turns == std::map<std::string, index>{{"planning", 1}});
}

TEST_CASE("errors name the file, the line or entry, and the field", "[data]") {
    CHECK(problem("gsm8k", "") == "a.json: the file has no examples");
    CHECK(problem("gsm8k", "{\"question\": \"q\", \"answer\": \"a\"}\n{\"question\": \"q\"}\n") ==
          "a.json: line 2: answer is missing");
    CHECK(problem("gsm8k", "{\"question\": 3, \"answer\": \"a\"}\n") ==
          "a.json: line 1: question: expected a string, found number");
    CHECK(problem("strategyqa", "[3]") == "a.json: entry 1: expected an object, found number");
    CHECK(problem("strategyqa", R"([{"question": "q", "answer": "a", "steps": "s"}])") ==
          "a.json: entry 1: steps: expected an array, found string");
    CHECK(problem("other", "{}")
              .starts_with(
                  "a.json: source: expected bfcl, sgd, glaive, gsm8k, strategyqa or olympiadbench, found \"other\""));
    CHECK(problem("gsm8k", "{", {.limit = -1}) == "a.json: limit: expected at least 0, found -1");
}

}  // namespace converters_test
