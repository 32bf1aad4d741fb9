// SPDX-License-Identifier: Apache-2.0
// tests/report/tensorboard_test.cpp: event files, read back by a reader of their format alone
#include <spectral/report/tensorboard.hpp>

#include "support/catch.hpp"
#include "support/golden.hpp"

#include <sys/resource.h>

#include <csignal>
#include <map>
#include <sstream>
#include <variant>

namespace tensorboard_test {
using namespace spectral;
using namespace spectral::test;

std::uint64_t little_endian(std::string_view bytes) {
    std::uint64_t v = 0;
    for (std::size_t i = bytes.size(); i-- > 0;) v = v << 8 | static_cast<unsigned char>(bytes[i]);
    return v;
}

// CRC-32C bit by bit, to be independent of the table
std::uint32_t slow_crc(std::string_view bytes) {
    std::uint32_t crc = 0xFFFFFFFFu;
    for (char c : bytes) {
        crc ^= static_cast<unsigned char>(c);
        for (int i = 0; i < 8; ++i) crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
    }
    return crc ^ 0xFFFFFFFFu;
}
std::uint32_t slow_mask(std::string_view bytes) {
    const std::uint32_t crc = slow_crc(bytes);
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

std::vector<std::string> records(const std::string& file) {
    std::vector<std::string> out;
    for (std::size_t at = 0; at < file.size();) {
        REQUIRE(at + 12 <= file.size());
        const auto length = little_endian(std::string_view(file).substr(at, 8));
        REQUIRE(little_endian(std::string_view(file).substr(at + 8, 4)) ==
                slow_mask(std::string_view(file).substr(at, 8)));
        REQUIRE(at + 16 + length <= file.size());
        out.push_back(file.substr(at + 12, length));
        REQUIRE(little_endian(std::string_view(file).substr(at + 12 + length, 4)) == slow_mask(out.back()));
        at += 16 + length;
    }
    return out;
}

// Fields of a message in their order: number -> varint or fixed bits, or bytes.
std::multimap<int, std::variant<std::uint64_t, std::string>> fields(std::string_view m) {
    std::multimap<int, std::variant<std::uint64_t, std::string>> out;
    const auto varint = [&] {
        std::uint64_t v = 0;
        for (int shift = 0;; shift += 7) {
            REQUIRE(!m.empty());
            const auto byte = static_cast<unsigned char>(m[0]);
            m.remove_prefix(1);
            v |= static_cast<std::uint64_t>(byte & 127) << shift;
            if (byte < 128) return v;
        }
    };
    const auto take = [&](std::size_t n) {
        REQUIRE(n <= m.size());
        const auto piece = m.substr(0, n);
        m.remove_prefix(n);
        return piece;
    };
    while (!m.empty()) {
        const auto key = varint();
        const int field = static_cast<int>(key >> 3);
        if ((key & 7) == 0)
            out.emplace(field, varint());
        else if ((key & 7) == 1)
            out.emplace(field, little_endian(take(8)));
        else if ((key & 7) == 5)
            out.emplace(field, little_endian(take(4)));
        else {
            REQUIRE((key & 7) == 2);
            const auto n = varint();
            out.emplace(field, std::string(take(n)));
        }
    }
    return out;
}
template <class T>
T one(const std::multimap<int, std::variant<std::uint64_t, std::string>>& m, int field) {
    REQUIRE(m.count(field) == 1);
    return std::get<T>(m.find(field)->second);
}
double as_double(std::uint64_t bits) { return std::bit_cast<double>(bits); }

std::map<std::string, double> scalars(const std::string& event,
                                      std::map<std::string, std::string>* histograms = nullptr) {
    std::map<std::string, double> out;
    const auto summary = fields(one<std::string>(fields(event), 5));
    for (const auto& [field, value] : summary) {
        REQUIRE(field == 1);
        const auto v = fields(std::get<std::string>(value));
        const auto tag = one<std::string>(v, 1);
        if (v.count(2))
            out[tag] = std::bit_cast<float>(static_cast<std::uint32_t>(one<std::uint64_t>(v, 2)));
        else if (histograms)
            (*histograms)[tag] = one<std::string>(v, 5);
    }
    return out;
}

TEST_CASE("the checksum of RFC 3720", "[report]") {
    CHECK(crc32c("123456789") == 0xE3069283u);
    CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AAu);
    CHECK(crc32c("") == 0);
    CHECK(masked_crc32c("123456789") == slow_mask("123456789"));
}

TEST_CASE("lines of metrics become events", "[report]") {
    temporary_dir dir;
    tensorboard_writer events(dir / "logs/a");
    events.write({{"step", 10},
                  {"loss", 5.25},
                  {"attention_share", {{"1", 0.75}, {"2", 0.5}}},
                  {"note", "text"},
                  {"gone", nullptr}});
    events.write({{"step", 300},
                  {"set", "valid"},
                  {"perplexity", 49.5},
                  {"entropy_histogram", {{"1", {{"from", 0.5}, {"width", 0.25}, {"count", {3, 1}}}}}}});
    const auto r = records(read_text_file(events.path()));
    REQUIRE(r.size() == 3);
    CHECK(one<std::string>(fields(r[0]), 3) == "brain.Event:2");
    CHECK(as_double(one<std::uint64_t>(fields(r[0]), 1)) > 1.7e9);
    CHECK(one<std::uint64_t>(fields(r[1]), 2) == 10);
    CHECK(scalars(r[1]) == std::map<std::string, double>{{"loss/train", 5.25},
                                                         {"attention_share/1/train", 0.75},
                                                         {"attention_share/2/train", 0.5}});
    CHECK(one<std::uint64_t>(fields(r[2]), 2) == 300);
    std::map<std::string, std::string> histograms;
    CHECK(scalars(r[2], &histograms) == std::map<std::string, double>{{"perplexity/valid", 49.5}});
    REQUIRE(histograms.size() == 1);
    const auto h = fields(histograms["entropy_histogram/1/valid"]);
    CHECK(as_double(one<std::uint64_t>(h, 3)) == 4);
    CHECK(as_double(one<std::uint64_t>(h, 4)) == 3 * 0.625 + 0.875);
    const auto limits = one<std::string>(h, 6), counts = one<std::string>(h, 7);
    REQUIRE(limits.size() == 16);
    CHECK(as_double(little_endian(limits.substr(0, 8))) == 0.75);
    CHECK(as_double(little_endian(limits.substr(8))) == 1.0);
    CHECK(as_double(little_endian(counts.substr(0, 8))) == 3);
}

TEST_CASE("a run that continues writes a file of its own and cuts what came after its step", "[report]") {
    temporary_dir dir;
    const tensorboard_writer first(dir / "logs"), second(dir / "logs", 100);
    CHECK(first.path() != second.path());
    const auto r = records(read_text_file(second.path()));
    REQUIRE(r.size() == 2);
    CHECK(one<std::uint64_t>(fields(r[1]), 2) == 101);
    CHECK(one<std::uint64_t>(fields(one<std::string>(fields(r[1]), 7)), 1) == 1);  // SessionLog.START
    const tensorboard_writer none(std::filesystem::path{});
    CHECK(none.path().empty());
}

TEST_CASE("a full disk ends the events, not the training; a directory that cannot be made is an error", "[report]") {
    temporary_dir dir;
    tensorboard_writer events(dir / "logs");
    const auto before_size = std::filesystem::file_size(events.path());
    struct ::rlimit before {};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    struct ::rlimit low = before;
    low.rlim_cur = before_size;
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    std::ostringstream said;
    auto* const stderr_buffer = std::cerr.rdbuf(said.rdbuf());
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &low) == 0);
    for (int step : {1, 2}) events.write({{"step", step}, {"loss", 5.25}});
    ::setrlimit(RLIMIT_FSIZE, &before);
    events.write({{"step", 3}, {"loss", 5.25}});  // nor later: what follows a torn record is not read
    std::cerr.rdbuf(stderr_buffer);
    std::signal(SIGXFSZ, handler);
    CHECK(said.str() == events.path() + ": the file cannot be written: File too large; training goes on without it\n");
    CHECK(std::filesystem::file_size(events.path()) == before_size);

    CHECK_SENTENCE(tensorboard_writer(std::filesystem::path(events.path()) / "logs"), "--tensorboard " + events.path());
}

}  // namespace tensorboard_test
