// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/padding.hpp: ids in a rectangle, padded left or right, as Transformers has them, to sequences
//
// Nothing in this library is padded: a batch is its sequences, one after another. What comes padded is freed of it
// here.
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/core/rows.hpp>

#include <span>
#include <vector>

namespace spectral {

// ids and attention_mask (B, T), row by row; a row's 1s are one run. -> the ids of each row where the mask is 1
//   generate(model, without_padding(input_ids, attention_mask, 2), options);
inline std::vector<std::vector<row_index>> without_padding(std::span<const row_index> ids,
                                                           std::span<const row_index> attention_mask,
                                                           index batch_size) {
    check(batch_size > 0 && static_cast<index>(ids.size()) % batch_size == 0, "without_padding", "ids: expected ",
          batch_size, " rows of equal length, found ", ids.size(), " ids");
    check_equal(attention_mask.size(), ids.size(), "without_padding", "attention_mask against ids");
    const std::size_t time = ids.size() / static_cast<std::size_t>(batch_size);
    std::vector<std::vector<row_index>> out(static_cast<std::size_t>(batch_size));
    for (std::size_t s = 0; s < out.size(); ++s) {
        std::size_t end = 0;  // of the run so far, from 1
        for (std::size_t t = 0; t < time; ++t) {
            const row_index mask = attention_mask[s * time + t];
            check(mask == 0 || mask == 1, "without_padding", "attention_mask, row ", s, ", token ", t,
                  ": expected 0 or 1, found ", mask);
            if (mask == 0) continue;
            check(end == 0 || end == t, "without_padding", "attention_mask, row ", s,
                  ": expected padding on one side, found some before token ", t);
            out[s].push_back(ids[s * time + t]);
            end = t + 1;
        }
        check(end > 0, "without_padding", "attention_mask, row ", s,
              ": expected at least one token, found padding alone");
    }
    return out;
}

}  // namespace spectral
