// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/chiar_runner.hpp: the CHIAR model, or baseline, that a configuration asks for
//
// Instantiates every one of them for (Exec, T): include it in one translation unit per pair.
#pragma once
#include <spectral/models/chiar_variants.hpp>
#include <spectral/train/model_runner.hpp>

namespace spectral {

template <executor Exec, class T, class Stack>
class chiar_runner final : public model_runner<Exec, T, Stack> {
public:
    using model_runner<Exec, T, Stack>::model_runner;

    const chiar_config* chiar() const override { return &this->model_.config; }
    std::vector<double> embedding_entropy(std::span<const row_index> ids) override {
        Exec& ex = *this->ex_;
        arena_scope scratch(ex);
        auto device_ids = ex.memory().template vector<row_index>(static_cast<index>(ids.size()));
        ex.copy_from_host(device_ids.data, ids.data(), ids.size_bytes());
        auto x = ex.memory().template matrix<T>(device_ids.size(), this->model_.config.d_model);
        auto h = ex.memory().template vector<statistic<T>>(device_ids.size());
        embedding_forward<Exec, T>(ex, device_ids, this->model_.stack.head().matrix(), x);
        spectral_entropy_forward(ex, x, this->model_.config.dct_norm, h);
        return this->widened(to_host(ex, h));
    }
};

// The runner of the stack that the configuration asks for.
template <executor Exec, class T>
std::unique_ptr<runner> make_runner(std::unique_ptr<Exec> ex, const chiar_config& c, bool for_training) {
    return with_chiar_stack<Exec, T>(c, [&]<class Stack>(std::type_identity<Stack>) -> std::unique_ptr<runner> {
        return std::make_unique<chiar_runner<Exec, T, Stack>>(std::move(ex), c, for_training);
    });
}

}  // namespace spectral
