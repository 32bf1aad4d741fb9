// SPDX-License-Identifier: Apache-2.0
// examples/cli/stack_only.hpp: the parameters of a configuration without memory for them
#pragma once
#include <spectral/models/chiar_config.hpp>
#include <spectral/models/layer_route_config.hpp>

namespace spectral::cli {

struct parameter_size {
    std::string name;
    index size;
    bool trainable;
};
std::vector<parameter_size> parameters_of(const chiar_config& c);
std::vector<parameter_size> parameters_of(const layer_route_model& m);
// Paths of a CHIAR model's linear maps: what adapters may sit on.
std::vector<std::string> linear_modules(const chiar_config& c);

}  // namespace spectral::cli
