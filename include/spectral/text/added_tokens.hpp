// SPDX-License-Identifier: Apache-2.0
// include/spectral/text/added_tokens.hpp: finding added tokens such as <|im_end|> in text, leftmost and longest first
#pragma once
#include <spectral/core/view.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spectral {

// Finds the added tokens of a tokenizer in raw text, the longest first.
class added_token_finder {
public:
    void add(std::string content, row_index id) {
        auto& bucket = by_first_byte_[static_cast<unsigned char>(content[0])];
        const auto longer = [](const token& a, const token& b) { return a.content.size() > b.content.size(); };
        token t{std::move(content), id};
        bucket.insert(std::upper_bound(bucket.begin(), bucket.end(), t, longer), std::move(t));
        empty_ = false;
    }
    bool empty() const { return empty_; }

    // Calls on_text(piece) for the text between tokens (never empty) and on_token(id) for the tokens, in order.
    template <class OnText, class OnToken>
    void split(std::string_view text, OnText&& on_text, OnToken&& on_token) const {
        std::size_t done = 0;
        for (std::size_t i = 0; !empty_ && i < text.size();) {
            const token* found = nullptr;
            for (const token& t : by_first_byte_[static_cast<unsigned char>(text[i])])
                if (text.substr(i).starts_with(t.content)) {
                    found = &t;
                    break;
                }
            if (!found) {
                ++i;
                continue;
            }
            if (i > done) on_text(text.substr(done, i - done));
            on_token(found->id);
            done = i += found->content.size();
        }
        if (done < text.size()) on_text(text.substr(done));
    }

private:
    struct token {
        std::string content;
        row_index id;
    };
    std::array<std::vector<token>, 256> by_first_byte_;
    bool empty_ = true;
};

}  // namespace spectral
