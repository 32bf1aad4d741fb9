// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/skip_figures.hpp: LayerRoute: what skip gates do by step type (what eval --by step_type
// --json prints)
//
// A source holds several runs, one a seed; gates and samples of all of them are taken together, intervals are over
// seeds.
#pragma once
#include <spectral/report/chart.hpp>
#include <spectral/report/sources.hpp>
#include <spectral/report/statistics.hpp>

#include <limits>
#include <map>

namespace spectral::report {

namespace detail {
// Step types in the order of their first appearance.
inline std::vector<std::string> step_types(const json& steps) {
    std::vector<std::string> out;
    for (const auto& run : steps["runs"])
        for (const auto& [type, figures] : member(run, "types").items())
            if (std::find(out.begin(), out.end(), type) == out.end()) out.push_back(type);
    return out;
}
inline std::vector<double> over_runs(const json& steps, std::initializer_list<const char*> keys) {
    std::vector<double> out;
    for (const auto& run : steps["runs"])
        if (const double v = number_at(run, keys); std::isfinite(v)) out.push_back(v);
    return out;
}
inline std::string seeds(std::size_t n) { return std::to_string(n) + (n == 1 ? " run" : " runs"); }
inline std::string signed_points(double share) {
    char text[40];
    std::snprintf(text, sizeof text, "%+.2f", 100 * share);
    return text;
}
}  // namespace detail

// A small histogram of gate probabilities for every block.
inline figure gate_figure(const run_record& r, std::size_t number) {
    figure f{.id = "gates-" + std::to_string(number),
             .title = "Gate probabilities by block: " + r.name,
             .caption = "Soft gates of all samples of " + detail::seeds(r.steps["runs"].size()) +
                        "; above 0.5 the block runs.",
             .wide = true,
             .layout = "panels small"};
    f.table.columns = {"block", "step type", "samples", "skipped", "mean", "variance"};
    for (int b = 0; b < 10; ++b) f.table.columns.push_back("share from " + short_value(0.1 * b));
    const auto types = detail::step_types(r.steps);
    struct sums {
        std::vector<double> bins = std::vector<double>(10);
        std::vector<double> skipped, mean, variance;
    };
    std::map<std::size_t, std::map<std::string, sums>> blocks;
    for (const auto& run : r.steps["runs"])
        for (const auto& [type, figures] : member(run, "types").items())
            for (const auto& gate : member(figures, "gates")) {
                const double block = number_at(gate, {"block"});
                const auto bins = numbers_of(member(gate, "histogram"));
                if (!(block >= 0 && block < 10000) || bins.size() != 10) continue;
                sums& s = blocks[static_cast<std::size_t>(block)][type];
                for (std::size_t i = 0; i < 10; ++i) s.bins[i] += bins[i];
                s.skipped.push_back(number_at(gate, {"skip_share"}));
                s.mean.push_back(number_at(gate, {"mean"}));
                s.variance.push_back(number_at(gate, {"variance"}));
            }
    double most = 0;  // one axis for all blocks
    for (const auto& [block, by_type] : blocks)
        for (const auto& [type, s] : by_type) {
            double all = 0, top = 0;
            for (double n : s.bins) all += n, top = std::max(top, n);
            if (all > 0) most = std::max(most, top / all);
        }
    for (std::size_t t = 0; t < types.size(); ++t)
        f.legend.push_back({"bar " + style_class(static_cast<int>(t)), types[t]});
    for (const auto& [block, by_type] : blocks) {
        chart c(f.id + "-" + std::to_string(block), "Gates of block " + std::to_string(block) + ", " + r.name,
                {.label = "", .low = 0, .high = 1},
                {.label = "", .percent = true, .low = 0, .high = most > 0 ? most : 1});
        c.size(190, 118);
        std::string words;
        for (std::size_t t = 0; t < types.size(); ++t) {
            const auto found = by_type.find(types[t]);
            if (found == by_type.end()) continue;
            const sums& s = found->second;
            double all = 0;
            for (double n : s.bins) all += n;
            std::vector<point> bins;
            std::vector<std::string> titles;
            std::vector<cell> row{std::to_string(block), types[t],        all,
                                  mean_of(s.skipped),    mean_of(s.mean), mean_of(s.variance)};
            for (std::size_t i = 0; i < 10; ++i) {
                const double share = all > 0 ? s.bins[i] / all : 0;
                bins.push_back({0.1 * static_cast<double>(i), share});
                titles.push_back(types[t] + ", " + short_value(0.1 * static_cast<double>(i)) + " to " +
                                 short_value(0.1 * static_cast<double>(i + 1)) + ": " + percent(share));
                row.push_back(share);
            }
            f.table.add(std::move(row));
            words += types[t] + ": skipped " + percent(mean_of(s.skipped)) + ", mean gate " +
                     short_value(mean_of(s.mean), 3) + ". ";
            c.bars(std::move(bins), 0.1, static_cast<int>(t), static_cast<int>(t), static_cast<int>(types.size()),
                   std::move(titles));
        }
        f.panels.push_back({"block " + std::to_string(block), c.svg(words)});
    }
    return f;
}

// How often each block was closed, by type of step.
inline figure closed_figure(const std::vector<const run_record*>& records) {
    figure f{.id = "skipped-blocks",
             .title = "Skipped blocks",
             .caption = "Share of samples that leave a block out, mean over seeds: faint none, full colour all."};
    f.table.columns = {"evaluation", "step type", "block", "skipped"};
    heat_map h{
        .id = "skipped-blocks-0", .title = f.title, .column_label = "block", .rows = {}, .columns = {}, .values = {}};
    std::string words;
    for (const auto* r : records)
        for (const auto& type : detail::step_types(r->steps)) {
            std::vector<std::vector<double>> shares;
            for (const auto& run : r->steps["runs"]) {
                const auto& gates = member(member(member(run, "types"), type), "gates");
                for (std::size_t b = 0; b < gates.size(); ++b) {
                    if (shares.size() <= b) shares.resize(b + 1);
                    shares[b].push_back(number_at(gates[b], {"skip_share"}));
                }
            }
            if (shares.empty()) continue;
            std::vector<double> row;
            for (std::size_t b = 0; b < shares.size(); ++b) {
                row.push_back(mean_of(shares[b]));
                f.table.add({r->name, type, static_cast<double>(b), row.back()});
            }
            while (h.columns.size() < row.size()) h.columns.push_back(std::to_string(h.columns.size()));
            words += r->name + ", " + type + ": " + percent(mean_of(row)) + " of blocks. ";
            h.rows.push_back(shortened(records.size() > 1 ? r->name + " " + type : type, 24));
            h.values.push_back(std::move(row));
        }
    if (!h.rows.empty()) f.panels.push_back({"", h.svg(words)});
    return f;
}

// Share of closed blocks against the length of the prompt.
inline figure length_figure(const std::vector<const run_record*>& records) {
    figure f{
        .id = "skip-against-length",
        .title = "Skip share against prompt length",
        .caption = "One mark a sample and run. If gates follow length rather than type, both types lie on one curve.",
        .wide = true};
    f.table.columns = {"evaluation", "run", "step type", "prompt tokens", "skip share"};
    f.summary.columns = {
        "evaluation",           "run", "correlation with length", "with tool_call", "with tool_call given length",
        "length with tool_call"};
    std::vector<std::string> all_types;
    for (std::size_t n = 0; n < records.size(); ++n) {
        const auto& r = *records[n];
        chart c(f.id + "-" + std::to_string(n), "Skip share against prompt length, " + r.name,
                {.label = "prompt tokens, logarithmic", .logarithmic = true},
                {.label = "blocks skipped", .percent = true, .from_zero = true});
        bool any = false;
        for (const auto& type : detail::step_types(r.steps)) {
            if (std::find(all_types.begin(), all_types.end(), type) == all_types.end()) all_types.push_back(type);
            const int style = static_cast<int>(std::find(all_types.begin(), all_types.end(), type) - all_types.begin());
            std::vector<point> points;
            for (const auto& run : r.steps["runs"]) {
                const auto& samples = member(member(member(run, "types"), type), "by_sample");
                const auto length = numbers_of(member(samples, "prompt_tokens")),
                           skip = numbers_of(member(samples, "skip_share"));
                for (std::size_t i = 0; i < std::min(length.size(), skip.size()); ++i) {
                    points.push_back({length[i], skip[i]});
                    f.table.add({r.name, text_at(run, "run"), type, length[i], skip[i]});
                }
            }
            any = any || !points.empty();
            c.dots(std::move(points), style, {}, 2.2);
        }
        for (const auto& run : r.steps["runs"])
            f.summary.add({r.name, text_at(run, "run"), number_at(run, {"correlation", "length"}),
                           number_at(run, {"correlation", "tool_call"}),
                           number_at(run, {"correlation", "tool_call_given_length"}),
                           number_at(run, {"correlation", "length_of_tool_call"})});
        const auto by_length = detail::over_runs(r.steps, {"correlation", "length"}),
                   by_type = detail::over_runs(r.steps, {"correlation", "tool_call_given_length"});
        if (any)
            f.panels.push_back({r.name, c.svg("Correlation of skipping with length " +
                                              short_value(mean_of(by_length), 3) + ", with tool_call given length " +
                                              short_value(mean_of(by_type), 3) + ", means over seeds.")});
    }
    for (std::size_t t = 0; t < all_types.size(); ++t)
        f.legend.push_back({"dot " + style_class(static_cast<int>(t)), all_types[t]});
    return f;
}

// Differences between types of step with their intervals.
inline figure differential_figure(const std::vector<const run_record*>& records) {
    figure f{
        .id = "differential",
        .title = "Differential: tool calls minus planning",
        .caption =
            "Points of skip share that tool calls skip more than planning. Thin: one seed, 95 % bootstrap over samples. Bold: mean of the seeds, 95 % by Student's t."};
    f.table.columns = {"evaluation", "run", "differential", "low", "high"};
    std::vector<chart_row> rows;
    std::string words;
    for (std::size_t n = 0; n < records.size(); ++n) {
        const auto& r = *records[n];
        const auto values = detail::over_runs(r.steps, {"differential"});
        const auto add = [&](const std::string& run, double value, const interval& i, bool strong) {
            if (!std::isfinite(value)) return;
            const std::string text = detail::signed_points(value) + " [" + detail::signed_points(i.low) + ", " +
                                     detail::signed_points(i.high) + "]";
            rows.push_back({strong              ? r.name
                            : values.size() < 2 ? r.name + ", " + run
                                                : run,
                            text,
                            {{chart_row::shape::interval, 100 * i.low, 100 * i.high, 100 * value, static_cast<int>(n),
                              run + ": " + text}},
                            strong});
            f.table.add({r.name, run, value, i.low, i.high});
        };
        if (values.empty()) continue;
        const interval mean = student_interval(values);
        if (values.size() > 1) add("mean of " + detail::seeds(values.size()), mean_of(values), mean, true);
        words += r.name + ": " + detail::signed_points(mean_of(values)) + " points";
        words += values.size() > 1
                     ? ", from " + detail::signed_points(mean.low) + " to " + detail::signed_points(mean.high) + ". "
                     : ". ";
        for (const auto& run : r.steps["runs"]) {
            const auto bounds = numbers_of(member(run, "differential_95"));
            const std::string name = std::filesystem::path(text_at(run, "run")).filename().string();
            if (bounds.size() == 2) add(name, number_at(run, {"differential"}), {bounds[0], bounds[1]}, false);
        }
    }
    if (!rows.empty())
        f.panels.push_back({"", row_chart("differential-0", f.title,
                                          {.label = "points of skip share", .from_zero = true}, rows, words)});
    return f;
}

// Perplexity with and without adapters and gates.
inline figure mode_figure(const std::vector<const run_record*>& records) {
    figure f{.id = "perplexity-by-mode",
             .title = "Perplexity with and without adapters and gates",
             .caption = "Marks: mean over seeds; lines: from the lowest seed to the highest.",
             .wide = true};
    static constexpr const char* modes[] = {"backbone", "adapters", "gates", "routed"};
    static constexpr const char* words[] = {"backbone alone", "with adapters, every block", "with gates alone",
                                            "with adapters and gates"};
    for (int m = 0; m < 4; ++m) f.legend.push_back({"dot " + style_class(m), words[m]});
    f.table.columns = {"evaluation", "run",     "step type",  "mode",
                       "perplexity", "seconds", "skip share", "executed / dense FLOPs"};
    f.summary.columns = {"evaluation", "step type", "mode", "mean perplexity", "lowest", "highest"};
    for (std::size_t n = 0; n < records.size(); ++n) {
        const auto& r = *records[n];
        std::vector<chart_row> rows;
        std::string said;
        for (const auto& type : detail::step_types(r.steps)) {
            chart_row row{.label = type, .value = "", .marks = {}};
            for (int m = 0; m < 4; ++m) {
                const auto values = detail::over_runs(r.steps, {"types", type.c_str(), "perplexity", modes[m]});
                if (values.empty()) continue;
                const auto [low, high] = std::minmax_element(values.begin(), values.end());
                const std::string text = std::string(words[m]) + ": " + short_value(mean_of(values));
                row.marks.push_back({chart_row::shape::interval, *low, *high, mean_of(values), m, text});
                row.value += (row.value.empty() ? "" : " \u2192 ") + short_value(mean_of(values));
                said += type + " " + text + ". ";
                f.summary.add({r.name, type, modes[m], mean_of(values), *low, *high});
            }
            for (const auto& run : r.steps["runs"])
                for (const char* m : modes) {
                    const json& t = member(member(run, "types"), type);
                    // what gates skip without the adapters beneath them is not in the file
                    const bool routed = std::string_view(m) == "routed", unknown = std::string_view(m) == "gates";
                    const auto share = [&](double open, double gated) {
                        return unknown ? std::numeric_limits<double>::quiet_NaN() : routed ? gated : open;
                    };
                    if (std::isfinite(number_at(t, {"perplexity", m})))
                        f.table.add({r.name, text_at(run, "run"), type, m, number_at(t, {"perplexity", m}),
                                     number_at(t, {"seconds", m}), share(0, number_at(t, {"skip_share"})),
                                     share(1, number_at(t, {"executed_flops"}) / number_at(t, {"dense_flops"}))});
                }
            if (!row.marks.empty()) rows.push_back(std::move(row));
        }
        if (!rows.empty())
            f.panels.push_back({r.name, row_chart(f.id + "-" + std::to_string(n), f.title + ", " + r.name,
                                                  {.label = "perplexity"}, rows, said)});
    }
    return f;
}

// The figures of LayerRoute's evaluations.
inline void add_skip_figures(page& p, const std::vector<run_record>& runs) {
    std::vector<const run_record*> records;
    for (const auto& r : runs)
        if (!r.steps.is_null()) records.push_back(&r);
    if (records.empty()) return;
    p.section("LayerRoute by step type",
              "Skip gates decide once for each prompt which blocks run. A block that its gate closes is not computed.");
    p.add(differential_figure(records));
    p.add(closed_figure(records));
    p.add(mode_figure(records));
    p.add(length_figure(records));
    for (std::size_t n = 0; n < records.size(); ++n) p.add(gate_figure(*records[n], n + 1));
}

}  // namespace spectral::report
