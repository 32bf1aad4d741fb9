// SPDX-License-Identifier: Apache-2.0
// tests/data/conversations_test.cpp: samples from conversations, their masks, limits and order; length-matched pairs
#include "support/golden.hpp"

#include <spectral/data/conversation_batches.hpp>
#include <spectral/data/length_matching.hpp>

#include <map>
#include <set>

namespace conversations_test {
using spectral::row_index;
using namespace spectral;
using index = spectral::index;

const tokenizer& tok() {
    static const tokenizer t =
        tokenizer::from_file(test::small_golden_dir() / "text" / "qwen2.5_subset.tokenizer.json");
    return t;
}
conversation_data parsed(const std::string& text, const conversation_options& o = {}) {
    return parse_conversations(text, "a.jsonl", tok(), o);
}

const char* const dialogue =
    R"({"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"},)"
    R"({"role": "user", "content": "three"},{"role": "assistant", "tool_calls": [{"name": "f", )"
    R"("arguments": {"x": 1}}]},)"
    R"({"role": "tool", "content": "4"}, {"role": "assistant", "content": "five", "step_type": "reply"}],)"
    R"("tools": [{"name": "f"}]})"
    "\n";

// what a chat program would feed the model before message m
std::vector<row_index> prompt_of(const chat_json& line, std::size_t m) {
    chat_json before = chat_json::array();
    for (std::size_t k = 0; k < m; ++k) before.push_back(line["messages"][k]);
    return tok().encode(render_chat(before, line["tools"], true).text);
}

TEST_CASE("a sample is a turn of the assistant: prompt, answer, mask", "[data]") {
    const auto data = parsed(dialogue);
    const chat_json line = parse_chat_json(dialogue, "dialogue");
    REQUIRE(data.turns.size() == 3);
    REQUIRE(data.conversations.size() == 1);
    const std::size_t message[] = {1, 3, 5};
    const char* const answer[] = {"two<|im_end|>",
                                  "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call><|im_end|>",
                                  "five<|im_end|>"};
    const char* const type[] = {"", "tool_call", "reply"};
    for (std::size_t n = 0; n < 3; ++n) {
        const auto s = sample_of(data, static_cast<index>(n));
        const auto split = s.ids.begin() + s.prompt_length;
        CHECK(std::vector<row_index>(s.ids.begin(), split) == prompt_of(line, message[n]));
        CHECK(tok().decode(std::vector<row_index>(split, s.ids.end())) == answer[n]);
        CHECK(s.step_type == type[n]);
        CHECK(data.turns[n].message == static_cast<index>(message[n]));
        // the row before the answer predicts its first token; the last row, <|im_end|>, predicts nothing
        REQUIRE(s.targets.size() == s.ids.size());
        for (std::size_t i = 0; i < s.ids.size(); ++i) {
            const bool inside = static_cast<index>(i) + 1 >= s.prompt_length && i + 1 < s.ids.size();
            CHECK(s.targets[i] == (inside ? s.ids[i + 1] : -1));
        }
        const auto all = sample_of(data, static_cast<index>(n), loss_on::everything);
        CHECK(all.ids == s.ids);
        for (std::size_t i = 0; i < s.ids.size(); ++i)
            CHECK(all.targets[i] == (i + 1 < s.ids.size() ? s.ids[i + 1] : -1));
    }
}

TEST_CASE("the prompt is what generation starts from even where content begins with a line break", "[data]") {
    const auto data =
        parsed(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\nb"}]})");
    const auto s = sample_of(data, 0);
    const auto prompt =
        tok().encode(render_chat(parse_chat_json(R"([{"role": "user", "content": "a"}])", "t"), nullptr, true).text);
    REQUIRE(s.prompt_length == static_cast<index>(prompt.size()));
    CHECK(std::equal(prompt.begin(), prompt.end(), s.ids.begin()));
}

TEST_CASE("types of steps: the message's, the line's, by calls; weights; filters", "[data]") {
    const std::string line =
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "step_type": "own"},)"
        R"({"role": "assistant", "content": "c"}, {"role": "assistant", "content": "d", )"
        R"("weight": 0}],"step_type": "planning"})";
    const auto data = parsed(line);
    REQUIRE(data.turns.size() == 2);
    CHECK(data.turns[0].step_type == "own");
    CHECK(data.turns[1].step_type == "planning");
    const auto planning = parsed(line, {.step_types = {"planning"}});
    REQUIRE(planning.turns.size() == 1);
    CHECK(sample_of(planning, 0).ids == sample_of(data, 1).ids);
    CHECK(parsed(line, {.step_types = {"other"}}).turns.empty());
}

TEST_CASE("errors name file, line and field", "[data]") {
    const auto problem = [](const std::string& text, const conversation_options& o = {}) {
        return test::sentence_of([&] { parsed(text, o); });
    };
    const std::string good = R"({"messages": [{"role": "user", "content": "a"}]})"
                             "\n";
    CHECK(problem("") == "a.jsonl: the file has no conversations");
    CHECK(problem(good + "\n[1]\n") == "a.jsonl: line 3: expected an object with messages, found array");
    CHECK(problem(good + "{}") == "a.jsonl: line 2: messages: expected an array, found none");
    CHECK(problem(good + "{\"messages\": ").starts_with("a.jsonl: line 2: not valid JSON: "));
    CHECK(problem(good + R"({"messages": [{"role": "bot", "content": "a"}]})") ==
          "a.jsonl: line 2: message 1, role: expected system, user, assistant or tool, found \"bot\"");
    CHECK(problem(R"({"messages": [{"role": "user", "content": "a"}], "step_type": 3})") ==
          "a.jsonl: line 1: step_type: expected a string, found number");
    CHECK(problem(R"({"messages": [{"role": "assistant", "content": "a", "step_type": 3}]})") ==
          "a.jsonl: line 1: message 1: step_type: expected a string, found number");
    CHECK(problem(R"({"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]})") ==
          "a.jsonl: line 1: message 1: weight: expected 0 or 1, found \"0.5\"");
    CHECK(problem("{\"messages\": [{\"role\": \"user\", \"content\": \"\xFF\"}]}")
              .starts_with("a.jsonl: line 1: not valid JSON"));
    CHECK(problem(good, {.max_length = -1}).starts_with("a.jsonl: options: "));
    CHECK(problem(good, {.held_out_share = 2}).starts_with("a.jsonl: options: held-out share"));
    CHECK(test::sentence_of([] { read_conversations("/nonexistent/a.jsonl", tok()); }) ==
          "/nonexistent/a.jsonl: the file cannot be opened: No such file or directory");
    CHECK(test::sentence_of([&] { conversation_batches(parsed(good), {}); }) ==
          "a.jsonl: samples: expected at least one, found none");
    CHECK(test::sentence_of([] { conversation_batches(parsed(dialogue, {.max_length = 3}), {}); }) ==
          "a.jsonl: samples: expected at least one, found none: 3 are longer than the limit");
}

TEST_CASE("limits: an answer is never cut; what goes is counted", "[data]") {
    const auto whole = parsed(dialogue);
    const auto& last = whole.turns[2];
    const auto full = sample_of(whole, 2);
    const index n = last.length();
    {  // at the limit nothing changes
        const auto data = parsed(dialogue, {.max_length = n});
        CHECK(data.turns.size() == 3);
        CHECK(data.cut == 0);
        CHECK(data.left_out == 0);
    }
    {  // one less: the first exchange goes, the system turn and whole turns stay
        const auto data = parsed(dialogue, {.max_length = n - 1});
        REQUIRE(data.turns.size() == 3);
        CHECK(data.cut == 1);
        const auto s = sample_of(data, 2);
        chat_json line = parse_chat_json(dialogue, "dialogue");
        line["messages"].erase(0);
        line["messages"].erase(0);
        const auto prompt = prompt_of(line, 3);
        REQUIRE(s.prompt_length == static_cast<index>(prompt.size()));
        CHECK(std::equal(prompt.begin(), prompt.end(), s.ids.begin()));
        CHECK(std::vector<row_index>(s.ids.begin() + s.prompt_length, s.ids.end()) ==
              std::vector<row_index>(full.ids.begin() + full.prompt_length, full.ids.end()));
        CHECK(s.targets.back() == -1);
        CHECK(s.targets[static_cast<std::size_t>(s.prompt_length - 1)] ==
              s.ids[static_cast<std::size_t>(s.prompt_length)]);
    }
    {  // from the left: the last tokens
        const auto data = parsed(dialogue, {.max_length = n - 1, .too_long = long_prompt::left});
        const auto s = sample_of(data, 2);
        CHECK(data.cut == 1);
        CHECK(s.ids == std::vector<row_index>(full.ids.begin() + 1, full.ids.end()));
        CHECK(s.prompt_length == full.prompt_length - 1);
    }
    {
        const auto data = parsed(dialogue, {.max_length = n - 1, .too_long = long_prompt::leave_out});
        CHECK(data.turns.size() == 2);
        CHECK(data.left_out == 1);
        CHECK(data.longest_left_out == n);
    }
    // a limit at the answer's own length leaves no token of a prompt
    const index answer = last.end - last.answer;
    CHECK(parsed(dialogue, {.max_length = answer, .too_long = long_prompt::left, .step_types = {"reply"}}).left_out ==
          1);
    const auto tight =
        parsed(dialogue, {.max_length = answer + 1, .too_long = long_prompt::left, .step_types = {"reply"}});
    REQUIRE(tight.turns.size() == 1);
    CHECK(sample_of(tight, 0).prompt_length == 1);
}

// conversation i: one user word and one answer; types alternate unevenly: every fourth is a tool call
std::string many(int count) {
    std::string out;
    for (int i = 0; i < count; ++i)
        out += R"({"messages": [{"role": "user", "content": ")" + std::to_string(i) +
               R"("}, {"role": "assistant", "content": "ok"}], "step_type": ")" + (i % 4 ? "planning" : "tool_call") +
               "\"}\n";
    return out;
}

TEST_CASE("every sample once per epoch; batches follow from seed and step", "[data]") {
    const conversation_batches batches(parsed(many(20)), {.batch = 4, .seed = 5});
    const conversation_batches resumed(parsed(many(20)), {.batch = 4, .seed = 5});
    const conversation_batches other(parsed(many(20)), {.batch = 4, .seed = 6});
    std::vector<std::vector<row_index>> order[2];
    bool differs = false;
    for (index epoch = 0; epoch < 2; ++epoch) {
        std::set<std::vector<row_index>> seen;
        for (index step = 5 * epoch; step < 5 * (epoch + 1); ++step) {
            const batch b = batches.batch_at(step);
            REQUIRE_NOTHROW(check_batch(b, tok().vocab_size()));
            REQUIRE(b.sequences() == 4);
            CHECK(b == resumed.batch_at(step));
            differs |= !(b == other.batch_at(step));
            auto at = b.ids.begin();
            for (std::size_t s = 0; s < 4; ++s) {
                order[epoch].emplace_back(at, at + b.lengths[s]);
                seen.insert(order[epoch].back());
                at += b.lengths[s];
                CHECK((b.prompt_lengths[s] > 0 && b.prompt_lengths[s] < b.lengths[s]));
            }
        }
        CHECK(seen.size() == 20);
    }
    CHECK(order[0] != order[1]);
    CHECK(differs);
    REQUIRE(batches.evaluation_batches() == 5);
    for (index e = 0; e < 5; ++e)
        for (index s = 0; s < 4; ++s)
            CHECK(batches.evaluation_at(e).step_types[static_cast<std::size_t>(s)] ==
                  ((e * 4 + s) % 4 ? "planning" : "tool_call"));
    CHECK_THROWS_AS(batches.evaluation_at(5), error);
    CHECK_THROWS_AS(batches.batch_at(-1), error);
}

TEST_CASE("balanced batches: types take turns, each sees all its samples", "[data]") {
    for (index size : {1, 3, 4}) {
        const conversation_batches batches(parsed(many(20)), {.batch = size, .seed = 5, .balanced = true});
        std::map<std::string, std::map<std::vector<row_index>, int>> seen;
        index p = 0;
        for (index step = 0; p < 60; ++step) {
            const batch b = batches.batch_at(step);
            auto at = b.ids.begin();
            for (std::size_t s = 0; s < b.lengths.size(); ++s, ++p) {
                CHECK(b.step_types[s] == (p % 2 ? "tool_call" : "planning"));
                if (p < 30) ++seen[b.step_types[s]][{at, at + b.lengths[s]}];
                at += b.lengths[s];
            }
        }
        CHECK(seen["planning"].size() == 15);  // once each
        CHECK(seen["tool_call"].size() == 5);  // three times each
        for (const auto& [ids, count] : seen["tool_call"]) CHECK(count == 3);
    }
}

TEST_CASE("held out: by the user's words alone, about the share asked for, no overlap", "[data]") {
    const auto text = many(1000);
    const auto train = parsed(text, {.side = conversation_side::training, .held_out_share = 0.2});
    const auto held = parsed(text, {.side = conversation_side::held_out, .held_out_share = 0.2});
    CHECK(train.turns.size() + held.turns.size() == 1000);
    CHECK(train.lines == 1000);
    CHECK((held.turns.size() > 150 && held.turns.size() < 250));
    const auto line = [](const char* text_of) { return parse_chat_json(text_of, "t"); };
    for (double share : {0.1, 0.5, 0.9})
        CHECK(held_out(line(R"([{"role": "user", "content": "same"}])"), share) ==
              held_out(
                  line(R"([{"role": "system", "content": "s"}, {"role": "user", "content": "same"}, {"role": "user", )"
                       R"("content": "b"}])"),
                  share));
    CHECK_FALSE(held_out(line(R"([{"role": "user", "content": "same"}])"), 0));
    CHECK(held_out(line(R"([{"role": "user", "content": "same"}])"), 1));
}

TEST_CASE("length summaries by type", "[data]") {
    CHECK(summarize_lengths({}).count == 0);
    const auto s = summarize_lengths({5, 1, 4, 2, 3});
    CHECK(
        (s.count == 5 && s.least == 1 && s.lower == 2 && s.median == 3 && s.upper == 4 && s.most == 5 && s.mean == 3));
    const auto by_type = lengths_by_type(parsed(many(8)));
    REQUIRE(by_type.size() == 2);
    CHECK(by_type.at("tool_call").prompt.count == 2);
    CHECK(by_type.at("planning").answer.least == by_type.at("planning").answer.most);
}

TEST_CASE("matching: equal first, then nearest, one to one", "[data]") {
    using pairs = std::vector<length_pair>;
    CHECK(match_lengths({5, 3, 5}, {5, 4, 9}) == pairs{{0, 0}});
    // 5-5 before 5-4 or 5-6, then what differs by one
    CHECK(match_lengths({5, 3, 5}, {5, 4, 9}, 1) == pairs{{0, 0}, {1, 1}});
    CHECK(match_lengths({5, 3, 5}, {5, 4, 9}, 4) == pairs{{0, 0}, {1, 1}, {2, 2}});
    CHECK(match_lengths({}, {1, 2}, 5).empty());
    CHECK(match_lengths({7, 7, 7}, {7, 7}) == pairs{{0, 0}, {1, 1}});
    CHECK_THROWS_AS(match_lengths({1}, {1}, -1), error);
}

TEST_CASE("a length-matched set is JSON lines with one sample each", "[data]") {
    std::string tools, plans;
    for (int i = 0; i < 40; ++i) {
        const std::string words(static_cast<std::size_t>(i % 7), 'x');
        tools +=
            R"({"messages": [{"role": "user", "content": "t)" + words +
            R"("}, {"role": "assistant", "content": "what?", "step_type": "reply"},)"
            R"({"role": "user", "content": "that)" +
            std::to_string(i) +
            R"("}, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {}}]},)"
            R"({"role": "tool", "content": "r"}, {"role": "assistant", "content": "done"}], "step_type": "tool_call"})"
            "\n";
        plans += R"({"messages": [{"role": "user", "content": "abcdefghijklmnopq)" + words + std::to_string(i) +
                 R"("}, {"role": "assistant", "content": "steps"}], "step_type": "planning"})"
                 "\n";
    }
    const auto set = match_conversations(tools, "t.jsonl", plans, "p.jsonl", tok(),
                                         {.tolerance = 2, .side = conversation_side::all});
    REQUIRE(set.pairs > 10);
    CHECK(set.lines.size() == static_cast<std::size_t>(2 * set.pairs));
    CHECK(set.tool_lengths.size() == 40);
    CHECK(set.largest_difference <= 2);
    std::string written;
    for (const auto& line : set.lines) written += python_json(line) + "\n";
    const auto data = parsed(written);
    REQUIRE(data.turns.size() == set.lines.size());
    for (std::size_t n = 0; n < set.lines.size(); n += 2) {
        CHECK(data.turns[n].step_type == "tool_call");
        CHECK(data.turns[n + 1].step_type == "planning");
        CHECK(data.turns[n].prompt_length() == set.lines[n]["prompt_tokens"].get<index>());
        CHECK(std::abs(data.turns[n].prompt_length() - data.turns[n + 1].prompt_length()) <= 2);
        CHECK(data.turns[n].message == 3);
        CHECK(set.lines[n]["messages"].size() == 4);
        CHECK(set.lines[n]["pair"] == n / 2 + 1);
    }
    const auto again = match_conversations(tools, "t.jsonl", plans, "p.jsonl", tok(),
                                           {.tolerance = 2, .side = conversation_side::all});
    CHECK(again.lines == set.lines);
    const index longest = set.lines[0]["prompt_tokens"];
    const auto shorter = match_conversations(tools, "t.jsonl", plans, "p.jsonl", tok(),
                                             {.max_prompt = longest, .side = conversation_side::all});
    CHECK(shorter.pairs > 0);
    CHECK(shorter.pairs < set.pairs);
    for (const auto& line : shorter.lines) CHECK(line["prompt_tokens"].get<index>() <= longest);
}

TEST_CASE("pairs that share their tools differ in what was said alone", "[data]") {
    const std::string tools =
        R"({"messages": [{"role": "system", "content": "be"}, {"role": "user", "content": "abc"},)"
        R"({"role": "assistant", "tool_calls": [{"name": "f", "arguments": {}}]}], "tools": [{"name": "f"}]})"
        "\n"
        R"({"messages": [{"role": "user", "content": "abcxyzabcxyz"}, {"role": "assistant", )"
        R"("tool_calls": [{"name": "g", "arguments": {}}]}]})"
        "\n";
    const std::string plans =
        R"({"messages": [{"role": "user", "content": "abcxyzabcxyz"}, {"role": "assistant", "content": "s"}], )"
        R"("step_type": "planning", "tools": [{"name": "h"}]})"
        "\n"
        R"({"messages": [{"role": "user", "content": "abc"}, {"role": "assistant", "content": "s"}], )"
        R"("step_type": "planning"})"
        "\n";
    const auto set =
        match_conversations(tools, "t", plans, "p", tok(), {.side = conversation_side::all, .share_tools = true});
    REQUIRE(set.pairs == 2);
    CHECK(set.equal == 2);
    std::string written;
    for (const auto& line : set.lines) written += python_json(line) + "\n";
    const auto data = parsed(written);
    REQUIRE(data.turns.size() == 4);
    for (std::size_t n = 0; n < 4; n += 2) {
        const auto t = sample_of(data, static_cast<index>(n)), p = sample_of(data, static_cast<index>(n) + 1);
        REQUIRE(t.prompt_length == p.prompt_length);
        CHECK(std::equal(t.ids.begin(), t.ids.begin() + t.prompt_length, p.ids.begin()));  // here even the words agree
        CHECK(set.lines[n + 1]["prompt_tokens"] == p.prompt_length);
        CHECK(set.lines[n].contains("tools") == set.lines[n + 1].contains("tools"));
    }
}

}  // namespace conversations_test
