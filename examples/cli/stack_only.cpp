// SPDX-License-Identifier: Apache-2.0
// examples/cli/stack_only.cpp: parameter names and sizes from the layers alone
#include "stack_only.hpp"

#include <spectral/reference.hpp>

#include <spectral/models/chiar_variants.hpp>
#include <spectral/models/qwen2.hpp>

namespace spectral::cli {
namespace {

using exec = reference::executor;

template <class Model>
void add(std::vector<parameter_size>& out, Model& model, const std::string& prefix = {}) {
    model.visit_parameters(
        [&](const std::string& name, auto& p) {
            if (p.used()) out.push_back({name, p.size(), p.trainable});
        },
        prefix);
}

}  // namespace

std::vector<parameter_size> parameters_of(const chiar_config& config) {
    chiar_config c = config;
    if (!c.has_positions()) c.max_seq_len = 1;  // no rotary table either
    std::vector<parameter_size> out;
    with_chiar_stack<exec, float>(c, [&]<class Stack>(std::type_identity<Stack>) {
        exec ex;
        Stack stack(ex, c);
        add(out, stack);
    });
    const auto add_head = [&](const std::string& prefix, index classes) {
        classifier_head<exec, float> head(c.d_model, classes, 0);
        add(out, head, prefix);
    };
    if (c.model_type == "chiar_classifier") add_head("classifier.", c.num_classes);
    for (const auto& [task, classes] : c.task_classes) add_head("heads." + task + ".", classes);
    return out;
}

std::vector<std::string> linear_modules(const chiar_config& config) {
    chiar_config c = config;
    if (!c.has_positions()) c.max_seq_len = 1;
    std::vector<std::string> out;
    with_chiar_stack<exec, float>(c, [&]<class Stack>(std::type_identity<Stack>) {
        exec ex;
        Stack stack(ex, c);
        for_each_linear(stack, [&](const std::string& path, auto&) { out.push_back(path); });
    });
    return out;
}

std::vector<parameter_size> parameters_of(const layer_route_model& m) {
    layer_route_model small = m;
    small.backbone.max_position_embeddings = 1;  // no rotary table
    exec ex;
    qwen2_stack<exec, float> stack(ex, small);
    std::vector<parameter_size> out;
    add(out, stack);
    return out;
}

}  // namespace spectral::cli
