// SPDX-License-Identifier: Apache-2.0
// examples/cli/chat.cpp: `spectral chat`: a conversation with a Qwen2 model, in its chat template
#include "chat_render.hpp"
#include "commands.hpp"
#include "generation.hpp"

#include <spectral/text/chat_template.hpp>

#include <unistd.h>

#include <iostream>

namespace spectral::cli {
namespace {

struct chat_options {
    std::string model, tokenizer, input, system, tools;
    std::vector<std::string> prompts;
    bool render = false, jsonl = false;
    generation_choice generation;
    runner_choice runner;
    route_files route;
};

// What the model reads next. Where prompt and answer may not both fit into the context, the oldest turns after the
// system's are forgotten, one question with its answer at a time; the last question stays.
std::vector<row_index> conversation_ids(const chat_options& o, const runner& r, const tokenizer& tok,
                                        chat_json& messages, const chat_json& tools) {
    const std::size_t system = !messages.empty() && messages[0].at("role") == "system" ? 1 : 0;
    const index longest = r.facts().longest;
    std::size_t forgotten = 0;
    for (;;) {
        auto ids = encode_chat(tok, render_chat(messages, tools, true, "chat"));
        const index length = static_cast<index>(ids.size());
        if (length + o.generation.how.max_new_tokens <= longest || messages.size() <= system + 2) {
            check(length < longest, "chat", "the conversation: expected less than ", longest,
                  " tokens (max_position_embeddings), found ", length);
            if (forgotten)
                std::fprintf(stderr, "the context of %td tokens is full: the oldest %zu turns are forgotten\n", longest,
                             forgotten);
            return ids;
        }
        messages.erase(system), messages.erase(system);
        forgotten += 2;
    }
}

// One turn of the user: the whole conversation is read again, the gates decide anew, the answer joins the conversation.
void answer_turn(const chat_options& o, runner& r, const tokenizer& tok, chat_json& messages, const chat_json& tools) {
    const std::vector<row_index> ids = conversation_ids(o, r, tok, messages, tools);
    answer text(tok, o.generation.stop);
    generation_cost cost;
    generate_measured(
        r, {ids}, o.generation,
        [&](index, row_index id) {
            std::cout << text.push(id) << std::flush;
            return !text.stopped();
        },
        cost);
    std::cout << text.finish() << std::endl;
    std::fprintf(stderr, "prompt of %zu tokens; ", ids.size());
    print_cost(cost);
    messages.push_back({{"role", "assistant"}, {"content", text.text()}});
}

void run_chat(chat_options& o) {
    check(!o.model.empty(), "spectral chat", "expected --model DIR, or --render");
    const model_directory model(o.model);
    model.qwen2();
    const auto tok = tokenizer::from_file(model.tokenizer());
    if (const auto difference = template_difference(model.path); !difference.empty())
        std::cerr << "warning: turns are written as Qwen2.5 has them, but the model's own chat template " << difference
                  << '\n';
    complete(o.generation, model, tok);
    for (const char* end : {"<|im_end|>", "<|endoftext|>"})  // a turn ends here, whatever the configuration says
        if (const auto id = tok.token_id(end);
            id && std::find(o.generation.how.end_ids.begin(), o.generation.how.end_ids.end(), *id) ==
                      o.generation.how.end_ids.end())
            o.generation.how.end_ids.push_back(*id);
    const chat_json tools = o.tools.empty() ? chat_json() : parse_chat_json(read_text_file(o.tools), o.tools);
    chat_json messages = chat_json::array();
    if (!o.system.empty()) messages.push_back({{"role", "system"}, {"content", o.system}});
    const auto r = model.load(o.runner, o.route);
    const auto turn = [&](const std::string& text, const char* where) {
        check_utf8(text, where);
        messages.push_back({{"role", "user"}, {"content", text}});
        answer_turn(o, *r, tok, messages, tools);
    };
    for (const auto& prompt : o.prompts) turn(prompt, "--prompt");
    if (!o.prompts.empty()) return;
    const bool terminal = ::isatty(0);
    for (std::string line; (terminal ? void(std::cerr << "> ") : void()), std::getline(std::cin, line);)
        if (line.find_first_not_of(" \t\r") != line.npos) {
            const chat_json before = messages;
            try {
                turn(line, "standard input");
            } catch (const error& e) {  // of this line: the conversation goes on
                std::cerr << "spectral: " << e.what() << '\n';
                messages = before;
            }
        }
}

}  // namespace

void add_chat(CLI::App& app) {
    auto* c = app.add_subcommand("chat",
                                 "a conversation with a Qwen2 model, a line a turn; --render: the text it would read");
    auto o = std::make_shared<chat_options>();
    option(*c, "--model", o->model, "DIR", "Qwen2 model directory or run, with a tokenizer");
    option(*c, "--system", o->system, "TEXT", "system turn [the template's]");
    option(*c, "--tools", o->tools, "FILE", "JSON list of tools");
    option(*c, "--prompt", o->prompts, "TEXT...", "turns of the user instead of standard input");
    add_generation_options(*c, o->generation);
    c->add_flag("--render", o->render, "print the text, or with --jsonl text and ids, that a model would read");
    c->add_flag("--jsonl", o->jsonl,
                "--render: JSON lines out. In are always JSON lines: messages, tools, add_generation_prompt");
    option(*c, "--tokenizer", o->tokenizer, "FILE", "--render --jsonl: tokenizer.json");
    option(*c, "--input", o->input, "FILE", "--render: instead of standard input");
    add_route_options(*c, o->route);
    add_storage_option(*c, o->runner);
    add_runner_options(*c, o->runner);
    c->callback([o] {
        if (!o->render) return run_chat(*o);
        o->jsonl ? render_chats(o->tokenizer, o->input) : render_texts(o->input);
    });
}

}  // namespace spectral::cli
