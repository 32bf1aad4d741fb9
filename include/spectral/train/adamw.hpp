// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/adamw.hpp: AdamW with clipping by the global gradient norm over a parameter_store
#pragma once
#include <spectral/core/arena.hpp>
#include <spectral/core/host_copy.hpp>
#include <spectral/core/parameters.hpp>
#include <spectral/ops/optimizer.hpp>

#include <cmath>

namespace spectral {

template <executor Exec, class T>
class adamw {
    using real = statistic<T>;

public:
    adamw(Exec& ex, parameter_store<Exec, T>& parameters)
        : ex_(&ex),
          parameters_(&parameters),
          m_(ex, {parameters.masters().size()}),
          v_(ex, {parameters.masters().size()}),
          sum_(ex, {1}) {
        const auto values = parameters.masters();
        for (const auto& [name, p] : parameters.named()) {
            if (!p->trainable) continue;
            if (ranges_.empty() || ranges_.back().rate != p->rate)
                ranges_.push_back({p->master.data - values.data, 0, p->rate});
            ranges_.back().end = values.size();
            if (ranges_.size() > 1) ranges_[ranges_.size() - 2].end = ranges_.back().begin;
        }
    }

    // √Σ g² over every trainable parameter
    double gradient_norm() {
        parameters_->settle_gradients();
        queue_norm();
        return norm();
    }

    // One step with gradients scaled by min(1, max_norm / (norm + 1e-6)); max_norm 0: no clipping. Returns the norm,
    // for which alone the host waits: the step itself may still be under way.
    double step(const adamw_options& options, double max_norm) {
        parameters_->settle_gradients();
        queue_norm();
        ++steps_;
        const auto masters = parameters_->masters(), gradients = parameters_->gradients_view();
        const auto rounded = parameters_->rounded();
        for (const auto& [begin, end, rate] : ranges_) {
            adamw_options own = options;
            own.learning_rate *= rate;
            const index n = end - begin;
            out_vector<bfloat16> copy;
            if constexpr (std::is_same_v<T, bfloat16>) copy = rounded.slice(begin, n);
            adamw_step<Exec, real>(*ex_, masters.slice(begin, n), gradients.slice(begin, n), m_.view().slice(begin, n),
                                   v_.view().slice(begin, n), own, steps_, {sum_.data(), max_norm}, copy);
        }
        // A first step that needed several blocks leaves an empty arena, which joins them at its next use: here, so
        // that the second step allocates nothing.
        const arena_scope scratch(*ex_);
        ex_->memory().template vector<real>(1);
        return norm();
    }

    // for checkpoints
    index& steps() { return steps_; }
    tensor<Exec, real>& first_moments() { return m_; }
    tensor<Exec, real>& second_moments() { return v_; }

private:
    void queue_norm() {
        sum_of_squares(*ex_, parameters_->gradients_view(), sum_.view());
        squares_.start(*ex_, sum_.view());
    }
    double norm() { return std::sqrt(squares_.finish()[0]); }

    Exec* ex_;
    parameter_store<Exec, T>* parameters_;
    tensor<Exec, real> m_, v_;
    tensor<Exec, double> sum_;  // Σ g²
    host_copy<Exec, double> squares_;
    struct range {
        index begin, end;
        double rate;
    };
    std::vector<range> ranges_;  // neighbours of one learning rate in the store's block
    index steps_ = 0;
};

}  // namespace spectral
