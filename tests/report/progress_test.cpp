// SPDX-License-Identifier: Apache-2.0
// tests/report/progress_test.cpp: the progress line on a terminal, in a file, and in quiet
#include <spectral/report/progress.hpp>

#include "support/catch.hpp"

#include <sstream>
#include <vector>

namespace progress_test {
using spectral::index;

// what a terminal of this width shows: \r and "erase to the end of the line" obeyed, wrapping noticed
struct screen {
    std::vector<std::string> lines{""};
    bool wrapped = false;
    explicit screen(const std::string& bytes, std::size_t width = 1000) {
        std::size_t column = 0;
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            if (bytes[i] == '\r')
                column = 0;
            else if (bytes[i] == '\n')
                lines.push_back(""), column = 0;
            else if (bytes.compare(i, 3, "\x1b[K") == 0)
                lines.back().resize(column), i += 2;
            else {
                if (column >= lines.back().size()) lines.back().resize(column + 1, ' ');
                lines.back()[column++] = bytes[i];
                wrapped = wrapped || column >= width;
            }
        }
    }
};

struct fixture {
    std::ostringstream out;
    double now = 100;
    int columns = 80;
    spectral::progress_options options(bool terminal, double every) {
        return {.quiet = false,
                .terminal = terminal,
                .every = every,
                .width = [this] { return columns; },
                .seconds = [this] { return now; }};
    }
};

TEST_CASE("short numbers and durations", "[report]") {
    CHECK(spectral::short_number(0) == "0");
    CHECK(spectral::short_number(999) == "999");
    CHECK(spectral::short_number(1000) == "1.0k");
    CHECK(spectral::short_number(12345) == "12.3k");
    CHECK(spectral::short_number(123456) == "123k");
    CHECK(spectral::short_number(999999) == "1.0M");
    CHECK(spectral::short_duration(83) == "1:23");
    CHECK(spectral::short_duration(59.6) == "1:00");
    CHECK(spectral::short_duration(3723) == "1:02:03");
    CHECK(spectral::short_duration(-1) == "?");
    CHECK(spectral::short_duration(std::nan("")) == "?");
}

TEST_CASE("elsewhere: plain lines, the first, the last, and one per interval", "[report]") {
    fixture f;
    {
        spectral::progress_line progress(f.out, f.options(false, 10), 0, 30);
        for (index step = 1; step <= 30; ++step) {
            f.now += 1;
            progress.update(step, 6.0 - 0.1 * static_cast<double>(step), 500);
        }
    }
    CHECK(f.out.str() ==
          "step  1/30   3%  loss 5.9  500 tok/s  ETA 0:29\n"
          "step 11/30  36%  loss 4.9  500 tok/s  ETA 0:19\n"
          "step 21/30  70%  loss 3.9  500 tok/s  ETA 0:09\n"
          "step 30/30 100%  loss 3  500 tok/s  done in 0:30\n");
}

TEST_CASE("what routing does stands before the time", "[report]") {
    fixture f;
    spectral::progress_line progress(f.out, f.options(false, 0), 0, 4);
    progress.note("routed 71%");
    f.now += 1;
    progress.update(2, 5, 10);
    progress.note("");
    progress.update(4, 5, 10);
    CHECK(f.out.str() ==
          "step 2/4  50%  loss 5  10 tok/s  routed 71%  ETA 0:01\n"
          "step 4/4 100%  loss 5  20 tok/s  done in 0:01\n");
}

TEST_CASE("a resumed run counts its own steps for the ETA", "[report]") {
    fixture f;
    spectral::progress_line progress(f.out, f.options(false, 10), 100, 300);
    f.now += 5;
    progress.update(110, 5.2345, 1000);
    CHECK(f.out.str() == "step 110/300  36%  loss 5.234  200 tok/s  ETA 1:35\n");  // 0.5 s a step, 190 to go
}

TEST_CASE("pauses count neither for speed nor for the ETA", "[report]") {
    fixture f;
    spectral::progress_line progress(f.out, f.options(false, 0), 0, 4);
    f.now += 1;
    CHECK(progress.pause([&] {
        f.now += 1000;
        return 7;
    }) == 7);
    progress.update(1, 2, 100);
    CHECK(f.out.str() == "step 1/4  25%  loss 2  100 tok/s  ETA 0:03\n");
}

TEST_CASE("on a terminal: one line, redrawn at a limited rate, ended once", "[report]") {
    fixture f;
    {
        spectral::progress_line progress(f.out, f.options(true, 0.1), 0, 200);
        for (index step = 1; step <= 200; ++step) {
            f.now += 0.01;
            progress.update(step, 5, 1);
        }
        progress.finish();
    }
    const std::string bytes = f.out.str();
    const screen shown(bytes);
    REQUIRE(shown.lines.size() == 2);
    CHECK(shown.lines[0] == "step 200/200 100% [####################]  loss 5  100 tok/s  done in 0:02");
    CHECK(shown.lines[1].empty());
    const auto redrawn = std::count(bytes.begin(), bytes.end(), '\r');
    CHECK(redrawn >= 18);
    CHECK(redrawn <= 21);
}

TEST_CASE("on a terminal: a message stands above the line", "[report]") {
    fixture f;
    spectral::progress_line progress(f.out, f.options(true, 0), 0, 4);
    progress.message("starting");
    f.now += 1;
    progress.update(2, 5, 10);
    progress.message("valid perplexity 99.5, a text that is far longer than what the progress line itself says");
    progress.finish();
    const screen shown(f.out.str());
    REQUIRE(shown.lines.size() == 4);
    CHECK(shown.lines[0] == "starting");
    CHECK(shown.lines[1] == "valid perplexity 99.5, a text that is far longer than what the progress line itself says");
    CHECK(shown.lines[2] == "step 2/4  50% [##########..........]  loss 5  10 tok/s  ETA 0:01");
}

TEST_CASE("never wider than the terminal", "[report]") {
    for (int columns : {200, 80, 70, 60, 50, 40, 20, 5, 1, 0}) {
        fixture f;
        f.columns = columns;
        spectral::progress_line progress(f.out, f.options(true, 0), 0, 100000);
        f.now += 1;
        progress.update(55555, 5.4321, 10000);
        progress.update(55556, 5.4321, 10000);
        const screen shown(f.out.str(), static_cast<std::size_t>(std::max(columns, 1)));
        CHECK_FALSE(shown.wrapped);
        CHECK(shown.lines.size() == 1);
        CHECK((columns < 40 || shown.lines[0].find("loss 5.432") != std::string::npos));
    }
}

TEST_CASE("quiet says nothing, and a pipe is no terminal", "[report]") {
    fixture f;
    auto options = f.options(true, 0);
    options.quiet = true;
    {
        spectral::progress_line progress(f.out, options, 0, 2);
        progress.update(1, 5, 10);
        progress.message("hello");
        progress.update(2, 5, 10);
    }
    CHECK(f.out.str().empty());
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    CHECK_FALSE(spectral::progress_options::for_file(ends[1]).terminal);
    CHECK(spectral::progress_options::for_file(ends[1]).every == 10);
    ::close(ends[0]);
    ::close(ends[1]);
}

}  // namespace progress_test
