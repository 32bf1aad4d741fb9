// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/length_matching.hpp: evaluation sets whose tool calls and plans have prompts of the same length
#pragma once
#include <spectral/data/conversations.hpp>

namespace spectral {

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
    index max_prompt = 0;  // tokens of a candidate's prompt; 0: any
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
            if (options.max_prompt > 0 && turn.prompt_length() > options.max_prompt) return;
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
