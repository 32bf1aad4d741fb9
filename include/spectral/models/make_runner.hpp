// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/make_runner.hpp: the model that a configuration asks for, on one executor and scalar
//
// Instantiates every model of the library for (Exec, T): include it in one translation unit per pair.
#pragma once
#include <spectral/layers/identity_mixer.hpp>
#include <spectral/layers/rbf_mixer.hpp>
#include <spectral/models/chiar_former.hpp>
#include <spectral/models/full_attention.hpp>
#include <spectral/models/runner.hpp>

namespace spectral {

template <class Exec, class T, class... Operators>
using any_routed = routed<Exec, T, any_router<Exec, T>, Operators...>;

template <executor Exec, class T>
std::unique_ptr<runner> make_runner(std::unique_ptr<Exec> ex, const chiar_config& c, bool for_training) {
    const auto with = [&]<class Stack>(std::type_identity<Stack>) -> std::unique_ptr<runner> {
        return std::make_unique<model_runner<Exec, T, Stack>>(std::move(ex), c, for_training);
    };
    using dct = dct_mixer<Exec, T>;
    using identity = identity_mixer<Exec, T>;
    using rbf = rbf_mixer<Exec, T>;
    using attention = self_attention<Exec, T>;
    if (c.baseline()) return with(std::type_identity<attention_stack<Exec, T>>{});
    switch (c.layer_variant) {
        case layer_variant::identity_attn: return with(std::type_identity<chiar_stack<Exec, T, any_routed<Exec, T, identity, attention>>>{});
        case layer_variant::dct_rbf_attn: return with(std::type_identity<chiar_stack<Exec, T, any_routed<Exec, T, dct, rbf, attention>>>{});
        default: return with(std::type_identity<chiar_stack<Exec, T, any_routed<Exec, T, dct, attention>>>{});
    }
}

}  // namespace spectral
