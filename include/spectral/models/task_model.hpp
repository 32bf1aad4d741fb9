// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/task_model.hpp: a stack of layers with its parameters, its heads and its losses
//
// Language modelling reads the hidden states through the tied token table; a classification task pools them over the
// real tokens of a sequence: mean -> Linear d->d, GELU, dropout -> Linear d->classes. Every task goes through the whole stack.
#pragma once
#include <spectral/data/batch.hpp>
#include <spectral/layers/chain.hpp>
#include <spectral/layers/classifier_head.hpp>
#include <spectral/layers/token_operator.hpp>
#include <spectral/ops/cross_entropy.hpp>

namespace spectral {

// What a pass over one batch found. nats: summed cross-entropy; loss: mean cross-entropy plus regularisers.
struct batch_result {
    double nats = 0, loss = 0;
    index targets = 0, correct = 0;  // counted targets; right classes (classification)
};

template <executor Exec, class T, class Stack>
struct task_model {
    using executor_type = Exec;
    using scalar = T;

    Exec& ex;
    typename Stack::config_type config;
    Stack stack;
    std::vector<std::pair<std::string, classifier_head<Exec, T>>> heads;  // by task
    parameter_store<Exec, T> parameters;
    std::uint64_t seed = 0, step = 0;  // of dropout
    route_trace* trace = nullptr;

    task_model(Exec& ex_, const typename Stack::config_type& c, gradients g = gradients::trainable)
        : ex(ex_), config(c), stack(ex_, c), heads(make_heads(stack)), parameters(ex_, *this, g) {}
    task_model(const task_model&) = delete;
    task_model& operator=(const task_model&) = delete;

    // Inference on a batch of equally long sequences: ids (B·T), row by row. Logits (B, T, V), or (B, classes, 1) of a
    // classifier; they live until the next call.
    view<T, 3> forward(std::span<const row_index> ids, index batch_size) {
        check(batch_size > 0 && static_cast<index>(ids.size()) % batch_size == 0, "forward", "ids: expected ",
              batch_size, " rows of equal length, found ", ids.size(), " ids");
        const index time = static_cast<index>(ids.size()) / batch_size;
        arena_scope scratch(ex);
        auto p = begin(std::vector<index>(static_cast<std::size_t>(batch_size), time), phase::evaluation);
        const bool classifies = is_classifier();
        const index width = classifies ? heads.front().second.out.out() : stack.vocabulary();
        auto logits = result(classifies ? batch_size : batch_size * time, width);
        auto h = p.matrix(batch_size * time, stack.width());
        stack.forward(p, to_device(ids), h, saved_);
        if (classifies) {
            typename classifier_head<Exec, T>::saved s;
            heads.front().second.forward(p, h, logits, s);
            return {logits.data, {batch_size, width, 1}};
        }
        linear_forward<Exec, T>(ex, h, stack.head().matrix(), {}, logits);
        return {logits.data, {batch_size, time, width}};
    }

    // Loss of a batch; with phase::training also its gradients, added to the parameters', scaled by `weight` (1 over the
    // number of accumulated batches).
    batch_result run(const batch& b, phase ph, double weight = 1) {
        arena_scope step_memory(ex);
        auto p = begin(b.lengths, ph);
        p.loss_weight = weight;
        p.prompt_lengths = b.prompt_lengths;
        p.step_types = b.step_types;
        const index n = p.rows.rows();
        check_equal(static_cast<index>(b.ids.size()), n, "batch", "ids against the lengths' sum");
        auto h = p.matrix(n, stack.width()), dL_dh = p.training() ? p.zeros(n, stack.width()) : matrix_view<T>{};
        stack.forward(p, to_device(b.ids), h, saved_);
        vector_view<statistic<T>> losses;
        batch_result r = b.labels.empty() ? language_loss(p, b, h, dL_dh, losses) : class_loss(p, b, h, dL_dh, losses);
        if (p.training()) stack.backward(p, dL_dh, saved_);
        for (auto v : to_host(ex, losses))
            r.nats += v;  // last: an executor that queues work is not made to wait in between
        r.loss = (r.targets ? r.nats / static_cast<double>(r.targets) : 0) + p.auxiliary_loss / weight;
        return r;
    }

    // One call of generation: `lengths` new ids per sequence continue `state`; logits of each sequence's last row (S, V),
    // 0 for a sequence that waits (no new ids). They live until the next call.
    matrix_view<T> decode(std::span<const row_index> ids, std::span<const index> lengths,
                          decode_state<Exec, T>& state) {
        check_equal(lengths.size(), state.length.size(), "decode", "sequences of the call against those of its state");
        for (std::size_t s = 0; s < lengths.size(); ++s) {
            const index now = state.length[s] + lengths[s];
            check(now <= stack.longest(), "decode", "sequence ", s, ": expected at most ", stack.longest(),
                  " tokens (max_seq_len), found ", now);
            check(now <= state.capacity, "decode", "sequence ", s, ": expected at most ", state.capacity,
                  " tokens (capacity of the state), found ", now);
        }
        const auto sequences = static_cast<index>(lengths.size());
        auto logits = result(sequences, stack.vocabulary());
        arena_scope scratch(ex);
        pass<Exec, T> p{.ex = ex, .rows = pack_rows(ex, lengths, state.length), .trace = trace, .decode = &state};
        check_equal(static_cast<index>(ids.size()), p.rows.rows(), "decode", "ids against the lengths' sum");
        auto h = p.matrix(p.rows.rows(), stack.width()), last = p.zeros(sequences, stack.width());
        stack.forward(p, to_device(ids), h, saved_);
        index row = 0;
        for (index s = 0; s < sequences; ++s) {
            row += lengths[static_cast<std::size_t>(s)];
            if (lengths[static_cast<std::size_t>(s)] > 0) copy<Exec, T>(ex, h.slice(row - 1, 1), last.slice(s, 1));
            state.length[static_cast<std::size_t>(s)] += lengths[static_cast<std::size_t>(s)];
        }
        linear_forward<Exec, T>(ex, last, stack.head().matrix(), {}, logits);
        return logits;
    }

    // one head, without a task's name: it classifies and does nothing else
    bool is_classifier() const { return heads.size() == 1 && heads.front().first.empty(); }

    // what the skip gates of the last run or forward decided (models that have them)
    const auto& gates() const { return saved_.gates; }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        stack.visit_parameters(f, heads.empty() ? prefix : prefix + "backbone.");
        for (auto& [task, head] : heads)
            head.visit_parameters(f, prefix + (task.empty() ? "classifier." : "heads." + task + "."));
    }

private:
    static std::vector<std::pair<std::string, classifier_head<Exec, T>>> make_heads(const Stack& stack) {
        std::vector<std::pair<std::string, classifier_head<Exec, T>>> out;
        for (const auto& [task, classes] : stack.classes())
            out.emplace_back(task, classifier_head<Exec, T>(stack.width(), classes, stack.dropout()));
        return out;
    }

    pass<Exec, T> begin(const std::vector<index>& lengths, phase ph) {
        for (std::size_t s = 0; s < lengths.size(); ++s)
            check(lengths[s] <= stack.longest(), "batch", "length of sequence ", s, ": expected at most ",
                  stack.longest(), " (max_seq_len), found ", lengths[s]);
        return {.ex = ex, .rows = pack_rows(ex, lengths), .phase = ph, .seed = seed, .step = step, .trace = trace};
    }
    vector_view<row_index> to_device(std::span<const row_index> ids) {
        for (std::size_t i = 0; i < ids.size(); ++i)
            check(ids[i] >= 0 && ids[i] < stack.vocabulary(), "ids", "id ", i, ": expected 0 to ",
                  stack.vocabulary() - 1, " (vocab_size), found ", ids[i]);
        return copy_to_device(ids);
    }
    vector_view<row_index> copy_to_device(std::span<const row_index> values) {
        auto v = ex.memory().template vector<row_index>(static_cast<index>(values.size()));
        if (!values.empty()) ex.copy_from_host(v.data, values.data(), values.size_bytes());
        return v;
    }

    batch_result language_loss(pass<Exec, T>& p, const batch& b, const_matrix<T> h, matrix_view<T> dL_dh,
                               vector_view<statistic<T>>& losses) {
        const operator_clock<Exec, T> clock(p, "head");
        batch_result r;
        for (row_index t : b.targets) {
            check(t < stack.vocabulary(), "targets", "expected less than ", stack.vocabulary(), " (vocab_size), found ",
                  t);
            r.targets += t >= 0;
        }
        losses = p.statistics(h.rows());
        const double scale = r.targets ? p.loss_weight / static_cast<double>(r.targets) : 0;
        auto& head = stack.head();
        linear_cross_entropy(ex, h, head.matrix(), copy_to_device(b.targets), losses, scale, dL_dh,
                             p.training() ? head.grad : matrix_view<statistic<T>>{});
        return r;
    }

    batch_result class_loss(pass<Exec, T>& p, const batch& b, const_matrix<T> h, matrix_view<T> dL_dh,
                            vector_view<statistic<T>>& losses) {
        const operator_clock<Exec, T> clock(p, "head");
        classifier_head<Exec, T>* head = nullptr;
        for (auto& [task, candidate] : heads)
            if (task == b.task || (task.empty() && heads.size() == 1)) head = &candidate;
        check(head != nullptr, "batch", "task ", b.task, ": the model has no head of that name");
        check_equal(static_cast<index>(b.labels.size()), p.rows.sequences(), "batch", "number of labels");
        const index sequences = p.rows.sequences(), classes = head->out.out();
        for (row_index l : b.labels)
            check(l >= 0 && l < classes, "labels", "expected 0 to ", classes - 1, ", found ", l);
        batch_result r;
        r.targets = sequences;
        auto logits = p.matrix(sequences, classes), dL_dlogits = p.matrix(sequences, classes);
        losses = p.statistics(sequences);
        typename classifier_head<Exec, T>::saved s;
        head->forward(p, h, logits, s);
        cross_entropy(ex, logits, copy_to_device(b.labels), losses, p.loss_weight / static_cast<double>(sequences),
                      dL_dlogits);
        const auto z = to_host_widened(ex, logits);
        for (index i = 0; i < sequences; ++i)
            r.correct +=
                std::max_element(z.begin() + i * classes, z.begin() + (i + 1) * classes) - z.begin() - i * classes ==
                b.labels[static_cast<std::size_t>(i)];
        if (p.training()) head->backward(p, dL_dlogits, dL_dh, s);
        return r;
    }

    // what forward and decode return lies outside the arena, whose memory several models may share
    matrix_view<T> result(index rows, index width) {
        if (results_.size() < rows * width) results_ = tensor<Exec, T>(ex, {rows * width});
        return {results_.data(), {rows, width}};
    }

    typename Stack::saved saved_;
    tensor<Exec, T> results_;
};

}  // namespace spectral
