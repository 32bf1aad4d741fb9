// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/mixed.hpp: several tasks in one training run, interleaved by weights
//
// Steps come in rounds of 240 (a multiple of 2, 3, 4, 5, 6, 8 and 10): in each round every task gets its share of the
// steps, rounded to whole steps, in an order drawn for that round. So which task has step s, and which of its own steps
// that is, follow from (seed, s) alone, no task skips or repeats its data, and shares hold exactly, not on average.
#pragma once
#include <spectral/data/epoch_order.hpp>
#include <spectral/models/batch.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace spectral {

// One of the tasks of a mix: it gets steps in proportion to its weight.
struct mixed_task {
    std::string name;  // becomes batch::task
    double weight = 1;
    std::function<batch(index)> batch_at;  // the task's own step
};

// The task of a step, and the task's own step number.
struct mixed_step {
    index task = 0, step = 0;
    bool operator==(const mixed_step&) const = default;
};

//   mixed_batches data{{{"lm", 2, lm}, {"list_ops", 1, list_ops}, {"imdb", 1, imdb}}, seed};  data.batch_at(step)
class mixed_batches {
public:
    static constexpr index round = 240;

    mixed_batches(std::vector<mixed_task> tasks, std::uint64_t seed) : tasks_(std::move(tasks)), seed_(seed) {
        check(!tasks_.empty(), "mixed tasks", "expected at least one task, found none");
        double sum = 0;
        for (const auto& t : tasks_) {
            check(std::isfinite(t.weight) && t.weight > 0, "mixed tasks", "weight of \"", t.name,
                  "\": expected above 0, found ", t.weight);
            check(static_cast<bool>(t.batch_at), "mixed tasks", "task \"", t.name, "\" has no batches");
            sum += t.weight;
        }
        // largest remainders: whole steps that add up to a round
        std::vector<double> rest;
        for (const auto& t : tasks_) {
            const double exact = t.weight / sum * round;
            steps_.push_back(static_cast<index>(exact));
            rest.push_back(exact - std::floor(exact));
        }
        std::vector<std::size_t> by_rest(tasks_.size());
        std::iota(by_rest.begin(), by_rest.end(), std::size_t{0});
        std::stable_sort(by_rest.begin(), by_rest.end(), [&](auto a, auto b) { return rest[a] > rest[b]; });
        const index left = round - std::accumulate(steps_.begin(), steps_.end(), index{0});
        for (index i = 0; i < left; ++i) ++steps_[by_rest[static_cast<std::size_t>(i) % by_rest.size()]];
        for (std::size_t t = 0; t < tasks_.size(); ++t)
            check(steps_[t] > 0, "mixed tasks", "weight of \"", tasks_[t].name, "\": expected at least one step in ",
                  round, ", found a share of ", tasks_[t].weight / sum);
    }

    index tasks() const { return static_cast<index>(tasks_.size()); }
    index steps_per_round(index task) const { return steps_[static_cast<std::size_t>(task)]; }

    mixed_step at(index step) const {
        check(step >= 0, "mixed tasks", "step: expected at least 0, found ", step);
        const index number = step / round, last = step % round;
        const shuffled_order order(round,
                                   {seed_, substream(stream_of("mixed tasks"), static_cast<std::uint64_t>(number))});
        const index task = owner(order[last]);
        index earlier = 0;  // steps of this task in this round
        for (index i = 0; i < last; ++i) earlier += owner(order[i]) == task;
        return {task, number * steps_per_round(task) + earlier};
    }

    batch batch_at(index step) const {
        const mixed_step s = at(step);
        const mixed_task& task = tasks_[static_cast<std::size_t>(s.task)];
        batch b = task.batch_at(s.step);
        b.task = task.name;
        return b;
    }

private:
    // tasks own consecutive slots of the unshuffled round
    index owner(index slot) const {
        index task = 0;
        while (slot >= steps_per_round(task)) slot -= steps_per_round(task++);
        return task;
    }

    std::vector<mixed_task> tasks_;
    std::uint64_t seed_;
    std::vector<index> steps_;
};

}  // namespace spectral
