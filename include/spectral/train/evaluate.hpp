// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/evaluate.hpp: loss over an evaluation set, and what its passes did, for people
#pragma once
#include <spectral/data/batch.hpp>
#include <spectral/io/json.hpp>
#include <spectral/train/runner.hpp>

namespace spectral {

// Named batches that are read once each.
struct evaluation_set {
    std::string name = "valid";
    index batches = 0;
    std::function<batch(index)> batch_at;
};

// The skip gates of several passes: mean share of closed gates, and mean probability, over all sequences and by step type.
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

// Mean loss over an evaluation set, by task if its batches have several.
struct evaluation {
    double nats = 0;
    index targets = 0, correct = 0;
    bool classes = false;
    gate_summary gates;
    double loss() const { return targets ? nats / static_cast<double>(targets) : 0; }
    double accuracy() const { return targets ? static_cast<double>(correct) / static_cast<double>(targets) : 0; }
};
// Losses, accuracies and executed work over a set.
inline evaluation evaluate(runner& r, const evaluation_set& set) {
    evaluation out;
    for (index i = 0; i < set.batches; ++i) {
        const batch b = set.batch_at(i);
        const batch_result result = r.evaluate(b);
        out.nats += result.nats;
        out.targets += result.targets;
        out.correct += result.correct;
        out.classes = out.classes || !b.labels.empty();
        if (auto* skips = r.layer_route()) out.gates.add(skips->gates(), b.step_types);
    }
    return out;
}

// What a trace counted, for people: share of tokens to the last operator and mean entropy by layer, the MetaRouter's gate.
inline void add_routing(nlohmann::ordered_json& line, const route_trace& trace) {
    for (const auto& [layer, count] : trace.counts) {
        double rows = 0;
        for (double v : count.routed) rows += v;
        if (rows > 0) line["attention_share"][std::to_string(layer)] = count.routed.back() / rows;
        if (count.entropy_rows > 0) line["entropy"][std::to_string(layer)] = count.entropy_sum / count.entropy_rows;
    }
    if (trace.gate_count > 0) line["meta_gate"] = trace.gate_sum / trace.gate_count;
}

}  // namespace spectral
