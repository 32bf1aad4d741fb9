// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/metrics.hpp: metrics of a run as JSON lines
//
// One object per line with a "step", in ascending order, written in one piece: a killed run leaves at most one torn
// line, the last. A resumed run continues the same file: lines after the resumed step, and a torn one, are cut off
// first, so the file reads as if the run had never stopped.
#pragma once
#include <spectral/io/json.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <limits>
#include <utility>

namespace spectral {

//   metrics_writer metrics("run/metrics.jsonl", resumed_step);   metrics.write({{"step", 10}, {"loss", 5.2}});
class metrics_writer {
public:
    using line = nlohmann::ordered_json;  // keeps the order of the fields

    metrics_writer() = default;  // writes nothing

    // Appends to the file (made if missing), once it ends with the last line whose step is at most `last_step`; 0 for a
    // run from the start, which keeps lines of step 0 and those without a step.
    explicit metrics_writer(const std::filesystem::path& path,
                            std::int64_t last_step = std::numeric_limits<std::int64_t>::max())
        : where_(path.string()) {
        file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        check(file_ >= 0, where_, "the file cannot be opened: ", std::strerror(errno));
        try {
            const std::size_t kept = bytes_up_to(last_step);
            check(::ftruncate(file_, static_cast<::off_t>(kept)) == 0, where_, "the file cannot be cut to ", kept,
                  " bytes: ", std::strerror(errno));
        } catch (...) {
            ::close(file_);
            throw;
        }
    }
    ~metrics_writer() {
        if (file_ >= 0) ::close(file_);
    }
    metrics_writer(metrics_writer&& other) noexcept
        : where_(std::move(other.where_)), file_(std::exchange(other.file_, -1)) {}
    metrics_writer& operator=(metrics_writer&& other) noexcept {
        std::swap(where_, other.where_);
        std::swap(file_, other.file_);
        return *this;
    }

    // One line, with the operating system when this returns. NaN and infinities become null: JSON has no such numbers.
    void write(const line& values) {
        if (file_ < 0) return;
        const std::string text = values.dump(-1, ' ', false, line::error_handler_t::replace) + '\n';
        for (std::size_t done = 0; done < text.size();) {
            const ::ssize_t n = ::write(file_, text.data() + done, text.size() - done);
            if (n < 0 && errno == EINTR) continue;
            check(n >= 0, where_, "the file cannot be written: ", std::strerror(errno));
            done += static_cast<std::size_t>(n);
        }
    }

private:
    std::size_t bytes_up_to(std::int64_t last_step) const {
        const std::string text = read_text_file(where_);
        std::size_t at = 0;
        for (std::int64_t number = 1; at < text.size(); ++number) {
            const std::size_t end = text.find('\n', at);
            if (end == std::string::npos) return at;  // torn
            const line values = parse_json<line>(std::string_view(text).substr(at, end - at),
                                                 where_ + ": line " + std::to_string(number));
            check(values.is_object(), where_ + ": line " + std::to_string(number), "expected a JSON object, found ",
                  values.type_name());
            if (const auto step = values.find("step"); step != values.end()) {
                check(step->is_number_integer(), where_ + ": line " + std::to_string(number),
                      "step: expected a whole number, found ", step->type_name());
                if (step->template get<std::int64_t>() > last_step) return at;
            }
            at = end + 1;
        }
        return at;
    }

    std::string where_;
    int file_ = -1;
};

}  // namespace spectral
