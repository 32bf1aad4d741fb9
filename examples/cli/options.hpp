// SPDX-License-Identifier: Apache-2.0
// examples/cli/options.hpp: options with their type and default in the help, and small things that commands share
#pragma once
#include <spectral/core/check.hpp>

#include <CLI/CLI.hpp>

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace spectral::cli {

namespace detail {
template <class T>
std::string default_text(const T& value) {
    if constexpr (std::is_same_v<T, std::string>)
        return value;
    else if constexpr (std::is_arithmetic_v<T>) {
        std::ostringstream out;
        out << value;
        return out.str();
    } else
        return {};  // lists and optional values start empty
}
// What is wrong with the text of a std::uint64_t; CLI11 would wrap a sign and cut what is too large.
inline std::string not_whole(const std::string& text) {
    std::uint64_t value = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (problem == std::errc() && end == text.data() + text.size()) return {};
    return "expected a whole number from 0 to 2^64 - 1, found " + text;
}
}  // namespace detail

// One option and its line in the help: "--steps N   optimizer steps [300]".
template <class T>
CLI::Option* option(CLI::App& app, const std::string& names, T& value, const std::string& type,
                    const std::string& help) {
    const std::string start = detail::default_text(value);
    auto* o = app.add_option(names, value, help + (start.empty() ? "" : " [" + start + "]"))->option_text(type);
    if constexpr (std::is_same_v<T, std::uint64_t>) o->check(CLI::Validator(detail::not_whole, ""));
    return o;
}

// One of a few words; the help lists them in place of the type.
template <class T>
CLI::Option* choice(CLI::App& app, const std::string& names, T& value, const std::vector<std::string>& words,
                    const std::string& help) {
    std::string type;
    for (const auto& w : words) type += (type.empty() ? "" : "|") + w;
    return option(app, names, value, type, help)->check(CLI::IsMember(words).description(""));
}

// Writing over a file that was read would lose it. A folder stands for the files of a model and of a run in it.
inline void check_is_no_input(const std::string& out, const std::vector<std::string>& inputs) {
    namespace fs = std::filesystem;
    std::error_code none;  // the same file only where both exist
    if (!fs::is_regular_file(out, none)) return;
    const auto differs = [&](const fs::path& in) {
        check(!fs::equivalent(out, in, none), out, "expected an output that is no input, found the file ", in.string());
    };
    const auto is_kept = [](const fs::path& file) {
        const std::string name = file.filename().string(), kind = file.extension().string();
        if (kind == ".json" || kind == ".jsonl") return true;
        for (const char* start : {"model", "adapter", "router", "optimizer"})
            if (kind == ".safetensors" && name.starts_with(start)) return true;
        return false;
    };
    for (const auto& in : inputs) {
        differs(in);
        if (!fs::is_directory(in, none)) continue;
        for (fs::recursive_directory_iterator at(in, fs::directory_options::skip_permission_denied, none), end;
             at != end; at.increment(none))
            if (is_kept(at->path())) differs(at->path());
    }
}

// Ends the program with this exit code; nothing is printed.
struct exit_with {
    int code;
};

}  // namespace spectral::cli
