// SPDX-License-Identifier: Apache-2.0
// examples/cli/eval.cpp: `spectral eval`: perplexity, bits per byte, n-gram figures, executed work, accuracy
#include "commands.hpp"
#include "data_options.hpp"
#include "eval_steps.hpp"
#include "runners.hpp"
#include "saved_options.hpp"

#include <spectral/data/list_ops.hpp>
#include <spectral/train/evaluate.hpp>

#include <cmath>
#include <iostream>

namespace spectral::cli {
namespace {

namespace fs = std::filesystem;

struct eval_options {
    std::string model, train_data;
    data_options data;
    runner_choice runner;
    route_files route;
    bool json = false;
    std::string by;
    step_evaluation steps;
};

// The training tokens that a run kept, for n-gram figures; empty if there are none.
fs::path train_tokens_of(const fs::path& run) {
    const fs::path settings = run / "run.json";
    if (!fs::exists(settings)) return {};
    const auto json = read_json_file(settings);
    if (!json.is_object() || !json.contains("train_tokens") || !json["train_tokens"].is_string()) return {};
    const fs::path tokens = run / json["train_tokens"].get<std::string>();
    return fs::exists(tokens) ? tokens : fs::path();
}

nlohmann::ordered_json language_figures(const eval_options& o, const model_directory& model, const evaluation& m,
                                        const std::string& tokenizer_file) {
    const index vocabulary = model.vocabulary();
    const auto stream =
        open_stream({.files = o.data.valid, .tokenizer = tokenizer_file, .name = "data"}, vocabulary).stream;
    const double nats = m.nats;
    nlohmann::ordered_json json{
        {"perplexity", perplexity(nats, m.targets)}, {"loss", m.loss()}, {"targets", m.targets}};
    const bool whole = m.targets == stream.size() - 1;  // not with --eval-batches
    if (whole && stream.text().bytes > 0) json["bits_per_byte"] = bits_per_byte(nats, stream.text().bytes);
    if (whole && stream.text().words > 0) json["word_perplexity"] = word_perplexity(nats, stream.text().words);
    json["windows"] = {{"count", m.windows}, {"length", o.data.time}, {"stride", o.data.time}};
    const fs::path kept = train_tokens_of(model.run());
    std::vector<std::string> train;
    if (!o.train_data.empty())
        train = {o.train_data};
    else if (!kept.empty())
        train = {kept.string()};
    if (train.empty()) return json;
    auto scored = stream.tokens();  // what the model was asked, no more
    scored.resize(static_cast<std::size_t>(m.targets + 1));
    const auto score =
        ngram_model(
            open_stream({.files = train, .tokenizer = tokenizer_file, .name = "train"}, vocabulary).stream.tokens(),
            vocabulary)
            .score(scored);
    json["unigram_perplexity"] = score.unigram_perplexity();
    json["bigram_perplexity"] = score.bigram_perplexity();
    return json;
}

void print(const nlohmann::ordered_json& json, const evaluation& m) {
    const auto line = [&](const char* key, const char* text) {
        if (json.contains(key)) std::printf("%-24s %.4f\n", text, json[key].get<double>());
    };
    line("perplexity", "perplexity");
    line("bits_per_byte", "bits per byte");
    line("word_perplexity", "perplexity per word");
    line("accuracy", "accuracy");
    line("loss", "loss (nats)");
    line("unigram_perplexity", "unigram perplexity");
    line("bigram_perplexity", "bigram perplexity");
    if (json.contains("windows"))
        std::printf("%-24s %s of %s tokens, stride %s: every token of them but the first is predicted once\n",
                    "windows", json["windows"]["count"].dump().c_str(), json["windows"]["length"].dump().c_str(),
                    json["windows"]["stride"].dump().c_str());
    else
        std::printf("%-24s %lld, up to %lld tokens\n", "examples", static_cast<long long>(m.windows),
                    static_cast<long long>(m.longest));
    line("meta_gate", "MetaRouter gate");
    if (json.contains("attention_share")) {
        std::printf("%-24s", "attention share");
        for (const auto& [layer, share] : json["attention_share"].items())
            std::printf(" layer %s: %.1f %%", layer.c_str(), 100 * share.get<double>());
        std::printf("\n");
    }
    std::printf("%-24s %.0f\n\nforward passes of this evaluation; 1 MAC = 2 FLOPs; dense: attention in every layer\n%s",
                "tokens/s", json["tokens_per_second"].get<double>(), mac_table(m.executed, &m.dense).c_str());
}

void run_eval(eval_options& o, CLI::App& command) {
    const model_directory model(o.model);
    const chiar_config* c = model.is_qwen2() ? nullptr : &model.chiar();
    const fs::path settings = model.run() / "run.json";
    if (fs::exists(settings)) {  // task, limits of ListOps, seed: as in training, where the command line says nothing
        const auto json = read_json_file(settings);
        if (json.is_object() && json.contains("options")) {
            auto saved = json["options"];
            for (const char* own : {"train", "out", "resume", "tokenizer", "train-tokenizer", "train-tsv",
                                    "eval-batches", "executor", "dtype", "threads", "time-products", "plans"})
                saved.erase(own);
            if (command.get_option("--task")->count()) saved.erase("valid"), saved.erase("valid-tsv");
            std::vector<std::string> all;
            for (const auto* opt : command.get_options())
                all.insert(all.end(), opt->get_lnames().begin(), opt->get_lnames().end());
            restore_options(command, saved, settings.string(), {}, all);
        }
    } else if (command.get_option("--time")->count() == 0)
        o.data.time = std::min<index>(model.longest(), c ? model.longest() : 512);
    if (command.get_option("--task")->count() == 0 && !fs::exists(settings) && c && c->model_type == "chiar_classifier")
        o.data.task = "classification";
    check(o.data.time <= model.longest(), "--time", "expected at most ", model.longest(),
          " (the model's context), found ", o.data.time);
    o.data.train.clear();
    o.data.train_tsv.clear();

    const std::string tokenizer_file = !o.data.tokenizer.empty() ? o.data.tokenizer
                                       : fs::exists(model.path / "tokenizer.json")
                                           ? (model.path / "tokenizer.json").string()
                                           : std::string();
    std::vector<std::string> names{o.data.task};
    if (o.data.task == "mixed") {
        names.clear();
        for (const auto& [task, classes] : model.chiar().task_classes) names.push_back(task);
        if (!o.data.valid.empty()) names.insert(names.begin(), "language");
    }
    const auto r = model.load(o.runner, o.route);
    nlohmann::ordered_json all{{"model", model.path.string()}};
    for (const auto& name : names) {
        const bool own_ids =
            name.starts_with("list_ops") && o.data.task != "mixed" && model.vocabulary() == list_ops_vocabulary;
        const bool of_ids = name.starts_with("list_ops") ||
                            (name == "language" && (o.data.valid.empty() || is_token_file(o.data.valid.front())));
        check(of_ids || !tokenizer_file.empty(), (model.path / "tokenizer.json").string(),
              "the model has no tokenizer, which task ", name, " needs: --tokenizer FILE");
        const task_data task = make_task(o.data, name, own_ids ? "" : tokenizer_file, {}, nullptr, nullptr);
        check(task.evaluations > 0, "spectral eval", "no data for task ", name, ": --data FILE");
        const evaluation m = evaluate(*r, {task.name, task.evaluations, task.evaluation_at});
        check(std::isfinite(m.nats), model.path.string(), "the loss on ", task.name, " is ", m.nats,
              ": the model's weights are broken");
        nlohmann::ordered_json json =
            task.classes == 0
                ? language_figures(o, model, m, tokenizer_file)
                : nlohmann::ordered_json{{"accuracy", m.accuracy()}, {"loss", m.loss()}, {"examples", m.targets}};
        add_work(json, m, c);
        if (!o.json) {
            if (names.size() > 1) std::printf("\ntask %s\n", name.c_str());
            print(json, m);
        }
        all[name] = std::move(json);
    }
    if (o.json) std::cout << all.dump(2) << '\n';
}

}  // namespace

void add_eval(CLI::App& app) {
    auto* c =
        app.add_subcommand("eval", "perplexity, bits per byte, accuracy, n-gram figures, executed work by operator");
    auto o = std::make_shared<eval_options>();
    option(*c, "--model", o->model, "DIR", "model directory or run")->required();
    option(*c, "--data,--valid", o->data.valid, "FILE...",
           "text or token file; TSV for classification [the run's --valid]");
    option(*c, "--train-data", o->train_data, "FILE", "training text of the n-gram figures [the run's]");
    choice(*c, "--task", o->data.task, {"language", "list_ops", "list_ops_flat", "classification", "mixed"},
           "[the run's]");
    option(*c, "--time", o->data.time, "T", "tokens of a window [the run's, or max_seq_len]");
    option(*c, "--batch", o->data.batch, "N",
           "windows a batch; changes speed, and results only with --meta-pool batch");
    option(*c, "--eval-batches", o->data.eval_batches, "N", "batches; 0: all");
    option(*c, "--tokenizer", o->data.tokenizer, "FILE", "tokenizer.json [the model's]");
    option(*c, "--classes", o->data.classes, "N", "classes of a TSV file");
    option(*c, "--valid-tsv", o->data.valid_tsv, "FILE", "classification of a mixed model");
    choice(*c, "--list-ops", o->data.list_ops, {"small", "long_range_arena"}, "limits of nested ListOps");
    option(*c, "--list-depth", o->data.list_depth, "N", "depth of an expression; 0: of --list-ops");
    option(*c, "--list-args", o->data.list_args, "N", "most arguments of an operator; 0: of --list-ops");
    option(*c, "--list-min-length", o->data.list_min, "N", "fewest tokens; 0: of --list-ops");
    option(*c, "--list-max-length", o->data.list_max, "N", "most tokens; 0: of --list-ops");
    option(*c, "--list-valid", o->data.list_valid, "N", "expressions");
    option(*c, "--seed", o->data.seed, "N", "of the expressions");
    c->add_flag("--json", o->json, "JSON instead of lines");
    add_route_options(*c, o->route);
    add_storage_option(*c, o->runner);
    add_runner_options(*c, o->runner);
    const char* group = "LayerRoute";
    choice(*c, "--by", o->by, {"step_type"},
           "conversations (--data, JSON lines) by step type: skip share, gates, "
           "perplexity with and without adapters and gates")
        ->group(group);
    option(*c, "--runs", o->steps.runs, "RUN...",
           "--by: runs of finetune, one a seed, instead of --adapter and --router")
        ->group(group);
    option(*c, "--samples", o->steps.samples, "N", "--by: samples of each step type, evenly over the files; 0: all")
        ->group(group);
    option(*c, "--resamples", o->steps.resamples, "N", "--by: of the bootstrap")->group(group);
    option(*c, "--side", o->steps.side, "SIDE", "--by: held_out, training or all conversations")->group(group);
    option(*c, "--held-out", o->steps.held_out, "SHARE", "--by: kept from training")->group(group);
    add_conversation_options(*c, o->steps.data);
    c->callback([o, c] {
        if (o->by.empty()) return run_eval(*o, *c);
        o->steps.model = o->model, o->steps.files = o->data.valid, o->steps.route = o->route,
        o->steps.runner = o->runner;
        o->steps.json = o->json, o->steps.batch = c->get_option("--batch")->count() ? o->data.batch : 8;
        o->steps.length_given = c->get_option("--max-length")->count() > 0;
        evaluate_steps(o->steps);
    });
}

}  // namespace spectral::cli
