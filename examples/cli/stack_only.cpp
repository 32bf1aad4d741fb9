// SPDX-License-Identifier: Apache-2.0
// examples/cli/stack_only.cpp: parameter names and sizes from the layers alone
#include "stack_only.hpp"

#include <spectral/reference.hpp>

#include <spectral/layers/identity_mixer.hpp>
#include <spectral/layers/rbf_mixer.hpp>
#include <spectral/models/chiar_former.hpp>
#include <spectral/models/full_attention.hpp>

namespace spectral::cli {
namespace {

using exec = reference::executor;
template <class... Operators>
using stack_of = chiar_stack<exec, float, routed<exec, float, any_router<exec, float>, Operators...>>;

template <class Stack>
std::vector<parameter_size> list(chiar_config c) {
    exec ex;
    if (!c.has_positions()) c.max_seq_len = 1;  // no rotary table either
    Stack stack(ex, c);
    std::vector<parameter_size> out;
    for_each_parameter(stack, [&](const std::string& name, auto& p) { out.push_back({name, p.size()}); });
    const auto add_head = [&](const std::string& prefix, index classes) {
        classifier_head<exec, float> head(c.d_model, classes, 0);
        head.visit_parameters([&](const std::string& name, auto& p) { out.push_back({name, p.size()}); }, prefix);
    };
    if (c.model_type == "chiar_classifier") add_head("classifier.", c.num_classes);
    for (const auto& [task, classes] : c.task_classes) add_head("heads." + task + ".", classes);
    return out;
}

}  // namespace

std::vector<parameter_size> parameters_of(const chiar_config& c) {
    using dct = dct_mixer<exec, float>;
    using attention = self_attention<exec, float>;
    if (c.baseline()) return list<attention_stack<exec, float>>(c);
    switch (c.layer_variant) {
        case layer_variant::identity_attn: return list<stack_of<identity_mixer<exec, float>, attention>>(c);
        case layer_variant::dct_rbf_attn: return list<stack_of<dct, rbf_mixer<exec, float>, attention>>(c);
        default: return list<stack_of<dct, attention>>(c);
    }
}

}  // namespace spectral::cli
