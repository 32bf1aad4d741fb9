// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/route_trace.hpp: what routers decided in one pass, on the host; and the same decisions replayed
//
// Rounding alone flips a few routes, so comparisons of whole models between executors or scalars replay one side's
// routes on the other. Recording copies to the host: leave the trace out of passes that should not wait.
#pragma once
#include <spectral/core/view.hpp>

#include <map>
#include <vector>

namespace spectral {

struct layer_routes {
    std::vector<row_index> op;      // (N) operator of each row
    std::vector<double> entropy;    // (N)
    std::vector<double> gates;      // (N, K)
    index operators = 0;
};

struct route_trace {
    enum class mode { count, record, replay } how = mode::record;
    std::map<index, layer_routes> layers;       // by layer number
    std::vector<double> meta_gate;              // the MetaRouter's gate: one value, one per sequence or one per row

    // what ran, summed over passes until clear_counts(): cheap enough for every training step
    struct layer_count {
        std::vector<double> rows;               // rows given to each operator
        double entropy_sum = 0, total_rows = 0;
        double attention_rows = 0, attention_pairs = 0, key_rows = 0;   // executed by attention: queries, (query, key) pairs, keys
    };
    std::map<index, layer_count> counts;
    double gate_sum = 0, gate_count = 0;
    void clear_counts() {
        counts.clear();
        gate_sum = gate_count = 0;
    }
};

}  // namespace spectral
