// SPDX-License-Identifier: Apache-2.0
// bench/decode_bench.cpp: Qwen2.5-0.5B shape, random weights: decoding against the bandwidth of reading, and what
// skipping saves
//
// Decoding one sequence after a prompt of 64 tokens, weights in float and in bfloat16: tokens/s, and `of_floor`, the
// time of a token over that of a plain read of as many bytes as the weights have, with the same threads, measured in
// turns: the median of the ratios of neighbours. No executor may allocate while it decodes.
// Skipping: one model with gates; 0, 4, 8 and 12 of its 24 blocks closed by them against the same model with its gates
// forced open. The two take turns, and take turns at going first: `time_share` is the median of the ratios of
// neighbours, beside the share of the multiply-accumulates (prefill, 256 tokens) and of the bytes of weights
// (decoding); `kept` is the time that was saved as a share of what those promise. With none closed time_share is what
// deciding costs, and the noise.
//   decode_bench [--json FILE] [--tokens 32] [--skip-tokens 24] [--prefills 8] [--float-only | --bf16-only] [--threads
//   N]
#include "processor.hpp"
#include "timing.hpp"

#include <spectral/cpu.hpp>
#include <spectral/models/qwen2.hpp>
#include <spectral/report/work.hpp>

#include <nlohmann/json.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace spectral::bench {
namespace {

using executor_t = cpu::executor;
using model_t = qwen2<executor_t, float>;

struct options {
    std::string json_file;
    int tokens = 32, skip_tokens = 24, prefills = 8, threads = 0;
    bool wide = true, narrow = true;
};

void report(const options& o, nlohmann::ordered_json line) {
    line["processor"] = processor();
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
    if (!o.json_file.empty()) std::ofstream(o.json_file, std::ios::app) << line.dump() << "\n";
}

// Reads `bytes` of a block far larger than the last-level cache; every call goes on where the one before it ended.
class reader {
public:
    explicit reader(executor_t& ex) : ex_(ex), block_(ex, {size}) { ex.fill_bytes(block_.data(), 1, size); }
    double read(std::size_t bytes) {
        const double start = seconds();
        for (std::size_t left = bytes; left > 0;) {
            const std::size_t now = std::min(left, static_cast<std::size_t>(size) - at_);
            pass(block_.data() + at_, now);
            left -= now;
            at_ = (at_ + now) % size;
        }
        return seconds() - start;
    }

private:
    static constexpr index size = index{1} << 30;
    void pass(const std::byte* from, std::size_t bytes) {
        using word = std::uint64_t;
        cpu::detail::parallel_ranges(ex_, static_cast<index>(bytes / sizeof(word)), 512,
                                     [&](index first, index last, int) {
                                         const word* p = reinterpret_cast<const word*>(from);
                                         word sum[64] = {};
                                         for (index i = first; i + 64 <= last; i += 64) {
                                             for (index line = 0; line < 8; ++line)
                                                 __builtin_prefetch(p + i + 8 * line + 512);
                                             for (index j = 0; j < 64; ++j) sum[j] ^= p[i + j];
                                         }
                                         for (index j = 1; j < 64; ++j) sum[0] ^= sum[j];
                                         asm volatile("" : : "r"(sum[0]));  // used: the loop stays
                                     });
    }
    executor_t& ex_;
    tensor<executor_t, std::byte> block_;
    std::size_t at_ = 0;
};

// Values of about the initial size, drawn cheaply: half a billion normal draws would take longer than the bench.
void fill(model_t& model) {
    std::vector<float> pool(1 << 20), host;
    const random_stream draw{1, 1};
    for (std::size_t i = 0; i < pool.size(); ++i) pool[i] = static_cast<float>(0.02 * draw.normal(i));
    for (const auto& [name, p] : model.parameters.named()) {
        if (p->init.how == initializer::kind::constant) {
            model.parameters.assign(
                *p, std::vector<float>(static_cast<std::size_t>(p->size()), static_cast<float>(p->init.scale)));
            continue;
        }
        host.resize(static_cast<std::size_t>(p->size()));
        for (std::size_t i = 0; i < host.size(); ++i) host[i] = pool[(i * 7 + host.size()) % pool.size()];
        model.parameters.assign(*p, host);
    }
}

std::size_t weight_bytes(model_t& model, const std::function<bool(const std::string&)>& counted) {
    std::size_t n = 0;
    for (const auto& [name, p] : model.parameters.named())
        if (counted(name)) n += static_cast<std::size_t>(p->size()) * (p->narrow ? sizeof(bfloat16) : sizeof(float));
    return n;
}

std::vector<row_index> prompt(index n) {
    std::vector<row_index> ids;
    for (index i = 0; i < n; ++i)
        ids.push_back(static_cast<row_index>(random_stream{3, 3}.bits(static_cast<std::uint64_t>(i)) % 150000));
    return ids;
}

// A sequence that goes on token by token.
struct generation {
    model_t& model;
    decode_state<executor_t, float> state;

    generation(model_t& m, index capacity) : model(m), state(m.stack.make_decode_state(m.ex, 1, capacity)) {}
    double prefill(const std::vector<row_index>& ids) {  // in the memory of the one before
        state.restart(model.ex);
        return feed(ids);
    }
    double feed(const std::vector<row_index>& ids) {
        const index n = static_cast<index>(ids.size());
        const double start = seconds();
        model.decode(ids, std::span(&n, 1), state);
        return seconds() - start;
    }
    double next() { return feed({static_cast<row_index>(7919 * state.length[0] % 150000)}); }
};

layer_route_model shape(bool narrow, bool gates) {
    layer_route_model m{.backbone = qwen2_config::half_billion(),
                        .route = {},
                        .storage = narrow ? weight_storage::bf16 : weight_storage::as_computed};
    m.backbone.max_position_embeddings = 2048;
    if (gates) m.route.gates = skip_gate_options{.pool = gate_pool::prompt};
    return m;
}

void measure_decoding(const options& o, executor_t& ex, bool narrow) {
    model_t model(ex, shape(narrow, false), gradients::none);
    fill(model);
    reader plain(ex);
    generation g(model, 64 + o.tokens + 3);
    g.feed(prompt(64));
    g.next();
    g.next();
    const auto allocations = ex.allocations();
    const std::size_t bytes = weight_bytes(model, [](const std::string&) { return true; });
    std::vector<double> token, read, ratio;
    for (int i = 0; i < o.tokens; ++i) {
        token.push_back(g.next());
        read.push_back(plain.read(bytes));
        ratio.push_back(token.back() / read.back());
    }
    check(ex.allocations() == allocations, "decode_bench", "the executor allocated while decoding");
    report(o, {{"bench", "decode"},
               {"storage", narrow ? "bf16" : "float"},
               {"threads", ex.threads()},
               {"prompt", 64},
               {"tokens_per_s", 1 / median(token)},
               {"ms", 1e3 * median(token)},
               {"bytes_per_token", bytes},
               {"read_gb_per_s", 1e-9 * static_cast<double>(bytes) / median(read)},
               {"of_floor", median(ratio)}});
}

void close(model_t& model, index first, index count) {
    for (index l = 0; l < static_cast<index>(model.stack.gates.size()); ++l) {
        const float bias = l >= first && l < first + count ? -20.0f : 20.0f;
        model.parameters.assign(model.stack.gates[static_cast<std::size_t>(l)].bias, std::span(&bias, 1));
    }
}

// Times of the gates' decisions against those of every block, pair by pair.
struct paired {
    std::vector<double> routed, full, share;

    // each(open): seconds of one of the two
    template <class F>
    void measure(int pairs, F&& each) {
        for (int i = 0; i < pairs; ++i) {
            const bool open_first = i % 2 == 0;
            const double first = each(open_first), second = each(!open_first);
            full.push_back(open_first ? first : second);
            routed.push_back(open_first ? second : first);
            share.push_back(routed.back() / full.back());
        }
    }
    void report_to(const options& o, nlohmann::ordered_json line, const char* ideal_name, double ideal) const {
        line["pairs"] = share.size();
        line["ms_full"] = 1e3 * median(full);
        line["ms"] = 1e3 * median(routed);
        line["time_share"] = median(share);
        line[ideal_name] = ideal;
        if (ideal < 1) line["kept"] = (1 - median(share)) / (1 - ideal);
        report(o, std::move(line));
    }
};

void measure_skipping(const options& o, executor_t& ex, bool narrow) {
    model_t model(ex, shape(narrow, true), gradients::none);
    fill(model);
    const std::vector<char> every(model.stack.gates.size(), 1);
    const auto force = [&](bool open) { model.stack.forced_open = open ? every : std::vector<char>{}; };
    const auto ids = prompt(256);
    const auto of_weights = [](const std::string& name) { return !name.starts_with("router."); };
    const double all_macs = dense_macs(model.config, {256}, 1).total();
    const double all_bytes = static_cast<double>(weight_bytes(model, of_weights));
    for (index closed : {0, 4, 8, 12}) {
        const index first = 8;
        close(model, first, closed);
        const nlohmann::ordered_json about{{"storage", narrow ? "bf16" : "float"},
                                           {"threads", ex.threads()},
                                           {"closed", closed},
                                           {"blocks", every.size()}};
        const auto line = [&](const char* bench, index tokens) {
            nlohmann::ordered_json out{{"bench", bench}};
            out.update(about);
            out["tokens"] = tokens;
            return out;
        };
        route_trace trace(route_trace::mode::count);
        generation open(model, 256), routed(model, 256);
        force(true), open.feed(ids);  // memory is made, files and caches are warm
        force(false);
        model.trace = &trace;
        routed.feed(ids);
        model.trace = nullptr;
        paired prefill, decode;
        prefill.measure(o.prefills, [&](bool all) {
            force(all);
            return (all ? open : routed).prefill(ids);
        });
        prefill.report_to(o, line("skip_prefill", 256), "mac_share",
                          executed_macs(model.config, trace, 1).total() / all_macs);

        const double left_out = static_cast<double>(weight_bytes(model, [&](const std::string& name) {
            for (index l = first; l < first + closed; ++l)
                if (name.starts_with("model.layers." + std::to_string(l) + ".")) return true;
            return false;
        }));
        // what is open was decided at prefill: from here on each of the two keeps to it
        generation a(model, 64 + o.skip_tokens + 2), b(model, 64 + o.skip_tokens + 2);
        force(true), a.feed(prompt(64)), a.next();
        force(false), b.feed(prompt(64)), b.next();
        decode.measure(o.skip_tokens, [&](bool all) { return (all ? a : b).next(); });
        decode.report_to(o, line("skip_decode", o.skip_tokens), "bytes_share", 1 - left_out / all_bytes);
    }
}

}  // namespace
}  // namespace spectral::bench

int main(int argc, char** argv) {
    using namespace spectral;
    bench::options o;
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        const auto number = [&] { return i + 1 < argc ? std::atoi(argv[++i]) : 0; };
        if (name == "--json" && i + 1 < argc)
            o.json_file = argv[++i];
        else if (name == "--tokens")
            o.tokens = number();
        else if (name == "--skip-tokens")
            o.skip_tokens = number();
        else if (name == "--prefills")
            o.prefills = number();
        else if (name == "--threads")
            o.threads = number();
        else if (name == "--float-only")
            o.narrow = false;
        else if (name == "--bf16-only")
            o.wide = false;
        else
            return std::fprintf(stderr, "decode_bench: unknown option %s\n", argv[i]), 2;
    }
    for (bool narrow : {false, true}) {
        if (narrow ? !o.narrow : !o.wide) continue;
        for (int threads : {1, 2}) {
            if (o.threads && threads != o.threads) continue;
            cpu::executor ex(threads);
            if (o.tokens) bench::measure_decoding(o, ex, narrow);
            if (o.skip_tokens) bench::measure_skipping(o, ex, narrow);
        }
    }
}
