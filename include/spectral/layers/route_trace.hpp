// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/route_trace.hpp: what routers decided in one pass, on the host; and the same decisions
// replayed
//
// Rounding alone flips a few routes, so comparisons of whole models between executors or scalars replay one side's
// routes on the other. Recording copies to the host: leave the trace out of passes that should not wait.
#pragma once
#include <spectral/core/view.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>
#include <vector>

namespace spectral {

// (query, key) pairs that causal attention looks at in one sequence of this length, itself included
inline double causal_pairs(index time) { return 0.5 * static_cast<double>(time) * static_cast<double>(time + 1); }

// What one layer ran. A dense attention layer of B sequences of T: all_attention(B, T).
struct layer_work {
    index rows = 0;  // of the shared feed-forward
    index attention_rows = 0;  // queries: selected rows, or all in a mode that runs every operator
    index key_rows = 0;  // rows that gave keys and values
    double attention_pairs = 0;  // visible
    index dct_rows = 0, identity_rows = 0;
    index rbf_rows = 0, rbf_key_rows = 0;
    double rbf_pairs = 0;
    index router_rows = 0, gate_outputs = 0;

    static layer_work all_attention(index batch, index time) {
        layer_work w;
        w.rows = w.attention_rows = w.key_rows = batch * time;
        w.attention_pairs = static_cast<double>(batch) * causal_pairs(time);
        return w;
    }
    static layer_work all_dct(index rows) {
        layer_work w;
        w.rows = w.dct_rows = rows;
        return w;
    }
};

// Spectral entropies in equal bins of [0, 1]: their spread is a few thousandths.
struct entropy_histogram {
    static constexpr std::size_t bins = 1024;
    std::array<double, bins> count{};
    void add(double h) {
        if (std::isfinite(h)) count[static_cast<std::size_t>(std::clamp(h, 0.0, 1 - 0.5 / bins) * bins)] += 1;
    }
};

// The routes of one layer in one pass.
struct layer_routes {
    std::vector<row_index> op;  // (N) operator of each row
    std::vector<double> entropy;  // (N)
    std::vector<double> gates;  // (N, K); of a skip gate, in training: (S)
    index operators = 0;
};

// What a model's routers did: counts, the last pass's routes, or routes to be repeated.
struct route_trace {
    enum class mode { count, record, replay } how;
    explicit route_trace(mode m = mode::record) : how(m) {}
    std::map<index, layer_routes> layers;  // by layer number
    std::vector<double> meta_gate;  // the MetaRouter's gate: one value, one per sequence or one per row

    // what ran, summed over passes until clear_counts()
    struct layer_count {
        layer_work work;
        std::vector<double> routed;  // rows sent to each operator
        double entropy_sum = 0, entropy_rows = 0;
        entropy_histogram entropies;
    };
    std::map<index, layer_count> counts;  // by layer number
    double gate_sum = 0, gate_count = 0;
    // where `timed`: seconds of each operator's forward passes (operator_clock in layers/pass.hpp)
    bool timed = false;
    std::map<std::string, double> seconds;
    void* running = nullptr;  // the clock that counts now
    void clear_counts() {
        counts.clear();
        seconds.clear();
        gate_sum = gate_count = 0;
    }
};

}  // namespace spectral
