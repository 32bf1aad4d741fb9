// SPDX-License-Identifier: Apache-2.0
// examples/cli/options.hpp: options with their type and default in the help, and small things that commands share
#pragma once
#include <spectral/core/check.hpp>

#include <CLI/CLI.hpp>

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
}  // namespace detail

// One option and its line in the help: "--steps N   optimizer steps [300]".
template <class T>
CLI::Option* option(CLI::App& app, const std::string& names, T& value, const std::string& type,
                    const std::string& help) {
    const std::string start = detail::default_text(value);
    return app.add_option(names, value, help + (start.empty() ? "" : " [" + start + "]"))->option_text(type);
}

// One of a few words; the help lists them in place of the type.
template <class T>
CLI::Option* choice(CLI::App& app, const std::string& names, T& value, const std::vector<std::string>& words,
                    const std::string& help) {
    std::string type;
    for (const auto& w : words) type += (type.empty() ? "" : "|") + w;
    return option(app, names, value, type, help)->check(CLI::IsMember(words).description(""));
}

// Ends the program with this exit code; nothing is printed.
struct exit_with {
    int code;
};

}  // namespace spectral::cli
