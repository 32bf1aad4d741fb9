// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/evaluate.hpp: loss over an evaluation set, and what its passes did, for people and for reports
#pragma once
#include <spectral/io/json.hpp>
#include <spectral/models/batch.hpp>
#include <spectral/train/runner.hpp>

#include <chrono>

namespace spectral {

// Named batches that are read once each.
struct evaluation_set {
    std::string name = "valid";
    index batches = 0;
    std::function<batch(index)> batch_at;
};

// The skip gates of several passes: mean share of closed gates, and mean probability, over all sequences and by step
// type.
class gate_summary {
public:
    void add(const gate_values& g, std::span<const std::string> step_types) {
        for (index s = 0; s < g.sequences; ++s)
            for (index l = 0; l < g.layers; ++l) {
                const double soft = g.soft[g.at(l, s)], closed = 1 - g.hard[g.at(l, s)];
                all_.add(soft, closed);
                if (!step_types.empty()) types_[step_types[static_cast<std::size_t>(s)]].add(soft, closed);
            }
    }
    bool empty() const { return all_.count == 0; }
    void write(nlohmann::ordered_json& line) const {
        if (empty()) return;
        line["skip_share"]["all"] = all_.closed / all_.count;
        for (const auto& [type, sum] : types_)
            if (!type.empty()) line["skip_share"][type] = sum.closed / sum.count;
        line["gate_probability"] = all_.soft / all_.count;
    }

private:
    struct sums {
        double soft = 0, closed = 0, count = 0;
        void add(double s, double c) { soft += s, closed += c, ++count; }
    };
    sums all_;
    std::map<std::string, sums> types_;
};

// Mean loss over an evaluation set, what ran for it, and what would have run with every operator on every token.
struct evaluation {
    double nats = 0;
    index targets = 0, correct = 0;
    bool classes = false;
    gate_summary gates;
    route_trace trace{route_trace::mode::count};
    mac_counts executed, dense;
    index tokens = 0, windows = 0, longest = 0;
    double seconds = 0;
    index first_tokens = 0;  // of the first batch: in a fresh process it makes memory, loads kernels, chooses products
    double first_seconds = 0;
    // of the batches after the first, if there are any
    double tokens_per_second() const {
        return tokens > first_tokens ? static_cast<double>(tokens - first_tokens) / (seconds - first_seconds)
                                     : static_cast<double>(tokens) / seconds;
    }
    double loss() const { return targets ? nats / static_cast<double>(targets) : 0; }
    double accuracy() const { return targets ? static_cast<double>(correct) / static_cast<double>(targets) : 0; }
};
// Losses, accuracies and executed work over a set.
inline evaluation evaluate(runner& r, const evaluation_set& set) {
    evaluation out;
    const auto began = std::chrono::steady_clock::now();
    const auto since = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count(); };
    index head_rows = 0;
    out.trace.timed = true;
    r.set_trace(&out.trace);
    for (index i = 0; i < set.batches; ++i) {
        const batch b = set.batch_at(i);
        const index head = b.labels.empty() ? b.rows() : 0;
        head_rows += head;
        out.dense += r.dense_macs(b.lengths, head);
        out.tokens += b.rows();
        out.windows += b.sequences();
        for (index n : b.lengths) out.longest = std::max(out.longest, n);
        const batch_result result = r.evaluate(b);
        out.nats += result.nats;
        out.targets += result.targets;
        out.correct += result.correct;
        out.classes = out.classes || !b.labels.empty();
        if (auto* skips = r.layer_route()) out.gates.add(skips->gates(), b.step_types);
        if (i == 0) out.first_tokens = out.tokens, out.first_seconds = since();
    }
    r.set_trace(nullptr);
    out.executed = r.executed_macs(out.trace, head_rows);
    out.seconds = since();
    return out;
}

// What a trace counted, for people: share of tokens to the last operator and mean entropy by layer, the MetaRouter's
// gate.
inline void add_routing(nlohmann::ordered_json& line, const route_trace& trace) {
    for (const auto& [layer, count] : trace.counts) {
        double rows = 0;
        for (double v : count.routed) rows += v;
        if (rows > 0) line["attention_share"][std::to_string(layer)] = count.routed.back() / rows;
        if (count.entropy_rows > 0) line["entropy"][std::to_string(layer)] = count.entropy_sum / count.entropy_rows;
    }
    if (trace.gate_count > 0) line["meta_gate"] = trace.gate_sum / trace.gate_count;
}

// The same in two words, for the progress line: the mean over routed layers, or over skip gates.
inline std::string routing_note(const nlohmann::ordered_json& line) {
    char text[40] = "";
    if (line.contains("attention_share")) {
        double sum = 0;
        for (const auto& share : line["attention_share"]) sum += share.get<double>();
        std::snprintf(text, sizeof text, "routed %.0f%%",
                      100 * sum / static_cast<double>(line["attention_share"].size()));
    } else if (line.contains("skip_share")) {
        std::snprintf(text, sizeof text, "skipped %.0f%%", 100 * line["skip_share"]["all"].get<double>());
    }
    return text;
}

// What routes a model by entropy: what a histogram of entropies is to be held against.
inline nlohmann::ordered_json entropy_router(const chiar_config& c) {
    nlohmann::ordered_json json{{"features", c.d_model},
                                {"dct_norm", c.dct_norm == dct_norm::ortho ? "ortho" : "reference"}};
    if (c.routing_mode == routing_mode::threshold || c.routing_mode == routing_mode::permuted)
        for (index l = 1; l + 1 < c.n_layers; ++l) json["thresholds"][std::to_string(l)] = c.thresholds(l);
    return json;
}

// Work, time and routing of an evaluation. Histograms leave out empty bins on both sides:
//   "entropy_histogram": {"1": {"from": 0.84, "width": 0.001, "count": [3, 17, ...]}}
inline void add_work(nlohmann::ordered_json& line, const evaluation& e, const chiar_config* chiar) {
    line["tokens_per_second"] = e.tokens_per_second();
    line["seconds"] = e.seconds;
    line["first_batch_seconds"] = e.first_seconds;
    for (const auto& [name, seconds] : e.trace.seconds) line["operator_seconds"][name] = seconds;
    line["executed_flops"] = e.executed.flops();
    line["dense_flops"] = e.dense.flops();
    for (const auto& [name, field] : mac_counts::fields())
        if (e.executed.*field > 0 || e.dense.*field > 0)
            line["flops"][std::string(name)] = {{"executed", 2 * e.executed.*field}, {"dense", 2 * e.dense.*field}};
    line["attention_only_flops"] = {{"executed", 2 * e.executed.attention()}, {"dense", 2 * e.dense.attention()}};
    add_routing(line, e.trace);
    for (const auto& [layer, count] : e.trace.counts) {
        if (count.entropy_rows == 0) continue;
        const auto& bins = count.entropies.count;
        const auto filled = [](double n) { return n > 0; };
        const auto first = std::find_if(bins.begin(), bins.end(), filled);
        if (first == bins.end()) continue;  // no entropy was finite
        const auto last = std::find_if(bins.rbegin(), bins.rend(), filled).base();
        constexpr double width = 1.0 / entropy_histogram::bins;
        line["entropy_histogram"][std::to_string(layer)] = {{"from", static_cast<double>(first - bins.begin()) * width},
                                                            {"width", width},
                                                            {"count", std::vector<double>(first, last)}};
    }
    if (chiar && line.contains("entropy_histogram")) line["entropy_router"] = entropy_router(*chiar);
    e.gates.write(line);
}

}  // namespace spectral
