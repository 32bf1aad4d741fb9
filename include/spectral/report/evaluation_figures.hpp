// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/evaluation_figures.hpp: figures of one evaluation a run: results, entropies against noise,
// work and time
#pragma once
#include <spectral/report/chart.hpp>
#include <spectral/report/gaussian_null.hpp>
#include <spectral/report/sources.hpp>

#include <map>

namespace spectral::report {

// ---- results

// Losses and perplexities of all runs as one table.
inline figure results_figure(const std::vector<run_record>& runs) {
    figure f{.id = "results",
             .title = "Results",
             .caption = "Of each run's last evaluation. FLOPs: forward passes, feed-forward and head included.",
             .wide = true};
    f.table.columns = {"run",
                       "steps",
                       "training tokens",
                       "loss",
                       "perplexity",
                       "accuracy",
                       "bits per byte",
                       "unigram perplexity",
                       "bigram perplexity",
                       "executed FLOPs",
                       "dense FLOPs",
                       "executed / dense",
                       "attention alone",
                       "tokens/s"};
    std::vector<chart_row> rows;
    axis x{.label = "perplexity"};
    std::string words;
    for (std::size_t n = 0; n < runs.size(); ++n) {
        const auto& r = runs[n];
        const json& e = r.evaluation;
        if (e.is_null()) continue;
        const double ppl = number_at(e, {"perplexity"}), right = number_at(e, {"accuracy"}),
                     executed = number_at(e, {"executed_flops"}), dense = number_at(e, {"dense_flops"});
        const json last = r.training.empty() ? json() : r.training.back();
        f.table.add(
            {r.name, number_at(last, {"step"}), number_at(last, {"tokens"}), number_at(e, {"loss"}), ppl, right,
             number_at(e, {"bits_per_byte"}), number_at(e, {"unigram_perplexity"}), number_at(e, {"bigram_perplexity"}),
             executed, dense, executed / dense,
             number_at(e, {"attention_only_flops", "executed"}) / number_at(e, {"attention_only_flops", "dense"}),
             number_at(e, {"tokens_per_second"})});
        const bool classes = std::isfinite(right);
        if (classes) x = {.label = "right answers", .percent = true};
        const double v = classes ? right : ppl;
        if (!std::isfinite(v)) continue;
        const std::string text = classes ? percent(v) : short_value(v);
        rows.push_back(
            {r.name, text, {{chart_row::shape::interval, v, v, v, static_cast<int>(n), r.name + ": " + text}}});
        words += r.name + " " + text + ". ";
    }
    if (!rows.empty())
        f.panels.push_back({"", row_chart(f.id + "-0", x.percent ? "Accuracy" : "Perplexity", x, rows, words)});
    for (std::size_t c = 0; c < f.table.columns.size(); ++c) {  // columns that nobody has stay in the CSV
        const bool missing = std::all_of(f.table.rows.begin(), f.table.rows.end(), [&](const auto& row) {
            return std::holds_alternative<double>(row[c]) && !std::isfinite(std::get<double>(row[c]));
        });
        if (missing) continue;
        f.shown.columns.push_back(f.table.columns[c]);
        f.shown.rows.resize(f.table.rows.size());
        for (std::size_t r = 0; r < f.table.rows.size(); ++r) f.shown.rows[r].push_back(f.table.rows[r][c]);
    }
    f.open_table = true;
    return f;
}

// ---- entropies

namespace detail {
struct histogram {
    double from = 0, width = 1;
    std::vector<double> count;

    explicit histogram(const json& j)
        : from(number_at(j, {"from"})), width(number_at(j, {"width"})), count(numbers_of(member(j, "count"))) {
        for (double& n : count)
            if (!(n >= 0)) n = 0;
    }
    bool valid() const { return std::isfinite(from) && width > 0 && rows() > 0 && count.size() <= 100000; }
    double rows() const {
        double n = 0;
        for (double c : count) n += c;
        return n;
    }
    double middle(std::size_t i) const { return from + (static_cast<double>(i) + 0.5) * width; }
    double mean() const {
        double sum = 0;
        for (std::size_t i = 0; i < count.size(); ++i) sum += count[i] * middle(i);
        return sum / rows();
    }
    double deviation() const {
        const double m = mean();
        double sum = 0;
        for (std::size_t i = 0; i < count.size(); ++i) sum += count[i] * (middle(i) - m) * (middle(i) - m);
        return std::sqrt(sum / rows());
    }
    // the value below which this share lies
    double quantile(double share) const {
        double below = 0;
        for (std::size_t i = 0; i < count.size(); ++i)
            if ((below += count[i]) >= share * rows()) return middle(i);
        return middle(count.size() - 1);
    }
};
}  // namespace detail

// Histograms of each layer's entropies with the noise's density and the thresholds.
inline figure entropy_figure(const std::vector<run_record>& runs) {
    figure f{
        .id = "entropy",
        .title = "Spectral entropy against noise",
        .caption =
            "Entropies of a layer's tokens. Dashed: entropies of Gaussian noise of the same width. A router learns something from a spectrum "
            "as far as the two differ.",
        .wide = true};
    f.table.columns = {"run", "layer", "entropy from", "tokens", "share of tokens", "share of noise"};
    f.summary.columns = {"run",        "layer",           "tokens",    "mean",     "deviation",
                         "noise mean", "noise deviation", "threshold", "above it", "noise above it"};
    std::map<std::pair<index, bool>, sample_density> null;
    for (std::size_t n = 0; n < runs.size(); ++n) {
        const json &histograms = member(runs[n].evaluation, "entropy_histogram"),
                   &router = member(runs[n].evaluation, "entropy_router");
        const double features = number_at(router, {"features"});
        const bool reference = member(router, "dct_norm") == "reference";
        if (!histograms.is_object() || !(features >= 2 && features <= 1 << 20)) continue;
        const auto key = std::pair(static_cast<index>(features), reference);
        if (!null.contains(key))
            null.emplace(key, gaussian_null(key.first, reference,
                                            std::max<index>(200, std::min<index>(4000, 4000000 / key.first))));
        const sample_density& noise = null.at(key);
        const std::size_t every = (histograms.size() + 11) / 12;  // of a deep stack, twelve layers
        std::size_t number = 0;
        for (const auto& [layer, j] : histograms.items()) {
            const detail::histogram h(j);
            if (!h.valid()) continue;
            std::vector<point> bins, curve;
            std::vector<std::string> titles;
            for (std::size_t i = 0; i < h.count.size(); ++i) {
                const double left = h.from + static_cast<double>(i) * h.width;
                bins.push_back({left, h.count[i] / h.rows()});
                titles.push_back(short_value(left) + " to " + short_value(left + h.width) + ": " +
                                 short_value(h.count[i]) + " tokens, " + percent(h.count[i] / h.rows(), 2));
            }
            const double low = std::min(h.quantile(0.001) - h.width, noise.mean() - 3.6 * noise.deviation()),
                         high = std::max(h.quantile(0.999) + h.width, noise.mean() + 3.6 * noise.deviation());
            for (int i = 0; i <= 120; ++i) {
                const double at = low + (high - low) * i / 120;
                curve.push_back({at, noise(at) * h.width});
            }
            // the histogram's bins, and those beside them into which noise falls
            const long bins_here = static_cast<long>(h.count.size()),
                       first = std::min(0L, static_cast<long>(std::floor((low - h.from) / h.width))),
                       last = std::max(bins_here, static_cast<long>(std::ceil((high - h.from) / h.width)));
            for (long i = first; i < last; ++i) {
                const double left = h.from + static_cast<double>(i) * h.width,
                             count = i >= 0 && i < bins_here ? h.count[static_cast<std::size_t>(i)] : 0;
                f.table.add({runs[n].name, layer, left, count, count / h.rows(), noise(left + h.width / 2) * h.width});
            }
            const auto thresholds = numbers_of(member(member(router, "thresholds"), layer));
            const double threshold = thresholds.empty() ? nothing : thresholds.back();
            double above = 0;
            for (std::size_t i = 0; i < h.count.size(); ++i)
                if (h.middle(i) > threshold) above += h.count[i] / h.rows();
            if (thresholds.empty()) above = nothing;
            const std::string about =
                "Mean " + short_value(h.mean()) + ", deviation " + short_value(h.deviation(), 3) + "; noise " +
                short_value(noise.mean()) + ", " + short_value(noise.deviation(), 3) +
                (thresholds.empty()
                     ? ""
                     : "; above the threshold " + percent(above) + ", of noise " + percent(noise.above(threshold)));
            f.summary.add({runs[n].name, layer, h.rows(), h.mean(), h.deviation(), noise.mean(), noise.deviation(),
                           threshold, percent(above),
                           thresholds.empty() ? percent(nothing) : percent(noise.above(threshold))});
            if (number++ % every) continue;
            if (f.legend.empty())
                f.legend = {{"bar " + style_class(static_cast<int>(n)), "tokens"},
                            {"reference", "Gaussian noise"},
                            {"rule", "threshold: above it, to attention"}};
            chart c("entropy-" + std::to_string(n) + "-" + std::to_string(number),
                    "Entropy of layer " + layer + ", " + runs[n].name,
                    {.label = "spectral entropy", .low = low, .high = high},
                    {.label = "share of tokens in a bin", .percent = true, .from_zero = true});
            c.bars(bins, h.width, static_cast<int>(n), 0, 1, titles).reference(curve);
            for (double t : thresholds) c.vertical(t, short_value(t));
            f.panels.push_back(
                {runs[n].name + ", layer " + layer +
                     (thresholds.empty() ? ""
                                         : ": " + percent(above, 0) + " above " + short_value(threshold) + "; noise " +
                                               percent(noise.above(threshold), 0)),
                 c.svg(about + ".")});
        }
    }
    return f;
}

// ---- work

// Counts and clocks that belong together. Entropies, routes and the DCT's mixing may be one kernel, so one row.
struct work_group {
    const char* name;
    std::vector<const char*> counts, clocks;
};
inline const std::vector<work_group>& work_groups() {
    static const std::vector<work_group> groups{{"attention",
                                                 {"attention_query", "attention_key_value", "attention_output",
                                                  "attention_scores", "attention_values", "adapter"},
                                                 {"attention"}},
                                                {"feed-forward", {"feed_forward"}, {"feed_forward"}},
                                                {"DCT and routers", {"dct", "router"}, {"dct", "router"}},
                                                {"RBF", {"rbf"}, {"rbf"}},
                                                {"identity", {}, {"identity"}},
                                                {"head", {"head"}, {"head"}}};
    return groups;
}

namespace detail {
inline bool in_a_group(std::string_view count) {
    for (const auto& g : work_groups())
        if (std::find(g.counts.begin(), g.counts.end(), count) != g.counts.end()) return true;
    return false;
}
}  // namespace detail

// FLOPs by operator, executed within dense, and the time of the same operators.
inline figure work_figure(const std::vector<run_record>& runs) {
    figure f{
        .id = "work",
        .title = "Work by operator, and its time",
        .caption =
            "One evaluation's forward passes. FLOPs: executed ones (filled), counted by what ran, of those with attention on every token (outline). "
            "Time: measured; other: embeddings, norms, copies, reading results. Adapters count with attention.",
        .wide = true,
        .layout = "panels pairs"};
    // a bar is a group: the sum of its parts
    f.table.columns = {"run", "group", "part", "executed FLOPs", "dense FLOPs", "executed / dense", "seconds"};
    detail::bounds flops, seconds;
    for (const auto& r : runs) {
        flops.add(number_at(r.evaluation, {"executed_flops"})), flops.add(number_at(r.evaluation, {"dense_flops"}));
        seconds.add(number_at(r.evaluation, {"seconds"}));
    }
    for (std::size_t n = 0; n < runs.size(); ++n) {
        const json& e = runs[n].evaluation;
        if (!member(e, "flops").is_object()) continue;
        const int style = static_cast<int>(n);
        if (f.legend.empty()) f.legend = {{"bar " + style_class(style), "executed, measured"}, {"outline s6", "dense"}};
        std::vector<chart_row> work, time;
        std::string words, time_words;
        double timed = 0;
        const auto work_row = [&](const std::string& name, double executed, double dense, bool strong) {
            chart_row row{
                name,
                dense > 0 ? short_value(executed, 3) + " of " + short_value(dense, 3) + ", " + percent(executed / dense)
                          : short_value(executed, 3),
                {},
                strong};
            row.marks.push_back({chart_row::shape::bar, 0, executed, executed, style,
                                 name + " executed: " + short_value(executed) + " FLOPs"});
            if (dense > 0)
                row.marks.push_back(
                    {chart_row::shape::outline, 0, dense, dense, 6, name + " dense: " + short_value(dense) + " FLOPs"});
            words += name + " " + row.value + ". ";
            work.push_back(std::move(row));
        };
        const auto time_row = [&](const std::string& name, double s, bool strong) {
            const double share = s / number_at(e, {"seconds"});
            chart_row row{name,
                          short_value(s, 3) + " s, " + percent(share),
                          {{chart_row::shape::bar, 0, s, s, style, name + ": " + short_value(s) + " s"}},
                          strong};
            time_words += name + " " + row.value + ". ";
            time.push_back(std::move(row));
        };
        for (const auto& g : work_groups()) {
            double executed = 0, dense = 0;
            for (const char* count : g.counts) {
                const double x = number_at(e, {"flops", count, "executed"}),
                             d = number_at(e, {"flops", count, "dense"});
                executed += std::isfinite(x) ? x : 0, dense += std::isfinite(d) ? d : 0;
                if (std::isfinite(x) || std::isfinite(d))
                    f.table.add({runs[n].name, g.name, count, x, d, x / d, nothing});
            }
            double seconds_of = 0;
            for (const char* clock : g.clocks) {
                const double s = number_at(e, {"operator_seconds", clock});
                if (!std::isfinite(s)) continue;
                seconds_of += s;
                f.table.add({runs[n].name, g.name, std::string(clock) + " (time)", nothing, nothing, nothing, s});
            }
            timed += seconds_of;
            if (executed > 0 || dense > 0 || seconds_of > 0)
                f.table.add({runs[n].name, g.name, "sum", executed, dense, executed / dense,
                             seconds_of > 0 ? seconds_of : nothing});
            if (executed > 0 || dense > 0) work_row(g.name, executed, dense, false);
            if (seconds_of > 0) time_row(g.name, seconds_of, false);
        }
        for (const auto& [count, v] : e["flops"].items()) {
            const double executed = number_at(v, {"executed"}), dense = number_at(v, {"dense"});
            if (!detail::in_a_group(count))
                f.table.add({runs[n].name, "in total alone", count, executed, dense, executed / dense, nothing});
        }
        const double all = number_at(e, {"seconds"});
        if (std::isfinite(all)) {
            if (timed > 0) {
                time_row("other", all - timed, false);
                f.table.add({runs[n].name, "other", "sum", nothing, nothing, nothing, all - timed});
            }
            time_row("total", all, true);
        }
        work_row("total", number_at(e, {"executed_flops"}), number_at(e, {"dense_flops"}), true);
        f.table.add({runs[n].name, "total", "sum", number_at(e, {"executed_flops"}), number_at(e, {"dense_flops"}),
                     number_at(e, {"executed_flops"}) / number_at(e, {"dense_flops"}), all});
        const std::string panel = "work-" + std::to_string(n);
        f.panels.push_back({runs[n].name + ": FLOPs",
                            row_chart(panel, "FLOPs by operator, " + runs[n].name,
                                      {.label = "FLOPs", .from_zero = true, .high = flops.high}, work, words)});
        if (!time.empty())
            f.panels.push_back(
                {runs[n].name + ": time",
                 row_chart(panel + "-time", "Time by operator, " + runs[n].name,
                           {.label = "seconds", .from_zero = true, .high = seconds.high}, time, time_words)});
    }
    return f;
}

// What evaluations say: results, and work by operator.
inline void add_evaluation_figures(page& p, const std::vector<run_record>& runs) {
    p.section("Entropies", "");
    p.add(entropy_figure(runs));
    p.section("Work and time", "");
    p.add(work_figure(runs));
}

}  // namespace spectral::report
