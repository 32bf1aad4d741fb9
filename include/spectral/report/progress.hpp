// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/progress.hpp: how far a long run is: one live line on a terminal, plain lines elsewhere
//
//   step  120/300  40% [########............]  loss 5.234  12.3k tok/s  routed 71%  ETA 1:23
//
// On a terminal the line is redrawn in place, at most ten times a second, never wider than the window (the bar shrinks,
// then goes, then the end is cut). Elsewhere (a file, a pipe, TERM=dumb) and where plain lines are asked for, a whole
// line is written every ten seconds. The first and the last step are always shown.
#pragma once
#include <spectral/core/view.hpp>

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>

namespace spectral {

// How progress is shown: a bar on a terminal, plain lines elsewhere, nothing if quiet.
struct progress_options {
    bool quiet = false;
    bool terminal = false;
    double every = 10;  // seconds between updates
    std::function<int()> width = {};  // columns of the terminal now; empty: 80
    std::function<double()> seconds = {};  // a steady clock; empty: the machine's

    // What suits the file descriptor behind a stream: progress_options::for_file(2) for std::cerr.
    static progress_options for_file(int fd, bool quiet = false, bool plain = false) {
        progress_options o;
        o.quiet = quiet;
        const char* term = std::getenv("TERM");
        o.terminal = !plain && ::isatty(fd) != 0 && term && std::string_view(term) != "dumb";
        o.every = o.terminal ? 0.1 : 10;
        if (o.terminal)
            o.width = [fd] {
                struct ::winsize size {};
                return ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? static_cast<int>(size.ws_col) : 80;
            };
        return o;
    }
};

// 12345 -> "12.3k"
inline std::string short_number(double x) {
    const char* unit[] = {"", "k", "M", "G", "T", "P"};
    int u = 0;
    while (std::abs(x) >= 999.5 && u < 5) x /= 1000, ++u;
    char text[40];
    std::snprintf(text, sizeof text, u > 0 && std::abs(x) < 99.95 ? "%.1f%s" : "%.0f%s", x, unit[u]);
    return text;
}

// 83 -> "1:23", 3723 -> "1:02:03"
inline std::string short_duration(double seconds) {
    if (!(seconds >= 0 && seconds < 1e9)) return "?";
    const long long s = std::llround(seconds);
    char text[40];
    if (s >= 3600)
        std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        std::snprintf(text, sizeof text, "%lld:%02lld", s / 60, s % 60);
    return text;
}

// The destructor ends an open line, so that whatever is printed next, an error too, starts on a line of its own.
//   progress_line progress(std::cerr, progress_options::for_file(2), first_step, last_step);
//   progress.update(step, loss, tokens_in_this_step);
class progress_line {
public:
    progress_line(std::ostream& out, progress_options options, index first_step, index last_step)
        : out_(out), o_(std::move(options)), first_(first_step), last_(last_step), step_(first_step) {
        if (!o_.seconds)
            o_.seconds = [] {
                return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
            };
        start_ = o_.seconds();
    }
    ~progress_line() {
        try {
            finish();
        } catch (...) {  // a closed pipe must not end the program from here
        }
    }
    progress_line(const progress_line&) = delete;
    progress_line& operator=(const progress_line&) = delete;

    // After `step` (counted from 1): its loss and the tokens it trained on.
    void update(index step, double loss, index tokens) {
        step_ = step;
        loss_ = loss;
        tokens_ += tokens;
        if (o_.quiet) return;
        const double now = o_.seconds();
        if (shown_ && step < last_ && now - shown_at_ < o_.every) return;
        show(now);
    }

    // What routing does now: "routed 71%", "skipped 12%". Shown from the next update on; empty: nothing.
    void note(std::string text) { note_ = std::move(text); }

    // A line of its own above the progress: an evaluation, a checkpoint.
    void message(std::string_view text) {
        if (o_.quiet) return;
        erase();
        out_ << text << '\n';
        if (o_.terminal && shown_) show(o_.seconds());
        out_.flush();
    }

    // Ends the live line; more updates may follow.
    void finish() {
        if (open_) out_ << '\n' << std::flush;
        open_ = false;
    }

    // Time that is not training (an evaluation) does not count for tokens per second and ETA: what `work` returns.
    template <class Work>
    decltype(auto) pause(Work&& work) {
        struct restart {
            progress_line& line;
            double since;
            ~restart() { line.start_ += line.o_.seconds() - since; }
        } at_end{*this, o_.seconds()};
        return work();
    }

private:
    void show(double now) {
        shown_ = true;
        shown_at_ = now;
        const int width = !o_.terminal ? 1000 : o_.width ? o_.width() : 80;
        std::string text = line(now, o_.terminal ? 20 : 0);
        for (int bar = 15; bar >= 0 && static_cast<int>(text.size()) >= width; bar -= 5) text = line(now, bar);
        if (!o_.terminal) {
            out_ << text << '\n' << std::flush;
            return;
        }
        // one column stays free: a cursor past the last one would wrap
        text.resize(std::min(text.size(), static_cast<std::size_t>(std::max(width - 1, 0))));
        erase();
        out_ << text << std::flush;
        open_ = true;
    }
    void erase() {
        if (open_) out_ << "\r\x1b[K";
        open_ = false;
    }

    std::string line(double now, int bar) const {
        const double seconds = now - start_, done = static_cast<double>(step_ - first_);
        const double share = last_ > 0 ? static_cast<double>(step_) / static_cast<double>(last_) : 1;
        const std::string of = std::to_string(last_), at = std::to_string(step_);
        std::string text = "step " + std::string(of.size() - std::min(of.size(), at.size()), ' ') + at + "/" + of;
        char part[64];
        std::snprintf(part, sizeof part, " %3d%%", static_cast<int>(std::floor(100 * share)));
        text += part;
        if (bar > 0) {
            const auto full = static_cast<std::size_t>(std::clamp(static_cast<int>(share * bar), 0, bar));
            text += " [" + std::string(full, '#') + std::string(static_cast<std::size_t>(bar) - full, '.') + "]";
        }
        std::snprintf(part, sizeof part, "  loss %.4g", loss_);
        text += part;
        if (seconds > 0) text += "  " + short_number(static_cast<double>(tokens_) / seconds) + " tok/s";
        if (!note_.empty()) text += "  " + note_;
        if (step_ >= last_)
            text += "  done in " + short_duration(seconds);
        else if (done > 0)
            text += "  ETA " + short_duration(seconds / done * static_cast<double>(last_ - step_));
        return text;
    }

    std::ostream& out_;
    progress_options o_;
    index first_, last_, step_, tokens_ = 0;
    double start_ = 0, loss_ = 0, shown_at_ = 0;
    std::string note_;
    bool shown_ = false, open_ = false;
};

}  // namespace spectral
