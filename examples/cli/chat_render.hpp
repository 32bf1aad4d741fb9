// SPDX-License-Identifier: Apache-2.0
// examples/cli/chat_render.hpp: conversations to text and ids, as `spectral chat --render` does
#pragma once
#include <filesystem>
#include <string>

namespace spectral::cli {

// JSON lines {"messages", "tools", "add_generation_prompt"} from a file, or from standard input if the name is empty;
// {"text", "ids"} to standard output.
void render_chats(const std::string& tokenizer_file, const std::string& input);

// The same conversations as one text.
void render_texts(const std::string& input);

// What the chat template of a model directory (chat_template.jinja, or tokenizer_config.json) has or lacks that
// Qwen2.5's, which is the one rendered here, does not; empty: nothing, or no template.
std::string template_difference(const std::filesystem::path& model);

}  // namespace spectral::cli
