// SPDX-License-Identifier: Apache-2.0
// examples/cli/chat_render.hpp: conversations to text and ids, as `spectral chat --render` does
#pragma once
#include <string>

namespace spectral::cli {

// JSON lines {"messages", "tools", "add_generation_prompt"} from a file, or from standard input if the name is empty;
// {"text", "ids"} to standard output.
void render_chats(const std::string& tokenizer_file, const std::string& input);

// The same conversations as one text.
void render_texts(const std::string& input);

}  // namespace spectral::cli
