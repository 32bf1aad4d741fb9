// SPDX-License-Identifier: Apache-2.0
// examples/cli/routed_text.hpp: which operator each token of a text went to, for `route` and `report`
#pragma once
#include "runners.hpp"

#include <spectral/io/json.hpp>
#include <spectral/layers/route_trace.hpp>
#include <spectral/text/tokenizer.hpp>

namespace spectral::cli {

struct routed_text {
    std::vector<row_index> ids;
    std::vector<std::string> pieces;  // text of each token, as far as it is text alone
    std::map<index, layer_routes> layers;  // over all windows
    std::vector<double> meta_gate;
};

routed_text route(runner& r, const tokenizer& tok, const std::string& text);
std::vector<std::string> operator_names(const chiar_config& c);
double attention_share(const layer_routes& l);
nlohmann::ordered_json to_json(const routed_text& t, const chiar_config& c);  // what route --json prints

}  // namespace spectral::cli
