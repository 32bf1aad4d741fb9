// SPDX-License-Identifier: Apache-2.0
// examples/cli/data_options.hpp: what to train and evaluate on: language, ListOps, classification, or a mix
#pragma once
#include "model_options.hpp"
#include "text_files.hpp"

#include <spectral/train/trainer.hpp>

namespace spectral::cli {

struct data_options {
    std::string task = "language";
    std::vector<std::string> train, valid;
    std::string train_tsv, valid_tsv;  // classification inside a mix
    std::string tokenizer, mix;
    index train_tokenizer = 0, classes = 2;
    std::string list_ops = "small";
    index list_depth = 0, list_args = 0, list_min = 0, list_max = 0, list_train = 0,
          list_valid = 2000;  // 0: of the preset
    index batch = 32, time = 256, eval_batches = 0;
    std::uint64_t seed = 0;
};
void add_data_options(CLI::App& app, data_options& o);

// One task, ready to read. per_epoch: training batches until all data was seen, 0: no end.
struct task_data {
    std::string name;
    index vocabulary = 0, classes = 0;  // classes 0: language
    std::function<batch(index)> batch_at = {};  // empty without training data
    double per_epoch = 0;
    index evaluations = 0;  // batches of evaluation_at
    std::function<batch(index)> evaluation_at = {};
    std::string about = {};  // one line for people
};

// The tasks of the options, with their weights (1 but for a mix). `run`: where tokens and tokenizer are kept, or empty.
struct prepared_data {
    std::vector<task_data> tasks;
    std::vector<double> weights;
    std::filesystem::path tokenizer, train_tokens;  // may be empty

    data_needs needs(index time) const;
    std::function<batch(index)> batches(std::uint64_t seed) const;
    std::vector<evaluation_set> sets() const;
};
prepared_data prepare_data(const data_options& o, const std::filesystem::path& run, std::ostream* say);

// One task by name: language, list_ops, list_ops_flat, any other name: classification of the TSV files.
task_data make_task(const data_options& o, const std::string& name, const std::string& tokenizer,
                    const std::filesystem::path& run, std::filesystem::path* train_tokens, std::ostream* say);

}  // namespace spectral::cli
