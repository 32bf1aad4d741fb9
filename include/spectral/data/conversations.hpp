// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/conversations.hpp: conversations from JSON lines, one training sample per turn of the assistant
//
// A line: {"messages": [...], "tools": [...] or null, "step_type": "tool_call" | "planning" | any text}, messages as in
// text/chat_template.hpp. A turn's type is its own "step_type" if the message has one, else the line's, else
// "tool_call" for a turn with calls, else none. A turn with "weight": 0 is context only, as in OpenAI's fine-tuning
// files.
//
// One sample is one turn of the assistant. Its prompt is every token before the turn's content, generation prompt
// included; its answer is the content and <|im_end|>. Both are encoded apart, so that the prompt is, token for token,
// what generation starts from (it matters only where content begins with a line break, which would merge with the one
// before). All samples of a conversation are prefixes of the same ids: those are kept once.
//
// Longer than max_length: an answer is never cut, because a model would learn to stop in mid-sentence, and a call cut
// short is no call. What can go is the prompt, by `too_long`:
//   oldest_turns  the system turn, which lists the tools, stays; after it the oldest turns go, whole, up to the start
//                 of a user's turn. What remains is a well-formed conversation, as a chat program would cut it.
//   left          tokens from the left, whatever they are: the tools first.
//   leave_out     nothing is cut; the sample is not used.
// A sample that does not fit even so is left out. Both are counted: conversation_data::cut, ::left_out.
#pragma once
#include <spectral/core/random.hpp>
#include <spectral/text/chat_template.hpp>

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>

namespace spectral {

// What happens to a prompt that does not fit: see the head of this file.
enum class long_prompt { oldest_turns, left, leave_out };
// The share of conversations kept from training, and which side to read. See held_out().
enum class conversation_side { all, training, held_out };

// Which conversations and turns become samples.
struct conversation_options {
    index max_length = 0;  // tokens of a sample; 0: no limit
    long_prompt too_long = long_prompt::oldest_turns;
    std::vector<std::string> step_types = {};  // use only turns of these types; empty: all
    index max_conversations = 0;  // 0: all
    conversation_side side = conversation_side::all;
    double held_out_share = 0.1;  // used unless side is `all`
    chat_controls controls = chat_controls::as_written;
};

// The token ids of one conversation, and where its turns begin.
struct conversation {
    std::vector<row_index> ids;
    index head = 0;  // tokens of the system turn
    std::vector<index> user_turns;  // tokens before each turn of the user, ascending
    index line = 0;  // of the file, from 1
    bool tools = false;  // the system turn lists some
};

// One sample: head tokens [0, head) of its conversation, then [begin, end); the answer begins at token `answer`.
struct assistant_turn {
    index conversation = 0, message = 0;  // its number in the data, and the message's in the conversation
    index head = 0, begin = 0, answer = 0, end = 0;
    std::string step_type;

    index length() const { return head + end - begin; }
    index prompt_length() const { return head + answer - begin; }
};

// All samples of one file.
struct conversation_data {
    std::string name;
    std::vector<conversation> conversations;
    std::vector<assistant_turn> turns;  // in the order of the file
    index lines = 0;  // conversations in the file, both sides
    index cut = 0;  // samples whose prompt was shortened
    index left_out = 0;  // samples that do not fit max_length
    index longest_left_out = 0;  // tokens
};

// Quartiles by nearest rank.
struct length_summary {
    index count = 0, least = 0, lower = 0, median = 0, upper = 0, most = 0;
    double mean = 0;
};
// The quartiles of these lengths; all zero of none.
inline length_summary summarize_lengths(std::vector<index> lengths) {
    if (lengths.empty()) return {};
    std::sort(lengths.begin(), lengths.end());
    const auto n = static_cast<index>(lengths.size());
    const auto rank = [&](index quarter) {
        return lengths[static_cast<std::size_t>(std::max<index>((n * quarter + 3) / 4, 1) - 1)];
    };
    const double sum = std::accumulate(lengths.begin(), lengths.end(), 0.0);
    return {n, lengths.front(), rank(1), rank(2), rank(3), lengths.back(), sum / static_cast<double>(n)};
}

// Lengths of the prompts and answers of one step type, in tokens.
struct step_type_lengths {
    length_summary prompt, answer;
};
// Per step type, in alphabetical order.
inline std::map<std::string, step_type_lengths> lengths_by_type(const conversation_data& data) {
    std::map<std::string, std::pair<std::vector<index>, std::vector<index>>> found;
    for (const auto& turn : data.turns) {
        auto& [prompt, answer] = found[turn.step_type];
        prompt.push_back(turn.prompt_length());
        answer.push_back(turn.end - turn.answer);
    }
    std::map<std::string, step_type_lengths> out;
    for (const auto& [type, lengths] : found)
        out[type] = {summarize_lengths(lengths.first), summarize_lengths(lengths.second)};
    return out;
}

// Whether a conversation is kept from training: a hash of the user's first words decides, so neither order nor file nor
// tools matter, and a question that appears twice is on one side.
inline bool held_out(const chat_json& messages, double share) {
    std::uint64_t hash = stream_of("held out");
    for (const auto& message : messages) {
        if (message.value("role", "") != "user") continue;
        hash = stream_of(message["content"].get_ref<const std::string&>(), hash);
        break;
    }
    return random_stream{hash, stream_of("held out")}.uniform(0) < share;
}

namespace detail {
inline const std::string* optional_text(const chat_json& object, const char* key, const std::string& where) {
    const auto found = object.find(key);
    if (found == object.end() || found->is_null()) return nullptr;
    check(found->is_string(), where, key, ": expected a string, found ", found->type_name());
    return &found->get_ref<const std::string&>();
}

// What of a sample is kept under the limit, or nothing.
inline std::optional<assistant_turn> fitted(const conversation& c, assistant_turn turn, const conversation_options& o) {
    if (o.max_length == 0 || turn.length() <= o.max_length) return turn;
    if (o.too_long == long_prompt::left && turn.end - turn.answer < o.max_length) {
        turn.begin = turn.end - o.max_length;
        return turn;
    }
    if (o.too_long == long_prompt::oldest_turns)
        for (index begin : c.user_turns) {
            if (begin <= c.head || begin >= turn.answer) continue;
            turn.head = c.head;
            turn.begin = begin;
            if (turn.length() <= o.max_length) return turn;
        }
    return std::nullopt;
}
}  // namespace detail

// One line's conversation and its samples, appended to `data`.
inline void add_conversation(conversation_data& data, const chat_json& line, index line_number, const tokenizer& tok,
                             const conversation_options& options) {
    const std::string where = data.name + ": line " + std::to_string(line_number);
    check(line.is_object(), where, "expected an object with messages, found ", line.type_name());
    check(line.contains("messages"), where, "messages: expected an array, found none");
    const chat_json& messages = line["messages"];
    const chat_json none;
    const chat_json& tools = line.contains("tools") ? line["tools"] : none;
    const rendered_chat chat = render_chat(messages, tools, false, where);
    const std::string* line_type = detail::optional_text(line, "step_type", where);
    ++data.lines;
    if (options.side != conversation_side::all &&
        held_out(messages, options.held_out_share) != (options.side == conversation_side::held_out))
        return;

    conversation c;
    c.line = line_number;
    c.tools = tools.is_array() && !tools.empty();
    std::size_t done = 0;  // bytes encoded so far
    const auto encode_until = [&](std::size_t byte) {
        const auto ids = encode_chat(tok, chat, done, byte, options.controls);
        c.ids.insert(c.ids.end(), ids.begin(), ids.end());
        done = byte;
        return static_cast<index>(c.ids.size());
    };
    const auto number = static_cast<index>(data.conversations.size());
    std::vector<assistant_turn> turns;
    for (const chat_part& part : chat.parts) {
        if (part.role == "system" && part.begin == 0) c.head = encode_until(part.end);
        if (part.role == "user") c.user_turns.push_back(encode_until(part.begin));
        if (part.role != "assistant") continue;
        const chat_json& message = messages[static_cast<std::size_t>(part.message)];
        const std::string at = where + ": message " + std::to_string(part.message + 1);
        const std::string* own_type = detail::optional_text(message, "step_type", at);
        assistant_turn turn;
        turn.conversation = number;
        turn.message = part.message;
        turn.answer = encode_until(part.content);
        turn.end = encode_until(part.content_end + std::string_view("<|im_end|>").size());
        const auto calls = message.find("tool_calls");
        if (own_type)
            turn.step_type = *own_type;
        else if (line_type)
            turn.step_type = *line_type;
        else if (calls != message.end() && !calls->empty())
            turn.step_type = "tool_call";
        if (const auto weight = message.find("weight"); weight != message.end()) {
            check(weight->is_number() && (*weight == 0 || *weight == 1), at, "weight: expected 0 or 1, found ",
                  in_quotes(python_json(*weight)));
            if (*weight == 0) continue;
        }
        const auto& wanted = options.step_types;
        if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), turn.step_type) == wanted.end()) continue;
        turns.push_back(std::move(turn));
    }
    if (turns.empty()) return;
    bool used = false;
    for (auto& turn : turns) {
        const index length = turn.length();
        if (auto kept = detail::fitted(c, std::move(turn), options)) {
            data.cut += kept->length() < length;
            data.turns.push_back(std::move(*kept));
            used = true;
        } else {
            ++data.left_out;
            data.longest_left_out = std::max(data.longest_left_out, length);
        }
    }
    if (!used) return;
    c.ids.resize(static_cast<std::size_t>(data.turns.back().end));  // nothing after the last answer is used
    data.conversations.push_back(std::move(c));
}

// each(line, number) for the JSON lines of a text; blank lines are skipped.
template <class Each>
void for_each_json_line(std::string_view text, const std::string& name, Each&& each) {
    for (index number = 1; !text.empty(); ++number) {
        const std::size_t end = text.find('\n');
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(end == text.npos ? text.size() : end + 1);
        if (line.find_first_not_of(" \t\r") == line.npos) continue;
        each(parse_chat_json(line, name + ": line " + std::to_string(number)), number);
    }
}

// The lines of `text`; `name` names their file in errors.
inline conversation_data parse_conversations(std::string_view text, const std::string& name, const tokenizer& tok,
                                             const conversation_options& options = {}) {
    check(options.max_length >= 0 && options.max_conversations >= 0, name,
          "options: expected a length and a number of conversations of at least 0, found ", options.max_length, " and ",
          options.max_conversations);
    check(options.held_out_share >= 0 && options.held_out_share <= 1, name,
          "options: held-out share: expected 0 to 1, found ", options.held_out_share);
    conversation_data data;
    data.name = name;
    for_each_json_line(text, name, [&](const chat_json& line, index number) {
        if (options.max_conversations == 0 || static_cast<index>(data.conversations.size()) < options.max_conversations)
            add_conversation(data, line, number, tok, options);
    });
    check(data.lines > 0, name, "the file has no conversations");
    return data;
}

//   auto train = read_conversations("train.jsonl", tok, {.max_length = 512, .side = conversation_side::training});
inline conversation_data read_conversations(const std::filesystem::path& path, const tokenizer& tok,
                                            const conversation_options& options = {}) {
    return parse_conversations(read_text_file(path), path.string(), tok, options);
}

}  // namespace spectral
