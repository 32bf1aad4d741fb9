// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/gate_objective.hpp: what fine-tuning asks of the skip gates, as a policy
//
// An objective sees the soft gates s[layer, sequence] of a batch, in [0, 1], with each sequence's step type, returns
// its loss and writes dL/ds. It lives on the host: a batch has a few hundred gates.
#pragma once
#include <spectral/core/view.hpp>

#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace spectral {

// The gates of one batch.
struct gate_values {
    index layers = 0, sequences = 0;
    std::vector<double> soft, hard;  // (layer, sequence)
    std::vector<char> open;  // of the layer in evaluation

    gate_values() = default;
    gate_values(index layers_, index sequences_)
        : layers(layers_),
          sequences(sequences_),
          soft(static_cast<std::size_t>(layers_ * sequences_)),
          hard(soft.size()) {}
    template <class Soft, class Hard>
    void record(index layer, const Soft& s, const Hard& h) {
        for (std::size_t i = 0; i < s.size(); ++i) {
            soft[static_cast<std::size_t>(layer * sequences) + i] = static_cast<double>(s[i]);
            hard[static_cast<std::size_t>(layer * sequences) + i] = static_cast<double>(h[i]);
        }
    }
    std::size_t at(index layer, index sequence) const { return static_cast<std::size_t>(layer * sequences + sequence); }
};

// (gates, step type of each sequence, dL_dsoft to fill) -> loss
using gate_objective_function =
    std::function<double(const gate_values&, std::span<const std::string>, std::vector<double>&)>;

// A function with what it learns.
struct gate_objective {
    gate_objective_function function = {};  // empty: nothing is asked
    std::vector<std::shared_ptr<double>> state = {};  // what it learns (multipliers): part of a checkpoint

    double operator()(const gate_values& g, std::span<const std::string> step_types,
                      std::vector<double>& dL_dsoft) const {
        dL_dsoft.assign(g.soft.size(), 0.0);
        return function && !g.soft.empty() ? function(g, step_types, dL_dsoft) : 0.0;
    }
};

// λ · mean of s over layers and sequences: the authors'
inline gate_objective mean_gate_objective(double lambda) {
    return {[lambda](const gate_values& g, std::span<const std::string>, std::vector<double>& dL_ds) {
        double sum = 0;
        for (double s : g.soft) sum += s;
        for (double& d : dL_ds) d = lambda / static_cast<double>(g.soft.size());
        return lambda * sum / static_cast<double>(g.soft.size());
    }};
}

// The mean skip of each step type is held to its target: μ₁ (x − t) + μ₂/2 (x − t)², x = mean of 1 − g over blocks and
// sequences, with μ₁ raised by gradient ascent. g is the gate that runs, not its probability: a mean of s can be met
// with every gate open. The gradient passes straight through to s. The type "" stands for every sequence: a budget for
// all.
struct skip_budget {
    std::map<std::string, double> targets;
    double ascent_rate = 0.1, quadratic = 10;

    gate_objective objective() const {
        std::vector<std::shared_ptr<double>> multipliers;
        for (std::size_t i = 0; i < targets.size(); ++i) multipliers.push_back(std::make_shared<double>(0));
        return {[budget = *this, multipliers](const gate_values& g, std::span<const std::string> types,
                                              std::vector<double>& dL_ds) {
                    double loss = 0;
                    auto multiplier = multipliers.begin();
                    for (const auto& [type, target] : budget.targets) {
                        double& mu = **multiplier++;
                        double skip = 0, count = 0;
                        for (index s = 0; s < g.sequences; ++s) {
                            if (!type.empty() && (types.empty() || types[static_cast<std::size_t>(s)] != type))
                                continue;
                            for (index l = 0; l < g.layers; ++l) skip += 1 - g.hard[g.at(l, s)];
                            count += static_cast<double>(g.layers);
                        }
                        if (count == 0) continue;
                        const double off = skip / count - target;
                        loss += mu * off + budget.quadratic / 2 * off * off;
                        for (index s = 0; s < g.sequences; ++s) {
                            if (!type.empty() && (types.empty() || types[static_cast<std::size_t>(s)] != type))
                                continue;
                            for (index l = 0; l < g.layers; ++l)
                                dL_ds[g.at(l, s)] -= (mu + budget.quadratic * off) / count;
                        }
                        mu += budget.ascent_rate * off;
                    }
                    return loss;
                },
                multipliers};
    }
};

// λ · (mean s of `less` − mean s of `more`): asks for a difference between two step types
inline gate_objective differential_objective(double lambda, std::string less, std::string more) {
    return {[=](const gate_values& g, std::span<const std::string> types, std::vector<double>& dL_ds) {
        double loss = 0;
        for (const auto& [type, sign] : {std::pair{less, 1.0}, std::pair{more, -1.0}}) {
            double sum = 0, count = 0;
            for (index s = 0; s < g.sequences && !types.empty(); ++s)
                if (types[static_cast<std::size_t>(s)] == type)
                    for (index l = 0; l < g.layers; ++l, ++count) sum += g.soft[g.at(l, s)];
            if (count == 0) continue;
            loss += sign * lambda * sum / count;
            for (index s = 0; s < g.sequences; ++s)
                if (types[static_cast<std::size_t>(s)] == type)
                    for (index l = 0; l < g.layers; ++l) dL_ds[g.at(l, s)] += sign * lambda / count;
        }
        return loss;
    }};
}

// Binary cross-entropy of each gate against the wanted openness of its step type (and block, if given per block):
// λ · mean −(t ln s + (1 − t) ln(1 − s))
inline gate_objective supervised_objective(double lambda, std::map<std::string, std::vector<double>> openness) {
    return {[=](const gate_values& g, std::span<const std::string> types, std::vector<double>& dL_ds) {
        double loss = 0;
        const double weight = lambda / static_cast<double>(g.soft.size());
        for (index s = 0; s < g.sequences && !types.empty(); ++s) {
            const auto wanted = openness.find(types[static_cast<std::size_t>(s)]);
            if (wanted == openness.end()) continue;
            for (index l = 0; l < g.layers; ++l) {
                const double t =
                    wanted->second.size() == 1 ? wanted->second[0] : wanted->second.at(static_cast<std::size_t>(l));
                const double v = std::min(std::max(g.soft[g.at(l, s)], 1e-7), 1 - 1e-7);
                loss -= weight * (t * std::log(v) + (1 - t) * std::log(1 - v));
                dL_ds[g.at(l, s)] += weight * (v - t) / (v * (1 - v));
            }
        }
        return loss;
    }};
}

// The sum of several.
inline gate_objective sum_of(std::vector<gate_objective> parts) {
    std::vector<std::shared_ptr<double>> state;
    for (const auto& o : parts) state.insert(state.end(), o.state.begin(), o.state.end());
    return {[parts = std::move(parts)](const gate_values& g, std::span<const std::string> types,
                                       std::vector<double>& dL_ds) {
                double loss = 0;
                std::vector<double> part(dL_ds.size());
                for (const auto& o : parts) {
                    loss += o(g, types, part);
                    for (std::size_t i = 0; i < part.size(); ++i) dL_ds[i] += part[i];
                }
                return loss;
            },
            state};
}

}  // namespace spectral
