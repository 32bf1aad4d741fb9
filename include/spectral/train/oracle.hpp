// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/oracle.hpp: which blocks can be missed: the loss with each block left out in turn
//
// The targets of a supervised gate (models/gate_objective.hpp): for a step type, the blocks whose absence costs least.
#pragma once
#include <spectral/train/evaluate.hpp>

#include <cmath>
#include <numeric>

namespace spectral {

// Mean loss without block l minus that with every block, by block. Costs one pass over the set per block, and one more.
inline std::vector<double> leave_one_out(runner& r, const evaluation_set& set) {
    layer_route_controls* blocks = r.layer_route();
    check(blocks != nullptr, "leave_one_out", "expected a Qwen2 model, found ", r.facts().model_type);
    std::vector<char> open(static_cast<std::size_t>(blocks->config().backbone.num_hidden_layers), 1);
    const auto loss = [&] {
        blocks->force_open(open);
        return evaluate(r, set).loss();
    };
    const double whole = loss();
    std::vector<double> increase;
    for (char& block : open) {
        block = 0;
        increase.push_back(loss() - whole);
        block = 1;
    }
    blocks->force_open({});
    return increase;
}

// Wanted openness of each block: 0 for the `share` of blocks that cost least, else 1.
inline std::vector<double> oracle_openness(const std::vector<double>& increase, double share) {
    check(share >= 0 && share <= 1, "oracle_openness", "share of closed blocks: expected 0 to 1, found ", share);
    std::vector<std::size_t> order(increase.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return increase[a] < increase[b]; });
    std::vector<double> openness(increase.size(), 1.0);
    const auto closed = static_cast<std::size_t>(std::lround(share * static_cast<double>(increase.size())));
    for (std::size_t i = 0; i < closed; ++i) openness[order[i]] = 0;
    return openness;
}

}  // namespace spectral
