// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/source.hpp: what all data sources share
//
// Sources have no state: batch_at(step) is a pure function of (data, options, seed, step). Resuming a run is therefore
// one integer, and reading ahead or evaluating in between disturbs nothing.
#pragma once
#include <spectral/core/view.hpp>

#include <functional>
#include <string_view>
#include <vector>

namespace spectral {

// Text to token ids: a tokenizer, or anything else. Sources that read text take one, so that they know no tokenizer.
using text_encoder = std::function<std::vector<row_index>(std::string_view)>;

// The three parts of a data set, and their names in messages and streams of random numbers.
enum class data_split { train, valid, test };
inline std::string_view name_of(data_split s) {
    return s == data_split::train ? "train" : s == data_split::valid ? "valid" : "test";
}

}  // namespace spectral
