// SPDX-License-Identifier: Apache-2.0
// examples/cli/saved_options.hpp: a run remembers the options it was started with (run.json)
#pragma once
#include "options.hpp"

#include <spectral/io/json.hpp>

namespace spectral::cli {

// The options given on the command line, names to values; those in `paths` as absolute paths.
inline nlohmann::ordered_json given_options(const CLI::App& app, const std::vector<std::string>& paths) {
    auto json = nlohmann::ordered_json::object();
    for (const auto* o : app.get_options()) {
        if (o->count() == 0 || o->get_lnames().empty()) continue;
        std::vector<std::string> values = o->results();
        if (std::find(paths.begin(), paths.end(), o->get_lnames()[0]) != paths.end())
            for (auto& v : values) v = std::filesystem::absolute(v).lexically_normal().string();
        json[o->get_lnames()[0]] = values;
    }
    return json;
}

// Sets every saved option that the command line leaves open. One given with another value is refused, unless it is in
// `free`: those may change between a run and its continuation.
inline void restore_options(CLI::App& app, const nlohmann::json& saved, const std::string& where,
                            const std::vector<std::string>& paths, const std::vector<std::string>& free) {
    const auto given = given_options(app, paths);
    for (const auto& [name, values] : saved.items()) {
        auto* o = app.get_option_no_throw("--" + name);
        if (!o) continue;
        if (o->count() == 0) {
            o->add_result(values.get<std::vector<std::string>>());
            o->run_callback();
        } else if (std::find(free.begin(), free.end(), name) == free.end()) {
            check(nlohmann::json(given[name]) == values, where, "--", name, ": expected ", values.dump(),
                  " as in the run so far, found ", given[name].dump());
        }
    }
    for (const auto& [name, values] : given.items())
        check(saved.contains(name) || std::find(free.begin(), free.end(), name) != free.end(), where, "--", name,
              ": expected to be left out, as when the run began, found ", values.dump());
}

}  // namespace spectral::cli
