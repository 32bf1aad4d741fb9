// SPDX-License-Identifier: Apache-2.0
// examples/cli/chat.cpp: `spectral chat`
#include "chat_render.hpp"
#include "commands.hpp"
#include "options.hpp"

namespace spectral::cli {
namespace {

struct chat_options {
    std::string tokenizer, input;
    bool render = false, jsonl = false;
};

}  // namespace

void add_chat(CLI::App& app) {
    auto* c = app.add_subcommand("chat", "conversations in the Qwen2.5 chat template");
    auto o = std::make_shared<chat_options>();
    c->add_flag("--render", o->render, "print the text and ids that a model would read");
    c->add_flag("--jsonl", o->jsonl, "JSON lines: messages, tools, add_generation_prompt in; text, ids out");
    option(*c, "--tokenizer", o->tokenizer, "FILE", "tokenizer.json");
    option(*c, "--input", o->input, "FILE", "instead of standard input");
    c->callback([o] {
        check(o->render && o->jsonl, "chat", "expected --render --jsonl, found ",
              o->render ? "--render alone" : "neither");
        render_chats(o->tokenizer, o->input);
    });
}

}  // namespace spectral::cli
