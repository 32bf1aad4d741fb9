// SPDX-License-Identifier: Apache-2.0
// examples/cli/data_options.cpp: options to batches, for every task
#include "data_options.hpp"

#include <spectral/data/classification.hpp>
#include <spectral/data/list_ops.hpp>
#include <spectral/data/mixed.hpp>

#include <limits>

namespace spectral::cli {
namespace {

bool is_list_ops(const std::string& task) { return task == "list_ops" || task == "list_ops_flat"; }

index vocabulary_of(const std::string& tokenizer_file) { return tokenizer::from_file(tokenizer_file).vocab_size(); }

text_encoder encoder_of(const std::string& tokenizer_file) {
    const auto tok = tokenizer::from_file(tokenizer_file);
    return [tok](std::string_view text) { return tok.encode(text); };
}

task_data language(const data_options& o, const std::string& tokenizer_file, const std::filesystem::path& run,
                   std::filesystem::path* train_tokens, std::ostream* say) {
    task_data t{.name = "language"};
    index vocabulary = tokenizer_file.empty() ? index{1} << 31 : vocabulary_of(tokenizer_file);
    const std::filesystem::path cache = run.empty() ? run : run / "data";
    const window_options windows{.batch = o.batch, .window = o.time, .seed = o.seed, .task = "language"};
    const auto enough = [](const token_stream& s, index least, const std::vector<std::string>& files) {
        check(s.size() >= least, files.front(), "tokens: expected at least ", least, ", found ", s.size());
    };
    if (!o.train.empty()) {
        const auto opened = open_stream({o.train, tokenizer_file, cache, "train", say}, vocabulary);
        if (tokenizer_file.empty()) {  // token files alone: the ids say how many there are
            const auto ids = opened.stream.tokens();
            vocabulary = ids.empty() ? 1 : index{*std::max_element(ids.begin(), ids.end())} + 1;
        }
        enough(opened.stream, o.time + 1, o.train);
        if (train_tokens)
            *train_tokens = opened.cached.empty() ? std::filesystem::absolute(o.train.front()) : opened.cached;
        auto data = std::make_shared<training_windows>(opened.stream, windows);
        t.per_epoch = static_cast<double>(data->windows()) / static_cast<double>(o.batch);
        t.batch_at = [data](index step) { return data->batch_at(step); };
        t.about = std::to_string(opened.stream.size()) + " tokens in " + std::to_string(data->windows()) +
                  " windows of " + std::to_string(o.time);
    }
    if (!o.valid.empty()) {
        const auto opened = open_stream({o.valid, tokenizer_file, cache, "valid", say}, vocabulary);
        enough(opened.stream, 2, o.valid);
        auto data = std::make_shared<evaluation_windows>(opened.stream, windows);
        t.evaluations = data->batches();
        t.evaluation_at = [data](index n) { return data->batch_at(n); };
    }
    t.vocabulary = vocabulary;
    return t;
}

list_ops_options list_ops_of(const data_options& o, const std::string& name) {
    list_ops_options l = name == "list_ops_flat" ? list_ops_options::flat()
                         : o.list_ops == "small" ? list_ops_options::small()
                                                 : list_ops_options::long_range_arena();
    if (o.list_depth) l.max_depth = o.list_depth;
    if (o.list_args) l.max_args = o.list_args;
    if (o.list_min) l.min_length = o.list_min;
    if (o.list_max) l.max_length = o.list_max;
    return l;
}

task_data list_ops(const data_options& o, const std::string& name, const std::string& tokenizer_file) {
    const list_ops_options l = list_ops_of(o, name);
    if (tokenizer_file.empty())
        check(l.max_length <= o.time, "--time", "expected at least ", l.max_length,
              ", the longest ListOps expression (--list-max-length), found ", o.time);
    auto data = std::make_shared<list_ops_batches>(
        list_ops_source{.options = l,
                        .seed = o.seed,
                        .batch = o.batch,
                        .train_examples = o.list_train,
                        .evaluation_examples = o.list_valid,
                        .encode = tokenizer_file.empty() ? text_encoder{} : encoder_of(tokenizer_file),
                        .task = name});
    return {.name = name,
            .vocabulary = tokenizer_file.empty() ? list_ops_vocabulary : vocabulary_of(tokenizer_file),
            .classes = list_ops_classes,
            .batch_at = [data](index step) { return data->batch_at(step); },
            .per_epoch = static_cast<double>(o.list_train) / static_cast<double>(o.batch),
            .evaluations = data->evaluation_batches(),
            .evaluation_at = [data](index n) { return data->evaluation_at(data_split::valid, n); },
            .about = "expressions of " + std::to_string(l.min_length) + " to " + std::to_string(l.max_length) +
                     " tokens, depth " + std::to_string(l.max_depth)};
}

task_data classification(const data_options& o, const std::string& name, const std::string& tokenizer_file) {
    const bool alone =
        o.train_tsv.empty() && o.valid_tsv.empty();  // not in a mix: --train and --valid are the TSV files
    const auto only = [&](const std::vector<std::string>& files) {
        check(files.size() <= 1, files.empty() ? "" : files.back(), "classification reads one TSV file, found ",
              files.size());
        return files.empty() ? std::string() : files[0];
    };
    const std::string train = alone ? only(o.train) : o.train_tsv, valid = alone ? only(o.valid) : o.valid_tsv;
    check(!tokenizer_file.empty(), "task " + name,
          "classification needs a tokenizer: --tokenizer or --train-tokenizer");
    const auto encode = encoder_of(tokenizer_file);
    const classification_options options{.classes = o.classes, .max_length = o.time};
    const classification_batch_options batches{.batch = o.batch, .seed = o.seed, .bucket = 16, .task = name};
    task_data t{.name = name, .vocabulary = vocabulary_of(tokenizer_file), .classes = o.classes};
    if (!train.empty()) {
        auto data = std::make_shared<classification_batches>(read_classification(train, encode, options), batches);
        t.batch_at = [data](index step) { return data->batch_at(step); };
        t.per_epoch = static_cast<double>(data->data().examples.size()) / static_cast<double>(o.batch);
        t.about = std::to_string(data->data().examples.size()) + " texts, " + std::to_string(data->data().cut) +
                  " of them cut to " + std::to_string(o.time) + " tokens";
    }
    if (!valid.empty()) {
        auto data = std::make_shared<classification_batches>(read_classification(valid, encode, options), batches);
        t.evaluations = data->evaluation_batches();
        t.evaluation_at = [data](index n) { return data->evaluation_at(n); };
    }
    return t;
}

// "language=0.6,list_ops=0.3,imdb=0.1"
std::vector<std::pair<std::string, double>> parse_mix(const std::string& text) {
    std::vector<std::pair<std::string, double>> out;
    std::istringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) {
        const std::size_t equals = part.find('=');
        const auto value =
            equals == part.npos ? nlohmann::json() : nlohmann::json::parse(part.substr(equals + 1), nullptr, false);
        check(equals > 0 && value.is_number(), "--mix", "expected task=weight,task=weight,..., found ",
              in_quotes(part));
        out.emplace_back(part.substr(0, equals), value.get<double>());
        check(out.back().second > 0, "--mix", "weight of ", in_quotes(out.back().first), ": expected above 0, found ",
              out.back().second);
    }
    check(!out.empty(), "--mix", "expected task=weight,task=weight,...");
    return out;
}

}  // namespace

void add_data_options(CLI::App& app, data_options& o) {
    const char* group = "Data";
    choice(app, "--task", o.task, {"language", "list_ops", "list_ops_flat", "classification", "mixed"},
           "what is learnt")
        ->group(group);
    option(app, "--train", o.train, "FILE...", "text (UTF-8) or a token file; classification: a TSV file")
        ->group(group);
    option(app, "--valid", o.valid, "FILE...", "the same for evaluation")->group(group);
    option(app, "--tokenizer", o.tokenizer, "FILE", "tokenizer.json (byte-level BPE)")->group(group);
    option(app, "--train-tokenizer", o.train_tokenizer, "VOCAB",
           "learn a byte-level BPE of that many tokens from the training text; 0: do not")
        ->group(group);
    option(app, "--batch", o.batch, "N", "sequences a batch")->group(group);
    option(app, "--time", o.time, "T", "tokens of a window; longer examples are cut")->group(group);
    option(app, "--eval-batches", o.eval_batches, "N", "batches of an evaluation; 0: all")->group(group);
    option(app, "--classes", o.classes, "N", "classes of a TSV file")->group(group);
    option(app, "--mix", o.mix, "T=W,...",
           "task mixed: language, list_ops, list_ops_flat, any other name: the TSV files")
        ->group(group);
    option(app, "--train-tsv", o.train_tsv, "FILE", "classification inside a mix")->group(group);
    option(app, "--valid-tsv", o.valid_tsv, "FILE", "the same for evaluation")->group(group);
    choice(app, "--list-ops", o.list_ops, {"small", "long_range_arena"},
           "limits of nested ListOps: 8-60 tokens, or 500-2000")
        ->group(group);
    option(app, "--list-depth", o.list_depth, "N", "depth of an expression; 0: of --list-ops")->group(group);
    option(app, "--list-args", o.list_args, "N", "most arguments of an operator; 0: of --list-ops")->group(group);
    option(app, "--list-min-length", o.list_min, "N", "fewest tokens; 0: of --list-ops")->group(group);
    option(app, "--list-max-length", o.list_max, "N", "most tokens; 0: of --list-ops")->group(group);
    option(app, "--list-examples", o.list_train, "N", "different training expressions; 0: every one is new")
        ->group(group);
    option(app, "--list-valid", o.list_valid, "N", "expressions of an evaluation")->group(group);
    option(app, "--seed", o.seed, "N", "of weights, data order and dropout")->group(group);
}

task_data make_task(const data_options& o, const std::string& name, const std::string& tokenizer_file,
                    const std::filesystem::path& run, std::filesystem::path* train_tokens, std::ostream* say) {
    check(o.batch > 0, "--batch", "expected at least 1, found ", o.batch);
    check(o.time > 0, "--time", "expected at least 1, found ", o.time);
    constexpr index most = std::numeric_limits<row_index>::max();
    check(o.batch <= most / o.time, "--batch, --time", "expected at most ", most, " tokens a batch, found ", o.batch,
          " times ", o.time);
    task_data t = name == "language"  ? language(o, tokenizer_file, run, train_tokens, say)
                  : is_list_ops(name) ? list_ops(o, name, tokenizer_file)
                                      : classification(o, name, tokenizer_file);
    check(o.eval_batches >= 0, "--eval-batches", "expected at least 0, found ", o.eval_batches);
    if (o.eval_batches > 0) t.evaluations = std::min(t.evaluations, o.eval_batches);
    return t;
}

prepared_data prepare_data(const data_options& o, const std::filesystem::path& run, std::ostream* say) {
    prepared_data out;
    const auto mix = o.task == "mixed" ? parse_mix(o.mix) : std::vector<std::pair<std::string, double>>{{o.task, 1}};
    check(o.tokenizer.empty() || o.train_tokenizer == 0, "--train-tokenizer", "expected no --tokenizer beside it");
    check(o.train_tokenizer == 0 || (o.train_tokenizer >= 257 && o.train_tokenizer <= index{1} << 24),
          "--train-tokenizer", "expected 0, or from 257 (bytes and <|endoftext|>) to 2^24, found ", o.train_tokenizer);
    std::string tok = o.tokenizer;
    if (!run.empty()) {  // the run keeps its tokenizer
        const auto kept = run / "tokenizer.json";
        std::vector<std::string> texts = o.train;
        if (!o.train_tsv.empty()) texts.push_back(o.train_tsv);
        if (o.train_tokenizer > 0 && !std::filesystem::exists(kept)) {
            check(!texts.empty(), "--train-tokenizer", "expected text to learn from (--train)");
            train_tokenizer(texts, {.vocab_size = o.train_tokenizer}, kept);
        } else if (!o.tokenizer.empty() && !std::filesystem::exists(kept)) {
            const std::string json = read_text_file(o.tokenizer);
            tokenizer::from_json(json, o.tokenizer);
            write_file_atomically(kept, json);
        }
        if (std::filesystem::exists(kept)) tok = kept.string();
    }
    out.tokenizer = tok;
    for (const auto& [name, weight] : mix) {
        const bool own_ids = is_list_ops(name) && o.task != "mixed";
        out.tasks.push_back(make_task(o, name, own_ids ? "" : tok, run, &out.train_tokens, say));
        out.weights.push_back(weight);
    }
    return out;
}

data_needs prepared_data::needs(index time) const {
    data_needs n{.time = time, .language = false};
    for (const auto& t : tasks) {
        n.vocabulary = std::max(n.vocabulary, t.vocabulary);
        n.language = n.language || t.classes == 0;
        if (t.classes) n.classes.emplace_back(t.name, t.classes);
    }
    return n;
}

std::function<batch(index)> prepared_data::batches(std::uint64_t seed) const {
    std::vector<mixed_task> mixed;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        check(static_cast<bool>(tasks[i].batch_at), "task " + tasks[i].name, "no training data: --train FILE",
              tasks.size() > 1 ? " or --train-tsv FILE" : "");
        mixed.push_back({tasks[i].name, weights[i], tasks[i].batch_at});
    }
    if (mixed.size() == 1) return mixed[0].batch_at;
    auto all = std::make_shared<mixed_batches>(std::move(mixed), seed);
    return [all](index step) { return all->batch_at(step); };
}

std::vector<evaluation_set> prepared_data::sets() const {
    std::vector<evaluation_set> out;
    for (const auto& t : tasks)
        if (t.evaluations > 0) out.push_back({tasks.size() == 1 ? "valid" : t.name, t.evaluations, t.evaluation_at});
    return out;
}

}  // namespace spectral::cli
