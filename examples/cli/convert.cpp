// SPDX-License-Identifier: Apache-2.0
// examples/cli/convert.cpp: `spectral convert`: public data sets to conversations; length-matched evaluation sets
#include "commands.hpp"
#include "options.hpp"

#include <spectral/data/converters.hpp>
#include <spectral/data/length_matching.hpp>

#include <iostream>

namespace spectral::cli {
namespace {

struct convert_options {
    std::string from, out, schema, tokenizer, side = "held_out";
    std::vector<std::string> files, match;
    index limit = 0, most_results = 0, tolerance = 0, max_prompt = 0;
    double held_out = 0.1;
    bool share_tools = false;
};

void convert_files(const convert_options& o) {
    check(!o.files.empty(), "convert", "expected files to convert, found none");
    check_is_no_input(o.out, o.files);
    check_is_no_input(o.out, {o.schema});
    conversion_options options{.limit = o.limit, .most_results = o.most_results};
    if (!o.schema.empty()) {
        options.schema = read_text_file(o.schema);
        options.schema_name = o.schema;
    }
    atomic_file out(o.out);
    index written = 0;
    std::map<std::string, index> turns;
    for (const auto& file : o.files) {
        if (o.limit > 0 && written >= o.limit) break;
        if (o.limit > 0) options.limit = o.limit - written;
        const auto report = convert_conversations(o.from, read_text_file(file), file, options,
                                                  [&](const chat_json& line) { out.write(python_json(line) + "\n"); });
        written += report.written;
        std::cerr << file << ": " << report.read << " read, " << report.written << " conversations";
        for (const auto& [type, n] : report.turns) std::cerr << ", " << n << " turns " << type;
        for (const auto& [why, n] : report.left_out) std::cerr << "; left out " << n << ": " << why;
        std::cerr << '\n';
    }
    check(written > 0, o.out, "no conversations to write");
    out.commit();
}

std::string quartiles(const std::vector<index>& lengths) {
    const length_summary s = summarize_lengths(lengths);
    return spectral::detail::join(s.count, " prompts of ", s.least, " to ", s.most, " tokens, quartiles ", s.lower,
                                  ", ", s.median, ", ", s.upper);
}

void match_files(const convert_options& o) {
    check(!o.tokenizer.empty(), "convert --match", "expected --tokenizer, which counts the tokens, found none");
    check_is_no_input(o.out, {o.match[0], o.match[1], o.tokenizer});
    check(o.held_out >= 0 && o.held_out <= 1, "convert --held-out", "expected a share from 0 to 1, found ", o.held_out);
    const auto tok = tokenizer::from_file(o.tokenizer);
    const auto set =
        match_conversations(read_text_file(o.match[0]), o.match[0], read_text_file(o.match[1]), o.match[1], tok,
                            {.tolerance = o.tolerance,
                             .max_prompt = o.max_prompt,
                             .side = o.side == "all" ? conversation_side::all : conversation_side::held_out,
                             .held_out_share = o.held_out,
                             .share_tools = o.share_tools});
    check(set.pairs > 0, o.out, "no two prompts within ", o.tolerance, " tokens of each other: ", o.match[0], " has ",
          quartiles(set.tool_lengths), "; ", o.match[1], " has ", quartiles(set.plan_lengths));
    atomic_file out(o.out);
    for (const auto& line : set.lines) out.write(python_json(line) + "\n");
    out.commit();
    std::cerr << o.match[0] << ": " << quartiles(set.tool_lengths) << '\n'
              << o.match[1] << ": " << quartiles(set.plan_lengths) << '\n'
              << o.out << ": " << set.pairs << " pairs, " << set.equal << " of equal length, largest difference "
              << set.largest_difference << '\n';
}

}  // namespace

void add_convert(CLI::App& app) {
    auto* c =
        app.add_subcommand("convert", "public data sets to conversations (JSON lines); length-matched evaluation sets");
    auto o = std::make_shared<convert_options>();
    auto* from = choice(*c, "--from", o->from, conversion_sources(), "format of the files");
    c->add_option("files", o->files, "unpacked data files")->option_text("FILE...");
    option(*c, "--out", o->out, "FILE", "conversations to write, one JSON object a line")->required();
    option(*c, "--schema", o->schema, "FILE", "sgd: the split's schema; bfcl: functions of multi-turn dialogues");
    option(*c, "--limit", o->limit, "N", "conversations; 0: all");
    option(*c, "--results", o->most_results, "N", "sgd: results kept of a call; 0: all");
    auto* match = option(*c, "--match", o->match, "TOOL PLAN",
                         "pairs tool-call and planning prompts by token count, one sample a line")
                      ->expected(2);
    option(*c, "--tokenizer", o->tokenizer, "FILE", "--match: tokenizer.json");
    option(*c, "--tolerance", o->tolerance, "N", "--match: largest difference within a pair, tokens");
    option(*c, "--max-prompt", o->max_prompt, "N", "--match: longest prompt to take, tokens; 0: any");
    choice(*c, "--side", o->side, {"held_out", "all"}, "--match: conversations to take");
    option(*c, "--held-out", o->held_out, "SHARE",
           "--match: share that training leaves out, by a hash of the user's first words");
    c->add_flag("--share-tools", o->share_tools,
                "--match: planning prompts take the system turn and tools of their partner");
    from->excludes(match);
    c->callback([o] {
        check(o->from.empty() != o->match.empty(), "convert",
              "expected --from FORMAT FILE... or --match TOOL PLAN, found neither");
        if (o->match.empty())
            convert_files(*o);
        else
            match_files(*o);
    });
}

}  // namespace spectral::cli
