// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/chiar_variants.hpp: from a configuration to the type of its stack
#pragma once
#include <spectral/layers/identity_mixer.hpp>
#include <spectral/layers/rbf_mixer.hpp>
#include <spectral/models/chiar_former.hpp>
#include <spectral/models/full_attention.hpp>

namespace spectral {

// A routed layer whose router the configuration chooses.
template <class Exec, class T, class... Operators>
using any_routed = routed<Exec, T, any_router<Exec, T>, Operators...>;

// f(std::type_identity<Stack>{}) for the stack that the configuration asks for: every published one is instantiated.
template <executor Exec, class T, class F>
auto with_chiar_stack(const chiar_config& c, F&& f) {
    using dct = dct_mixer<Exec, T>;
    using identity = identity_mixer<Exec, T>;
    using rbf = rbf_mixer<Exec, T>;
    using attention = self_attention<Exec, T>;
    if (c.baseline()) return f(std::type_identity<attention_stack<Exec, T>>{});
    switch (c.layer_variant) {
        case layer_variant::identity_attn:
            return f(std::type_identity<chiar_stack<Exec, T, any_routed<Exec, T, identity, attention>>>{});
        case layer_variant::dct_rbf_attn:
            return f(std::type_identity<chiar_stack<Exec, T, any_routed<Exec, T, dct, rbf, attention>>>{});
        default: return f(std::type_identity<chiar_stack<Exec, T, any_routed<Exec, T, dct, attention>>>{});
    }
}

}  // namespace spectral
