// SPDX-License-Identifier: Apache-2.0
// examples/cli/chat_render.cpp: conversations to text and ids, as `spectral chat --render --jsonl` does
#include "chat_render.hpp"
#include "text_files.hpp"

#include <spectral/text/chat_template.hpp>

namespace spectral::cli {

void render_chats(const std::string& tokenizer_file, const std::string& input) {
    check(!tokenizer_file.empty(), "chat --render", "expected --tokenizer, which gives the ids, found none");
    const auto tok = tokenizer::from_file(tokenizer_file);
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
        const auto chat = render_chat(json["messages"], tools == json.end() ? chat_json() : *tools, prompt, where);
        chat_json out = chat_json::object();
        out["text"] = chat.text;
        out["ids"] = encode_chat(tok, chat);
        std::cout << python_json(out) << '\n';
    });
}

}  // namespace spectral::cli
