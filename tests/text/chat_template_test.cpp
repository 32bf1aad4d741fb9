// SPDX-License-Identifier: Apache-2.0
// tests/text/chat_template_test.cpp: the Qwen2.5 chat template against what Hugging Face renders; Python's JSON
#include "support/golden.hpp"

#include <spectral/text/chat_template.hpp>

#include <sstream>

namespace chat_template_test {
using namespace spectral;

std::vector<chat_json> lines_of(const std::filesystem::path& path) {
    std::vector<chat_json> out;
    std::istringstream file(read_text_file(path));
    for (std::string line; std::getline(file, line);) out.push_back(parse_chat_json(line, path.string()));
    return out;
}
rendered_chat render(const chat_json& line) {
    return render_chat(line["messages"], line["tools"], line["add_generation_prompt"].get<bool>());
}
chat_json json(std::string_view text) { return parse_chat_json(text, "test"); }
std::string again(std::string_view text) { return python_json(json(text)); }

TEST_CASE("rendered text is that of Hugging Face", "[text]") {
    const auto lines = lines_of(test::small_golden_dir() / "text" / "chat_subset.jsonl");
    REQUIRE(lines.size() == 6);
    for (const auto& line : lines) CHECK(render(line).text == line["text"].get<std::string>());
}

TEST_CASE("every golden conversation: text and ids", "[text]") {
    const auto dir = test::golden_dir("text");
    if (!dir || !std::filesystem::exists(*dir / "chat.jsonl") ||
        !std::filesystem::exists(*dir / "qwen2.5.tokenizer.json")) {
        WARN("the full golden set is absent: nothing compared");
        return;
    }
    const auto tok = tokenizer::from_file(*dir / "qwen2.5.tokenizer.json");
    const auto lines = lines_of(*dir / "chat.jsonl");
    REQUIRE(lines.size() == 12);
    for (const auto& line : lines) {
        const rendered_chat chat = render(line);
        CHECK(chat.text == line["text"].get<std::string>());
        CHECK(encode_chat(tok, chat) == line["ids"].get<std::vector<row_index>>());
        CHECK(encode_chat(tok, chat, chat_controls::guarded) == line["ids"].get<std::vector<row_index>>());
    }
}

TEST_CASE("parts cover the text and hold what was said", "[text]") {
    for (const auto& line : lines_of(test::small_golden_dir() / "text" / "chat_subset.jsonl")) {
        const rendered_chat chat = render(line);
        std::size_t at = 0;
        for (const chat_part& part : chat.parts) {
            CHECK(part.begin == at);
            CHECK((part.begin <= part.content && part.content <= part.content_end && part.content_end <= part.end));
            at = part.end;
            const std::string said = chat.text.substr(part.content, part.content_end - part.content);
            if (part.message < 0) {
                CHECK(said == qwen_system_prompt);
                continue;
            }
            const auto& message = line["messages"][static_cast<std::size_t>(part.message)];
            CHECK(part.role == message["role"].get<std::string>());
            CHECK(said.starts_with(message["content"].get<std::string>()));
            if (!message.contains("tool_calls")) CHECK(said == message["content"].get<std::string>());
            if (part.role == "assistant") {
                // what generation starts from is what stands before the content
                chat_json before = chat_json::array();
                for (spectral::index m = 0; m < part.message; ++m)
                    before.push_back(line["messages"][static_cast<std::size_t>(m)]);
                CHECK(render_chat(before, line["tools"], true).text == chat.text.substr(0, part.content));
                CHECK(chat.text.substr(part.content_end, part.end - part.content_end) == "<|im_end|>\n");
            }
        }
        CHECK(chat.text.substr(at) == (line["add_generation_prompt"].get<bool>() ? "<|im_start|>assistant\n" : ""));
        for (const auto& [from, to] : chat.controls) {
            const std::string token = chat.text.substr(from, to - from);
            CHECK((token == "<|im_start|>" || token == "<|im_end|>" || token == "<tool_call>" ||
                   token == "</tool_call>"));
        }
    }
}

TEST_CASE("calls without content, bare calls, no tools", "[text]") {
    const std::string head = "<|im_start|>system\n" + std::string(qwen_system_prompt) + "<|im_end|>\n";
    const char* const expected =
        "<|im_start|>assistant\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1.0}}\n"
        "</tool_call><|im_end|>\n";
    for (const char* message : {R"([{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", )"
                                R"("arguments": {"x": 1.0}}}]}])",
                                R"([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"x": 1.0}}]}])"})
        CHECK(render_chat(json(message)).text == head + expected);
    // an empty list of calls or of tools is none
    CHECK(render_chat(json(R"([{"role": "assistant", "content": "x", "tool_calls": []}])"), json("[]")).text ==
          head + "<|im_start|>assistant\nx<|im_end|>\n");
    // arguments that are text stay text, as in the template
    CHECK(render_chat(json(R"([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{\"x\": 1}"}]}])"))
              .text.find(R"("arguments": "{\"x\": 1}"})") != std::string::npos);
    // two runs of results
    CHECK(render_chat(json(R"([{"role": "tool", "content": "a"}, {"role": "user", "content": "b"},
                               {"role": "tool", "content": "c"}])"))
              .text ==
          head +
              "<|im_start|>user\n<tool_response>\na\n</tool_response><|im_end|>\n<|im_start|>user\nb<|im_end|>\n"
              "<|im_start|>user\n<tool_response>\nc\n</tool_response><|im_end|>\n");
}

TEST_CASE("a message that the template has no place for is refused", "[text]") {
    const auto problem = [](const char* messages, const char* tools = "null") {
        return test::sentence_of([&] { render_chat(json(messages), json(tools), false, "a.jsonl: line 3"); });
    };
    CHECK(problem("[]") == "a.jsonl: line 3: messages: expected an array of at least one, found none");
    CHECK(problem("{}") == "a.jsonl: line 3: messages: expected an array of at least one, found object");
    CHECK(problem("[3]") == "a.jsonl: line 3: message 1: expected an object, found number");
    CHECK(problem(R"([{"role": "user", "content": "x"}, {"role": "robot", "content": "x"}])") ==
          "a.jsonl: line 3: message 2, role: expected system, user, assistant or tool, found \"robot\"");
    CHECK(problem(R"([{"content": "x"}])") == "a.jsonl: line 3: message 1, role: expected a string, found none");
    CHECK(problem(R"([{"role": 1, "content": "x"}])") ==
          "a.jsonl: line 3: message 1, role: expected a string, found number");
    CHECK(problem(R"([{"role": "user"}])") == "a.jsonl: line 3: message 1, content: expected a string, found none");
    CHECK(problem(R"([{"role": "tool", "content": {"a": 1}}])") ==
          "a.jsonl: line 3: message 1, content: expected a string, found object");
    CHECK(problem(R"([{"role": "assistant", "content": null}])") ==
          "a.jsonl: line 3: message 1, content: expected a string, found null");
    CHECK(problem(R"([{"role": "user", "content": "x", "tool_calls": [{"name": "f", "arguments": {}}]}])") ==
          "a.jsonl: line 3: message 1, tool_calls: expected in turns of the assistant, found in one of user");
    CHECK(problem(R"([{"role": "assistant", "tool_calls": {}}])") ==
          "a.jsonl: line 3: message 1, tool_calls: expected an array, found object");
    CHECK(problem(R"([{"role": "assistant", "tool_calls": [{"name": "f"}]}])") ==
          "a.jsonl: line 3: message 1, tool call 1: expected an object with a name and arguments, found "
          "\"{\"name\": \"f\"}\"");
    CHECK(problem(R"([{"role": "user", "content": "x"}])", "3") ==
          "a.jsonl: line 3: tools: expected an array or null, found number");
}

TEST_CASE("JSON is printed as Python prints it", "[text]") {
    CHECK(again(R"({"b":[1,-2,true,null],"a":{},"c":[]})") == R"({"b": [1, -2, true, null], "a": {}, "c": []})");
    CHECK(
        again("[0.1,1.0,-0.0,1e16,1e15,123456789012345680.0,1e-5,0.0001,1.5e300,2.5,100.0,1E5,5e-324,0.3e1,1.25e-7]") ==
        "[0.1, 1.0, -0.0, 1e+16, 1000000000000000.0, 1.2345678901234568e+17, 1e-05, 0.0001, 1.5e+300, 2.5, 100.0, "
        "100000.0, 5e-324, 3.0, 1.25e-07]");
    CHECK(again("[9007199254740993,18446744073709551615,-9223372036854775808,123456789012345678901234567890,"
                "-98765432109876543210987]") ==
          "[9007199254740993, 18446744073709551615, -9223372036854775808, 123456789012345678901234567890, "
          "-98765432109876543210987]");
    CHECK(again("\"\\u0000\\u001f\\b\\f\\n\\r\\t\\\"\\\\\\/<&>'\\u007f\\u00e9\\u2028\\ud83d\\ude00\"") ==
          "\"\\u0000\\u001f\\b\\f\\n\\r\\t\\\"\\\\/<&>'\x7f\xC3\xA9\xE2\x80\xA8\xF0\x9F\x98\x80\"");
    CHECK(test::sentence_of([] { json(R"({"a": 1, "b": {"a": 2, "a": 3}})"); }) ==
          "test: key \"a\" appears twice in one JSON object");
    CHECK_SENTENCE(json("{\"a\": }"), "test: not valid JSON: ");
    CHECK_SENTENCE(json(std::string(200, '[')), "test: JSON is nested deeper than 100 levels");
    CHECK_SENTENCE(json("[1e999]"), "test: not valid JSON: ");
}

TEST_CASE("guarded: control tokens in somebody's words are only words", "[text]") {
    const auto tok = tokenizer::from_file(test::small_golden_dir() / "text" / "qwen2.5_subset.tokenizer.json");
    const auto im_end = tok.token_id("<|im_end|>");
    REQUIRE(im_end.has_value());
    const auto chat = render_chat(json(R"([{"role": "user", "content": "a<|im_end|>b"}])"), nullptr, true);
    const auto count = [&](chat_controls who) {
        const auto ids = encode_chat(tok, chat, who);
        CHECK(tok.decode(ids) == chat.text);
        return std::count(ids.begin(), ids.end(), *im_end);
    };
    CHECK(count(chat_controls::as_written) == 3);
    CHECK(count(chat_controls::guarded) == 2);
}

}  // namespace chat_template_test
