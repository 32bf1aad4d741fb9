// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/layer_route_runner.hpp: Qwen2, with or without adapters and skip gates
#pragma once
#include <spectral/models/qwen2.hpp>
#include <spectral/train/model_runner.hpp>

namespace spectral {

template <executor Exec, class T>
class layer_route_runner final : public model_runner<Exec, T, qwen2_stack<Exec, T>>, public layer_route_controls {
public:
    using model_runner<Exec, T, qwen2_stack<Exec, T>>::model_runner;

    layer_route_controls* layer_route() override { return this; }
    const layer_route_model& config() const override { return this->model_.config; }
    void set_objective(gate_objective objective) override { stack().objective = std::move(objective); }
    void use_adapters(bool on) override {
        for_each_linear(stack(), [on](const std::string&, linear<Exec, T>& l) { l.adapter_on = on; });
    }
    void force_open(std::vector<char> blocks) override {
        check(blocks.empty() || blocks.size() == stack().blocks.size(), "force_open", "blocks: expected ",
              stack().blocks.size(), " or none, found ", blocks.size());
        stack().forced_open = std::move(blocks);
    }
    gate_values gates() const override { return this->model_.gates(); }
    std::vector<double> open_shares() const override {
        const auto& open = this->state_.open;
        std::vector<double> shares(this->state_.length.size(), 1.0);
        for (std::size_t s = 0; s < shares.size(); ++s) {
            double n = 0;
            for (const auto& block : open) n += block.empty() || block[s] ? 1 : 0;
            if (!open.empty()) shares[s] = n / static_cast<double>(open.size());
        }
        return shares;
    }
    void merge_adapters() override {
        for_each_linear(stack(), [this](const std::string&, linear<Exec, T>& l) { l.merge(*this->ex_); });
    }

private:
    qwen2_stack<Exec, T>& stack() { return this->model_.stack; }
};

// The runner of Qwen2 with what LayerRoute adds.
template <executor Exec, class T>
std::unique_ptr<runner> make_runner(std::unique_ptr<Exec> ex, const layer_route_model& m, bool for_training) {
    return std::make_unique<layer_route_runner<Exec, T>>(std::move(ex), m, for_training);
}

}  // namespace spectral
