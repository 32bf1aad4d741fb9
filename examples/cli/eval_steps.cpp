// SPDX-License-Identifier: Apache-2.0
// examples/cli/eval_steps.cpp: what skip gates do by step type: who skips how much, at what cost, and whether that is
// the type or the length of the prompt
#include "eval_steps.hpp"

#include <spectral/report/statistics.hpp>
#include <spectral/train/checkpoint.hpp>

#include <chrono>
#include <iostream>
#include <set>

namespace spectral::cli {
namespace {

using json = nlohmann::ordered_json;

// The samples of one step type, and what one run did on them.
struct of_type {
    std::string type;
    std::optional<conversation_batches> batches;
    std::vector<double> prompt_length, tools;  // tokens; 1 where the system turn lists tools
    std::set<std::size_t> conversations;  // that the samples come from

    std::vector<double> skip;  // share of closed gates, by sample
    std::vector<std::vector<double>> soft, closed;  // by block: probability, 1 where closed, by sample
    std::map<std::string, double> nats, seconds;  // by mode
    index targets = 0;
    mac_counts executed, dense;
};

struct mode {
    const char* name;
    bool adapters, gates;
    bool routed() const { return adapters && gates; }
};
constexpr mode modes[] = {
    {"backbone", false, false}, {"adapters", true, false}, {"gates", false, true}, {"routed", true, true}};

std::vector<of_type> read_types(const step_evaluation& o, const tokenizer& tok) {
    const conversation_side side = o.side == "all"        ? conversation_side::all
                                   : o.side == "training" ? conversation_side::training
                                                          : conversation_side::held_out;
    conversation_data all = read_samples(o.files, tok, o.data, side, o.held_out);
    check(!all.turns.empty(), "spectral eval --by step_type", "no samples on this side of the hold-out (--side)");
    std::map<std::string, conversation_data> by_type;
    for (const auto& turn : all.turns) {
        auto& data = by_type[turn.step_type];
        if (data.turns.empty()) data.conversations = all.conversations;
        data.turns.push_back(turn);
    }
    // evenly over the files: their first samples may be of a few conversations
    if (const auto wanted = static_cast<std::size_t>(o.samples); wanted > 0)
        for (auto& [type, data] : by_type)
            if (const std::size_t found = data.turns.size(); found > wanted) {
                auto every = std::move(data.turns);
                data.turns.clear();
                for (std::size_t i = 0; i < wanted; ++i) data.turns.push_back(std::move(every[i * found / wanted]));
            }
    std::vector<of_type> out;
    for (auto& [type, data] : by_type) {
        data.name = all.name;
        of_type t;
        t.type = type.empty() ? "untyped" : type;
        for (const auto& turn : data.turns) {
            t.conversations.insert(static_cast<std::size_t>(turn.conversation));
            t.prompt_length.push_back(static_cast<double>(turn.prompt_length()));
            t.tools.push_back(data.conversations[static_cast<std::size_t>(turn.conversation)].tools ? 1 : 0);
        }
        t.batches.emplace(std::move(data), batch_options(o.data, o.batch, 0, false));
        out.push_back(std::move(t));
    }
    return out;
}

void measure(runner& r, of_type& t, const mode& m, index blocks) {
    auto& route = *r.layer_route();
    route.use_adapters(m.adapters);
    route.force_open(m.gates ? std::vector<char>{} : std::vector<char>(static_cast<std::size_t>(blocks), 1));
    route_trace trace(route_trace::mode::count);
    if (m.routed()) r.set_trace(&trace), t.soft.resize(static_cast<std::size_t>(blocks)), t.closed = t.soft;
    index rows = 0;
    t.targets = 0;
    const auto began = std::chrono::steady_clock::now();
    for (index n = 0; n < t.batches->evaluation_batches(); ++n) {
        const batch b = t.batches->evaluation_at(n);
        const batch_result result = r.evaluate(b);
        t.nats[m.name] += result.nats;
        t.targets += result.targets;
        rows += b.rows();
        if (!m.routed()) continue;
        t.dense += r.dense_macs(b.lengths, b.rows());
        const gate_values g = route.gates();
        for (index s = 0; s < g.sequences; ++s) {
            double closed = 0;
            for (index l = 0; l < g.layers; ++l) {
                closed += 1 - g.hard[g.at(l, s)];
                t.soft[static_cast<std::size_t>(l)].push_back(g.soft[g.at(l, s)]);
                t.closed[static_cast<std::size_t>(l)].push_back(1 - g.hard[g.at(l, s)]);
            }
            t.skip.push_back(closed / static_cast<double>(g.layers));
        }
    }
    t.seconds[m.name] = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    r.set_trace(nullptr);
    if (m.routed()) t.executed = r.executed_macs(trace, rows);
    route.use_adapters(true);
    route.force_open({});
}

// mean of `values` (by sample, in the order of the types) over tool calls, less that over planning
double difference(const std::vector<double>& values, const std::vector<of_type>& types) {
    double out = 0;
    auto at = values.begin();
    for (const auto& t : types) {
        const auto end = at + static_cast<std::ptrdiff_t>(t.skip.size());
        const double sign = t.type == "tool_call" ? 1 : t.type == "planning" ? -1 : 0;
        out += sign * mean_of({at, end});
        at = end;
    }
    return out;
}

json bounds(const interval& i) { return json::array({i.low, i.high}); }

json gate_table(const of_type& t) {
    json out = json::array();
    for (std::size_t l = 0; l < t.soft.size(); ++l) {
        std::vector<index> bins(10);
        for (double s : t.soft[l]) ++bins[static_cast<std::size_t>(std::min(9.0, std::floor(10 * s)))];
        out.push_back({{"block", l},
                       {"skip_share", mean_of(t.closed[l])},
                       {"mean", mean_of(t.soft[l])},
                       {"variance", variance_of(t.soft[l])},
                       {"histogram", bins}});
    }
    return out;
}

// One run's figures; `types` is filled anew.
json run_figures(const step_evaluation& o, const std::string& name, runner& r, std::vector<of_type> types) {
    const index blocks = r.layer_route()->config().backbone.num_hidden_layers;
    const layer_route_config& route = r.layer_route()->config().route;
    for (auto& t : types)
        for (const mode& m : modes) {
            const bool alone = m.adapters != m.gates;  // tells something only where there are adapters to switch
            if ((!m.gates || route.gates) && (!alone || route.adapted())) measure(r, t, m, blocks);
        }
    std::set<std::size_t> conversations;
    for (const auto& t : types) conversations.insert(t.conversations.begin(), t.conversations.end());
    json out{{"run", name}, {"side", o.side}, {"conversations", conversations.size()}};
    std::vector<double> skip, length, tools, tool;  // by sample: share of closed gates, tokens, tools listed, a call
    std::map<std::string, std::pair<double, double>> all;  // nats, targets by mode
    for (const auto& t : types) {
        json& j = out["types"][t.type];
        j = {{"samples", t.prompt_length.size()},
             {"conversations", t.conversations.size()},
             {"prompt_tokens", mean_of(t.prompt_length)}};
        for (const auto& [m, nats] : t.nats) {
            j["perplexity"][m] = std::exp(nats / static_cast<double>(std::max<index>(t.targets, 1)));
            j["seconds"][m] = t.seconds.at(m);
            all[m].first += nats, all[m].second += static_cast<double>(t.targets);
        }
        if (!route.gates) continue;
        j["skip_share"] = mean_of(t.skip);
        j["skip_share_95"] = bounds(bootstrap_difference(t.skip, {}, o.resamples));
        j["skip_variance"] = variance_of(t.skip);
        j["executed_flops"] = t.executed.flops();
        j["dense_flops"] = t.dense.flops();
        j["gates"] = gate_table(t);
        j["by_sample"] = {{"prompt_tokens", t.prompt_length}, {"skip_share", t.skip}};
        skip.insert(skip.end(), t.skip.begin(), t.skip.end());
        length.insert(length.end(), t.prompt_length.begin(), t.prompt_length.end());
        tools.insert(tools.end(), t.tools.begin(), t.tools.end());
        tool.insert(tool.end(), t.skip.size(), t.type == "tool_call" ? 1.0 : 0.0);
    }
    for (const auto& [m, sums] : all) out["perplexity"][m] = std::exp(sums.first / std::max(sums.second, 1.0));
    if (!route.gates) return out;
    out["skip_share"] = mean_of(skip);
    out["correlation"] = {{"length", correlation(skip, length)},
                          {"tool_call", correlation(skip, tool)},
                          {"tool_call_given_length", partial_correlation(skip, tool, length)},
                          {"length_of_tool_call", correlation(length, tool)}};
    const of_type *first = nullptr, *second = nullptr;
    for (const auto& t : types) {
        if (t.type == "tool_call") first = &t;
        if (t.type == "planning") second = &t;
    }
    if (first && second) {
        out["differential"] = mean_of(first->skip) - mean_of(second->skip);
        out["differential_95"] = bounds(bootstrap_difference(first->skip, second->skip, o.resamples));
        // what a rule without a gate would make of the same shares
        out["rules"] = {{"length", difference(dealt_by(length, skip), types)},
                        {"tools", difference(dealt_by(tools, skip), types)}};
    }
    return out;
}

// a character a bin, darker where it is fuller
std::string bars(const json& histogram) {
    constexpr std::string_view shades = " .:-=+*#%@";
    double most = 1;
    for (const auto& count : histogram) most = std::max(most, count.get<double>());
    std::string out;
    for (const auto& count : histogram)
        out += shades[static_cast<std::size_t>(std::ceil(9 * count.get<double>() / most))];
    return out;
}

void print(const json& j) {
    const auto percent = [](const json& v) { return 100 * v.get<double>(); };
    std::printf("\n%s\n", j["run"].get<std::string>().c_str());
    std::printf("  samples of %d conversations, side %s\n", j["conversations"].get<int>(),
                j["side"].get<std::string>().c_str());
    std::printf("  %-12s %8s %8s %10s %10s %10s %10s %8s %19s %8s\n", "step type", "samples", "prompt", "backbone",
                "adapters", "gates", "routed", "skip", "95 %", "FLOPs");
    for (const auto& [type, t] : j["types"].items()) {
        std::printf("  %-12s %8d %8.1f", type.c_str(), t["samples"].get<int>(), t["prompt_tokens"].get<double>());
        for (const auto& [m, adapters, gates] : modes)
            t["perplexity"].contains(m) ? std::printf(" %10.4f", t["perplexity"][m].get<double>())
                                        : std::printf(" %10s", "-");
        if (t.contains("skip_share"))
            std::printf(" %7.2f%% [%6.2f%%, %6.2f%%] %7.1f%%", percent(t["skip_share"]), percent(t["skip_share_95"][0]),
                        percent(t["skip_share_95"][1]),
                        100 * t["executed_flops"].get<double>() / t["dense_flops"].get<double>());
        std::printf("\n");
    }
    if (j.contains("differential"))
        std::printf("  tool_call skips %+.2f points more than planning, 95 %% [%+.2f, %+.2f]\n",
                    percent(j["differential"]), percent(j["differential_95"][0]), percent(j["differential_95"][1])),
            std::printf("  the same shares dealt by length alone: %+.2f points; by whether tools are listed: %+.2f\n",
                        percent(j["rules"]["length"]), percent(j["rules"]["tools"]));
    if (!j.contains("correlation")) return;
    const auto& c = j["correlation"];
    std::printf(
        "  correlation of skipping with prompt length %+.3f, with tool_call %+.3f, with tool_call given length %+.3f\n",
        c["length"].get<double>(), c["tool_call"].get<double>(), c["tool_call_given_length"].get<double>());
    std::printf("  closed gates by block:\n");
    for (const auto& [type, t] : j["types"].items()) {
        std::printf("  %-12s", type.c_str());
        for (const auto& g : t["gates"]) std::printf(" %5.0f%%", percent(g["skip_share"]));
        std::printf("\n");
    }
    std::printf("  variance of the gates' probabilities by block:\n");
    for (const auto& [type, t] : j["types"].items()) {
        std::printf("  %-12s", type.c_str());
        for (const auto& g : t["gates"]) std::printf(" %6.4f", g["variance"].get<double>());
        std::printf("\n");
    }
    std::printf("  histograms of the gates' probabilities by block, ten bins from 0 to 1; the fullest bin is @:\n");
    for (const auto& [type, t] : j["types"].items()) {
        std::printf("  %-12s", type.c_str());
        for (const auto& g : t["gates"]) std::printf(" |%s|", bars(g["histogram"]).c_str());
        std::printf("\n");
    }
}

// Means over runs with Student's intervals: of the differential, and by step type of the skip share and of what the
// gates cost, ln(routed perplexity / perplexity with every block).
json over_runs(const json& runs) {
    std::map<std::string, std::vector<double>> differential, skip, cost;
    for (const auto& run : runs) {
        if (run.contains("differential")) differential["tool_call - planning"].push_back(run["differential"]);
        for (const auto& [type, t] : run["types"].items()) {
            if (!t.contains("skip_share")) continue;
            skip[type].push_back(t["skip_share"]);
            const json& perplexity = t["perplexity"];
            const json& open = perplexity.contains("adapters") ? perplexity["adapters"] : perplexity["backbone"];
            cost[type].push_back(std::log(perplexity["routed"].get<double>() / open.get<double>()));
        }
    }
    json out{{"runs", runs.size()}};
    for (const auto& [name, sets] :
         {std::pair{"differential", differential}, std::pair{"skip_share", skip}, std::pair{"log_cost", cost}})
        for (const auto& [key, values] : sets)
            out[name][key] = {{"mean", mean_of(values)},
                              {"deviation", std::sqrt(variance_of(values))},
                              {"95", bounds(student_interval(values))}};
    return out;
}

void print_over_runs(const json& j) {
    std::printf("\n%d runs, mean and its 95 %% interval (Student's t)\n", j["runs"].get<int>());
    for (const auto& [name, title, unit] : {std::tuple{"differential", "differential, points", 100.0},
                                            {"skip_share", "skip share, %", 100.0},
                                            {"log_cost", "cost of the gates, ln perplexity", 1.0}})
        if (j.contains(name))
            for (const auto& [key, v] : j[name].items())
                std::printf("  %-34s %-22s %+8.4f [%+.4f, %+.4f]\n", title, key.c_str(), unit * v["mean"].get<double>(),
                            unit * v["95"][0].get<double>(), unit * v["95"][1].get<double>());
}

}  // namespace

void evaluate_steps(step_evaluation o) {
    check(!o.files.empty(), "spectral eval --by step_type", "expected conversations (--data FILE...), found none");
    check(o.side == "all" || o.side == "training" || o.side == "held_out", "--side",
          "expected held_out, training or all, found ", in_quotes(o.side));
    const model_directory model(o.model);
    model.qwen2();
    const auto tok = tokenizer::from_file(model.tokenizer());
    if (!o.length_given) o.data.max_length = std::min(o.data.max_length, model.longest());
    check(o.data.max_length <= model.longest(), "--max-length", "expected at most ", model.longest(),
          " (max_position_embeddings), found ", o.data.max_length);
    const std::vector<of_type> types = read_types(o, tok);

    json all{{"model", o.model}, {"data", o.files}, {"side", o.side}};
    std::vector<std::pair<std::string, route_files>> routes;
    for (const auto& run : o.runs) {
        const auto path = find_checkpoint(run);
        route_files files;
        if (std::filesystem::exists(path / "adapter_config.json")) files.adapter = path.string();
        if (std::filesystem::exists(path / "router_config.json")) files.router = path.string();
        check(!files.adapter.empty() || !files.router.empty(), run,
              "--runs: expected a run with adapters or gates, found neither");
        for (const auto& [name, other] : routes)  // would count as two seeds
            check(!std::filesystem::equivalent(path, other.adapter.empty() ? other.router : other.adapter), run,
                  "--runs: expected each run once, found ", name, " too");
        routes.emplace_back(run, files);
    }
    if (routes.empty()) routes.emplace_back(o.route.router.empty() ? o.route.adapter : o.route.router, o.route);
    for (const auto& [name, files] : routes) {
        const auto r = model.load(o.runner, files);
        json figures = run_figures(o, name, *r, types);
        if (!o.json) print(figures);
        all["runs"].push_back(std::move(figures));
    }
    if (routes.size() > 1) {
        all["over_runs"] = over_runs(all["runs"]);
        if (!o.json) print_over_runs(all["over_runs"]);
    }
    if (o.json) std::cout << all.dump(2) << '\n';
}

}  // namespace spectral::cli
