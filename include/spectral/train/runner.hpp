// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/runner.hpp: any model on any executor and scalar, behind one interface
//
// Programs that read a configuration at run time (the trainer, the `spectral` program) speak to this; C++ programs that
// fix their model at compile time use task_model directly. One virtual call a batch: nothing hot crosses it.
// train/model_runner.hpp implements it.
#pragma once
#include <spectral/io/model_files.hpp>
#include <spectral/io/weight_files.hpp>
#include <spectral/models/gate_objective.hpp>
#include <spectral/models/task_model.hpp>
#include <spectral/ops/optimizer.hpp>
#include <spectral/report/flops.hpp>

#include <map>

namespace spectral {

// A tensor on the host.
struct named_values {
    std::string name;
    std::vector<index> shape;
    std::vector<double> values;
};

// What an executor found out for itself: algorithms of matrix products and forms of transforms, by shape, which a later
// run repeats for the same bits, and the memory of its arena, which a later run asks for before its first step.
struct executor_plans {
    std::string made_by;  // the device and library that they hold for
    std::map<std::string, std::string> products;
    std::size_t arena_bytes = 0;
};

// What holds of every model.
struct model_facts {
    std::string model_type;
    index vocabulary = 0, longest = 0;  // tokens; tokens of a sequence
    bool classifies = false;  // a classifier alone: no next token
};

// What a model with skip gates and adapters offers besides.
class layer_route_controls {
public:
    virtual ~layer_route_controls() = default;
    virtual const layer_route_model& config() const = 0;
    virtual void set_objective(gate_objective objective) = 0;  // of training
    virtual void use_adapters(bool on) = 0;
    virtual void force_open(std::vector<char> blocks) = 0;  // evaluation: by block; empty: the gates decide
    virtual gate_values gates() const = 0;  // of the last pass
    virtual std::vector<double> open_shares() const = 0;  // of the generation: open blocks / blocks, by sequence
    virtual void merge_adapters() = 0;  // into the weights, for good
};

class runner {
public:
    virtual ~runner() = default;

    virtual const model_facts& facts() const = 0;
    virtual const chiar_config* chiar() const { return nullptr; }  // of a CHIAR model
    virtual layer_route_controls* layer_route() { return nullptr; }  // of a Qwen2 model
    virtual std::string executor_name() const = 0;
    virtual std::string scalar_name() const = 0;
    virtual mac_counts executed_macs(const route_trace& trace, index head_rows) const = 0;  // report/work.hpp
    virtual mac_counts dense_macs(const std::vector<index>& lengths, index head_rows) const = 0;

    virtual void initialize(std::uint64_t seed) = 0;  // every parameter from its initializer
    virtual void initialize_trainable(std::uint64_t seed) = 0;  // adapters and gates over a loaded backbone
    virtual void set_dropout(std::uint64_t seed, std::uint64_t step) = 0;  // names the masks of the next batches
    virtual batch_result train(const batch& b, double weight) = 0;  // loss and gradients, added
    virtual double update(const adamw_options& options,
                          double max_norm) = 0;  // one AdamW step; zeroes gradients; returns their norm
    virtual batch_result evaluate(const batch& b) = 0;
    virtual void zero_gradients() = 0;
    virtual bool weights_are_finite() = 0;  // of those that train
    virtual std::vector<named_values> gradients() = 0;

    virtual named_values logits(std::span<const row_index> ids, index batch_size) = 0;  // (B, T, V) or (B, classes)
    virtual void start_decoding(index sequences, index capacity) = 0;
    virtual std::vector<float> decode(std::span<const row_index> ids, std::span<const index> lengths) = 0;  // (S, V)
    // the next `count` tokens of sequences whose length is 1, chosen as `how` says, `seen` being all ids so far; none:
    // the runner does not choose
    virtual std::vector<row_index> choose(std::span<const row_index> ids, std::span<const index> lengths, index count,
                                          index known, const sampling_options& how,
                                          std::span<const std::vector<row_index>> seen) = 0;
    virtual std::vector<double> embedding_entropy(std::span<const row_index> ids) = 0;  // of a CHIAR model
    virtual void set_recompute(bool on) = 0;  // training keeps the layers' inputs alone
    virtual void set_trace(route_trace* trace) = 0;  // null: record nothing

    virtual model_files files() const = 0;  // what save_model writes
    virtual void load_weights(const weight_files& files, const weight_selection& which = {}) = 0;
    virtual void save_weights(const std::filesystem::path& file, const std::map<std::string, std::string>& metadata,
                              const weight_selection& which = {}) = 0;
    virtual void load_optimizer(const safetensors_file& file) = 0;
    virtual void save_optimizer(const std::filesystem::path& file,
                                const std::map<std::string, std::string>& metadata) = 0;

    virtual executor_plans plans() = 0;  // so far; empty: the executor chooses nothing
    virtual bool use_plans(const executor_plans& plans) = 0;  // false: they hold for another device or library

    virtual std::size_t allocations() const = 0;  // of the executor since it was made
    virtual std::size_t memory_bytes() const = 0;  // of the activations' arena
};

// The model's files into a directory that exists.
inline void save_model(runner& r, const std::filesystem::path& directory,
                       const std::map<std::string, std::string>& metadata) {
    const model_files files = r.files();
    for (const auto& [name, text] : files.texts) write_file_atomically(directory / name, text);
    for (const auto& part : files.parts) r.save_weights(directory / part.file, metadata, part.which);
}

}  // namespace spectral
