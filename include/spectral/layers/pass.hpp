// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/pass.hpp: what every layer shares during one forward (and backward) pass
#pragma once
#include <spectral/core/parameters.hpp>
#include <spectral/core/random.hpp>
#include <spectral/layers/decode_step.hpp>
#include <spectral/layers/route_trace.hpp>
#include <spectral/ops/kv_cache.hpp>

#include <chrono>
#include <memory>

namespace spectral {

// training keeps what backward needs and runs what its gradients need
enum class phase { training, evaluation };

// What decoding carries from one call to the next, for the sequences of one batch. A model makes it.
template <executor Exec, class T>
struct decode_state {
    // Memory of one layer's keys and values. A sequence's rows lie at its begin, where it has room.
    struct layer_cache {
        tensor<Exec, T, 2> k, v;
        tensor<Exec, row_index> begin, end, position;
        index capacity = 0;
        std::vector<char> room = {};  // by sequence: whether it has; empty: all have

        kv_cache<T> view() const { return {k.view(), v.view(), begin.view(), end.view(), position.view(), capacity}; }
    };
    std::vector<layer_cache> layers;  // of attention, by layer number; empty where a layer keeps nothing
    std::vector<layer_cache> features;  // of RBF mixers: a layer may have both
    index capacity = 0;  // rows that each sequence has room for
    tensor<Exec, statistic<T>> frozen_gate;  // MetaRouter with batch or sequence pooling: fixed at prefill
    tensor<Exec, statistic<T>, 2> pool_history;  // MetaRouter with causal pooling: (S, C) sums
    std::vector<index> length;  // rows seen so far of each sequence
    std::vector<std::vector<char>> open;  // skip gates, by layer and sequence: decided at prefill, then frozen
    std::unique_ptr<step_memory<Exec, T>> memory_of_steps;  // made by the first
    // steps of one token, by what their work depends on besides memory: which sequences, which blocks are open
    std::map<std::vector<char>, decode_step<Exec, T>> steps;
    std::uint64_t steps_taken = 0;

    bool prefilled() const {
        for (index n : length)
            if (n) return true;
        return false;
    }
    void freeze(Exec& ex, const std::vector<statistic<T>>& gate) {
        const auto count = static_cast<index>(gate.size());
        if (frozen_gate.size() != count) frozen_gate = tensor<Exec, statistic<T>>(ex, {count});
        frozen_gate.assign(gate);
    }
    // The step of this key, made if there is none; of `most` the one that was used longest ago makes room.
    decode_step<Exec, T>& step(Exec& ex, std::vector<char> key, std::span<const index> lengths, index vocabulary) {
        constexpr std::size_t most = 64;
        if (!memory_of_steps)
            memory_of_steps =
                std::make_unique<step_memory<Exec, T>>(ex, static_cast<index>(lengths.size()), capacity, vocabulary);
        auto found = steps.find(key);
        if (found == steps.end() && steps.size() >= most)
            steps.erase(std::min_element(steps.begin(), steps.end(),
                                         [](auto& a, auto& b) { return a.second.used < b.second.used; }));
        if (found == steps.end()) found = steps.try_emplace(std::move(key), *memory_of_steps, lengths).first;
        found->second.used = ++steps_taken;
        return found->second;
    }
    // The next prompts take the place of these: memory and recorded steps are kept.
    void restart(Exec& ex) {
        std::fill(length.begin(), length.end(), 0);
        for (auto& marks : open) marks.clear();
        for (auto* caches : {&layers, &features})
            for (auto& c : *caches)
                if (c.capacity) c.end.assign(to_host(ex, c.begin.view()));
        if (pool_history.size())
            ex.fill_bytes(pool_history.data(), 0,
                          static_cast<std::size_t>(pool_history.size()) * sizeof(*pool_history.data()));
    }
    // Room for `rows` rows of `width` keys and values in each of `sequences`.
    void make_cache(Exec& ex, index layer, index sequences, index rows, index width,
                    std::vector<layer_cache> decode_state::*which = &decode_state::layers) {
        auto& caches = this->*which;
        if (static_cast<index>(caches.size()) <= layer) caches.resize(static_cast<std::size_t>(layer + 1));
        capacity = rows;
        std::vector<row_index> first(static_cast<std::size_t>(sequences));
        for (index s = 0; s < sequences; ++s) first[static_cast<std::size_t>(s)] = static_cast<row_index>(s * rows);
        layer_cache& c = caches[static_cast<std::size_t>(layer)];
        c.k = tensor<Exec, T, 2>(ex, {sequences * rows, width});
        c.v = tensor<Exec, T, 2>(ex, {sequences * rows, width});
        c.begin = tensor<Exec, row_index>(ex, {sequences}, first);
        c.end = tensor<Exec, row_index>(ex, {sequences}, first);
        c.position = tensor<Exec, row_index>(ex, {sequences * rows});
        c.capacity = rows;
    }
    // Room for these sequences alone, at prefill. What was there is used again; where it does not suffice, steps that
    // were recorded with the old memory are dropped.
    void make_room(Exec& ex, index layer, const std::vector<char>& wanted, index width) {
        layer_cache& c = layers[static_cast<std::size_t>(layer)];
        const auto sequences = static_cast<index>(wanted.size());
        std::vector<row_index> first;
        index rows = 0;
        for (char w : wanted) first.push_back(static_cast<row_index>(w ? rows : 0)), rows += w ? capacity : 0;
        if (rows == 0 || (c.capacity && c.room == wanted)) return;
        if (c.k.size() < rows * width) {
            steps.clear();
            c = {};
            layer_cache made;  // all of it or nothing: memory may run out on the way
            made.k = tensor<Exec, T, 2>(ex, {rows, width});
            made.v = tensor<Exec, T, 2>(ex, {rows, width});
            made.position = tensor<Exec, row_index>(ex, {rows});
            made.begin = tensor<Exec, row_index>(ex, {sequences});
            made.end = tensor<Exec, row_index>(ex, {sequences});
            c = std::move(made);
        }
        c.begin.assign(first);
        c.end.assign(first);
        c.capacity = capacity;
        c.room = wanted;
    }
};

// One forward pass and, in training, its backward pass: layers take their executor, scratch memory and options from
// it.
template <executor Exec, class T>
struct pass {
    Exec& ex;
    row_map rows;  // of the activations: packed sequences
    spectral::phase phase = phase::evaluation;
    bool recompute = false;  // training keeps the layers' inputs alone; backward runs each layer again
    bool again = false;  // that second run: what a forward pass advances has been advanced
    double loss_weight = 1;  // share of this micro-batch in the step's loss: scales auxiliary losses
    std::uint64_t seed = 0, step = 0;  // of dropout: (seed, step) name the masks
    double auxiliary_loss = 0;  // regularisers add their value here
    route_trace* trace = nullptr;  // records routes, or replays recorded ones
    decode_state<Exec, T>* decode = nullptr;  // key/value caches of a generation
    std::array<weight_view<T>, 3> next_weights{};  // what is read after the operator at hand, if a block says so
    bool step_of_decoding = false;  // one token a sequence, in a decode_step
    std::span<const index> lengths{};  // rows of each sequence, where the host knows them
    std::span<const index> prompt_lengths{};  // rows of each sequence that skip gates may read; empty: all
    std::span<const std::string> step_types{};  // of each sequence, for the gates' objective; may be empty

    bool training() const { return phase == phase::training; }
    // a step of decoding that an executor may record: nothing may wait for the host
    bool repeats() const { return recording_executor<Exec> && step_of_decoding; }
    // the random numbers of one dropout site
    random_stream draw(index layer, index site) const {
        return {seed, substream(substream(stream_of("dropout", step + 1), static_cast<std::uint64_t>(layer)),
                                static_cast<std::uint64_t>(site))};
    }
    // rows of each sequence; asks the executor if the host does not know
    std::vector<index> lengths_of_sequences() const {
        if (!lengths.empty()) return {lengths.begin(), lengths.end()};
        const auto first = to_host(ex, rows.begin), last = to_host(ex, rows.end);
        std::vector<index> out(first.size());
        for (std::size_t s = 0; s < out.size(); ++s) out[s] = last[s] - first[s];
        return out;
    }
    arena<Exec>& memory() const { return ex.memory(); }
    matrix_view<T> matrix(index n, index c) const { return ex.memory().template matrix<T>(n, c); }
    // (n) numbers that are kept in float where T is bfloat16: means, gates, losses
    vector_view<statistic<T>> statistics(index n) const { return ex.memory().template vector<statistic<T>>(n); }
    matrix_view<statistic<T>> statistics(index n, index c) const {
        return ex.memory().template matrix<statistic<T>>(n, c);
    }
    vector_view<row_index> row_indices(index n) const { return ex.memory().template vector<row_index>(n); }
    // where backward writes a parameter's gradient: scratch memory if the parameter is frozen
    matrix_view<statistic<T>> gradient_of(const parameter<T>& w) const {
        return w.grad.data ? w.grad : statistics(w.value.rows(), w.value.width());
    }
    vector_view<statistic<T>> gradient_vector_of(const parameter<T>& w) const {
        return w.grad.data ? w.grad_vector() : statistics(w.size());
    }
    // m = 0; m is contiguous
    void clear(matrix_view<T> m) const { ex.fill_bytes(m.data, 0, static_cast<std::size_t>(m.size()) * sizeof(T)); }
    matrix_view<T> zeros(index n, index c) const { return ex.memory().template zeros<T, 2>({n, c}); }
};

// Until its scope ends, time counts for this operator (a pass with a timed trace). One inside another takes over
// meanwhile.
template <executor Exec, class T>
class operator_clock {
public:
    operator_clock(const pass<Exec, T>& p, const char* name) {
        if (!p.trace || !p.trace->timed) return;
        ex_ = &p.ex;
        trace_ = p.trace;
        name_ = name;
        outer_ = static_cast<operator_clock*>(trace_->running);
        began_ = now();
        if (outer_) outer_->stop(began_);
        trace_->running = this;
    }
    ~operator_clock() {
        if (!trace_) return;
        const double end = now();
        stop(end);
        if (outer_) outer_->began_ = end;
        trace_->running = outer_;
    }
    operator_clock(const operator_clock&) = delete;
    operator_clock& operator=(const operator_clock&) = delete;

private:
    double now() const {  // after the work that was queued
        if constexpr (requires { ex_->synchronize(); }) ex_->synchronize();
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    }
    void stop(double at) { trace_->seconds[name_] += at - began_; }

    Exec* ex_ = nullptr;
    route_trace* trace_ = nullptr;
    const char* name_ = "";
    operator_clock* outer_ = nullptr;
    double began_ = 0;
};

}  // namespace spectral
