// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/tensorboard.hpp: metrics as event files that TensorBoard reads
//
// A file of records: length (8 bytes), masked CRC-32C of these, data, masked CRC-32C of the data; all little-endian.
// The data is a protocol buffer, tensorflow.Event, of which few fields are needed:
//   Event     1 wall_time double, 2 step int64, 3 file_version string, 5 summary, 7 session_log
//   Summary   1 value (repeated): 1 tag, 2 simple_value float, 5 histo
//   Histogram 1 min, 2 max, 3 num, 4 sum, 5 sum_squares, 6 bucket_limit, 7 bucket (packed doubles)
// Both formats are fixed since TensorFlow 0.8 (tensorflow/core/util/event.proto, core/framework/summary.proto).
#pragma once
#include <spectral/io/json.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <utility>

namespace spectral {

// CRC-32C (Castagnoli), bit-reversed polynomial 0x82F63B78
inline std::uint32_t crc32c(std::string_view bytes) {
    static const auto table = [] {
        std::array<std::uint32_t, 256> t{};
        for (std::uint32_t i = 0; i < 256; ++i) {
            t[i] = i;
            for (int bit = 0; bit < 8; ++bit) t[i] = (t[i] >> 1) ^ (t[i] & 1 ? 0x82F63B78u : 0u);
        }
        return t;
    }();
    std::uint32_t crc = ~0u;
    for (char c : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(c)) & 0xFF];
    return ~crc;
}
// A CRC of data that holds CRCs is weak, so records keep it rotated and shifted.
inline std::uint32_t masked_crc32c(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u; }

// The bytes of one message, field by field.
class protobuf_message {
public:
    protobuf_message& number(int field, std::uint64_t value) { return key(field, 0).varint(value); }
    protobuf_message& real(int field, double value) { return key(field, 1).fixed(std::bit_cast<std::uint64_t>(value)); }
    protobuf_message& real32(int field, float value) {
        return key(field, 5).fixed(std::bit_cast<std::uint32_t>(value));
    }
    protobuf_message& text(int field, std::string_view value) {
        key(field, 2).varint(value.size());
        bytes_ += value;
        return *this;
    }
    protobuf_message& message(int field, const protobuf_message& m) { return text(field, m.bytes_); }
    protobuf_message& reals(int field, const std::vector<double>& values) {
        key(field, 2).varint(8 * values.size());
        for (double v : values) fixed(std::bit_cast<std::uint64_t>(v));
        return *this;
    }
    const std::string& bytes() const { return bytes_; }

private:
    protobuf_message& key(int field, int wire) { return varint(static_cast<std::uint64_t>(field << 3 | wire)); }
    protobuf_message& varint(std::uint64_t value) {
        for (; value > 127; value >>= 7) bytes_ += static_cast<char>((value & 127) | 128);
        bytes_ += static_cast<char>(value);
        return *this;
    }
    template <class U>
    protobuf_message& fixed(U value) {
        for (std::size_t i = 0; i < sizeof value; ++i) bytes_ += static_cast<char>(value >> (8 * i));
        return *this;
    }
    std::string bytes_;
};

// A record of an event file: length, data, and checksums of both.
inline std::string event_record(std::string_view data) {
    std::string length;
    for (int i = 0; i < 8; ++i) length += static_cast<char>(static_cast<std::uint64_t>(data.size()) >> (8 * i));
    const auto with_crc = [](std::string_view bytes) {
        std::string out(bytes);
        const std::uint32_t crc = masked_crc32c(bytes);
        for (int i = 0; i < 4; ++i) out += static_cast<char>(crc >> (8 * i));
        return out;
    };
    return with_crc(length) + with_crc(data);
}

// Writes each line of metrics (report/metrics.hpp) as one event: its numbers as scalars named "loss/train" or
// "attention_share/1/valid", its histograms of entropies as histograms.
// A file that can no longer be written ends the events, not the training: one sentence on stderr.
//   tensorboard_writer events("logs/a", 0);   events.write({{"step", 10}, {"loss", 5.2}});
class tensorboard_writer {
public:
    // An empty directory writes nothing. A run that continues after `last_step` asks TensorBoard to forget what an
    // earlier file says of later ones.
    explicit tensorboard_writer(const std::filesystem::path& directory, std::int64_t last_step = 0) {
        if (directory.empty()) return;
        const std::string option = "--tensorboard " + directory.string();
        std::error_code problem;
        std::filesystem::create_directories(directory, problem);
        check(!problem, option, "the directory cannot be created: ", problem.message());
        char host[256] = "host";
        ::gethostname(host, sizeof host - 1);
        const std::string stem = "events.out.tfevents." + std::to_string(static_cast<std::int64_t>(now())) + "." +
                                 host + "." + std::to_string(::getpid());
        for (int n = 0; file_ < 0; ++n) {  // never into a file that is there
            where_ = (directory / (stem + "." + std::to_string(n))).string();
            file_ = ::open(where_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
            check(file_ >= 0 || errno == EEXIST, option, where_, ": the file cannot be opened: ", std::strerror(errno));
        }
        append(protobuf_message().real(1, now()).text(3, "brain.Event:2"));
        if (last_step > 0)
            append(protobuf_message()
                       .real(1, now())
                       .number(2, static_cast<std::uint64_t>(last_step + 1))
                       .message(7, protobuf_message().number(1, 1)));
    }
    ~tensorboard_writer() {
        if (file_ >= 0) ::close(file_);
    }
    tensorboard_writer(const tensorboard_writer&) = delete;
    tensorboard_writer& operator=(const tensorboard_writer&) = delete;

    void write(const nlohmann::ordered_json& line) {
        if (file_ < 0) return;
        protobuf_message summary;
        add_values(summary, line, "", "/" + line.value("set", "train"));
        append(protobuf_message().real(1, now()).number(2, line.value("step", std::uint64_t{0})).message(5, summary));
    }
    const std::string& path() const { return where_; }

private:
    static double now() {
        return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    }

    static void add_values(protobuf_message& summary, const nlohmann::ordered_json& values, const std::string& prefix,
                           const std::string& suffix) {
        for (const auto& [key, value] : values.items()) {
            const std::string name = prefix + key;
            if (prefix.empty() && key == "step") continue;
            if (value.is_number())
                summary.message(1, protobuf_message().text(1, name + suffix).real32(2, value.get<float>()));
            else if (value.is_object() && value.contains("count"))
                summary.message(1, protobuf_message().text(1, name + suffix).message(5, histogram(value)));
            else if (value.is_object())
                add_values(summary, value, name + "/", suffix);
        }
    }
    static protobuf_message histogram(const nlohmann::ordered_json& h) {
        const double from = h["from"].get<double>(), width = h["width"].get<double>();
        const auto count = h["count"].get<std::vector<double>>();
        double rows = 0, sum = 0, squares = 0;
        std::vector<double> limits;
        for (double n : count) {
            const double middle = from + (static_cast<double>(limits.size()) + 0.5) * width;
            rows += n, sum += n * middle, squares += n * middle * middle;
            limits.push_back(middle + 0.5 * width);
        }
        return protobuf_message()
            .real(1, from)
            .real(2, limits.empty() ? from : limits.back())
            .real(3, rows)
            .real(4, sum)
            .real(5, squares)
            .reals(6, limits)
            .reals(7, count);
    }
    void append(const protobuf_message& event) {
        if (file_ < 0) return;
        const std::string record = event_record(event.bytes());
        for (std::size_t done = 0; done < record.size();) {
            const ::ssize_t n = ::write(file_, record.data() + done, record.size() - done);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) {
                const std::string why = std::strerror(errno);
                if (::isatty(STDERR_FILENO)) std::cerr << "\r\x1b[K";  // a line of progress may stand there
                std::cerr << where_ << ": the file cannot be written: " << why << "; training goes on without it\n";
                ::close(std::exchange(file_, -1));
                return;
            }
            done += static_cast<std::size_t>(n);
        }
    }

    std::string where_;
    int file_ = -1;
};

}  // namespace spectral
