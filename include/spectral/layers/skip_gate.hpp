// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/skip_gate.hpp: LayerRoute's router: each sequence runs a block or skips it
//   s = σ(w · pool(h) + b);  g = [s > threshold];  h ← g Block(h) + (1 − g) h          (arXiv:2606.01838)
// Training with the straight-through gradient runs every block (the gradient to s needs its output). Evaluation and
// generation decide once per sequence, from its prompt, and run the block on the open sequences only: a closed block
// is not computed and keeps no key/value cache.
// pool = sequence: mean of h over the whole sequence, the answer included (the authors', for parity);
//        prompt: mean of h/rms(h) over the prompt's rows;  last_prompt_token: h/rms(h) of the prompt's last row.
#pragma once
#include <spectral/layers/pass.hpp>
#include <spectral/ops/elementwise.hpp>
#include <spectral/ops/gate.hpp>
#include <spectral/ops/norm.hpp>
#include <spectral/ops/partition.hpp>

namespace spectral {

// Which rows a gate reads: see the head of this file.
enum class gate_pool { sequence, prompt, last_prompt_token };
// what a closed gate leaves out
enum class gate_scope { block, attention, feed_forward };

// router_config.json holds the same names.
struct skip_gate_options {
    gate_pool pool = gate_pool::prompt;
    gate_kind kind = gate_kind::straight_through;
    gate_scope scope = gate_scope::block;
    double threshold = 0.5;
    // leave the first row out of the mean: its activations are huge and near constant
    bool skip_first_position = false;
    bool write_kv = false;  // a closed block still writes keys and values
    double bias = 1;  // at the start
};

// The rows each gate reads: a row map whose ranges are the pooled rows of each of the packed sequences, of `lengths`
// rows. Throws error for a prompt that is longer than its sequence.
template <executor Exec>
row_map gate_rows(Exec& ex, const row_map& map, std::span<const index> lengths, std::span<const index> prompt_lengths,
                  const skip_gate_options& o) {
    if (o.pool == gate_pool::sequence) return map;
    std::vector<row_index> range(2 * lengths.size());
    row_index first = 0;
    for (std::size_t s = 0; s < lengths.size(); first += static_cast<row_index>(lengths[s++])) {
        const index length = prompt_lengths.empty() ? lengths[s] : prompt_lengths[s];
        check(length >= 0 && length <= lengths[s], "gate_rows", "prompt length of sequence ", s, ": expected 0 to ",
              lengths[s], ", found ", length);
        row_index& begin = range[s];
        row_index& end = range[lengths.size() + s];
        end = static_cast<row_index>(first + length);
        begin = o.pool == gate_pool::last_prompt_token ? std::max(first, end - 1)
                : o.skip_first_position && length > 1  ? first + 1
                                                       : first;
    }
    auto memory = ex.memory().template vector<row_index>(static_cast<index>(range.size()));
    ex.copy_from_host(memory.data, range.data(), range.size() * sizeof(row_index));
    const index sequences = map.sequences();
    return {memory.slice(0, sequences), memory.slice(sequences, sequences), map.position, map.sequence};
}

template <executor Exec, class T>
struct skip_gate {
    parameter<T> weight, bias;  // (1, C), (1)
    skip_gate_options options;
    index layer;
    tensor<Exec, T> ones;  // γ of the norm without parameters

    skip_gate(Exec& ex, index width, index layer_, const skip_gate_options& o)
        : weight({1, width}, initializer::zeros()),
          bias({1}, initializer::constant(o.bias)),
          options(o),
          layer(layer_),
          ones(ex, {width}, std::vector<T>(static_cast<std::size_t>(width), T(1))) {}

    struct saved {
        const_matrix<T> x;
        matrix_view<T> hat, pooled, inner;  // (N, C) normalised, (S, C), (N, C) what the block made of x
        vector_view<statistic<T>> rstd, soft, gate;  // (N), (S) σ, (S) value in the blend
        vector_view<double> slope;  // (S) d gate / d σ
    };

    // values (2, S): σ and the gate of every sequence of `pooled_from`. The host is not asked for them.
    void decide(pass<Exec, T>& p, const_matrix<T> x, const row_map& pooled_from, matrix_view<statistic<T>> values,
                saved& s) {
        const index sequences = p.rows.sequences();
        s.x = x;
        const_matrix<T> seen = x;
        if (options.pool != gate_pool::sequence) {
            s.hat = p.matrix(x.rows(), x.width());
            s.rstd = p.statistics(x.rows());
            rms_norm_forward<Exec, T>(p.ex, x, ones.view(), 1e-6, s.hat, s.rstd);
            seen = s.hat;
        }
        s.pooled = p.matrix(sequences, x.width());
        s.soft = vector_view<statistic<T>>(values.row(0), {sequences});
        s.gate = vector_view<statistic<T>>(values.row(1), {sequences});
        s.slope = p.ex.memory().template vector<double>(sequences);
        mean_pool_forward(p.ex, seen, pooled_from, pool_scope::sequence, s.pooled);
        sigmoid_gate_forward(p.ex, s.pooled, weight.matrix(), bias.vector(), s.soft);
        // evaluation takes the hard gate whatever the kind
        const auto kind = p.training() ? options.kind : gate_kind::straight_through;
        hard_gate_forward(p.ex, s.soft, {kind, options.threshold, p.draw(layer, 7)}, s.gate, s.slope);
        if (p.trace && p.training()) record_or_replay(p, *p.trace, s.gate);
    }

    // Training: inner(x, out) on every sequence, blended.
    template <class Inner>
    void blend(pass<Exec, T>& p, Inner&& inner, const_matrix<T> x, matrix_view<T> y, saved& s) {
        s.inner = p.matrix(x.rows(), x.width());
        inner(p, x, s.inner);
        blend_forward(p.ex, s.inner, x, s.gate, p.rows, pool_scope::sequence, y);
    }

    // Evaluation: inner on the open sequences; the others keep x. `closed(part, rows)` sees what is left out
    // (write_kv).
    template <class Inner, class Closed>
    static void run_open(pass<Exec, T>& p, const std::vector<char>& open, Inner&& inner, Closed&& closed,
                         const_matrix<T> x, matrix_view<T> y) {
        const auto count = std::count(open.begin(), open.end(), char(1));
        if (count == static_cast<std::ptrdiff_t>(open.size())) return inner(p, x, y);
        copy<Exec, T>(p.ex, x, y);
        on_sequences(p, open, 1, x, [&](pass<Exec, T>& part, const_matrix<T> packed, const selection& rows) {
            auto out = part.matrix(packed.rows(), packed.width());
            inner(part, packed, out);
            scatter_rows<Exec, T>(p.ex, out, rows, y, write::overwrite);
        });
        on_sequences(p, open, 0, x,
                     [&](pass<Exec, T>& part, const_matrix<T> packed, const selection&) { closed(part, packed); });
    }

    // wanted (S) or empty: dL/dσ, what the objective asks of each gate. Adds to dL_dx, or writes it;
    // inner_backward(dL_dinner, dL_dx) adds.
    template <class InnerBackward>
    void backward(pass<Exec, T>& p, InnerBackward&& inner_backward, const row_map& pooled_from,
                  const_vector<double> wanted, const_matrix<T> dL_dy, matrix_view<T> dL_dx, saved& s,
                  write mode = write::accumulate) {
        arena_scope scratch(p.ex);
        const index n = dL_dy.rows(), sequences = s.soft.size();
        auto dL_dinner = p.matrix(n, dL_dy.width()),
             direct = mode == write::overwrite ? dL_dx : p.matrix(n, dL_dy.width());
        auto dL_dgate = p.statistics(sequences);
        blend_backward(p.ex, dL_dy, s.inner, s.x, s.gate, p.rows, pool_scope::sequence, dL_dinner, direct, dL_dgate);
        if (mode == write::accumulate) add<Exec, T>(p.ex, direct, dL_dx);
        inner_backward(dL_dinner, dL_dx);

        hard_gate_backward(p.ex, dL_dgate, s.slope, wanted, dL_dgate);
        auto dL_dpooled = p.matrix(sequences, dL_dy.width());
        const bool trains = weight.grad.data != nullptr;  // of a frozen gate the input still feels the gate
        sigmoid_gate_backward(p.ex, dL_dgate, s.soft, s.pooled, weight.matrix(), dL_dpooled,
                              trains ? weight.grad : p.statistics(1, dL_dy.width()),
                              trains ? bias.grad_vector() : p.statistics(1));
        if (options.pool == gate_pool::sequence)
            return mean_pool_backward(p.ex, dL_dpooled, pooled_from, pool_scope::sequence, dL_dx);
        auto dL_dhat = p.zeros(n, dL_dy.width());
        mean_pool_backward(p.ex, dL_dpooled, pooled_from, pool_scope::sequence, dL_dhat);
        rms_norm_backward<Exec, T>(p.ex, dL_dhat, s.x, ones.view(), s.rstd, dL_dx, {}, dL_dx);
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        f(prefix + "weight", weight);
        f(prefix + "bias", bias);
    }

private:
    void record_or_replay(pass<Exec, T>& p, route_trace& trace, vector_view<statistic<T>> gate) const {
        if (trace.how == route_trace::mode::record) {
            const auto values = to_host(p.ex, gate);
            trace.layers[layer].gates.assign(values.begin(), values.end());
        }
        if (trace.how != route_trace::mode::replay) return;
        const auto found = trace.layers.find(layer);
        check(found != trace.layers.end(), "route_trace", "no gates recorded for block ", layer);
        const auto& recorded = found->second.gates;
        check_equal(static_cast<index>(recorded.size()), gate.size(), "route_trace", "recorded gates");
        const std::vector<statistic<T>> values(recorded.begin(), recorded.end());
        if (!values.empty()) p.ex.copy_from_host(gate.data, values.data(), values.size() * sizeof values[0]);
    }

    // f on the packed rows of the sequences whose mark is `wanted`
    template <class F>
    static void on_sequences(pass<Exec, T>& p, const std::vector<char>& marks, char wanted, const_matrix<T> x, F&& f) {
        arena_scope scratch(p.ex);
        const auto lengths = p.lengths_of_sequences();
        std::vector<row_index> list;
        std::vector<index> chosen(lengths.size());
        row_index row = 0;
        for (std::size_t s = 0; s < marks.size(); ++s) {
            const bool takes = marks[s] == wanted;
            if (takes) chosen[s] = lengths[s];
            for (index n = 0; n < lengths[s]; ++n, ++row)
                if (takes) list.push_back(row);
        }
        if (list.empty()) return;
        const selection rows = select_list(p.ex, list, x.rows());
        pass<Exec, T> part = p;
        part.rows = select_rows(p.ex, p.rows, rows);
        part.lengths = chosen;
        auto packed = p.matrix(static_cast<index>(list.size()), x.width());
        gather_rows(p.ex, x, rows, packed);
        f(part, packed, rows);
    }
};

}  // namespace spectral
