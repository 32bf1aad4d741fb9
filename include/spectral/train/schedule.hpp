// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/schedule.hpp: learning rate by optimizer step
//   step < warm-up:  peak · (step + 1) / warm-up
//   then, with f = (step − warm-up) / (steps − warm-up):
//     constant  peak;   linear  peak + (last − peak) f;   cosine  last + (peak − last) (1 + cos π f) / 2
#pragma once
#include <spectral/core/view.hpp>

#include <algorithm>
#include <cmath>

namespace spectral {

// What follows the linear warm-up.
enum class decay { cosine, linear, constant };

// peak · (t + 1)/warmup, then down to `last` at the end.
struct learning_rate_schedule {
    double peak = 1e-3, last = 1e-6;
    index warmup = 0, steps = 1;
    spectral::decay decay = decay::cosine;

    double at(index step) const {  // step counts from 0
        if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
        if (decay == decay::constant || steps <= warmup) return peak;
        const double f = std::min(1.0, static_cast<double>(step - warmup) / static_cast<double>(steps - warmup));
        if (decay == decay::linear) return peak + (last - peak) * f;
        return last + (peak - last) * (1 + std::cos(3.14159265358979323846 * f)) / 2;
    }
};

}  // namespace spectral
