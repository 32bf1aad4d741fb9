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
#include <spectral/data/batch.hpp>
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
// Which tokens are targets: the sample's own answer, so that each turn counts once per epoch; or every token.
enum class loss_on { answer, everything };

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

// A sample as a model reads it.
struct conversation_sample {
    std::vector<row_index> ids, targets;  // targets: the next token, or -1 where there is no loss
    index prompt_length = 0;
    std::string step_type;
};

// Sample `number` of the data with its targets.
inline conversation_sample sample_of(const conversation_data& data, index number, loss_on loss = loss_on::answer) {
    const assistant_turn& turn = data.turns[static_cast<std::size_t>(number)];
    const auto& ids = data.conversations[static_cast<std::size_t>(turn.conversation)].ids;
    conversation_sample s;
    s.step_type = turn.step_type;
    s.prompt_length = turn.prompt_length();
    s.ids.assign(ids.begin(), ids.begin() + turn.head);
    s.ids.insert(s.ids.end(), ids.begin() + turn.begin, ids.begin() + turn.end);
    s.targets.assign(s.ids.size(), -1);
    const index first = loss == loss_on::answer ? s.prompt_length - 1 : 0;  // the row that predicts the first target
    std::copy(s.ids.begin() + first + 1, s.ids.end(), s.targets.begin() + first);
    return s;
}

// How samples become batches.
struct conversation_batch_options {
    index batch = 16;
    std::uint64_t seed = 0;
    loss_on loss = loss_on::answer;
    bool balanced = false;  // step types take turns, each through epochs of its own
    std::string task = "conversations";
};

// Every sample once per epoch, in a new order each time. Evaluation reads them once, in the order of the file.
class conversation_batches {
public:
    conversation_batches(conversation_data data, conversation_batch_options options)
        : data_(std::move(data)), o_(std::move(options)) {
        check(
            !data_.turns.empty(), data_.name, "samples: expected at least one, found none",
            data_.left_out > 0 ? ": " + std::to_string(data_.left_out) + " are longer than the limit" : std::string());
        check(o_.batch > 0, data_.name, "batches: expected a batch of at least 1, found ", o_.batch);
        std::map<std::string, std::vector<index>> by_type;
        for (std::size_t n = 0; n < data_.turns.size(); ++n)
            by_type[o_.balanced ? data_.turns[n].step_type : ""].push_back(static_cast<index>(n));
        for (auto& [type, numbers] : by_type) {
            orders_.emplace_back(static_cast<index>(numbers.size()), o_.seed, "conversations " + type);
            numbers_.push_back(std::move(numbers));
        }
    }

    const conversation_data& data() const { return data_; }
    const conversation_batch_options& options() const { return o_; }
    index samples() const { return static_cast<index>(data_.turns.size()); }

    batch batch_at(index step) const {
        check(step >= 0, data_.name, "step: expected at least 0, found ", step);
        // sample p of the run is of group p mod G: within a batch the groups take turns
        const auto groups = static_cast<index>(numbers_.size());
        const index first = step * o_.batch;
        std::vector<index> chosen(static_cast<std::size_t>(o_.batch));
        for (index g = 0; g < groups; ++g) {
            const index before = (first + groups - 1 - g) / groups,
                        after = (first + o_.batch + groups - 1 - g) / groups;
            index p = before;
            orders_[static_cast<std::size_t>(g)].visit(before, after - before, [&](index n) {
                chosen[static_cast<std::size_t>(p * groups + g - first)] =
                    numbers_[static_cast<std::size_t>(g)][static_cast<std::size_t>(n)];
                ++p;
            });
        }
        return make(chosen);
    }

    index evaluation_batches() const { return (samples() + o_.batch - 1) / o_.batch; }
    batch evaluation_at(index number) const {
        check(number >= 0 && number < evaluation_batches(), data_.name, "evaluation batch: expected 0 to ",
              evaluation_batches() - 1, ", found ", number);
        std::vector<index> numbers;
        for (index n = number * o_.batch; n < std::min((number + 1) * o_.batch, samples()); ++n) numbers.push_back(n);
        return make(numbers);
    }

private:
    batch make(const std::vector<index>& numbers) const {
        batch b;
        b.task = o_.task;
        for (index n : numbers) {
            conversation_sample s = sample_of(data_, n, o_.loss);
            b.lengths.push_back(static_cast<index>(s.ids.size()));
            b.ids.insert(b.ids.end(), s.ids.begin(), s.ids.end());
            b.targets.insert(b.targets.end(), s.targets.begin(), s.targets.end());
            b.prompt_lengths.push_back(s.prompt_length);
            b.step_types.push_back(std::move(s.step_type));
        }
        return b;
    }

    conversation_data data_;
    conversation_batch_options o_;
    std::vector<epoch_order> orders_;  // one per group: all samples, or one group per step type
    std::vector<std::vector<index>> numbers_;
};

// ---- length-matched pairs ----

// Two samples of one pair.
struct length_pair {
    index tool = 0, plan = 0;  // positions in the two lists
    bool operator==(const length_pair&) const = default;
};

// Pairs two lists of token counts one to one: first all that are equal, then of the rest those that differ by 1, and so
// on up to `tolerance`; at each difference as many as can be. Ties go by position, pairs come in the order of `tool`.
inline std::vector<length_pair> match_lengths(const std::vector<index>& tool, const std::vector<index>& plan,
                                              index tolerance = 0) {
    check(tolerance >= 0, "match_lengths", "tolerance: expected at least 0, found ", tolerance);
    const auto ascending = [](const std::vector<index>& counts) {
        std::vector<index> order(counts.size());
        std::iota(order.begin(), order.end(), index{0});
        std::stable_sort(order.begin(), order.end(), [&](index a, index b) {
            return counts[static_cast<std::size_t>(a)] < counts[static_cast<std::size_t>(b)];
        });
        return order;
    };
    std::vector<index> left = ascending(tool), right = ascending(plan);
    std::vector<length_pair> pairs;
    for (index allowed = 0; allowed <= tolerance && !left.empty() && !right.empty(); ++allowed) {
        std::vector<index> left_rest, right_rest;
        std::size_t i = 0, j = 0;
        while (i < left.size() && j < right.size()) {
            const index gap = tool[static_cast<std::size_t>(left[i])] - plan[static_cast<std::size_t>(right[j])];
            if (gap >= -allowed && gap <= allowed)
                pairs.push_back({left[i++], right[j++]});
            else if (gap < 0)
                left_rest.push_back(left[i++]);
            else
                right_rest.push_back(right[j++]);
        }
        left_rest.insert(left_rest.end(), left.begin() + static_cast<std::ptrdiff_t>(i), left.end());
        right_rest.insert(right_rest.end(), right.begin() + static_cast<std::ptrdiff_t>(j), right.end());
        left = std::move(left_rest);
        right = std::move(right_rest);
    }
    std::sort(pairs.begin(), pairs.end(), [](const length_pair& a, const length_pair& b) { return a.tool < b.tool; });
    return pairs;
}

// How length-matched pairs are made.
struct matching_options {
    index tolerance = 0;  // tokens
    conversation_side side = conversation_side::held_out;
    double held_out_share = 0.1;
    std::string tool_type = "tool_call", plan_type = "planning";
    // The planning prompt of a pair takes over the system turn of the other one, with its tools. Then "are there
    // tools?" no longer tells the types apart, and pairs are found by the length of what follows the system turn.
    bool share_tools = false;
};
namespace detail {
inline void take_system_turn(chat_json& line, const chat_json& from) {
    const auto is_system = [](const chat_json& messages) { return messages[0]["role"] == "system"; };
    auto& messages = line["messages"].get_ref<chat_json::array_t&>();
    if (is_system(line["messages"])) messages.erase(messages.begin());
    if (is_system(from["messages"])) messages.insert(messages.begin(), from["messages"][0]);
    if (from.contains("tools"))
        line["tools"] = from["tools"];
    else
        line.erase("tools");
}
}  // namespace detail

// An evaluation set of pairs, and what there was to pair.
struct matched_conversations {
    std::vector<chat_json> lines;  // tool, plan, tool, plan, ...: each ends with its one sample
    std::vector<index> tool_lengths, plan_lengths;  // prompt tokens of all candidates
    index pairs = 0, equal = 0, largest_difference = 0;
};

// An evaluation set whose two halves have the same prompt lengths. The candidate of a conversation is its first turn of
// the wanted type (one each, so that samples are independent); the conversation ends there, turns before it become
// context. The lines gain "pair" (from 1) and "prompt_tokens".
inline matched_conversations match_conversations(std::string_view tool_text, const std::string& tool_name,
                                                 std::string_view plan_text, const std::string& plan_name,
                                                 const tokenizer& tok, const matching_options& options) {
    struct candidates {
        std::vector<chat_json> lines;
        std::vector<index> lengths, heads;  // tokens of the prompt, and of its system turn
        std::vector<index> compared(bool without_head) const {
            std::vector<index> out = lengths;
            for (std::size_t n = 0; n < out.size() && without_head; ++n) out[n] -= heads[n];
            return out;
        }
    };
    const auto read = [&](std::string_view text, const std::string& name, const std::string& type) {
        candidates out;
        conversation_options o;
        o.step_types = {type};
        o.side = options.side;
        o.held_out_share = options.held_out_share;
        for_each_json_line(text, name, [&](chat_json line, index number) {
            conversation_data one;
            one.name = name;
            add_conversation(one, line, number, tok, o);
            if (one.turns.empty()) return;
            const assistant_turn& turn = one.turns.front();
            line["step_type"] = type;  // new keys first: they move what the object holds
            line["prompt_tokens"] = turn.prompt_length();
            auto& messages = line["messages"].get_ref<chat_json::array_t&>();
            messages.resize(static_cast<std::size_t>(turn.message) + 1);
            for (auto& message : messages)
                if (message["role"] == "assistant") message["weight"] = 0;
            messages.back().erase("weight");
            messages.back().erase("step_type");
            out.lines.push_back(std::move(line));
            out.lengths.push_back(turn.prompt_length());
            out.heads.push_back(one.conversations.front().head);
        });
        return out;
    };
    candidates tool = read(tool_text, tool_name, options.tool_type);
    candidates plan = read(plan_text, plan_name, options.plan_type);
    matched_conversations out;
    const bool share = options.share_tools;
    for (const auto& pair : match_lengths(tool.compared(share), plan.compared(share), options.tolerance)) {
        const auto n = static_cast<std::size_t>(pair.tool), m = static_cast<std::size_t>(pair.plan);
        auto& t = tool.lines[n];
        auto& p = plan.lines[m];
        index plan_length = plan.lengths[m];
        if (share) {
            detail::take_system_turn(p, t);
            plan_length += tool.heads[n] - plan.heads[m];
            p["prompt_tokens"] = plan_length;
        }
        const index difference = std::abs(tool.lengths[n] - plan_length);
        ++out.pairs;
        out.equal += difference == 0;
        out.largest_difference = std::max(out.largest_difference, difference);
        t["pair"] = out.pairs;
        p["pair"] = out.pairs;
        out.lines.push_back(std::move(t));
        out.lines.push_back(std::move(p));
    }
    out.tool_lengths = std::move(tool.lengths);
    out.plan_lengths = std::move(plan.lengths);
    return out;
}

}  // namespace spectral
