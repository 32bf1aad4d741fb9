// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/trainer.hpp: the training loop: accumulate, clip, step, evaluate, log, save, resume
//
// Everything random is a function of (seed, step), so that a resumed run continues to the same numbers.
#pragma once
#include <spectral/data/ngram.hpp>
#include <spectral/report/metrics.hpp>
#include <spectral/report/progress.hpp>
#include <spectral/report/tensorboard.hpp>
#include <spectral/train/checkpoint.hpp>
#include <spectral/train/evaluate.hpp>
#include <spectral/train/stop_signal.hpp>
#include <spectral/train/training_options.hpp>

#include <future>
#include <ostream>

namespace spectral {

// What happened: ended at the last step, or was asked to stop and saved.
enum class training_end { done, stopped };

namespace detail {

// A run from its start, or from its last checkpoint, to its end.
class training_run {
public:
    training_run(runner& r, const std::function<batch(index)>& batch_at, const std::vector<evaluation_set>& sets,
                 const training_options& o, std::ostream& out)
        : r_((o.validate(), r)),
          batch_at_(batch_at),
          sets_(sets),
          o_(o),
          state_(begin()),
          saved_at_(o.resume ? state_.step : -1),
          metrics_(o.run / "metrics.jsonl", state_.step),
          events_(o.tensorboard, state_.step),
          progress_(out, progress_options::for_file(2, o.quiet, o.plain), state_.step, o.steps) {
        if (!state_.foreign_plans.empty())
            progress_.message("plans.json holds for " + state_.foreign_plans +
                              ": this machine chooses its own, and the numbers may differ in their last bits");
    }

    training_end run() {
        while (state_.step < o_.steps) {
            step();
            const bool last = state_.step == o_.steps, stop = signal_.asked();
            const bool due = o_.evaluate_every > 0 && state_.step % o_.evaluate_every == 0;
            const bool best = !sets_.empty() && (due || last) && evaluate_sets();
            if (best || last || stop || (o_.save_every > 0 && state_.step % o_.save_every == 0)) save(best);
            if (stop && !last) {
                progress_.message("stopped by a signal; saved " + last_good());
                return training_end::stopped;
            }
        }
        if (saved_at_ != state_.step) save(false);
        return training_end::done;
    }

private:
    // what the batches of one step add up to
    struct step_sums {
        double loss = 0, nats = 0;
        index targets = 0, tokens = 0, head_rows = 0;
        mac_counts dense;
        gate_summary gates;
    };

    // weights and moments of the start or of the last checkpoint, and where that stands
    trainer_state begin() {
        trainer_state state{.options = o_.identity()};
        const bool begun = has_checkpoint(o_.run);
        if (o_.resume) {
            const auto last = find_checkpoint(o_.run);
            const nlohmann::json identity = state.options;
            state = load_checkpoint(last, r_);
            for (const auto& [key, value] : identity.items()) {
                if (!state.options.contains(key)) continue;  // a run that is older than the option
                const auto so_far = state.options[key];
                check(so_far == value, (last / "trainer.json").string(), "option ", key, ": expected ", so_far.dump(),
                      " as in the run so far, found ", value.dump());
            }
        } else {
            check(!begun, o_.run.string(), "the directory holds a run already: resume it (--resume) or choose another");
            o_.keep_frozen ? r_.initialize_trainable(o_.seed) : r_.initialize(o_.seed);
            if (!o_.start_weights.empty()) r_.load_weights(weight_files::of_file(o_.start_weights));
        }
        r_.zero_gradients();
        r_.set_recompute(o_.recompute);
        std::filesystem::create_directories(o_.run);
        return state;
    }

    // One optimizer step: the gradients of its batches, then the update.
    void step() {
        const double started = now();
        const index step = state_.step;
        const bool log = (step + 1) % std::max<index>(o_.log_every, 1) == 0 || step == 0 || step + 1 == o_.steps;
        route_trace trace(route_trace::mode::count);
        step_sums sums;
        {
            const tracing traced(r_, log ? &trace : nullptr);
            for (index micro = 0; micro < o_.accumulation; ++micro) accumulate(micro, log, sums);
        }
        adamw_options optimizer = o_.optimizer;
        optimizer.learning_rate = o_.schedule.at(step);
        const double norm = r_.update(optimizer, o_.clip);
        check(std::isfinite(norm), "train", "step ", step + 1, ": the gradient norm is ", norm,
              "; the last good checkpoint is ", last_good());
        const double seconds = now() - started;
        state_.step = step + 1;
        state_.tokens += static_cast<double>(sums.tokens);
        if (log) {
            const mac_counts executed = training(r_.executed_macs(trace, sums.head_rows));
            metrics_writer::line line{{"step", state_.step},
                                      {"loss", sums.loss},
                                      {"perplexity", perplexity(sums.nats, std::max<index>(sums.targets, 1))},
                                      {"learning_rate", optimizer.learning_rate},
                                      {"gradient_norm", norm},
                                      {"tokens", state_.tokens},
                                      {"tokens_per_second", static_cast<double>(sums.tokens) / seconds},
                                      {"activation_bytes", r_.memory_bytes()},
                                      {"executed_flops", executed.flops()},
                                      {"dense_flops", 3 * sums.dense.flops()}};
            add_routing(line, trace);
            sums.gates.write(line);
            record(line);
            progress_.note(routing_note(line));
        }
        progress_.update(state_.step, sums.loss, sums.tokens);
    }

    // Batches are asked for in their order: the one after this may be made meanwhile.
    batch next_batch(index number) {
        batch b = ahead_.valid() ? ahead_.get() : batch_at_(number);
        if (o_.read_ahead && number + 1 < o_.steps * o_.accumulation)
            ahead_ = std::async(std::launch::async, [this, number] { return batch_at_(number + 1); });
        return b;
    }

    // Loss and gradients of one batch of the step.
    void accumulate(index micro, bool log, step_sums& sums) {
        const index number = state_.step * o_.accumulation + micro;
        const batch b = o_.overfit_one_batch ? batch_at_(micro) : next_batch(number);
        r_.set_dropout(o_.seed, static_cast<std::uint64_t>(number));
        const batch_result result = r_.train(b, 1.0 / static_cast<double>(o_.accumulation));
        check(std::isfinite(result.loss), "train", "step ", state_.step + 1, ": the loss is ", result.loss,
              "; the last good checkpoint is ", last_good());
        const index head = b.labels.empty() ? b.rows() : 0;
        sums.loss += result.loss / static_cast<double>(o_.accumulation);
        sums.nats += result.nats;
        sums.targets += result.targets;
        sums.tokens += b.rows();
        sums.head_rows += head;
        if (!log) return;
        sums.dense += r_.dense_macs(b.lengths, head);
        if (auto* skips = r_.layer_route()) sums.gates.add(skips->gates(), b.step_types);
    }

    // Loss over every set; true if the first one's is the best so far.
    bool evaluate_sets() {
        bool best = false;
        for (const auto& set : sets_) {
            const evaluation e = progress_.pause([&] { return evaluate(r_, set); });
            check(std::isfinite(e.nats), "train", "step ", state_.step, ": the loss of ", set.name, " is ", e.loss(),
                  "; the last good checkpoint is ", last_good());
            metrics_writer::line line{{"step", state_.step}, {"set", set.name}, {"loss", e.loss()}};
            char figure[64];
            if (e.classes) {
                line["accuracy"] = e.accuracy();
                std::snprintf(figure, sizeof figure, "loss %.4f, accuracy %.2f %%", e.loss(), 100 * e.accuracy());
            } else {
                line["perplexity"] = perplexity(e.nats, e.targets);
                std::snprintf(figure, sizeof figure, "loss %.4f, perplexity %.2f", e.loss(),
                              perplexity(e.nats, e.targets));
            }
            line["targets"] = e.targets;
            add_work(line, e, r_.chiar());
            record(line);
            progress_.message(join("step ", state_.step, "  ", set.name, ": ", figure));
            if (&set == &sets_.front() && (state_.best_step < 0 || e.loss() < state_.best_loss)) {
                state_.best_loss = e.loss();
                state_.best_step = state_.step;
                best = true;
            }
        }
        return best;
    }

    void record(const metrics_writer::line& line) {
        metrics_.write(line);
        events_.write(line);
    }
    void save(bool best) {
        check(r_.weights_are_finite(), "train", "step ", state_.step,
              ": a weight is not finite after the update (learning rate ", o_.schedule.at(state_.step - 1),
              "); the last good checkpoint is ", last_good());
        save_checkpoint(o_.run, r_, state_, o_.tokenizer, best, o_.keep);
        saved_at_ = state_.step;
    }
    std::string last_good() const {
        const auto link = o_.run / "last";
        if (!std::filesystem::exists(link)) return "none";
        return std::filesystem::is_symlink(link) ? (o_.run / std::filesystem::read_symlink(link)).string()
                                                 : link.string();
    }
    static double now() {
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    }

    // a trace for as long as this lives
    struct tracing {
        runner& r;
        tracing(runner& r_, route_trace* trace) : r(r_) { r.set_trace(trace); }
        ~tracing() { r.set_trace(nullptr); }
        tracing(const tracing&) = delete;
        tracing& operator=(const tracing&) = delete;
    };

    runner& r_;
    const std::function<batch(index)>& batch_at_;
    const std::vector<evaluation_set>& sets_;
    const training_options& o_;
    trainer_state state_;
    index saved_at_;
    metrics_writer metrics_;
    tensorboard_writer events_;
    progress_line progress_;
    std::future<batch> ahead_;  // the next, in the making
    stop_on_signal signal_;
};

}  // namespace detail

// Trains from the start or from the last checkpoint, evaluates, saves, and writes metrics.jsonl.
inline training_end train(runner& r, const std::function<batch(index)>& batch_at,
                          const std::vector<evaluation_set>& sets, const training_options& o, std::ostream& out) {
    return detail::training_run(r, batch_at, sets, o, out).run();
}

}  // namespace spectral
