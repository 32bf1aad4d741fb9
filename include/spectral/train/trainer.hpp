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
#include <spectral/train/schedule.hpp>
#include <spectral/train/stop_signal.hpp>

#include <iostream>

namespace spectral {

// A training run.
struct training_options {
    index steps = 300, accumulation = 1;
    learning_rate_schedule schedule;
    adamw_options optimizer;
    double clip = 1.0;
    std::uint64_t seed = 0;
    index evaluate_every = 0, save_every = 0, log_every = 10, keep = 2;   // 0: only at the end
    bool overfit_one_batch = false, resume = false, quiet = false, plain = false;   // plain: no line drawn anew
    std::filesystem::path run;            // directory of checkpoints and metrics.jsonl
    std::filesystem::path tokenizer;      // copied into checkpoints; may be empty
    std::filesystem::path tensorboard;    // directory of event files; empty: none
    std::filesystem::path start_weights;  // safetensors to start from; empty: from the initialisers
    bool keep_frozen = false;             // frozen weights are loaded already: only the others start from initialisers
    nlohmann::json more_identity = nlohmann::json::object();   // further options that a continuation must agree in

    // what must agree between a run and its continuation
    nlohmann::json identity() const {
        nlohmann::json json{{"accumulation", accumulation}, {"learning_rate", schedule.peak}, {"last_learning_rate", schedule.last},
                {"warmup", schedule.warmup}, {"steps", steps}, {"decay", static_cast<int>(schedule.decay)},
                {"beta1", optimizer.beta1}, {"beta2", optimizer.beta2}, {"weight_decay", optimizer.weight_decay},
                {"clip", clip}, {"seed", seed}, {"overfit_one_batch", overfit_one_batch}};
        json.update(more_identity);
        return json;
    }
};

// What happened: ended at the last step, or was asked to stop and saved.
enum class training_end { done, stopped };

// Trains from the start or from the last checkpoint, evaluates, saves, and writes metrics.jsonl.
inline training_end train(runner& r, const std::function<batch(index)>& batch_at, const std::vector<evaluation_set>& sets,
                          const training_options& o, std::ostream& out) {
    namespace fs = std::filesystem;
    trainer_state state{.options = o.identity()};
    if (o.resume) {
        state = load_checkpoint(find_checkpoint(o.run), r);
        const nlohmann::json identity = o.identity();
        for (const auto& [key, value] : identity.items())
            check(state.options.value(key, nlohmann::json()) == value, (find_checkpoint(o.run) / "trainer.json").string(),
                  "option ", key, ": expected ", state.options.value(key, nlohmann::json()).dump(), " as in the run so far, found ", value.dump());
    } else {
        check(!fs::exists(o.run / "last"), o.run.string(), "the directory holds a run already: resume it (--resume) or choose another");
        o.keep_frozen ? r.initialize_trainable(o.seed) : r.initialize(o.seed);
        if (!o.start_weights.empty()) r.load_weights(weight_files::of_file(o.start_weights));
    }
    r.zero_gradients();
    fs::create_directories(o.run);
    metrics_writer metrics(o.run / "metrics.jsonl", state.step);
    tensorboard_writer events(o.tensorboard, state.step);
    const auto record = [&](const metrics_writer::line& line) {
        metrics.write(line);
        events.write(line);
    };
    progress_line progress(out, progress_options::for_file(2, o.quiet, o.plain), state.step, o.steps);
    detail::stop_on_signal signal;
    const auto last_good = [&] { return fs::exists(o.run / "last") ? (o.run / fs::read_symlink(o.run / "last")).string() : std::string("none"); };
    const auto now = [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };

    index saved_at = o.resume ? state.step : -1;
    const auto save = [&](bool best) {
        save_checkpoint(o.run, r, state, o.tokenizer, best, o.keep);
        saved_at = state.step;
    };
    const auto run_evaluation = [&] {
        bool best = false;
        for (std::size_t i = 0; i < sets.size(); ++i) {
            const evaluation e = progress.pause([&] { return evaluate(r, sets[i]); });
            check(std::isfinite(e.nats), "train", "step ", state.step, ": the loss of ", sets[i].name, " is ", e.loss(), "; the last good checkpoint is ", last_good());
            metrics_writer::line line{{"step", state.step}, {"set", sets[i].name}, {"loss", e.loss()}};
            char text[160];
            if (e.classes) {
                line["accuracy"] = e.accuracy();
                std::snprintf(text, sizeof text, "step %lld  %s: loss %.4f, accuracy %.2f %%", static_cast<long long>(state.step), sets[i].name.c_str(), e.loss(), 100 * e.accuracy());
            } else {
                line["perplexity"] = perplexity(e.nats, e.targets);
                std::snprintf(text, sizeof text, "step %lld  %s: loss %.4f, perplexity %.2f", static_cast<long long>(state.step), sets[i].name.c_str(), e.loss(), perplexity(e.nats, e.targets));
            }
            line["targets"] = e.targets;
            add_work(line, e, r.chiar());
            record(line);
            progress.message(text);
            if (i == 0 && (state.best_step < 0 || e.loss() < state.best_loss)) {
                state.best_loss = e.loss();
                state.best_step = state.step;
                best = true;
            }
        }
        return best;
    };

    while (state.step < o.steps) {
        const double started = now();
        const index step = state.step;
        const bool log = (step + 1) % std::max<index>(o.log_every, 1) == 0 || step == 0 || step + 1 == o.steps;
        route_trace trace(route_trace::mode::count);
        r.set_trace(log ? &trace : nullptr);
        batch_result sum;
        double loss = 0;
        index tokens = 0, head_rows = 0;
        mac_counts dense;
        gate_summary gates;
        for (index micro = 0; micro < o.accumulation; ++micro) {
            const index number = o.overfit_one_batch ? micro : step * o.accumulation + micro;
            const batch b = batch_at(number);
            r.set_dropout(o.seed, static_cast<std::uint64_t>(step * o.accumulation + micro));
            const batch_result result = r.train(b, 1.0 / static_cast<double>(o.accumulation));
            loss += result.loss / static_cast<double>(o.accumulation);
            sum.nats += result.nats;
            sum.targets += result.targets;
            tokens += b.rows();
            if (auto* skips = r.layer_route(); log && skips) gates.add(skips->gates(), b.step_types);
            const index head = b.labels.empty() ? b.rows() : 0;
            head_rows += head;
            if (log) dense += r.dense_macs(b.lengths, head);
            if (!std::isfinite(result.loss)) {
                r.set_trace(nullptr);
                fail("train", "step ", step + 1, ": the loss is ", result.loss, "; the last good checkpoint is ", last_good());
            }
        }
        r.set_trace(nullptr);
        adamw_options optimizer = o.optimizer;
        optimizer.learning_rate = o.schedule.at(step);
        const double norm = r.update(optimizer, o.clip);
        check(std::isfinite(norm), "train", "step ", step + 1, ": the gradient norm is ", norm, "; the last good checkpoint is ", last_good());
        const double seconds = now() - started;
        state.step = step + 1;
        state.tokens += static_cast<double>(tokens);
        if (log) {
            const mac_counts executed = training(r.executed_macs(trace, head_rows));
            metrics_writer::line line{{"step", state.step}, {"loss", loss}, {"perplexity", perplexity(sum.nats, std::max<index>(sum.targets, 1))},
                                      {"learning_rate", optimizer.learning_rate}, {"gradient_norm", norm},
                                      {"tokens", state.tokens}, {"tokens_per_second", static_cast<double>(tokens) / seconds},
                                      {"executed_flops", executed.flops()}, {"dense_flops", 3 * dense.flops()}};
            add_routing(line, trace);
            gates.write(line);
            record(line);
            progress.note(routing_note(line));
        }
        progress.update(state.step, loss, tokens);

        const bool last = state.step == o.steps, stop = signal.asked();
        const bool due = o.evaluate_every > 0 && state.step % o.evaluate_every == 0;
        const bool best = !sets.empty() && (due || last) && run_evaluation();
        if (best || last || stop || (o.save_every > 0 && state.step % o.save_every == 0)) save(best);
        if (stop && !last) {
            progress.message("stopped by a signal; saved " + last_good());
            return training_end::stopped;
        }
    }
    if (saved_at != state.step) save(false);
    return training_end::done;
}

}  // namespace spectral
