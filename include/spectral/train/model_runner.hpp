// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/model_runner.hpp: the runner of a task_model on one executor and scalar
#pragma once
#include <spectral/report/work.hpp>
#include <spectral/train/adamw.hpp>
#include <spectral/train/runner.hpp>

#include <cmath>
#include <memory>

namespace spectral {

// What programs ask about a model.
inline model_facts facts_of(const chiar_config& c) {
    return {c.model_type, c.vocab_size, c.max_seq_len, c.model_type == "chiar_classifier"};
}
// The same for Qwen2 and LayerRoute.
inline model_facts facts_of(const layer_route_model& m) {
    return {"qwen2", m.backbone.vocab_size, m.backbone.max_position_embeddings, false};
}

template <executor Exec, class T, class Stack>
class model_runner : public runner {
public:
    using config_type = typename Stack::config_type;

    // `for_training` makes room for gradients; moments are made at the first update
    model_runner(std::unique_ptr<Exec> ex, const config_type& config, bool for_training)
        : ex_(std::move(ex)),
          model_(*ex_, config, for_training ? spectral::gradients::trainable : spectral::gradients::none),
          facts_(facts_of(config)),
          for_training_(for_training) {}

    const model_facts& facts() const override { return facts_; }
    std::string executor_name() const override { return Exec::name; }
    std::string scalar_name() const override { return std::string(dtype_name(dtype_of<T>)); }
    mac_counts executed_macs(const route_trace& trace, index head_rows) const override {
        return spectral::executed_macs(model_.config, trace, head_rows);
    }
    mac_counts dense_macs(const std::vector<index>& lengths, index head_rows) const override {
        return spectral::dense_macs(model_.config, lengths, head_rows);
    }

    void initialize(std::uint64_t seed) override { model_.parameters.initialize(seed); }
    void initialize_trainable(std::uint64_t seed) override { model_.parameters.initialize(seed, true); }
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
        model_.parameters.forget_gradients();
        return norm;
    }
    batch_result evaluate(const batch& b) override { return model_.run(b, phase::evaluation); }
    void zero_gradients() override { model_.parameters.zero_gradients(); }
    bool weights_are_finite() override {
        tensor<Exec, double> sum(*ex_, {1});
        sum_of_squares(*ex_, model_.parameters.masters(), sum.view());
        return std::isfinite(sum.to_host()[0]);
    }
    std::vector<named_values> gradients() override {
        std::vector<named_values> out;
        model_.parameters.settle_gradients();
        for (const auto& [name, p] : model_.parameters.named())
            if (p->grad.data) out.push_back({name, p->shape, widened(to_host(*ex_, p->grad))});
        return out;
    }

    named_values logits(std::span<const row_index> ids, index batch_size) override {
        const auto z = model_.forward(ids, batch_size);
        std::vector<index> shape(z.shape.begin(), z.shape.end());
        if (facts_.classifies) shape.pop_back();
        return {"logits", shape, widened(to_host_widened(*ex_, z))};
    }
    void start_decoding(index sequences, index capacity) override {
        capacity = std::min(capacity, facts_.longest);
        if (static_cast<index>(state_.length.size()) == sequences && state_.capacity == capacity)
            return state_.restart(*ex_);
        state_ = model_.stack.make_decode_state(*ex_, sequences, capacity);
    }
    std::vector<float> decode(std::span<const row_index> ids, std::span<const index> lengths) override {
        const auto z = to_host_widened(*ex_, model_.decode(ids, lengths, state_));
        return {z.begin(), z.end()};
    }
    std::vector<row_index> choose(std::span<const row_index> ids, std::span<const index> lengths, index count,
                                  index known, const sampling_options& how,
                                  std::span<const std::vector<row_index>> seen) override {
        if (!model_.chooses(lengths, state_)) return {};
        return model_.choose(ids, lengths, count, known, state_, how, seen);
    }
    std::vector<double> embedding_entropy(std::span<const row_index>) override {
        fail(facts_.model_type, "a model of this type has no entropy router");
    }
    void set_recompute(bool on) override { model_.recompute = on; }
    void set_trace(route_trace* trace) override { model_.trace = trace; }

    model_files files() const override { return files_of(model_.config); }
    void load_weights(const weight_files& files, const weight_selection& which) override {
        spectral::load_weights(*ex_, model_.parameters, files, which);
    }
    void save_weights(const std::filesystem::path& file, const std::map<std::string, std::string>& metadata,
                      const weight_selection& which) override {
        safetensors_writer writer;
        writer.set_metadata(metadata);
        std::vector<std::vector<statistic<T>>> hold;
        add_weights(*ex_, model_.parameters, writer, hold, which);
        writer.write(file);
    }
    // moments are kept as one tensor each, in the order and padding of the parameters' block
    void load_optimizer(const safetensors_file& file) override {
        auto& o = optimizer();
        for (auto [name, moments] :
             {std::pair{"first_moments", &o.first_moments()}, std::pair{"second_moments", &o.second_moments()}})
            moments->assign(file.read<statistic<T>>(name));
        check(file.at("steps").size() == 1, file.name(), "tensor \"steps\": expected one number, found ",
              file.at("steps").size());
        o.steps() = file.read<std::int64_t>("steps")[0];
        const auto learnt = objective_state();
        if (learnt.empty()) return;
        const auto values = file.read<double>("objective");
        check_equal(values.size(), learnt.size(), file.name(),
                    "tensor \"objective\": numbers that the objective learns");
        for (std::size_t i = 0; i < learnt.size(); ++i) *learnt[i] = values[i];
    }
    void save_optimizer(const std::filesystem::path& file,
                        const std::map<std::string, std::string>& metadata) override {
        auto& o = optimizer();
        const auto m = o.first_moments().to_host(), v = o.second_moments().to_host();
        const std::vector<std::int64_t> steps{o.steps()};
        std::vector<double> learnt;
        for (const auto& value : objective_state()) learnt.push_back(*value);
        safetensors_writer writer;
        writer.set_metadata(metadata);
        writer.add("first_moments", {static_cast<index>(m.size())}, m);
        writer.add("second_moments", {static_cast<index>(v.size())}, v);
        writer.add("steps", {1}, steps);
        if (!learnt.empty()) writer.add("objective", {static_cast<index>(learnt.size())}, learnt);
        writer.write(file);
    }

    executor_plans plans() override {
        if constexpr (requires(Exec & ex) { products_chosen(ex); })
            return {products_made_by(*ex_), products_chosen(*ex_), ex_->memory().peak()};
        else
            return {};
    }
    bool use_plans(const executor_plans& plans) override {
        if constexpr (requires(Exec & ex) { choose_products(ex, plans.products); }) {
            if (plans.made_by != products_made_by(*ex_)) return false;
            choose_products(*ex_, plans.products);
            if (for_training_) try {
                    ex_->memory().reserve(plans.arena_bytes);
                } catch (const error&) {
                    // a training of other options may need less: it asks as it goes
                }
        }
        return true;
    }

    std::size_t allocations() const override { return ex_->allocations(); }
    std::size_t memory_bytes() const override { return ex_->memory().peak(); }

    task_model<Exec, T, Stack>& model() { return model_; }

protected:
    static std::vector<double> widened(const std::vector<statistic<T>>& v) { return {v.begin(), v.end()}; }

    std::unique_ptr<Exec> ex_;
    task_model<Exec, T, Stack> model_;
    decode_state<Exec, T> state_;

private:
    // numbers that a training objective learns besides the parameters
    std::vector<std::shared_ptr<double>> objective_state() const {
        if constexpr (requires { model_.stack.objective; })
            return model_.stack.objective.state;
        else
            return {};
    }
    adamw<Exec, T>& optimizer() {
        check(for_training_, "runner", "made without gradients: it has no optimizer");
        if (!optimizer_) optimizer_.emplace(*ex_, model_.parameters);
        return *optimizer_;
    }

    model_facts facts_;
    bool for_training_;
    std::optional<adamw<Exec, T>> optimizer_;
};

}  // namespace spectral
