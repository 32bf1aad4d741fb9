// SPDX-License-Identifier: Apache-2.0
// include/spectral/io/json.hpp: strict JSON from untrusted files
//
// nlohmann::json parses; this adds what it leaves open: a key that appears twice in one object is an error (it would
// keep one value silently), nesting is limited, and every error is one sentence that names the file.
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/io/atomic_file.hpp>
#include <spectral/io/names.hpp>

#include <nlohmann/json.hpp>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace spectral {

namespace detail {
// nlohmann's sentence without its "[json.exception...]" tag, cut and printable: it may quote the whole input
inline std::string json_problem(std::string_view what) {
    if (const auto tag = what.find("] "); tag != std::string_view::npos) what.remove_prefix(tag + 2);
    std::string out(what.substr(0, 300));
    for (char& c : out)
        if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '?';
    return what.size() > 300 ? out + "..." : out;
}
}  // namespace detail

// The text as JSON; `where` names its file in errors. Json is nlohmann::json, or nlohmann::ordered_json to keep the
// order of keys (slow to fill beyond some thousand keys per object).
//   const auto config = parse_json(R"({"d": 256})", "config.json");
template <class Json = nlohmann::json>
Json parse_json(std::string_view text, std::string_view where, int deepest = 100) {
    std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open
    const auto watch = [&](int depth, typename Json::parse_event_t event, Json& parsed) {
        using event_t = typename Json::parse_event_t;
        if (event == event_t::object_start) keys.emplace_back();
        if (event == event_t::object_end) keys.pop_back();
        if (event == event_t::object_start || event == event_t::array_start)
            check(depth < deepest, where, "JSON is nested deeper than ", deepest, " levels");
        if (event == event_t::key) {
            const auto& key = parsed.template get_ref<const std::string&>();
            if (!keys.back().insert(key).second)
                fail(where, "key ", in_quotes(key), " appears twice in one JSON object");
        }
        return true;
    };
    try {
        return Json::parse(text.begin(), text.end(), watch);
    } catch (const typename Json::exception& problem) {
        fail(where, "not valid JSON: ", detail::json_problem(problem.what()));
    }
}

// The whole file, which may be empty.
inline std::string read_text_file(const std::filesystem::path& path) {
    const std::string where = path.string();
    struct closer {
        void operator()(std::FILE* f) const { std::fclose(f); }
    };
    const std::unique_ptr<std::FILE, closer> file(std::fopen(path.c_str(), "rbe"));
    check(file != nullptr, where, "the file cannot be opened: ", std::strerror(errno));
    std::string text;
    char block[1 << 16];
    while (const std::size_t n = std::fread(block, 1, sizeof block, file.get())) text.append(block, n);
    check(!std::ferror(file.get()), where, "the file cannot be read: ", std::strerror(errno));
    return text;
}

// A file's JSON; throws error with path and place where it is not JSON or names a key twice.
template <class Json = nlohmann::json>
Json read_json_file(const std::filesystem::path& path) {
    return parse_json<Json>(read_text_file(path), path.string());
}

}  // namespace spectral
