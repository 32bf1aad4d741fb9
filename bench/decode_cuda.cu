// SPDX-License-Identifier: Apache-2.0
// bench/decode_cuda.cu: Qwen2.5-0.5B shape, random weights: decoding on a GPU against a measured read of as many bytes
//
// First logits of a step against plain float loops over the same rows, and replays against direct launches, bit by bit.
// Then tokens/s for models of 24, 20 and 16 blocks, sequences and contexts, where the floor is the measured read of the
// weights and the cache, for 24 blocks of which gates keep some closed, with and without adapters beside the weights,
// and for tokens drawn on the device or by the host.
//   nvcc -std=c++20 -O3 -arch=sm_90a --expt-relaxed-constexpr --extended-lambda -Iinclude -Ibackends/cuda
//   bench/decode_cuda.cu -lcublasLt -lcufft
#ifndef DECODE_SCALAR
#define DECODE_SCALAR bfloat16  // or float: then weights alone are kept as bfloat16
#endif
#include <spectral/cuda.hpp>
#include <spectral/models/qwen2.hpp>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>

namespace spectral::bench {
namespace {

using Exec = cuda::executor;
using T = DECODE_SCALAR;  // of activations
using model_t = qwen2<Exec, T>;
constexpr bool narrow = !std::is_same_v<T, bfloat16>;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
double median(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
}

layer_route_model shape(index blocks, index vocabulary = 151936) {
    layer_route_model m{.backbone = qwen2_config::half_billion(),
                        .route = {},
                        .storage = narrow ? weight_storage::bf16 : weight_storage::as_computed};
    m.backbone.max_position_embeddings = 4096;
    m.backbone.num_hidden_layers = blocks;
    m.backbone.vocab_size = vocabulary;
    return m;
}

// normal draws of the initial size, norms and biases off their initial values
template <class Model>
void fill(Model& model) {
    std::vector<float> pool(1 << 20);
    const random_stream draw{1, 1};
    for (std::size_t i = 0; i < pool.size(); ++i) pool[i] = static_cast<float>(draw.normal(i));
    for (const auto& [name, p] : model.parameters.named()) {
        const bool constant = p->init.how == initializer::kind::constant;
        std::vector<T> host(static_cast<std::size_t>(p->size()));
        const float start = constant ? static_cast<float>(p->init.scale) : 0.0f, spread = constant ? 0.1f : 0.04f;
        for (std::size_t i = 0; i < host.size(); ++i)
            host[i] = static_cast<T>(start + spread * pool[(i * 7 + host.size()) & (pool.size() - 1)]);
        model.parameters.assign(*p, std::span<const T>(host));
    }
}

// ---- what the model computes, in plain float loops on the host ------------------------------------------------------

struct plain_qwen {
    qwen2_config c;
    std::map<std::string, std::vector<float>> w;
    std::vector<std::vector<float>> k, v;  // by block, position after position

    explicit plain_qwen(model_t& model)
        : c(model.config.backbone), k(static_cast<std::size_t>(c.num_hidden_layers)), v(k) {
        for (const auto& [name, p] : model.parameters.named()) {
            auto& to = w[name];
            if (p->narrow)
                for (bfloat16 x : to_host(model.ex, p->stored)) to.push_back(static_cast<float>(x));
            else
                for (T x : to_host(model.ex, p->value)) to.push_back(static_cast<float>(x));
        }
    }
    std::vector<float> map(const std::string& name, const std::vector<float>& x) const {
        const auto& weight = w.at(name + ".weight");
        const auto bias = w.find(name + ".bias");
        std::vector<float> y(weight.size() / x.size());
        for (std::size_t o = 0; o < y.size(); ++o) {
            float sum = 0;
            for (std::size_t i = 0; i < x.size(); ++i) sum += weight[o * x.size() + i] * x[i];
            y[o] = bias == w.end() ? sum : sum + bias->second[o];
        }
        return y;
    }
    std::vector<float> norm(const std::string& name, const std::vector<float>& x) const {
        double square = 0;
        for (float a : x) square += static_cast<double>(a) * a;
        const double factor = 1 / std::sqrt(square / static_cast<double>(x.size()) + c.rms_norm_eps);
        std::vector<float> y(x);
        for (std::size_t i = 0; i < y.size(); ++i) y[i] = static_cast<float>(y[i] * factor) * w.at(name + ".weight")[i];
        return y;
    }
    void rotate(std::vector<float>& x, std::size_t position) const {
        const auto D = static_cast<std::size_t>(c.head_width());
        for (std::size_t h = 0; h < x.size(); h += D)
            for (std::size_t i = 0; i < D / 2; ++i) {
                const double angle = static_cast<double>(position) *
                                     std::pow(c.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(D));
                const float a = x[h + i], b = x[h + i + D / 2], cos = static_cast<float>(std::cos(angle)),
                            sin = static_cast<float>(std::sin(angle));
                x[h + i] = a * cos - b * sin, x[h + i + D / 2] = b * cos + a * sin;
            }
    }
    std::vector<float> next(row_index id) {
        const auto C = static_cast<std::size_t>(c.hidden_size), D = static_cast<std::size_t>(c.head_width()),
                   H = static_cast<std::size_t>(c.num_attention_heads),
                   KV = static_cast<std::size_t>(c.num_key_value_heads);
        const auto& table = w.at("model.embed_tokens.weight");
        std::vector<float> x(table.begin() + static_cast<std::ptrdiff_t>(id * C),
                             table.begin() + static_cast<std::ptrdiff_t>((id + 1) * C));
        for (std::size_t l = 0; l < k.size(); ++l) {
            const std::string at = "model.layers." + std::to_string(l) + ".";
            const std::size_t position = k[l].size() / (KV * D);
            const auto n = norm(at + "input_layernorm", x);
            auto q = map(at + "self_attn.q_proj", n), key = map(at + "self_attn.k_proj", n);
            const auto value = map(at + "self_attn.v_proj", n);
            rotate(q, position), rotate(key, position);
            k[l].insert(k[l].end(), key.begin(), key.end());
            v[l].insert(v[l].end(), value.begin(), value.end());
            std::vector<float> out(H * D);
            for (std::size_t h = 0; h < H; ++h) {
                const std::size_t kv = h / (H / KV);
                std::vector<double> score(position + 1);
                double most = -1e300, total = 0;
                for (std::size_t m = 0; m <= position; ++m) {
                    for (std::size_t d = 0; d < D; ++d) score[m] += q[h * D + d] * k[l][(m * KV + kv) * D + d];
                    score[m] /= std::sqrt(static_cast<double>(D));
                    most = std::max(most, score[m]);
                }
                for (double& s : score) total += s = std::exp(s - most);
                for (std::size_t m = 0; m <= position; ++m)
                    for (std::size_t d = 0; d < D; ++d)
                        out[h * D + d] += static_cast<float>(score[m] / total) * v[l][(m * KV + kv) * D + d];
            }
            const auto o = map(at + "self_attn.o_proj", out);
            for (std::size_t i = 0; i < C; ++i) x[i] += o[i];
            const auto f = norm(at + "post_attention_layernorm", x);
            auto g = map(at + "mlp.gate_proj", f);
            const auto u = map(at + "mlp.up_proj", f);
            for (std::size_t i = 0; i < g.size(); ++i) g[i] = g[i] / (1 + std::exp(-g[i])) * u[i];
            const auto down = map(at + "mlp.down_proj", g);
            for (std::size_t i = 0; i < C; ++i) x[i] += down[i];
        }
        const auto h = norm("model.norm", x);
        std::vector<float> z(table.size() / C);
        for (std::size_t o = 0; o < z.size(); ++o)
            for (std::size_t i = 0; i < C; ++i) z[o] += table[o * C + i] * h[i];
        return z;
    }
};

std::vector<row_index> some_ids(index n, index vocabulary, std::uint64_t seed) {
    std::vector<row_index> ids;
    for (index i = 0; i < n; ++i)
        ids.push_back(static_cast<row_index>(random_stream{seed, 3}.bits(static_cast<std::uint64_t>(i)) %
                                             static_cast<std::uint64_t>(vocabulary)));
    return ids;
}

// The same steps by several sequences of unequal length, replayed and direct, and the first two against plain loops.
bool check_steps(Exec& ex, index sequences) {
    const auto c = shape(3, 4096);
    model_t model(ex, c, gradients::none);
    fill(model);
    std::vector<index> prompt, one(static_cast<std::size_t>(sequences), 1);
    std::vector<row_index> ids;
    for (index s = 0; s < sequences; ++s) {
        prompt.push_back(5 + 17 * s);
        const auto more = some_ids(prompt.back(), c.backbone.vocab_size, static_cast<std::uint64_t>(s) + 9);
        ids.insert(ids.end(), more.begin(), more.end());
    }
    const index steps = 40;
    std::vector<std::vector<T>> logits[2];
    for (int way = 0; way < 2; ++way) {  // 0: as decode does it; 1: a fresh state's first steps are direct ones
        auto state = model.stack.make_decode_state(ex, sequences, 256);
        model.decode(ids, prompt, state);
        for (index t = 0; t < steps; ++t) {
            if (way == 1) state.steps.clear();
            logits[way].push_back(to_host(
                ex, model.decode(some_ids(sequences, c.backbone.vocab_size, static_cast<std::uint64_t>(t) + 100), one,
                                 state)));
        }
    }
    std::size_t differ = 0;
    for (std::size_t t = 0; t < logits[0].size(); ++t)
        differ += std::memcmp(logits[0][t].data(), logits[1][t].data(), logits[0][t].size() * sizeof(T)) != 0;
    double worst = 0;
    for (index s = 0; s < std::min<index>(sequences, 2); ++s) {
        plain_qwen plain(model);
        for (row_index id :
             some_ids(prompt[static_cast<std::size_t>(s)], c.backbone.vocab_size, static_cast<std::uint64_t>(s) + 9))
            plain.next(id);
        for (index t = 0; t < steps; ++t) {
            const auto want = plain.next(some_ids(sequences, c.backbone.vocab_size,
                                                  static_cast<std::uint64_t>(t) + 100)[static_cast<std::size_t>(s)]);
            double error = 0, norm = 0;
            for (std::size_t i = 0; i < want.size(); ++i) {
                const double got = static_cast<float>(
                    logits[0][static_cast<std::size_t>(t)][static_cast<std::size_t>(s) * want.size() + i]);
                error += (got - want[i]) * (got - want[i]), norm += static_cast<double>(want[i]) * want[i];
            }
            const double relative = std::sqrt(error / norm);
            worst = std::isnan(relative) ? 1e9 : std::max(worst, relative);
        }
    }
    const double allowed = std::is_same_v<T, float> ? 1e-5 : 3e-2;
    std::printf(
        "check: %d sequences: |logits - plain| / |plain| %.2e (allowed %.0e), %zu of %d steps differ between replay and launches%s\n",
        int(sequences), worst, allowed, differ, int(steps), worst < allowed && !differ ? "" : "   WRONG");
    return worst < allowed && !differ;
}

// GB/s of reading memory far larger than the caches
double read_bandwidth(Exec& ex) {
    const index words = index{1} << 29;  // 8 GB of 16 bytes
    tensor<Exec, cuda::detail::words> block(ex, {words});
    tensor<Exec, unsigned> sink(ex, {1});
    const auto* from = block.data();
    unsigned* to = sink.data();
    std::vector<double> t;
    const index threads = index{ex.multiprocessors()} * 2048, unroll = 8;
    for (int i = 0; i < 6; ++i) {
        ex.synchronize();
        const double start = seconds();
        cuda::detail::for_each(ex, "read", threads, [=] __device__(index thread) {
            unsigned sum = 0;
            for (index w = thread; w < words; w += threads * unroll) {
                cuda::detail::words got[unroll];
#pragma unroll
                for (index u = 0; u < unroll; ++u)
                    if (w + u * threads < words) got[u] = cuda::detail::read_once(from + w + u * threads);
#pragma unroll
                for (index u = 0; u < unroll; ++u)
                    if (w + u * threads < words)
                        sum ^= got[u].value[0] ^ got[u].value[1] ^ got[u].value[2] ^ got[u].value[3];
            }
            if (sum == 12345) *to = sum;
        });
        ex.synchronize();
        t.push_back(seconds() - start);
    }
    return 16.0 * static_cast<double>(words) / *std::min_element(t.begin(), t.end()) * 1e-9;
}

double weight_bytes(model_t& model) {
    double bytes = 0;
    for (const auto& [name, p] : model.parameters.named())
        bytes += static_cast<double>(p->size()) * (p->narrow ? 2 : sizeof(T));
    return bytes;
}

// seconds of a token: the median over chunks of eight that choose themselves
double seconds_a_token(Exec& ex, model_t& model, decode_state<Exec, T>& state, index sequences, int tokens,
                       const sampling_options& how = {.temperature = 0}) {
    const index vocabulary = model.config.backbone.vocab_size;
    const std::vector<index> one(static_cast<std::size_t>(sequences), 1);
    std::vector<row_index> ids(static_cast<std::size_t>(sequences), 7);
    std::vector<std::vector<row_index>> seen(ids.size(), some_ids(128, vocabulary, 5));
    model.choose(ids, one, 4, vocabulary, state, how, seen);
    const auto allocations = ex.allocations();
    std::vector<double> t;
    const int chunk = 8;
    for (int i = 0; i < tokens / chunk; ++i) {
        const double start = seconds();
        const auto out = model.choose(ids, one, chunk, vocabulary, state, how, seen);
        t.push_back((seconds() - start) / chunk);
        for (std::size_t s = 0; s < ids.size(); ++s) {
            seen[s].insert(seen[s].end(), out.begin() + s * chunk, out.begin() + (s + 1) * chunk);
            ids[s] = seen[s].back();
        }
    }
    check(ex.allocations() == allocations, "decode_cuda", "the executor allocated while decoding");
    return median(t);
}

struct figure {
    double token, tokens_per_s, floor;
};
figure measure(Exec& ex, model_t& model, index sequences, index context, double bandwidth, int tokens) {
    auto state = model.stack.make_decode_state(ex, sequences, context + 3 * tokens + 16);
    const auto& c = model.config.backbone;
    // a context of given length without its prefill: keys and values are what an earlier use of the memory left
    for (index l = 0; l < c.num_hidden_layers; ++l) {
        state.make_cache(ex, l, sequences, state.capacity, c.num_key_value_heads * c.head_width());
        auto& cache = state.layers[static_cast<std::size_t>(l)];
        auto end = to_host(ex, cache.begin.view());
        for (auto& e : end) e += static_cast<row_index>(context);
        cache.end.assign(end);
    }
    for (index& n : state.length) n = context;
    const double token = seconds_a_token(ex, model, state, sequences, tokens),
                 keys = 2.0 *
                        static_cast<double>(sequences * context * c.num_key_value_heads * c.head_width() *
                                            c.num_hidden_layers) *
                        sizeof(T);
    return {token, static_cast<double>(sequences) / token, (weight_bytes(model) + keys) / bandwidth * 1e-9};
}

// LayerRoute's decoding: blocks that gates closed for a sequence (here by force), adapters merged or beside the weights
void measure_gated(Exec& ex) {
    double all = 0;
    for (bool adapters : {false, true})
        for (index closed : {0, 4, 8}) {
            auto m = shape(24);
            m.route.gates.emplace();
            if (adapters) m.route.lora.emplace();
            model_t model(ex, m, gradients::none);
            fill(model);
            std::vector<char> open(24, 1);
            for (index l = 0; l < closed; ++l)
                open[static_cast<std::size_t>(8 + l)] = 0;  // from the middle, as published
            model.stack.forced_open = open;
            auto state = model.stack.make_decode_state(ex, 1, 1024);
            model.decode(some_ids(128, m.backbone.vocab_size, 5), std::vector<index>{128}, state);
            const double token = seconds_a_token(ex, model, state, 1, 160);
            if (!adapters && !closed) all = token;
            std::printf(
                "24 blocks, %d closed by their gates, adapters %s: %.1f us/token, %.0f tokens/s, %.3f of all "
                "blocks merged\n",
                int(closed), adapters ? "beside the weights" : "merged", 1e6 * token, 1 / token, all / token);
        }
}

// Tokens drawn on the device, eight at a time, or by the host from logits that it reads after every step
void measure_drawn(Exec& ex) {
    model_t model(ex, shape(24), gradients::none);
    fill(model);
    const index vocabulary = model.config.backbone.vocab_size;
    const std::vector<index> one{1};
    const std::pair<const char*, sampling_options> all[] = {
        {"the most likely", {.temperature = 0}},
        {"Qwen2.5's own options", {.temperature = 0.7, .top_p = 0.8, .repetition_penalty = 1.1, .top_k = 20}},
        {"temperature 1", {.temperature = 1}}};
    for (const auto& [name, how] : all) {
        auto state = model.stack.make_decode_state(ex, 1, 1024);
        auto seen = some_ids(128, vocabulary, 5);
        model.decode(seen, std::vector<index>{128}, state);
        const double device = seconds_a_token(ex, model, state, 1, 160, how);
        std::vector<double> t;
        for (int i = 0; i < 24; ++i) {
            const double start = seconds();
            const auto z = to_host_widened(ex, model.decode(std::vector<row_index>{seen.back()}, one, state));
            const std::vector<float> logits(z.begin(), z.end());
            seen.push_back(sample_token(logits, seen, how, draw_number(0, static_cast<index>(seen.size()))));
            t.push_back(seconds() - start);
        }
        std::printf("24 blocks, %s: drawn on the device %.1f us/token, %.0f tokens/s; by the host %.1f us/token\n",
                    name, 1e6 * device, 1 / device, 1e6 * median(t));
    }
}

// us of one of many: `work(i)` for i below count, recorded once, replayed
template <class F>
double replayed(Exec& ex, int count, F&& work) {
    repeated_work<Exec> all;
    std::vector<double> t;
    for (int i = 0; i < 12; ++i) {
        ex.synchronize();
        const double start = seconds();
        all.run(ex, [&] {
            arena_scope scratch(ex);
            for (int l = 0; l < count; ++l) work(l);
        });
        ex.synchronize();
        if (i > 3) t.push_back((seconds() - start) / count);
    }
    return 1e6 * median(t);
}

// A kernel or a half of a block at a time, one for each block: what a kernel costs in a chain of its kind.
void measure_kinds(Exec& ex, model_t& model, index N, index context, double bandwidth) {
    using namespace cuda::detail;
    using W = bfloat16;
    const auto& c = model.config.backbone;
    const index C = c.hidden_size, F = c.intermediate_size, L = c.num_hidden_layers;
    auto state = model.stack.make_decode_state(ex, N, context + 16);
    std::vector<index> one(static_cast<std::size_t>(N), 1), seen(static_cast<std::size_t>(N), context);
    step_memory<Exec, T> memory(ex, N, context + 16, 8);
    decode_step<Exec, T> step(memory, one);
    step.feed(ex, std::vector<row_index>(static_cast<std::size_t>(N), 1), seen);
    tensor<Exec, T, 2> x(ex, {N, C}), y(ex, {N, C}), hidden(ex, {N, F}), z(ex, {N, c.vocab_size});
    tensor<Exec, row_index> ids(ex, {N});
    tensor<Exec, row_index, 2> chosen(ex, {N, context + 16});
    const auto block = [&](int l) -> auto& { return model.stack.blocks[static_cast<std::size_t>(l)]; };
    const auto say = [&](const char* what, double bytes, double us) {
        std::printf("  %-28s %8.2f us   %8.2f us of bytes\n", what, us, 1e-3 * bytes / bandwidth);
    };
    std::printf("kinds, %d rows, context %d, overlap %s\n", int(N), int(context), ex.options().overlap ? "on" : "off");
    for (index l = 0; l < L; ++l) {
        state.make_cache(ex, l, N, context + 16, c.num_key_value_heads * c.head_width());
        auto end = to_host(ex, state.layers[static_cast<std::size_t>(l)].begin.view());
        for (auto& e : end) e += static_cast<row_index>(context);
        state.layers[static_cast<std::size_t>(l)].end.assign(end);
    }
    tensor<Exec, row_index> full(ex, {N}, to_host(ex, state.layers[0].end.view()));
    pass<Exec, T> p{.ex = ex, .rows = step.map(), .decode = &state, .step_of_decoding = true, .lengths = one};
    say("attention half", 2.0 * (2 * C * C + 2 * C * 128), replayed(ex, int(L), [&](int l) {
            typename grouped_attention<Exec, T>::saved s;
            block(l).attention.forward(p, x, y, s);
        }));
    for (index l = 0; l < L; ++l) state.layers[static_cast<std::size_t>(l)].end.assign(to_host(ex, full.view()));
    say("feed-forward half", 6.0 * C * F, replayed(ex, int(L), [&](int l) {
            typename gated_feed_forward<Exec, T>::saved s;
            block(l).mlp.forward(p, x, y, s);
        }));
    say("norm, gate and up, SiLU", 4.0 * C * F, replayed(ex, int(L), [&](int l) {
            auto& m = block(l).mlp;
            gate_outputs<4, T, W> out{weight_data<W, T>(m.gate_proj.weight.matrix()),
                                      weight_data<W, T>(m.up_proj.weight.matrix())};
            out.y = rows_in(hidden.view());
            out.rows = int(N), out.width = int(C), out.outputs = int(F);
            few_rows_product<4, 1, T, W>(ex, "gate", inputs_of<T>(x, m.norm.weight.vector(), 1e-6), out, F / 2, true);
        }));
    say("down, residual", 2.0 * C * F, replayed(ex, int(L), [&](int l) {
            projected_rows<8, T, W>(ex, "down", inputs_of<T>(hidden, {}, 0), block(l).mlp.down_proj.map(), x, y);
        }));
    say("C to C, norm, residual", 2.0 * C * C, replayed(ex, int(L), [&](int l) {
            projected_rows<4, T, W>(ex, "o", inputs_of<T>(x, block(l).mlp.norm.weight.vector(), 1e-6),
                                    block(l).attention.o_proj.map(), x, y);
        }));
    say("C to C, residual", 2.0 * C * C, replayed(ex, int(L), [&](int l) {
            projected_rows<4, T, W>(ex, "o", inputs_of<T>(x, {}, 0), block(l).attention.o_proj.map(), x, y);
        }));
    say("head", 2.0 * C * c.vocab_size,
        replayed(ex, 4, [&](int) { head_forward<Exec, T>(ex, x, {}, 0, model.stack.head().matrix(), z); }));
    say("choose, advance", sizeof(T) * N * c.vocab_size, replayed(ex, 8, [&](int) {
            choose_tokens<Exec, T>(ex, z, c.vocab_size, step.map().sequence, step.map().position, ids, chosen);
            advance_rows(ex, ids.view());
        }));
    say("embedding, norm", 0, replayed(ex, 8, [&](int) {
            embedding_forward<Exec, T>(ex, step.ids(), model.stack.embedding.matrix(), x);
            typename rms_norm<Exec, T>::saved s;
            model.stack.norm.forward(p, x, y, s);
        }));
}

}  // namespace
}  // namespace spectral::bench

int main(int argc, char**) try {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    using namespace spectral;
    using namespace spectral::bench;
    spectral::cuda::executor ex;
    std::printf("%s, sm_%d, %d multiprocessors; activations %s, weights bfloat16\n", ex.device_name().c_str(),
                ex.architecture(), ex.multiprocessors(), narrow ? "float" : "bfloat16");
    bool good = true;
    for (std::int64_t sequences : {1, 3, 8}) good = check_steps(ex, sequences) && good;
    if (argc > 1) return good ? 0 : 1;
    const double bandwidth = read_bandwidth(ex);
    std::printf("read %.0f GB/s\n%7s %5s %8s %9s %10s %9s %9s\n", bandwidth, "blocks", "batch", "context", "us/token",
                "tokens/s", "GB/s", "of floor");
    double all = 0;
    for (std::int64_t blocks : {24, 20, 16}) {
        model_t model(ex, shape(blocks), gradients::none);
        fill(model);
        for (std::int64_t sequences : {1, 4, 8})
            for (std::int64_t context : {128, 2048}) {
                if (blocks != 24 && (sequences != 1 || context != 128)) continue;
                const figure f = measure(ex, model, sequences, context, bandwidth, 160);
                std::printf("%7d %5d %8d %9.1f %10.0f %9.0f %9.2f", int(blocks), int(sequences), int(context),
                            1e6 * f.token, f.tokens_per_s, f.floor * bandwidth / f.token, f.token / f.floor);
                if (blocks == 24 && sequences == 1 && context == 128) all = f.token / f.floor;
                if (blocks != 24) std::printf("   ideal of bytes over 24 blocks %.3f", all * f.floor / f.token);
                std::printf("\n");
            }
    }
    measure_gated(ex);
    measure_drawn(ex);
    for (const auto& [what, options] : {std::pair{"as it is", spectral::cuda::executor_options{}},
                                        {"weights not brought nearer", {.read_ahead = false}},
                                        {"kernels one after the other", {.overlap = false, .read_ahead = false}}}) {
        spectral::cuda::executor on(options);
        model_t model(on, shape(24), gradients::none);
        fill(model);
        const figure f = measure(on, model, 1, 128, bandwidth, 160);
        std::printf("%s: %.1f us/token, %.0f tokens/s\n", what, 1e6 * f.token, f.tokens_per_s);
        measure_kinds(on, model, 1, 128, bandwidth);
        if (options.read_ahead)
            measure_kinds(on, model, 1, 2048, bandwidth), measure_kinds(on, model, 8, 2048, bandwidth);
    }
    return good ? 0 : 1;
} catch (const std::exception& e) {
    std::printf("failed: %s\n", e.what());
    return 1;
}
