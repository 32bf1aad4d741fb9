// SPDX-License-Identifier: Apache-2.0
// tests/fuzz/replay_main.cpp: runs a fuzz target over the files of its corpus and over fixed mutations of them
//
//   NAME_fuzz [--mutations N] FILE-OR-FOLDER...
// A fuzz target defines LLVMFuzzerTestOneInput, as for libFuzzer; it must return for any bytes.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using bytes = std::vector<std::uint8_t>;

void run(const bytes& input) {
    // a heap block of exactly this size: the address sanitizer sees a read past its end
    const bytes exact(input.begin(), input.end());
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

// one to four edits: cut, flip a bit, overwrite, insert, repeat a part
bytes mutated(bytes b, std::mt19937& random) {
    static constexpr std::uint8_t telling[] = {0,   1,   0x7f, 0x80, 0xff, '{', '}', '[',
                                               ']', '"', '\\', ':',  ',',  '-', '9', ' '};
    const auto draw = [&](std::size_t n) { return n == 0 ? std::size_t{0} : std::size_t{random()} % n; };
    for (std::size_t edits = 1 + draw(4); edits > 0; --edits) {
        const std::size_t at = draw(b.size());
        const auto place = b.begin() + static_cast<std::ptrdiff_t>(at);
        switch (draw(5)) {
            case 0: b.resize(at); break;
            case 1:
                if (!b.empty()) b[at] ^= static_cast<std::uint8_t>(1u << draw(8));
                break;
            case 2:
                if (!b.empty()) b[at] = telling[draw(std::size(telling))];
                break;
            case 3: b.insert(place, telling[draw(std::size(telling))]); break;
            default: {
                const bytes part(place,
                                 place + static_cast<std::ptrdiff_t>(draw(std::min<std::size_t>(b.size() - at, 64))));
                b.insert(b.begin() + static_cast<std::ptrdiff_t>(draw(b.size())), part.begin(), part.end());
            }
        }
    }
    return b;
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<std::filesystem::path> files;
    int mutations = 0;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument == "--mutations" && i + 1 < argc) {
            mutations = std::atoi(argv[++i]);
        } else if (std::filesystem::is_directory(argument)) {
            for (const auto& entry : std::filesystem::recursive_directory_iterator(argument))
                if (entry.is_regular_file()) files.push_back(entry.path());
        } else {
            files.emplace_back(argument);
        }
    }
    std::sort(files.begin(), files.end());
    if (files.empty()) {
        std::fprintf(stderr, "%s: no corpus files in the arguments\n", argv[0]);
        return 2;
    }
    std::mt19937 random(20240601);  // fixed: a failure comes back
    run({});
    for (const auto& file : files) {
        std::ifstream in(file, std::ios::binary);
        if (!in) {
            std::fprintf(stderr, "%s: cannot be read\n", file.c_str());
            return 2;
        }
        const bytes input{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
        run(input);
        for (int i = 0; i < mutations; ++i) run(mutated(input, random));
    }
    std::printf("%zu files, %zu inputs\n", files.size(), 1 + files.size() * (1 + static_cast<std::size_t>(mutations)));
}
