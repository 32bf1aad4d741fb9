// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/stop_signal.hpp: SIGINT and SIGTERM as a question that the training loop asks
#pragma once
#include <csignal>

namespace spectral {

namespace detail {
inline volatile std::sig_atomic_t stop_signal = 0;
extern "C" inline void note_stop_signal(int s) { stop_signal = s; }

// SIGINT and SIGTERM ask for a checkpoint and an end; a second one ends at once.
class stop_on_signal {
public:
    stop_on_signal() {
        stop_signal = 0;
        struct sigaction action {};
        action.sa_handler = note_stop_signal;
        action.sa_flags = static_cast<int>(SA_RESETHAND);
        ::sigaction(SIGINT, &action, &old_int_);
        ::sigaction(SIGTERM, &action, &old_term_);
    }
    ~stop_on_signal() {
        ::sigaction(SIGINT, &old_int_, nullptr);
        ::sigaction(SIGTERM, &old_term_, nullptr);
    }
    bool asked() const { return stop_signal != 0; }

private:
    struct sigaction old_int_ {
    }, old_term_{};
};
}  // namespace detail

}  // namespace spectral
