// SPDX-License-Identifier: Apache-2.0
// examples/cli/chat_render.cpp: conversations to text and ids, as `spectral chat --render` does
#include "chat_render.hpp"
#include "text_files.hpp"

#include <spectral/text/chat_template.hpp>

namespace spectral::cli {

namespace {

// each(chat) for the conversations of a file of JSON lines
template <class Each>
void for_each_chat(const std::string& input, Each&& each) {
    for_each_line(input, [&](const std::string& line, const std::string& where) {
        const chat_json json = parse_chat_json(line, where);
        check(json.is_object() && json.contains("messages"), where, "expected an object with the field \"messages\"");
        bool prompt = false;
        if (const auto found = json.find("add_generation_prompt"); found != json.end() && !found->is_null()) {
            check(found->is_boolean(), where, "add_generation_prompt: expected true or false, found ",
                  found->type_name());
            prompt = found->get<bool>();
        }
        const auto tools = json.find("tools");
        each(render_chat(json["messages"], tools == json.end() ? chat_json() : *tools, prompt, where));
    });
}

}  // namespace

std::string template_difference(const std::filesystem::path& model) {
    const auto own = model / "chat_template.jinja", config = model / "tokenizer_config.json";
    std::string text;
    if (std::filesystem::exists(own)) {
        text = read_text_file(own);
    } else if (std::filesystem::exists(config)) {
        const auto json = read_json_file(config);
        auto found = json.is_object() ? json.value("chat_template", nlohmann::json()) : nlohmann::json();
        if (found.is_array())  // several, by name
            for (const auto& entry : nlohmann::json(found))
                if (entry.is_object() && entry.value("name", nlohmann::json()) == "default")
                    found = entry.value("template", nlohmann::json());
        if (found.is_string()) text = found.get<std::string>();
    }
    if (text.empty()) return {};
    // words that Qwen2.5's template writes; others of the family lack one of them or think
    for (const char* part :
         {"<|im_start|>", "<|im_end|>", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
          "# Tools", "<tool_call>", "<tool_response>"})
        if (text.find(part) == text.npos) return "lacks " + in_quotes(part);
    return text.find("think") == text.npos ? std::string() : "has " + in_quotes("think");
}

void render_texts(const std::string& input) {
    for_each_chat(input, [](const rendered_chat& chat) { std::cout << chat.text; });
}

void render_chats(const std::string& tokenizer_file, const std::string& input) {
    check(!tokenizer_file.empty(), "chat --render --jsonl", "expected --tokenizer, which gives the ids, found none");
    const auto tok = tokenizer::from_file(tokenizer_file);
    for_each_chat(input, [&](const rendered_chat& chat) {
        chat_json out = chat_json::object();
        out["text"] = chat.text;
        out["ids"] = encode_chat(tok, chat);
        std::cout << python_json(out) << '\n';
    });
}

}  // namespace spectral::cli
