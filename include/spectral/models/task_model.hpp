// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/task_model.hpp: a stack of layers with its parameters, its heads and its losses
//
// Language modelling reads the hidden states through the tied token table; a classification task pools them over the
// real tokens of a sequence: mean -> Linear d->d, GELU, dropout -> Linear d->classes. Every task goes through the whole
// stack.
#pragma once
#include <spectral/core/host_copy.hpp>
#include <spectral/layers/chain.hpp>
#include <spectral/layers/classifier_head.hpp>
#include <spectral/layers/token_operator.hpp>
#include <spectral/models/batch.hpp>
#include <spectral/ops/cross_entropy.hpp>
#include <spectral/ops/few_rows.hpp>
#include <spectral/ops/next_token.hpp>

#include <optional>

namespace spectral {

// What a pass over one batch found. nats: summed cross-entropy; loss: mean cross-entropy plus regularisers.
struct batch_result {
    double nats = 0, loss = 0;
    index targets = 0, correct = 0;  // counted targets; right classes (classification)
};

template <executor Exec, class T, class Stack>
struct task_model {
    using scalar = T;

    Exec& ex;
    typename Stack::config_type config;
    Stack stack;
    std::vector<std::pair<std::string, classifier_head<Exec, T>>> heads;  // by task
    parameter_store<Exec, T> parameters;
    std::uint64_t seed = 0, step = 0;  // of dropout
    route_trace* trace = nullptr;
    bool recompute = false;  // training keeps the layers' inputs alone and runs each layer again in backward

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
        const std::vector<index> lengths(static_cast<std::size_t>(batch_size), time);
        auto p = begin(lengths, phase::evaluation);
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

    // Loss of a batch; with phase::training also its gradients, added to the parameters', scaled by `weight` (1 over
    // the number of accumulated batches).
    batch_result run(const batch& b, phase ph, double weight = 1) {
        arena_scope scratch(ex);
        auto p = begin(b.lengths, ph);
        p.loss_weight = weight;
        p.prompt_lengths = b.prompt_lengths;
        p.step_types = b.step_types;
        p.recompute = recompute && p.training();
        const index n = p.rows.rows();
        check_equal(static_cast<index>(b.ids.size()), n, "batch", "ids against the lengths' sum");
        auto h = p.matrix(n, stack.width()), dL_dh = p.training() ? p.zeros(n, stack.width()) : matrix_view<T>{};
        stack.forward(p, to_device(b.ids), h, saved_);
        batch_result r = b.labels.empty() ? language_loss(p, b, h, dL_dh) : class_loss(p, b, h, dL_dh);
        if (p.training()) {
            std::optional<route_trace> once;  // what layers did, not what they did again
            if (p.recompute && trace) once = *trace;
            stack.backward(p, dL_dh, saved_);
            parameters.settle_gradients();
            if (once) *trace = *std::move(once);
        }
        // last: the host waits for the losses while an executor that queues work is at the backward pass
        for (auto v : losses_.finish()) r.nats += v;
        if (!b.labels.empty()) r.correct = right_classes(b.labels);
        r.loss = (r.targets ? r.nats / static_cast<double>(r.targets) : 0) + p.auxiliary_loss / weight;
        return r;
    }

    // One call of generation: `lengths` new ids per sequence continue `state`; logits of each sequence's last row
    // (S, V), 0 for a sequence that waits (no new ids). They live until the next call.
    matrix_view<T> decode(std::span<const row_index> ids, std::span<const index> lengths,
                          decode_state<Exec, T>& state) {
        check_room(ids, lengths, 1, state);
        if (auto* step = step_of(lengths, state)) {
            step->feed(ex, ids, state.length);
            step->given.run(ex, [&] { take_step(*step, state, 0); });
            advance(*step, state);
            return step->memory->logits;
        }
        const auto sequences = static_cast<index>(lengths.size());
        auto logits = result(sequences, stack.vocabulary());
        arena_scope scratch(ex);
        pass<Exec, T> p{.ex = ex,
                        .rows = pack_rows(ex, lengths, state.length),
                        .trace = trace,
                        .decode = &state,
                        .lengths = lengths};
        auto h = p.matrix(p.rows.rows(), stack.width());
        stack.forward(p, to_device(ids), h, saved_);
        last_logits(p, h, logits);
        for (std::size_t s = 0; s < lengths.size(); ++s) state.length[s] += lengths[s];
        return logits;
    }

    // Whether tokens can be chosen by the executor, several at a time, while the host waits: `choose`.
    bool chooses(std::span<const index> lengths, const decode_state<Exec, T>& state) const {
        return recording_executor<Exec> && takes_steps(lengths, state);
    }
    // `count` further tokens of every sequence whose length is 1, each chosen as `how` says among the ids below `known`
    // (0: all). `ids` continue the sequences; `seen`, all ids of each, is read for a repetition penalty. Returns the
    // chosen ids, sequence by sequence. The last chosen ids have not been read.
    std::vector<row_index> choose(std::span<const row_index> ids, std::span<const index> lengths, index count,
                                  index known, decode_state<Exec, T>& state,
                                  const sampling_options& how = {.temperature = 0},
                                  std::span<const std::vector<row_index>> seen = {}) {
        check_room(ids, lengths, count, state);
        auto* step = step_of(lengths, state);
        check(step != nullptr, "choose",
              "expected one token a sequence after a prefill, of a model whose steps need no host");
        known = known > 0 ? std::min(known, stack.vocabulary()) : stack.vocabulary();
        step->choose_by(known, how);
        if (how.penalises()) step->memory->mark(ex, step->sequences, seen);
        step->feed(ex, ids, state.length);
        for (index i = 0; i < count; ++i) {
            step->choosing.run(ex, [&] { take_step(*step, state, known); });
            advance(*step, state);
        }
        std::vector<row_index> out;
        for (std::size_t n = 0; n < step->sequences.size(); ++n) {
            const std::size_t s = step->sequences[n];
            const auto row = to_host(
                ex,
                vector_view<row_index>(step->chosen().row(static_cast<index>(n)) + state.length[s] - count, {count}));
            out.insert(out.end(), row.begin(), row.end());
            if (how.penalises()) step->memory->drew(s, row);
        }
        check(std::find(out.begin(), out.end(), -1) == out.end(), "choose",
              "a logit is NaN: the model's weights are broken");
        return out;
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
                  stack.longest(), " (the model's context), found ", lengths[s]);
        return {.ex = ex,
                .rows = pack_rows(ex, lengths),
                .phase = ph,
                .seed = seed,
                .step = step,
                .trace = trace,
                .lengths = lengths};
    }
    void check_ids(std::span<const row_index> ids) const {
        for (std::size_t i = 0; i < ids.size(); ++i)
            check(ids[i] >= 0 && ids[i] < stack.vocabulary(), "ids", "id ", i, ": expected 0 to ",
                  stack.vocabulary() - 1, " (vocab_size), found ", ids[i]);
    }
    vector_view<row_index> to_device(std::span<const row_index> ids) {
        check_ids(ids);
        return copy_to_device(ids);
    }
    vector_view<row_index> copy_to_device(std::span<const row_index> values) {
        auto v = ex.memory().template vector<row_index>(static_cast<index>(values.size()));
        if (!values.empty()) ex.copy_from_host(v.data, values.data(), values.size_bytes());
        return v;
    }

    // `steps` calls of `lengths` new rows
    void check_room(std::span<const row_index> ids, std::span<const index> lengths, index steps,
                    const decode_state<Exec, T>& state) const {
        check_equal(lengths.size(), state.length.size(), "decode", "sequences of the call against those of its state");
        index rows = 0;
        for (std::size_t s = 0; s < lengths.size(); ++s) {
            const index now = state.length[s] + steps * lengths[s];
            check(now <= stack.longest(), "decode", "sequence ", s, ": expected at most ", stack.longest(),
                  " tokens (the model's context), found ", now);
            check(now <= state.capacity, "decode", "sequence ", s, ": expected at most ", state.capacity,
                  " tokens (capacity of the state), found ", now);
            rows += lengths[s];
        }
        check_equal(static_cast<index>(ids.size()), rows, "decode", "ids against the lengths' sum");
        check_ids(ids);
    }
    // one token of some sequences, after a prefill
    bool takes_steps(std::span<const index> lengths, const decode_state<Exec, T>& state) const {
        const auto most = std::max_element(lengths.begin(), lengths.end());
        return !trace && stack.repeats() && state.prefilled() && most != lengths.end() && *most == 1;
    }
    decode_step<Exec, T>* step_of(std::span<const index> lengths, decode_state<Exec, T>& state) {
        if (!takes_steps(lengths, state)) return nullptr;
        std::vector<char> key(lengths.begin(), lengths.end());
        const auto variant = stack.variant(state);
        key.insert(key.end(), variant.begin(), variant.end());
        return &state.step(ex, std::move(key), lengths, stack.vocabulary());
    }
    // the work of a step; with `known` it chooses the next tokens too
    void take_step(decode_step<Exec, T>& step, decode_state<Exec, T>& state, index known) {
        arena_scope scratch(ex);
        pass<Exec, T> p{
            .ex = ex, .rows = step.map(), .decode = &state, .step_of_decoding = true, .lengths = step.lengths};
        auto h = p.matrix(p.rows.rows(), stack.width());
        stack.forward(p, step.ids(), h, saved_);
        last_logits(p, h, step.memory->logits);
        if (known)
            choose_tokens<Exec, T>(ex, step.memory->logits, known, p.rows.sequence, p.rows.position, step.ids(),
                                   step.chosen(), step.how, step.seen());
        advance_rows(ex, step.position());
    }
    static void advance(decode_step<Exec, T>& step, decode_state<Exec, T>& state) {
        step.advanced();
        for (std::size_t s : step.sequences) ++state.length[s];
    }
    // logits of each sequence's last row of h, 0 for a sequence without rows
    void last_logits(pass<Exec, T>& p, matrix_view<T> h, matrix_view<T> logits) {
        auto last = h;
        if (std::any_of(p.lengths.begin(), p.lengths.end(), [](index n) { return n != 1; })) {
            last = p.zeros(logits.rows(), h.width());
            index row = 0;
            for (index s = 0; s < logits.rows(); ++s) {
                row += p.lengths[static_cast<std::size_t>(s)];
                if (p.lengths[static_cast<std::size_t>(s)] > 0)
                    copy<Exec, T>(ex, h.slice(row - 1, 1), last.slice(s, 1));
            }
        }
        if (head_forward<Exec, T>(ex, last, {}, 0, stack.head().matrix(), logits)) return;
        linear_forward<Exec, T>(ex, last, stack.head().matrix(), {}, logits);
    }

    batch_result language_loss(pass<Exec, T>& p, const batch& b, const_matrix<T> h, matrix_view<T> dL_dh) {
        const operator_clock<Exec, T> clock(p, "head");
        batch_result r;
        for (row_index t : b.targets) {
            check(t < stack.vocabulary(), "targets", "expected less than ", stack.vocabulary(), " (vocab_size), found ",
                  t);
            r.targets += t >= 0;
        }
        auto losses = p.statistics(h.rows());
        const double scale = r.targets ? p.loss_weight / static_cast<double>(r.targets) : 0;
        auto& head = stack.head();
        linear_cross_entropy(ex, h, head.matrix(), copy_to_device(b.targets), losses, scale, dL_dh,
                             p.training() ? head.grad : matrix_view<statistic<T>>{});
        losses_.start(ex, losses);
        return r;
    }

    batch_result class_loss(pass<Exec, T>& p, const batch& b, const_matrix<T> h, matrix_view<T> dL_dh) {
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
        auto losses = p.statistics(sequences);
        typename classifier_head<Exec, T>::saved s;
        head->forward(p, h, logits, s);
        cross_entropy(ex, logits, copy_to_device(b.labels), losses, p.loss_weight / static_cast<double>(sequences),
                      dL_dlogits);
        losses_.start(ex, losses);
        class_logits_.start(ex, logits);
        if (p.training()) head->backward(p, dL_dlogits, dL_dh, s);
        return r;
    }
    // how many labels have the largest of their sequence's logits
    index right_classes(std::span<const row_index> labels) {
        const auto z = class_logits_.finish();
        const std::size_t classes = z.size() / std::max<std::size_t>(labels.size(), 1);
        index right = 0;
        for (std::size_t i = 0; i < labels.size(); ++i) {
            const auto of_i = z.subspan(i * classes, classes);
            const auto largest = std::max_element(of_i.begin(), of_i.end(), [](T a, T c) {
                return static_cast<statistic<T>>(a) < static_cast<statistic<T>>(c);
            });
            right += largest - of_i.begin() == labels[i];
        }
        return right;
    }

    // what forward and decode return lies outside the arena, whose memory several models may share
    matrix_view<T> result(index rows, index width) {
        if (results_.size() < rows * width) results_ = tensor<Exec, T>(ex, {rows * width});
        return {results_.data(), {rows, width}};
    }

    typename Stack::saved saved_;
    host_copy<Exec, statistic<T>> losses_;  // of the rows, or sequences
    host_copy<Exec, T> class_logits_;  // (S, classes)
    tensor<Exec, T> results_;
};

}  // namespace spectral
