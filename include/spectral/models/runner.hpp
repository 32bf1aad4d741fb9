// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/runner.hpp: any model on any executor and scalar, behind one interface
//
// Programs that read a configuration at run time (the trainer, the `spectral` program) speak to this; C++ programs that
// fix their model at compile time use task_model directly. One virtual call a batch: nothing hot crosses it.
#pragma once
#include <spectral/io/weights.hpp>
#include <spectral/models/chiar_config.hpp>
#include <spectral/models/task_model.hpp>
#include <spectral/train/adamw.hpp>

#include <functional>
#include <memory>

namespace spectral {

struct named_values {
    std::string name;
    std::vector<index> shape;
    std::vector<double> values;
};

class runner {
public:
    virtual ~runner() = default;

    virtual const chiar_config& config() const = 0;
    virtual std::string executor_name() const = 0;
    virtual std::string scalar_name() const = 0;
    virtual void initialize(std::uint64_t seed) = 0;
    virtual std::vector<std::pair<std::string, std::vector<index>>> parameter_shapes() const = 0;

    virtual void set_dropout(std::uint64_t seed, std::uint64_t step) = 0;      // names the masks of the next batches
    virtual batch_result train(const batch& b, double weight) = 0;             // loss and gradients, added
    virtual double update(const adamw_options& options, double max_norm) = 0;  // one AdamW step; zeroes gradients; returns their norm
    virtual batch_result evaluate(const batch& b) = 0;
    virtual void zero_gradients() = 0;
    virtual std::vector<named_values> gradients() = 0;

    virtual named_values logits(std::span<const row_index> ids, index batch_size) = 0;   // (B, T, V) or (B, classes)
    virtual void start_decoding(index sequences, index capacity) = 0;
    virtual std::vector<float> decode(std::span<const row_index> ids, std::span<const index> lengths) = 0;   // (S, V)
    virtual std::vector<double> embedding_entropy(std::span<const row_index> ids) = 0;
    virtual void set_trace(route_trace* trace) = 0;                            // null: record nothing

    virtual void load_weights(const safetensors_file& file) = 0;
    virtual void save_weights(const std::filesystem::path& file, const std::map<std::string, std::string>& metadata) = 0;
    virtual void load_optimizer(const safetensors_file& file) = 0;
    virtual void save_optimizer(const std::filesystem::path& file, const std::map<std::string, std::string>& metadata) = 0;

    virtual std::size_t allocations() const = 0;    // of the executor since it was made
    virtual std::size_t memory_bytes() const = 0;   // of the activations' arena
};

template <executor Exec, class T, class Stack>
class model_runner final : public runner {
public:
    // `for_training` makes room for gradients; moments are made at the first update
    model_runner(std::unique_ptr<Exec> ex, const chiar_config& config, bool for_training)
        : ex_(std::move(ex)), model_(*ex_, config, for_training ? gradients::trainable : gradients::none), for_training_(for_training) {}

    const chiar_config& config() const override { return model_.config; }
    std::string executor_name() const override { return Exec::name; }
    std::string scalar_name() const override { return std::string(dtype_name(dtype_of<T>)); }
    void initialize(std::uint64_t seed) override { model_.parameters.initialize(seed); }
    std::vector<std::pair<std::string, std::vector<index>>> parameter_shapes() const override {
        std::vector<std::pair<std::string, std::vector<index>>> out;
        for (const auto& [name, p] : model_.parameters.named()) out.emplace_back(name, p->shape);
        return out;
    }

    void set_dropout(std::uint64_t seed, std::uint64_t step) override {
        model_.seed = seed;
        model_.step = step;
    }
    batch_result train(const batch& b, double weight) override {
        check(for_training_, "runner", "made without gradients: it cannot train");
        return model_.run(b, phase::training, weight);
    }
    double update(const adamw_options& options, double max_norm) override {
        const double norm = optimizer().step(options, max_norm);
        model_.parameters.zero_gradients();
        return norm;
    }
    batch_result evaluate(const batch& b) override { return model_.run(b, phase::evaluation); }
    void zero_gradients() override { model_.parameters.zero_gradients(); }
    std::vector<named_values> gradients() override {
        std::vector<named_values> out;
        for (const auto& [name, p] : model_.parameters.named())
            if (p->grad.data) out.push_back({name, p->shape, widened(to_host(*ex_, p->grad))});
        return out;
    }

    named_values logits(std::span<const row_index> ids, index batch_size) override {
        const auto z = model_.forward(ids, batch_size);
        std::vector<index> shape(z.shape.begin(), z.shape.end());
        if (config().model_type == "chiar_classifier") shape.pop_back();
        return {"logits", shape, widened(to_host(*ex_, z))};
    }
    void start_decoding(index sequences, index capacity) override {
        state_ = model_.stack.make_decode_state(*ex_, sequences, std::min(capacity, config().max_seq_len));
    }
    std::vector<float> decode(std::span<const row_index> ids, std::span<const index> lengths) override {
        const auto z = to_host(*ex_, model_.decode(ids, lengths, state_));
        return {z.begin(), z.end()};
    }
    std::vector<double> embedding_entropy(std::span<const row_index> ids) override {
        arena_scope scratch(*ex_);
        auto device_ids = ex_->memory().template vector<row_index>(static_cast<index>(ids.size()));
        ex_->copy_from_host(device_ids.data, ids.data(), ids.size_bytes());
        auto x = ex_->memory().template matrix<T>(device_ids.size(), config().d_model);
        auto h = ex_->memory().template vector<T>(device_ids.size());
        embedding_forward<Exec, T>(*ex_, device_ids, model_.stack.head().matrix(), x);
        spectral_entropy_forward<Exec, T>(*ex_, x, config().dct_norm, h);
        return widened(to_host(*ex_, h));
    }
    void set_trace(route_trace* trace) override { model_.trace = trace; }

    void load_weights(const safetensors_file& file) override { spectral::load_weights(*ex_, model_.parameters, file); }
    void save_weights(const std::filesystem::path& file, const std::map<std::string, std::string>& metadata) override {
        safetensors_writer writer;
        writer.set_metadata(metadata);
        std::vector<std::vector<T>> hold;
        add_weights(*ex_, model_.parameters, writer, hold);
        writer.write(file);
    }
    // moments are kept as one tensor each, in the order and padding of the parameters' block
    void load_optimizer(const safetensors_file& file) override {
        auto& o = optimizer();
        for (auto [name, moments] : {std::pair{"first_moments", &o.first_moments()}, std::pair{"second_moments", &o.second_moments()}})
            moments->assign(file.read<T>(name));
        check(file.at("steps").size() == 1, file.name(), "tensor \"steps\": expected one number, found ", file.at("steps").size());
        o.steps() = file.read<std::int64_t>("steps")[0];
    }
    void save_optimizer(const std::filesystem::path& file, const std::map<std::string, std::string>& metadata) override {
        auto& o = optimizer();
        const auto m = o.first_moments().to_host(), v = o.second_moments().to_host();
        const std::vector<std::int64_t> steps{o.steps()};
        safetensors_writer writer;
        writer.set_metadata(metadata);
        writer.add("first_moments", {static_cast<index>(m.size())}, m);
        writer.add("second_moments", {static_cast<index>(v.size())}, v);
        writer.add("steps", {1}, steps);
        writer.write(file);
    }

    std::size_t allocations() const override { return ex_->allocations(); }
    std::size_t memory_bytes() const override { return ex_->memory().peak(); }

    task_model<Exec, T, Stack>& model() { return model_; }

private:
    static std::vector<double> widened(const std::vector<T>& v) { return {v.begin(), v.end()}; }
    adamw<Exec, T>& optimizer() {
        check(for_training_, "runner", "made without gradients: it has no optimizer");
        if (!optimizer_) optimizer_.emplace(*ex_, model_.parameters);
        return *optimizer_;
    }

    std::unique_ptr<Exec> ex_;
    task_model<Exec, T, Stack> model_;
    bool for_training_;
    std::optional<adamw<Exec, T>> optimizer_;
    decode_state<Exec, T> state_;
};

}  // namespace spectral
