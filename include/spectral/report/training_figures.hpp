// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/training_figures.hpp: figures of metrics.jsonl: curves of several runs over their steps
#pragma once
#include <spectral/report/chart.hpp>
#include <spectral/report/sources.hpp>

#include <map>

namespace spectral::report {

namespace detail {
inline std::vector<point> over_steps(const std::vector<json>& lines, std::initializer_list<const char*> keys) {
    std::vector<point> out;
    for (const auto& line : lines)
        if (const double v = number_at(line, keys); std::isfinite(v)) out.push_back({number_at(line, {"step"}), v});
    return out;
}
// Evaluations by set, in the order of their first appearance.
inline std::vector<std::pair<std::string, std::vector<json>>> by_set(const run_record& r) {
    std::vector<std::pair<std::string, std::vector<json>>> out;
    for (const auto& line : r.evaluations) {
        const std::string set = text_at(line, "set");
        auto found = std::find_if(out.begin(), out.end(), [&](const auto& s) { return s.first == set; });
        if (found == out.end()) found = out.insert(out.end(), {set, {}});
        found->second.push_back(line);
    }
    return out;
}

// One row a step and one column a curve.
class pivot {
public:
    void add(const std::string& curve, const std::vector<point>& points) {
        names_.push_back(curve);
        for (const auto& p : points) steps_[p.x][names_.size() - 1] = p.y;
    }
    bool empty() const { return names_.empty(); }
    data_table table() const {
        data_table t{{"step"}, {}};
        t.columns.insert(t.columns.end(), names_.begin(), names_.end());
        for (const auto& [step, values] : steps_) {
            std::vector<cell> row(names_.size() + 1, nothing);
            row[0] = step;
            for (const auto& [curve, v] : values) row[curve + 1] = v;
            t.add(std::move(row));
        }
        return t;
    }

private:
    std::vector<std::string> names_;
    std::map<double, std::map<std::size_t, double>> steps_;
};
}  // namespace detail

// How a figure of curves is drawn.
struct curve_options {
    std::string id, title, caption;
    const char* key;
    axis y;
};

// One value over the steps: training as a thin line, evaluations as the main one where there are any.
inline figure curve_figure(const std::vector<run_record>& runs, const curve_options& o) {
    figure f{.id = o.id, .title = o.title, .caption = o.caption};
    axis y = o.y;
    chart c(f.id, f.title, {.label = "step", .from_zero = true}, y);
    detail::pivot training, evaluation;
    f.table.columns = {"run", "set", "step", o.key};
    std::string words;
    for (std::size_t n = 0; n < runs.size(); ++n) {
        const auto& r = runs[n];
        const int style = static_cast<int>(n);  // a run keeps its colour from figure to figure
        const auto trained = detail::over_steps(r.training, {o.key});
        const auto sets = detail::by_set(r);
        std::size_t main = 0;
        for (const auto& [set, lines] : sets) {
            const auto points = detail::over_steps(lines, {o.key});
            if (points.empty()) continue;
            const std::string name = sets.size() > 1 ? r.name + " " + set : r.name;
            std::vector<std::string> titles;
            for (const auto& p : points) {
                titles.push_back(name + ", step " + short_value(p.x) + ": " + short_value(p.y));
                f.table.add({r.name, set, p.x, p.y});
            }
            c.line(points, style + static_cast<int>(main), name)
                .dots(points, style + static_cast<int>(main), std::move(titles));
            evaluation.add(name + " (" + set + ")", points);
            words += name + " ends at " + short_value(points.back().y) + ". ";
            ++main;
        }
        if (!trained.empty()) {
            c.line(trained, style, main ? "" : r.name, main > 0);
            training.add(r.name, trained);
            for (const auto& p : trained) f.table.add({r.name, "train", p.x, p.y});
            if (!main)
                words += r.name + " goes from " + short_value(trained.front().y) + " to " +
                         short_value(trained.back().y) + ". ";
        }
    }
    if (f.table.rows.empty()) return f;
    if (evaluation.empty())
        f.shown = training.table();
    else
        f.summary = evaluation.table();
    f.panels.push_back({"", c.svg(words)});
    return f;
}

// Shares by layer or step type over the steps, one panel a run: lines while they are few, else a heat map.
inline figure share_figure(const std::vector<run_record>& runs, const std::string& id, const std::string& title,
                           const std::string& caption, const char* key, const std::string& prefix,
                           const std::string& axis_label) {
    figure f{.id = id, .title = title, .caption = caption, .wide = true};
    f.table.columns = {"run", "set", "step", prefix.empty() ? "of" : prefix, key};
    for (std::size_t n = 0; n < runs.size(); ++n) {
        const auto& r = runs[n];
        std::vector<std::string> parts;
        const auto& lines = r.training.empty() ? r.evaluations : r.training;
        for (const auto& line : lines)
            for (const auto& [part, value] : member(line, key).items())
                if (value.is_number() && member(line, key).is_object() &&
                    std::find(parts.begin(), parts.end(), part) == parts.end())
                    parts.push_back(part);
        if (parts.empty()) continue;
        const auto name = [&](const std::string& part) { return prefix.empty() ? part : prefix + " " + part; };
        std::string words;
        for (const auto& part : parts)
            for (const auto* from : {&r.training, &r.evaluations})
                for (const auto& p : detail::over_steps(*from, {key, part.c_str()}))
                    f.table.add({r.name, from == &r.training ? "train" : "evaluation", p.x, part, p.y});
        const std::string panel = id + "-" + std::to_string(n);
        if (parts.size() <= 6) {
            chart c(panel, title + ": " + r.name, {.label = "step", .from_zero = true},
                    {.label = axis_label, .percent = true});
            int style = 0;
            for (const auto& part : parts) {
                const auto points = detail::over_steps(lines, {key, part.c_str()});
                words += name(part) + " ends at " + percent(points.back().y) + ". ";
                c.line(points, style++, name(part));
            }
            f.panels.push_back({r.name, c.svg(words)});
        } else {
            heat_map h{.id = panel,
                       .title = title + ": " + r.name,
                       .column_label = "step",
                       .rows = {},
                       .columns = {},
                       .values = {}};
            const std::size_t every = (lines.size() + 59) / 60;
            for (const auto& part : parts) {
                h.rows.push_back(part);
                std::vector<double> values;
                for (std::size_t i = every - 1; i < lines.size(); i += every)
                    values.push_back(number_at(lines[i], {key, part.c_str()}));
                h.values.push_back(std::move(values));
                words += name(part) + " ends at " +
                         percent(h.values.back().empty() ? nothing : h.values.back().back()) + ". ";
            }
            for (std::size_t i = every - 1; i < lines.size(); i += every)
                h.columns.push_back(short_value(number_at(lines[i], {"step"})));
            f.panels.push_back(
                {r.name + ": one row a " + (prefix.empty() ? "part" : prefix) + ", faint 0, full colour 100%",
                 h.svg(words)});
        }
    }
    return f;
}

// Curves of all runs together.
inline void add_training_figures(page& p, const std::vector<run_record>& runs) {
    p.section("Training", "Thin lines: training batches. Lines with marks: evaluation of held-out data.");
    p.add(curve_figure(runs, {"loss", "Loss", "", "loss", {.label = "nats a target"}}));
    p.add(curve_figure(
        runs,
        {"perplexity", "Perplexity", "", "perplexity", {.label = "perplexity, logarithmic", .logarithmic = true}}));
    p.add(curve_figure(runs, {"accuracy", "Accuracy", "", "accuracy", {.label = "right answers", .percent = true}}));
    p.add(curve_figure(
        runs, {"learning-rate", "Learning rate", "", "learning_rate", {.label = "of AdamW", .from_zero = true}}));
    p.add(curve_figure(runs, {"gradient-norm",
                              "Gradient norm",
                              "Before clipping.",
                              "gradient_norm",
                              {.label = "norm, logarithmic", .logarithmic = true}}));
    p.add(curve_figure(runs, {"tokens-per-second",
                              "Tokens a second",
                              "As the machine was at the time, other programs included.",
                              "tokens_per_second",
                              {.label = "tokens/s", .from_zero = true}}));
    p.section("Routing during training", "");
    p.add(curve_figure(
        runs,
        {"meta-gate",
         "MetaRouter gate",
         "The share of the first, DCT-only layer in its blend with the embedding: 0 leaves it out, 1 takes nothing else.",
         "meta_gate",
         {.label = "gate g"}}));
    p.add(share_figure(
        runs, "routed-share", "Routed share by layer",
        "Tokens of training batches that went to attention, the last operator; the others took a cheaper one.",
        "attention_share", "layer", "to attention"));
    p.add(share_figure(runs, "skip-share", "Skipped blocks by step type",
                       "Closed gates of training batches, as a share of blocks.", "skip_share", "", "blocks skipped"));
}

}  // namespace spectral::report
