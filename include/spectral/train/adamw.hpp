// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/adamw.hpp: AdamW with clipping by the global gradient norm over a parameter_store
#pragma once
#include <spectral/core/arena.hpp>
#include <spectral/core/parameters.hpp>
#include <spectral/ops/optimizer.hpp>

#include <algorithm>
#include <cmath>

namespace spectral {

template <executor Exec, class T>
class adamw {
public:
    adamw(Exec& ex, parameter_store<Exec, T>& parameters)
        : ex_(&ex), parameters_(&parameters), m_(ex, {parameters.values().size()}), v_(ex, {parameters.values().size()}) {
        const auto values = parameters.values();
        for (const auto& [name, p] : parameters.named()) {
            if (!p->trainable) continue;
            if (ranges_.empty() || ranges_.back().rate != p->rate) ranges_.push_back({p->value.data - values.data, 0, p->rate});
            ranges_.back().end = values.size();
            if (ranges_.size() > 1) ranges_[ranges_.size() - 2].end = ranges_.back().begin;
        }
    }

    // √Σ g² over every trainable parameter
    double gradient_norm() {
        arena_scope scratch(*ex_);
        auto sum = ex_->memory().template vector<double>(1);
        sum_of_squares(*ex_, parameters_->gradients_view(), sum);
        return std::sqrt(to_host(*ex_, sum)[0]);
    }

    // One step with gradients scaled by min(1, max_norm / (norm + 1e-6)); max_norm 0: no clipping. Returns the norm.
    double step(const adamw_options& options, double max_norm) {
        const double norm = gradient_norm();
        const double clip = max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
        ++steps_;
        const auto values = parameters_->values(), gradients = parameters_->gradients_view();
        for (const auto& [begin, end, rate] : ranges_) {
            adamw_options own = options;
            own.learning_rate *= rate;
            const index n = end - begin;
            adamw_step<Exec, T>(*ex_, values.slice(begin, n), gradients.slice(begin, n), m_.view().slice(begin, n), v_.view().slice(begin, n),
                                own, steps_, clip);
        }
        return norm;
    }

    // for checkpoints
    index& steps() { return steps_; }
    tensor<Exec, T>& first_moments() { return m_; }
    tensor<Exec, T>& second_moments() { return v_; }

private:
    Exec* ex_;
    parameter_store<Exec, T>* parameters_;
    tensor<Exec, T> m_, v_;
    struct range {
        index begin, end;
        double rate;
    };
    std::vector<range> ranges_;   // neighbours of one learning rate in the store's block
    index steps_ = 0;
};

}  // namespace spectral
