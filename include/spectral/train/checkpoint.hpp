// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/checkpoint.hpp: a run's directory of checkpoints, each written as a whole or not at all
//
//   run/step-300/   the model's files (io/model_files.hpp)  optimizer.safetensors  trainer.json
//                   tokenizer.json (if any)
//                   plans.json (of an executor that chooses how it computes: a resumed run repeats its choices)
//   run/last, run/best -> step-N          symbolic links, replaced by rename
// A checkpoint is written as step-N.tmp/, every file and the directory synced, then renamed. A reader checks that all
// files say the same step. Killed at any moment, the run keeps its last whole checkpoint.
#pragma once
#include <spectral/train/runner.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

namespace spectral {

// What a resumed run must know besides weights and moments.
struct trainer_state {
    index step = 0;  // optimizer steps done
    double best_loss = 0;
    index best_step = -1;
    double tokens = 0;  // trained on so far
    nlohmann::json options;  // of the run: a resume with other numbers is refused
    std::string foreign_plans = {};  // loaded: the device and library whose plans.json does not hold here
};

namespace detail {
inline void sync_directory(const std::filesystem::path& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    ::fsync(fd);
    ::close(fd);
}
inline void point_link(const std::filesystem::path& link, const std::filesystem::path& target) {
    const std::filesystem::path next = link.string() + ".tmp";
    std::error_code ignored;
    std::filesystem::remove(next, ignored);
    // a run that was copied with its links followed has a checkpoint's copy here, which a link cannot be renamed over
    if (std::filesystem::is_directory(std::filesystem::symlink_status(link)))
        std::filesystem::rename(link, link.string() + ".copy");
    std::filesystem::create_symlink(target, next);
    std::filesystem::rename(next, link);
}
inline index step_of(const std::filesystem::path& directory) {  // step-300 -> 300, anything else -> -1
    const std::string name = directory.filename().string();
    if (!name.starts_with("step-") || name.size() == 5 ||
        name.find_first_not_of("0123456789", 5) != std::string::npos || name.size() > 20)
        return -1;
    return std::stoll(name.substr(5));
}
inline std::vector<index> steps_in(const std::filesystem::path& run) {  // of its checkpoints, newest first
    std::vector<index> steps;
    if (std::filesystem::is_directory(run))
        for (const auto& entry : std::filesystem::directory_iterator(run))
            if (entry.is_directory() && !entry.is_symlink())
                if (const index step = step_of(entry.path()); step >= 0) steps.push_back(step);
    std::sort(steps.rbegin(), steps.rend());
    return steps;
}
}  // namespace detail

// Whether a run has a checkpoint to go on from. Throws error where there are checkpoints that `last` does not lead to: a
// training that began anew would delete them.
inline bool has_checkpoint(const std::filesystem::path& run) {
    namespace fs = std::filesystem;
    const fs::path last = run / "last";
    if (fs::exists(last)) return true;
    const std::vector<index> steps = detail::steps_in(run);
    if (steps.empty()) return false;
    fail(last.string(), "expected a link to a checkpoint, found ",
         fs::is_symlink(fs::symlink_status(last)) ? "one to " + fs::read_symlink(last).string() + ", which is not there"
                                                  : std::string("none"),
         ": make it a link to step-", steps.front(), ", the newest there is, or to an older one");
}

// Writes run/step-N and points `last` (and `best`) at it; removes older checkpoints but the `keep` newest and the best.
inline void save_checkpoint(const std::filesystem::path& run, runner& r, const trainer_state& state,
                            const std::filesystem::path& tokenizer, bool is_best, index keep) {
    namespace fs = std::filesystem;
    const std::string name = "step-" + std::to_string(state.step);
    const fs::path unfinished = run / (name + ".tmp"), finished = run / name;
    std::error_code ignored;
    fs::remove_all(unfinished, ignored);
    try {
        fs::create_directories(unfinished);
        const std::map<std::string, std::string> metadata{{"format", "pt"}, {"step", std::to_string(state.step)}};
        save_model(r, unfinished, metadata);
        r.save_optimizer(unfinished / "optimizer.safetensors", metadata);
        if (!tokenizer.empty()) write_file_atomically(unfinished / "tokenizer.json", read_text_file(tokenizer));
        nlohmann::ordered_json json{
            {"step", state.step},      {"best_loss", state.best_loss},  {"best_step", state.best_step},
            {"tokens", state.tokens},  {"executor", r.executor_name()}, {"dtype", r.scalar_name()},
            {"options", state.options}};
        write_file_atomically(unfinished / "trainer.json", json.dump(2) + "\n");
        if (const executor_plans plans = r.plans(); !plans.products.empty())
            write_file_atomically(unfinished / "plans.json", nlohmann::ordered_json{{"made_by", plans.made_by},
                                                                                    {"arena_bytes", plans.arena_bytes},
                                                                                    {"products", plans.products}}
                                                                     .dump(2) +
                                                                 "\n");
        detail::sync_directory(unfinished);
        fs::remove_all(finished);
        fs::rename(unfinished, finished);
        detail::sync_directory(run);
        detail::point_link(run / "last", name);
        if (is_best) detail::point_link(run / "best", name);
    } catch (const fs::filesystem_error& problem) {
        fs::remove_all(unfinished, ignored);
        fail(finished.string(), "the checkpoint cannot be written: ", problem.code().message(),
             "; what was there is untouched");
    } catch (const error& problem) {
        fs::remove_all(unfinished, ignored);
        fail(finished.string(), "the checkpoint cannot be written: ", problem.what(), "; what was there is untouched");
    }
    index kept = 0;  // of this step and earlier ones: what is newer was left by a training that went further
    for (const index step : detail::steps_in(run))
        if (keep > 0 && step <= state.step && ++kept > keep && step != state.best_step)
            fs::remove_all(run / ("step-" + std::to_string(step)), ignored);
}

// A checkpoint directory: step-N itself, or a run directory, which means its `last`.
inline std::filesystem::path find_checkpoint(const std::filesystem::path& path) {
    namespace fs = std::filesystem;
    for (const auto& directory : {path, path / "last"})
        for (const char* name : {"config.json", "adapter_config.json", "router_config.json"})
            if (fs::exists(directory / name)) return directory;
    fail(path.string(), "expected a model directory (config.json) or a run directory (last/config.json), found ",
         fs::exists(path) ? "neither" : "no such directory");
}

// trainer.json of a checkpoint; throws error where its files are of different steps.
inline trainer_state read_trainer_state(const std::filesystem::path& checkpoint) {
    const auto file = (checkpoint / "trainer.json").string();
    const auto json = read_json_file(file);
    const auto number = [&](const char* key) -> const nlohmann::json& {
        check(json.is_object() && json.contains(key) && json[key].is_number(), file, key, ": expected a number");
        return json[key];
    };
    trainer_state s{.step = number("step").get<index>(),
                    .best_loss = number("best_loss").get<double>(),
                    .best_step = number("best_step").get<index>(),
                    .tokens = number("tokens").get<double>(),
                    .options = json.value("options", nlohmann::json())};
    check(s.step >= 0, file, "step: expected at least 0, found ", s.step);
    return s;
}

// plans.json of a checkpoint, which may have none
inline executor_plans read_plans(const std::filesystem::path& checkpoint) {
    const auto file = checkpoint / "plans.json";
    std::error_code unknown;
    if (!std::filesystem::exists(file, unknown) && !unknown) return {};
    const auto json = read_json_file(file);
    const auto is_text = [](const nlohmann::json& value) { return value.is_string(); };
    check(json.is_object() && is_text(json.value("made_by", nlohmann::json())), file.string(),
          "made_by: expected a text");
    const auto products = json.value("products", nlohmann::json());
    check(products.is_object() && std::all_of(products.begin(), products.end(), is_text), file.string(),
          "products: expected texts by name");
    const auto arena_bytes = json.value("arena_bytes", nlohmann::json(0u));  // files of earlier versions have none
    check(arena_bytes.is_number_unsigned(), file.string(), "arena_bytes: expected a number of bytes, found ",
          arena_bytes.dump());
    return {json["made_by"], products, arena_bytes};
}

// Weights, moments and plans of a checkpoint into a runner of the same configuration; returns the trainer's state.
inline trainer_state load_checkpoint(const std::filesystem::path& checkpoint, runner& r) {
    trainer_state s = read_trainer_state(checkpoint);
    const auto check_step = [&](const auto& file) {
        const auto said = file.metadata().find("step");
        check(said != file.metadata().end() && said->second == std::to_string(s.step), file.name(), "step: expected ",
              s.step, " as in trainer.json, found ", said == file.metadata().end() ? "none" : said->second);
    };
    for (const auto& part : r.files().parts) {
        const auto file = weight_files::of_file(checkpoint / part.file);
        check_step(file);
        r.load_weights(file, part.which);
    }
    const safetensors_file moments(checkpoint / "optimizer.safetensors");
    check_step(moments);
    r.load_optimizer(moments);
    const executor_plans plans = read_plans(checkpoint);
    if (!plans.products.empty() && !r.use_plans(plans)) s.foreign_plans = plans.made_by;
    return s;
}

}  // namespace spectral
