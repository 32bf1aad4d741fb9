// SPDX-License-Identifier: Apache-2.0
// tests/support/report_runs.hpp: made-up runs and evaluations that have numbers for every figure of a report
#pragma once
#include <spectral/io/json.hpp>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

namespace spectral::test {

using report_json = nlohmann::ordered_json;

inline std::string metrics_of(int seed, bool routed, int layers = 2, int steps = 300) {
    std::string out;
    for (int step = 1; step <= steps; step += step == 1 ? 9 : 10) {
        const double loss = 9 * std::exp(-0.01 * step) + 4 + 0.05 * std::sin(step + seed);
        report_json line{{"step", step},
                         {"loss", loss},
                         {"perplexity", std::exp(loss)},
                         {"learning_rate", 1e-3 * step / steps},
                         {"gradient_norm", 0.5 + 0.3 * std::cos(step * 0.3 + seed)},
                         {"tokens", 8192.0 * step},
                         {"tokens_per_second", 9000 + 30 * seed},
                         {"executed_flops", 2.5e11},
                         {"dense_flops", 2.7e11}};
        if (routed) {
            for (int l = 1; l <= layers; ++l)
                line["attention_share"][std::to_string(l)] = 0.7 + 0.01 * l + 0.05 * std::sin(step * 0.1 + l);
            line["meta_gate"] = 0.88 - 0.0003 * step;
        }
        out += line.dump() + "\n";
        if (step % 50) continue;
        line = {{"step", step},
                {"set", "valid"},
                {"loss", loss - 0.3},
                {"perplexity", std::exp(loss - 0.3)},
                {"targets", 1000}};
        out += line.dump() + "\n";
    }
    return out + "{\"step\":999,\"torn";  // as a kill leaves it
}

inline report_json evaluation_of(bool routed, int layers = 2) {
    report_json e{
        {"perplexity", routed ? 53.0 : 49.4},
        {"loss", 3.97},
        {"bits_per_byte", 1.43},
        {"tokens_per_second", 33000.0},
        {"seconds", 8.5},
        {"operator_seconds", {{"attention", 2.5}, {"dct", 0.2}, {"feed_forward", 2.9}, {"head", 2.1}, {"router", 0.3}}},
        {"executed_flops", routed ? 2.87e12 : 3.1e12},
        {"dense_flops", 3.1e12},
        {"flops",
         {{"attention_query", {{"executed", 0.9e11}, {"dense", 1.5e11}}},
          {"feed_forward", {{"executed", 1.18e12}, {"dense", 1.18e12}}},
          {"dct", {{"executed", 9e9}, {"dense", 0.0}}},
          {"head", {{"executed", 1.18e12}, {"dense", 1.18e12}}}}},
        {"attention_only_flops", {{"executed", 4.9e11}, {"dense", 7.4e11}}}};
    if (!routed) return {{"model", "m"}, {"language", e}};
    for (int l = 1; l <= layers; ++l) {
        std::vector<double> count;
        for (int i = 0; i < 90; ++i)
            count.push_back(std::floor(1000 * std::exp(-0.5 * std::pow((i - 44 - 3 * l) / 10.0, 2))));
        e["entropy_histogram"][std::to_string(l)] = {{"from", 0.82}, {"width", 1.0 / 1024}, {"count", count}};
        e["entropy_router"]["thresholds"][std::to_string(l)] = {0.86};
    }
    e["entropy_router"]["features"] = 256;
    e["entropy_router"]["dct_norm"] = "ortho";
    return {{"model", "m"}, {"language", e}};
}

inline report_json route_of(int layers = 2) {
    const std::vector<std::string> tokens{"The",   " river", " <ran>", " &",      " \"north\"", ".\n",   "\tNaïve",
                                          " 東京", " then",  " it",    " turned", " west",      " a\x01"};
    report_json r{{"ids", std::vector<int>(tokens.size(), 1)}, {"tokens", tokens}, {"operators", {"dct", "attention"}}};
    for (int l = 1; l <= layers; ++l) {
        std::vector<int> op;
        std::vector<double> entropy;
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            entropy.push_back(0.86 + 0.01 * std::sin(static_cast<double>(i) + l));
            op.push_back(entropy.back() > 0.86);
        }
        r["layers"][std::to_string(l)] = {{"attention_share", 0.5}, {"op", op}, {"entropy", entropy}};
        r["entropy_router"]["thresholds"][std::to_string(l)] = {0.86};
    }
    return r;
}

inline report_json steps_of(int blocks, int seeds) {
    report_json all{{"model", "m"}};
    for (int s = 0; s < seeds; ++s) {
        report_json run{
            {"run", "runs/budget." + std::to_string(s)},
            {"perplexity", {{"backbone", 5.0}, {"adapters", 4.2}, {"gates", 5.3}, {"routed", 4.4}}},
            {"differential", 0.2 + 0.05 * s},
            {"differential_95", {0.1 + 0.05 * s, 0.3 + 0.05 * s}},
            {"correlation",
             {{"length", -0.4}, {"tool_call", 0.6}, {"tool_call_given_length", 0.3}, {"length_of_tool_call", -0.5}}}};
        for (const std::string type : {"planning", "tool_call"}) {
            const double share = type == "planning" ? 0.1 : 0.35;
            report_json t{{"samples", 30},
                          {"prompt_tokens", 120.0},
                          {"perplexity",
                           {{"backbone", 5.0 + share},
                            {"adapters", 4.2 + share},
                            {"gates", 5.3 + share},
                            {"routed", 4.3 + share + 0.02 * s}}},
                          {"seconds", {{"backbone", 1.0}, {"adapters", 1.1}, {"gates", 0.8}, {"routed", 0.9}}},
                          {"skip_share", share},
                          {"skip_share_95", {share - 0.02, share + 0.02}},
                          {"executed_flops", 9e9},
                          {"dense_flops", 1e10}};
            for (int b = 0; b < blocks; ++b)
                t["gates"].push_back({{"block", b},
                                      {"skip_share", share},
                                      {"mean", 1 - share},
                                      {"variance", 0.01},
                                      {"histogram", {0, 0, 2, 5, 8, 3, 6, 4, 2, 0}}});
            for (int i = 0; i < 30; ++i) {
                t["by_sample"]["prompt_tokens"].push_back(40 + 9 * i);
                t["by_sample"]["skip_share"].push_back(share + 0.002 * i);
            }
            run["types"][type] = t;
        }
        all["runs"].push_back(run);
    }
    return all;
}

// Files in a directory, and what report is called with.
inline std::vector<std::string> write_report_runs(const std::filesystem::path& dir, bool deep = false) {
    const int layers = deep ? 26 : 2;
    const auto put = [&](const char* name, const std::string& text) { write_file_atomically(dir / name, text); };
    put("baseline.jsonl", metrics_of(1, false));
    put("baseline.eval.json", evaluation_of(false).dump());
    put("threshold.jsonl", metrics_of(2, true, layers));
    put("threshold.eval.json", evaluation_of(true, layers).dump());
    put("threshold.route.json", route_of(layers).dump());
    put("random, with <a> long & odd name.jsonl", metrics_of(3, true, layers));
    put("budget.steps.json", steps_of(deep ? 24 : 6, 3).dump());
    put("mean.held_out.json", steps_of(deep ? 24 : 6, 1).dump());
    std::vector<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(dir)) out.push_back(entry.path().string());
    std::sort(out.begin(), out.end());
    return out;
}

inline const std::vector<std::string> report_figures{"results",
                                                     "loss",
                                                     "perplexity",
                                                     "learning-rate",
                                                     "gradient-norm",
                                                     "tokens-per-second",
                                                     "meta-gate",
                                                     "routed-share",
                                                     "entropy",
                                                     "work",
                                                     "routing-1",
                                                     "differential",
                                                     "skipped-blocks",
                                                     "perplexity-by-mode",
                                                     "skip-against-length",
                                                     "gates-1",
                                                     "gates-2"};

}  // namespace spectral::test
