// SPDX-License-Identifier: Apache-2.0
// tests/support/golden.hpp: where expected values lie, and temporary files
//
// tests/golden/ is part of the repository: a test fails where a file of it is missing. The full set (folders a/, b/,
// text/) is too large for it: its folder comes from the environment variable SPECTRAL_GOLDEN_DIR or the macro of that
// name, and tests that need more than the repository has say so and pass where it is absent.
#pragma once
#include "support/catch.hpp"

#include <spectral/core/check.hpp>

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>

namespace spectral::test {

inline std::filesystem::path small_golden_dir() { return std::filesystem::path(SPECTRAL_TEST_DATA) / "golden"; }

// The folder `part` of the full set, or nothing.
inline std::optional<std::filesystem::path> golden_dir(const std::string& part) {
    const char* root = std::getenv("SPECTRAL_GOLDEN_DIR");
#ifdef SPECTRAL_GOLDEN_DIR
    if (!root) root = SPECTRAL_GOLDEN_DIR;
#endif
    if (!root || !std::filesystem::is_directory(std::filesystem::path(root) / part)) return std::nullopt;
    return std::filesystem::path(root) / part;
}

// f(path) for a file that tests/golden/a/ holds, and for its twin of another shape in the full set's b/.
template <class F>
void for_each_golden(const std::string& file, F&& f) {
    const auto own = small_golden_dir() / "a" / file;
    INFO(own.string() << " is part of the repository");
    REQUIRE(std::filesystem::exists(own));
    f(own);
    if (const auto dir = golden_dir("b"); dir && std::filesystem::exists(*dir / file)) f(*dir / file);
}

// f(path) for every shape of a file that the full set alone has.
template <class F>
void for_each_full_golden(const std::string& file, F&& f) {
    int found = 0;
    for (const char* part : {"a", "b"})
        if (const auto dir = golden_dir(part); dir && std::filesystem::exists(*dir / file)) {
            f(*dir / file);
            ++found;
        }
    if (!found) WARN("skipped: " << file << " is in the full set of golden numbers alone");
}

// The repository's files leave out the gradients of the feed-forward matrices: the full set's b/ has them.
inline bool left_out(const std::string& name) {
    return name.starts_with("grad.") && name.find("ffn.") != name.npos && name.ends_with(".weight");
}

// A directory that is removed with all it holds. No REQUIRE here: on Catch2 3's assertions inside this class cudafe++ of
// CUDA 13.0 runs without end (host compiler g++ 13; docs/08-why.md).
class temporary_dir {
public:
    temporary_dir() {
        std::string pattern = (std::filesystem::temp_directory_path() / "spectral-test-XXXXXX").string();
        if (::mkdtemp(pattern.data()) == nullptr)
            fail(pattern, "no temporary directory could be made: ", std::strerror(errno));
        path_ = pattern;
    }
    ~temporary_dir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    temporary_dir(const temporary_dir&) = delete;
    temporary_dir& operator=(const temporary_dir&) = delete;
    std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
    std::size_t files() const {
        const std::filesystem::directory_iterator first(path_);
        return static_cast<std::size_t>(std::distance(begin(first), end(first)));
    }

private:
    std::filesystem::path path_;
};

// The sentence that f throws, or "".
template <class F>
std::string sentence_of(F&& f) {
    try {
        f();
    } catch (const spectral::error& e) {
        return e.what();
    }
    return "";
}

}  // namespace spectral::test

// The expression throws spectral::error with these words in its sentence.
#define CHECK_SENTENCE(expression, words)                                                      \
    do {                                                                                       \
        const std::string sentence = spectral::test::sentence_of([&] { (void)(expression); }); \
        INFO("expected: " << (words));                                                         \
        INFO("sentence: " << sentence);                                                        \
        CHECK(sentence.find(words) != std::string::npos);                                      \
    } while (false)
