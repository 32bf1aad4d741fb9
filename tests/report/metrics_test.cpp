// SPDX-License-Identifier: Apache-2.0
// tests/report/metrics_test.cpp: JSON lines, resuming, torn and foreign files
#include <spectral/report/metrics.hpp>

#include "support/catch.hpp"

#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <fstream>

namespace metrics_test {

struct temporary_file {
    std::filesystem::path path =
        std::filesystem::temp_directory_path() / ("spectral_metrics_" + std::to_string(::getpid()) + ".jsonl");
    temporary_file() { std::filesystem::remove(path); }
    ~temporary_file() { std::filesystem::remove(path); }
    void put(const std::string& text) const { std::ofstream(path, std::ios::binary) << text; }
    std::string get() const { return spectral::read_text_file(path); }
};

template <class Call>
std::string sentence(Call&& call) {
    try {
        call();
    } catch (const spectral::error& e) {
        return e.what();
    }
    return "no error";
}

const std::string three =
    "{\"config\":\"small\"}\n{\"step\":1,\"loss\":5.5}\n{\"step\":2,\"loss\":5.25}\n{\"step\":3,\"loss\":5.0}\n";

TEST_CASE("lines keep their order and are there at once", "[report]") {
    const temporary_file file;
    spectral::metrics_writer metrics(file.path);
    metrics.write({{"step", 1}, {"loss", 5.5}, {"bits", 0.125}});
    CHECK(file.get() == "{\"step\":1,\"loss\":5.5,\"bits\":0.125}\n");
    metrics.write({{"step", 2}, {"loss", std::nan("")}, {"text", "\xFF\n"}});
    CHECK(file.get().substr(35) == "{\"step\":2,\"loss\":null,\"text\":\"\xEF\xBF\xBD\\n\"}\n");
}

TEST_CASE("a resumed run cuts what came after its step", "[report]") {
    const temporary_file file;
    const auto resumed = [&](const std::string& before, std::int64_t step) {
        file.put(before);
        spectral::metrics_writer metrics(file.path, step);
        metrics.write({{"step", step + 1}});
        return file.get();
    };
    const auto head = [](int lines) {
        std::size_t at = 0;
        while (lines--) at = three.find('\n', at) + 1;
        return three.substr(0, at);
    };
    CHECK(resumed(three, 3) == three + "{\"step\":4}\n");
    CHECK(resumed(three, 2) == head(3) + "{\"step\":3}\n");
    CHECK(resumed(three, 1) == head(2) + "{\"step\":2}\n");
    CHECK(resumed(three, 0) == head(1) + "{\"step\":1}\n");
    CHECK(resumed(three + "{\"step\":4,\"lo", 3) == three + "{\"step\":4}\n");  // torn by a kill
    CHECK(resumed("", 0) == "{\"step\":1}\n");
    file.put(three);
    { spectral::metrics_writer appended(file.path); }
    CHECK(file.get() == three);
}

TEST_CASE("a moved or default writer", "[report]") {
    const temporary_file file;
    spectral::metrics_writer none;
    none.write({{"step", 1}});
    none = spectral::metrics_writer(file.path);
    none.write({{"step", 1}});
    spectral::metrics_writer other(std::move(none));
    other.write({{"step", 2}});
    none.write({{"step", 3}});  // NOLINT(*-move,*.Move): a moved-from one writes nowhere
    CHECK(file.get() == "{\"step\":1}\n{\"step\":2}\n");
}

TEST_CASE("foreign files are refused and stay as they are", "[report]") {
    const temporary_file file;
    const std::string name = file.path.string();
    const auto opened = [&](const std::string& text) {
        file.put(text);
        std::string said = sentence([&] { spectral::metrics_writer(file.path, 1); });
        CHECK(file.get() == text);
        return said;
    };
    CHECK(opened("{\"step\":1}\nnot json\n").find(name + ": line 2: not valid JSON: ") == 0);
    CHECK(opened("[1]\n") == name + ": line 1: expected a JSON object, found array");
    CHECK(opened("{\"step\":1.5}\n") == name + ": line 1: step: expected a whole number, found number");
    CHECK(sentence([] { spectral::metrics_writer("/nonexistent/m.jsonl"); }) ==
          "/nonexistent/m.jsonl: the file cannot be opened: No such file or directory");
}

TEST_CASE("a full disk is an error, not silence", "[report]") {
    const temporary_file file;
    struct ::rlimit old {};
    ::getrlimit(RLIMIT_FSIZE, &old);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    struct ::rlimit small = old;
    small.rlim_cur = 100;
    spectral::metrics_writer metrics(file.path);
    ::setrlimit(RLIMIT_FSIZE, &small);
    const std::string said = sentence([&] {
        for (int i = 0; i < 20; ++i) metrics.write({{"step", i}});
    });
    ::setrlimit(RLIMIT_FSIZE, &old);
    std::signal(SIGXFSZ, handler);
    CHECK(said == file.path.string() + ": the file cannot be written: File too large");
}

}  // namespace metrics_test
