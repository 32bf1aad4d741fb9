// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/sources.hpp: what a report is made of: metrics of runs, and what eval and route print as JSON
//
// A source is a run's directory (its metrics.jsonl, and eval.json, route.json, steps.json where they lie there) or one
// file:
//   metrics (.jsonl), `eval --json`, `route --json`, `eval --by step_type --json`, told apart by what they hold.
// Files of one name belong together: a.jsonl and a.eval.json are both of run "a"; NAME=PATH gives another name.
#pragma once
#include <spectral/io/json.hpp>
#include <spectral/report/page.hpp>

namespace spectral::report {

// Keys keep their order.
using json = nlohmann::ordered_json;

// Everything known of one name.
struct run_record {
    std::string name;
    std::vector<json> training = {}, evaluations = {};  // lines of metrics, the second with a "set"
    json evaluation = {};  // of eval --json, or the last evaluation of training; null if none
    json route = {}, steps = {};  // null if none
    std::filesystem::path directory = {};  // of a run, else empty
};

// A number at the end of a path of keys; NaN where there is none.
inline double number_at(const json& from, std::initializer_list<const char*> keys) {
    const json* at = &from;
    for (const char* key : keys) {
        if (!at->is_object() || !at->contains(key)) return nothing;
        at = &(*at)[key];
    }
    return at->is_number() ? at->get<double>() : nothing;
}
// Numbers of an array; others become NaN.
inline std::vector<double> numbers_of(const json& array) {
    std::vector<double> out;
    if (array.is_array())
        for (const auto& v : array) out.push_back(v.is_number() ? v.get<double>() : nothing);
    return out;
}
// An object's member, or null.
inline const json& member(const json& from, std::string_view key) {
    static const json null;
    if (!from.is_object()) return null;
    const auto found = from.find(key);
    return found == from.end() ? null : *found;
}
inline std::string text_at(const json& from, std::string_view key) {
    const json& v = member(from, key);
    return v.is_string() ? v.get<std::string>() : "";
}

class sources {
public:
    void add(const std::string& argument) {
        namespace fs = std::filesystem;
        fs::path path = argument;
        std::string name;
        if (const auto equals = argument.find('='); equals != argument.npos && !fs::exists(path)) {
            name = argument.substr(0, equals);
            path = argument.substr(equals + 1);
        }
        check(fs::exists(path), path.string(), "no such file or directory");
        if (!fs::is_directory(path)) return add_file(path, name.empty() ? name_of(path) : name);
        if (name.empty())
            name = fs::absolute(path).lexically_normal().has_filename()
                       ? path.lexically_normal().filename().string()
                       : path.lexically_normal().parent_path().filename().string();
        if (name.empty() || name == "." || name == "..") name = fs::canonical(path).filename().string();
        bool any = false;
        for (const char* file : {"metrics.jsonl", "eval.json", "route.json", "steps.json"})
            if (fs::exists(path / file)) add_file(path / file, name), any = true;
        check(any, path.string(),
              "expected a run: metrics.jsonl, eval.json, route.json or steps.json, found none of them");
        of(name).directory = path;
    }
    const std::vector<std::string>& files() const { return files_; }  // that were read
    // What the evaluation during training found last stands in where eval did not run.
    std::vector<run_record> finish() {
        for (auto& r : runs_)
            if (r.evaluation.is_null() && !r.evaluations.empty()) r.evaluation = r.evaluations.back();
        // colours go by number: first to the runs whose curves stand beside each other
        std::stable_partition(runs_.begin(), runs_.end(), [](const run_record& r) { return r.steps.is_null(); });
        return std::move(runs_);
    }

private:
    static std::string name_of(const std::filesystem::path& file) {
        std::string name = file.stem().string();
        for (const char* end : {".eval", ".route", ".steps", ".metrics"})
            if (name.ends_with(end)) name.resize(name.size() - std::string_view(end).size());
        const std::string parent = std::filesystem::absolute(file).parent_path().filename().string();
        return name == "metrics" || name == "eval" || name == "route" || name == "steps" ? parent : name;
    }
    run_record& of(const std::string& name) {
        for (auto& r : runs_)
            if (r.name == name) return r;
        runs_.push_back({.name = name});
        return runs_.back();
    }
    void add_file(const std::filesystem::path& path, const std::string& name) {
        files_.push_back(path.string());
        if (path.extension() == ".jsonl") return add_metrics(path, of(name));
        const json j = read_json_file<json>(path);
        check(j.is_object(), path.string(), "expected a JSON object, found ", j.type_name());
        json found = j;
        json run_record::*where = &run_record::evaluation;
        if (member(j, "runs").is_array())
            where = &run_record::steps;
        else if (member(j, "tokens").is_array() && member(j, "layers").is_object())
            where = &run_record::route;
        else {
            found = nullptr;
            for (const auto& [task, figures] : j.items())  // the first task
                if (found.is_null() && figures.is_object() && figures.contains("loss")) found = figures;
            check(!found.is_null(), path.string(),
                  "expected metrics (.jsonl) or what eval --json or route --json print, found neither");
        }
        run_record& r = of(name);
        check((r.*where).is_null(), path.string(), "two files of one kind are called ", in_quotes(name),
              ": tell them apart with NAME=", path.string());
        r.*where = std::move(found);
    }
    static void add_metrics(const std::filesystem::path& path, run_record& r) {
        check(r.training.empty() && r.evaluations.empty(), path.string(), "two runs are called ", in_quotes(r.name),
              ": tell them apart with NAME=", path.string());
        const std::string text = read_text_file(path);
        std::size_t at = 0;
        for (std::int64_t number = 1; at < text.size(); ++number) {
            const std::size_t end = text.find('\n', at);
            if (end == text.npos) break;  // torn by a kill
            const std::string where = path.string() + ": line " + std::to_string(number);
            json line = parse_json<json>(std::string_view(text).substr(at, end - at), where);
            check(line.is_object(), where, "expected a JSON object, found ", line.type_name());
            if (line.contains("step")) (line.contains("set") ? r.evaluations : r.training).push_back(std::move(line));
            at = end + 1;
        }
        check(!r.training.empty() || !r.evaluations.empty(), path.string(), "expected lines of metrics, found none");
    }

    std::vector<run_record> runs_;
    std::vector<std::string> files_;
};

}  // namespace spectral::report
