// SPDX-License-Identifier: Apache-2.0
// tests/fuzz/tokenizer_fuzz.cpp: any bytes as tokenizer.json, as text and as ids
//
// The first byte chooses: 0 a tokenizer.json; else text for a small tokenizer of either pattern, where decoding must
// give the text back, and ids for decoding in one go and as a stream, which must agree.
#include <spectral/text/bpe_trainer.hpp>

#include <cstdlib>

namespace {
using spectral::row_index;

const spectral::tokenizer& small(bool qwen) {
    const auto make = [](bool nfc) {
        spectral::bpe_training options{.vocab_size = 300};
        if (nfc) options.pattern = std::string(spectral::qwen2_pattern), options.nfc = true;
        spectral::bpe_trainer trainer(options);
        trainer.add("the theme of them is the then, they're there   \n\n that thatch 2024 2025 é é 日本 日本");
        return spectral::tokenizer::from_json(trainer.train(), "small");
    };
    static const spectral::tokenizer gpt2 = make(false), qwen2 = make(true);
    return qwen ? qwen2 : gpt2;
}

void file(std::string_view text) {
    try {
        const auto tok = spectral::tokenizer::from_json(text, "input");
        const auto ids = tok.encode("Hello <|a|> world's 12 \n\n é");
        tok.decode(ids);
    } catch (const spectral::error&) {}
}

void round_trip(std::string_view text, bool qwen) {
    try {
        const auto& tok = small(qwen);
        const std::string back = tok.decode(tok.encode_ordinary(text));
        if (back != (qwen ? spectral::to_nfc(text) : std::string(text))) std::abort();
        tok.encode(text);
    } catch (const spectral::error&) {}
}

void stream(std::string_view text) {
    const auto& tok = small(false);
    std::vector<row_index> ids;
    for (char c : text) ids.push_back(static_cast<unsigned char>(c) + 40 * (c == 'a'));
    spectral::stream_decoder decoder(tok);
    std::string pieces;
    for (row_index id : ids) pieces += decoder.push(id);
    if (pieces + decoder.finish() != tok.decode(ids)) std::abort();
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    switch (data[0] % 4) {
        case 0: file(text); break;
        case 1: round_trip(text, false); break;
        case 2: round_trip(text, true); break;
        default: stream(text);
    }
    return 0;
}
