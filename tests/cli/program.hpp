// SPDX-License-Identifier: Apache-2.0
// tests/cli/program.hpp: runs the program `spectral` and keeps what it printed; model directories from golden files
#pragma once
#include "support/golden.hpp"

#include <spectral/io/safetensors.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

namespace spectral::test {

// A word of a shell command.
inline std::string quoted(const std::string& text) {
    std::string out = "'";
    for (char c : text) out += c == '\'' ? "'\\''" : std::string(1, c);
    return out + "'";
}
inline std::string quoted(const std::filesystem::path& path) { return quoted(path.string()); }

struct outcome {
    int code = -1;
    std::string out, err;
};

// Runs a shell command in which $SPECTRAL is the program.
inline outcome run_shell(const std::string& command) {
    temporary_dir dir;
    const auto err = dir / "stderr";
    const std::string line = "SPECTRAL=" + quoted(std::string(SPECTRAL_BIN_DIR) + "/spectral") +
                             "; export SPECTRAL; { " + command + "\n} 2> " + quoted(err);
    std::FILE* pipe = ::popen(line.c_str(), "r");
    REQUIRE(pipe != nullptr);
    outcome result;
    char block[4096];
    while (const std::size_t n = std::fread(block, 1, sizeof block, pipe)) result.out.append(block, n);
    const int status = ::pclose(pipe);
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    result.err = read_text_file(err);
    return result;
}
// Runs the program on these arguments (shell words).
inline outcome run(const std::string& arguments) { return run_shell("\"$SPECTRAL\" " + arguments); }

// Exit code 2 and one line on stderr that begins with "spectral: " and holds every part.
inline void check_refused(const outcome& got, const std::vector<std::string>& parts) {
    INFO("stderr: " << got.err);
    CHECK(got.code == 2);
    CHECK(got.err.starts_with("spectral: "));
    CHECK(std::count(got.err.begin(), got.err.end(), '\n') == 1);
    for (const auto& part : parts) {
        INFO("expected: " << part);
        CHECK(got.err.find(part) != std::string::npos);
    }
}

inline void write_text(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
}

// config.json and model.safetensors (of `param.*`) from a golden file, and its ids as input.safetensors: all (B, T + 1)
// for gradients, without the last column for logits.
struct golden_model {
    safetensors_file file;
    std::filesystem::path dir;

    golden_model(const std::filesystem::path& golden, const std::filesystem::path& directory)
        : file(golden), dir(directory) {
        std::filesystem::create_directories(dir);
        const auto& m = file.metadata();
        write_text(dir / "config.json",
                   "{\"model_type\": \"chiar_former\", \"vocab_size\": " + m.at("V") + ", \"d_model\": " + m.at("d") +
                       ", \"n_heads\": " + m.at("h") + ", \"n_layers\": " + m.at("L") + ", \"max_seq_len\": " +
                       m.at("T") + ", \"routing_mode\": \"" + m.at("routing") + "\", \"tau\": " + m.at("tau") +
                       ", \"dropout\": 0.1, \"dct_norm\": \"reference\", \"meta_pool\": \"batch\"}");
        safetensors_writer weights;
        for (const auto& [name, entry] : file.tensors())
            if (name.starts_with("param.")) weights.add(name.substr(6), entry.dtype, entry.shape, entry.data);
        weights.write(dir / "model.safetensors");
        const auto ids = file.read<std::int64_t>("ids");
        const index B = file.at("ids").shape[0], T = file.at("ids").shape[1] - 1;
        std::vector<std::int64_t> inputs;
        for (index b = 0; b < B; ++b)
            inputs.insert(inputs.end(), ids.begin() + b * (T + 1), ids.begin() + b * (T + 1) + T);
        write_ids("inputs.safetensors", {B, T}, inputs);
        write_ids("all.safetensors", {B, T + 1}, ids);
    }
    std::string write_ids(const std::string& name, std::vector<index> shape,
                          const std::vector<std::int64_t>& ids) const {
        safetensors_writer writer;
        writer.add("ids", std::move(shape), std::span<const std::int64_t>(ids));
        writer.write(dir / name);
        return (dir / name).string();
    }
    // "--model DIR --ids FILE --out DIR/out.safetensors"
    std::string arguments(const std::string& ids) const {
        return "--model " + quoted(dir) + " --ids " + quoted(dir / ids) + " --out " + quoted(dir / "out.safetensors");
    }
};

}  // namespace spectral::test
