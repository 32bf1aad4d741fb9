// SPDX-License-Identifier: Apache-2.0
// bench/curves_cuda.cpp: one training on the CPU and on a GPU, batch by batch: how far their loss curves part, and why
//   curves_cuda [--steps 200] [--seed 1] [--threads 8] [--model chiar|layer_route] FILE...
// the files' bytes are the text; JSON lines
// A small CHIAR and a small LayerRoute model, dropout on, start from the same numbers and see the same batches. First
// the routes (gates) that cpu f64 took are replayed by the others: what is left between the curves is rounding, and
// cpu f32 shows how far rounding alone goes. The weights stay the same within rounding, so before each step the batch is
// evaluated too, every executor choosing for itself: these routes that differ are flips on the same weights. Then all
// but cuda bf16 train with routes of their own. A token within rounding of a threshold, sooner or later, goes two ways and
// the weights part: each pair is compared, with the step and the number of the first routes that differ and all of them.
// Two cuda curves must have the same bits.
//   cmake --preset cuda -DSPECTRAL_BENCH=ON && cmake --build build/cuda --target curves_cuda
#include "runners.hpp"

#include <spectral/models/layer_route_config.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

namespace spectral::cli {
namespace {

constexpr index vocabulary = 256;

struct options {
    index steps = 200, batch = 2, time = 256;  // longer than what one block of attention takes of the keys
    std::uint64_t seed = 1;
    int threads = 8;
    std::string text, model;  // model: empty for both
};

batch batch_at(const options& o, index step) {
    batch b;
    b.lengths.assign(static_cast<std::size_t>(o.batch), o.time);
    const random_stream draw{o.seed, substream(stream_of("batches"), static_cast<std::uint64_t>(step))};
    for (index s = 0; s < o.batch; ++s) {
        const auto from = draw.bits(s) % (o.text.size() - static_cast<std::size_t>(o.time) - 1);
        for (index t = 0; t < o.time; ++t) {
            const auto byte = [&](index i) {
                return static_cast<row_index>(static_cast<unsigned char>(o.text[from + static_cast<std::size_t>(i)]));
            };
            b.ids.push_back(byte(t));
            b.targets.push_back(byte(t + 1));
        }
    }
    return b;
}

// One model on one executor, with the routes of its last step.
struct training {
    std::string name;
    std::unique_ptr<runner> model;
    route_trace trace{};

    // the loss before the update; `routes`: another's, to be replayed
    double step(const options& o, index step, const std::map<index, layer_routes>* routes) {
        trace = route_trace(routes ? route_trace::mode::replay : route_trace::mode::record);
        if (routes) trace.layers = *routes;
        model->set_trace(&trace);
        model->set_dropout(o.seed, static_cast<std::uint64_t>(step));
        const double loss = model->train(batch_at(o, step), 1).loss;
        model->update({.learning_rate = 1e-3}, 1.0);
        return loss;
    }
    // routes of an evaluation, its own choice
    std::map<index, layer_routes> choice(const options& o, index step) {
        route_trace own(route_trace::mode::record);
        model->set_trace(&own);
        model->evaluate(batch_at(o, step));
        return std::move(own.layers);
    }
};

// routes, or gates, of two passes that differ, and all of them
struct flips {
    index differ = 0, all = 0;
    void add(const layer_routes& a, const layer_routes& b) {
        for (std::size_t i = 0; i < a.op.size(); ++i) differ += a.op[i] != b.op[i];
        for (std::size_t i = 0; a.op.empty() && i < a.gates.size(); ++i) differ += a.gates[i] != b.gates[i];
        all += static_cast<index>(a.op.empty() ? a.gates.size() : a.op.size());
    }
};

using flips_by_layer = std::map<index, flips>;
void add(flips_by_layer& count, const std::map<index, layer_routes>& a, const std::map<index, layer_routes>& b) {
    for (const auto& [layer, routes] : a) count[layer].add(routes, b.at(layer));
}
void print_flips(const char* name, const flips_by_layer& count) {
    std::printf("\"%s\": {", name);
    for (const auto& [layer, f] : count)
        std::printf("%s\"%lld\": \"%lld of %lld\"", layer == count.begin()->first ? "" : ", ",
                    static_cast<long long>(layer), static_cast<long long>(f.differ), static_cast<long long>(f.all));
    std::printf("}");
}

template <class Config>
struct factory {
    make_function<Config>*cpu_f64, *cpu_f32, *cuda_f32, *cuda_bf16;
};

template <class Config>
training start(const char* name, make_function<Config>* make, const Config& c, const options& o) {
    training t{name, make(c, {.threads = o.threads}, true)};
    t.model->initialize(o.seed);
    if (auto* route = t.model->layer_route()) route->set_objective(skip_budget{{{"", 0.25}}}.objective());
    return t;
}

void print_line(const char* model, const char* routes, index step, const std::vector<training>& all,
                const std::vector<double>& loss) {
    std::printf("{\"model\": \"%s\", \"routes\": \"%s\", \"step\": %lld", model, routes, static_cast<long long>(step));
    for (std::size_t i = 0; i < all.size(); ++i) std::printf(", \"%s\": %.9g", all[i].name.c_str(), loss[i]);
    std::printf("}\n");
}

template <class Config>
void replayed(const char* name, const Config& c, const factory<Config>& make, const options& o) {
    std::vector<training> all;
    all.push_back(start("cpu f64", make.cpu_f64, c, o));
    all.push_back(start("cpu f32", make.cpu_f32, c, o));
    all.push_back(start("cuda f32", make.cuda_f32, c, o));
    all.push_back(start("cuda bf16", make.cuda_bf16, c, o));
    std::vector<double> off(all.size());
    std::vector<flips_by_layer> count(all.size());
    for (index step = 0; step < o.steps; ++step) {
        const auto choice = all[0].choice(o, step);
        for (std::size_t i = 1; i < all.size(); ++i) add(count[i], choice, all[i].choice(o, step));
        std::vector<double> loss;
        for (training& t : all) {
            loss.push_back(t.step(o, step, loss.empty() ? nullptr : &all[0].trace.layers));
            double& most = off[loss.size() - 1];
            most = std::max(most, std::abs(loss.back() / loss[0] - 1));
        }
        print_line(name, "replayed", step, all, loss);
    }
    std::printf(
        "{\"model\": \"%s\", \"seed\": %llu, \"routes\": \"replayed\", \"largest relative difference to cpu f64\": {",
        name, static_cast<unsigned long long>(o.seed));
    for (std::size_t i = 1; i < all.size(); ++i)
        std::printf("%s\"%s\": %.2e", i > 1 ? ", " : "", all[i].name.c_str(), off[i]);
    std::printf("}, \"flips on the same weights, by layer\": {");
    for (std::size_t i = 1; i < all.size(); ++i) {
        if (i > 1) std::printf(", ");
        print_flips(all[i].name.c_str(), count[i]);
    }
    std::printf("}}\n");
}

// how far one training's curve and routes part from another's
struct parting {
    std::size_t of, from;
    double most = 0;  // of the loss, relative
    flips_by_layer all{};
    index first_step = -1, first_flips = 0;  // the first step of routes that differ, and how many did

    void add(index step, const std::vector<training>& runs, const std::vector<double>& loss) {
        most = std::max(most, std::abs(loss[of] / loss[from] - 1));
        flips_by_layer now;
        cli::add(now, runs[from].trace.layers, runs[of].trace.layers);
        for (const auto& [layer, f] : now) {
            all[layer].differ += f.differ;
            all[layer].all += f.all;
            if (first_step < 0) first_flips += f.differ;
        }
        if (first_step < 0 && first_flips > 0) first_step = step;
    }
    void print(const std::vector<training>& runs) const {
        std::printf(", \"%s from %s\": {\"largest relative difference\": %.2e, \"first flips\": ",
                    runs[of].name.c_str(), runs[from].name.c_str(), most);
        if (first_step < 0)
            std::printf("null, ");
        else
            std::printf("\"%lld in step %lld\", ", static_cast<long long>(first_flips),
                        static_cast<long long>(first_step));
        print_flips("flips by layer", all);
        std::printf("}");
    }
};

template <class Config>
void own_routes(const char* name, const Config& c, const factory<Config>& make, const options& o) {
    std::vector<training> all;
    all.push_back(start("cpu f64", make.cpu_f64, c, o));
    all.push_back(start("cpu f32", make.cpu_f32, c, o));
    all.push_back(start("cuda f32", make.cuda_f32, c, o));
    all.push_back(start("cuda f32 again", make.cuda_f32, c, o));
    constexpr std::size_t cuda = 2, again = 3;
    std::vector<parting> pairs{{1, 0}, {cuda, 0}, {cuda, 1}};
    bool same_bits = true;
    for (index step = 0; step < o.steps; ++step) {
        std::vector<double> loss;
        for (training& t : all) loss.push_back(t.step(o, step, nullptr));
        for (parting& p : pairs) p.add(step, all, loss);
        same_bits = same_bits && loss[cuda] == loss[again];
        print_line(name, "own", step, all, loss);
    }
    std::printf("{\"model\": \"%s\", \"seed\": %llu, \"routes\": \"own\", \"two cuda runs\": \"%s\"", name,
                static_cast<unsigned long long>(o.seed), same_bits ? "same bits" : "differ");
    for (const parting& p : pairs) p.print(all);
    std::printf("}\n");
}

template <class Config>
void curves(const char* name, const Config& c, const factory<Config>& make, const options& o) {
    replayed(name, c, make, o);
    own_routes(name, c, make, o);
}

// every routed layer's threshold between the two entropies in the middle, before training: on none, or rounding would
// route its token
chiar_config small_chiar(const options& o) {
    chiar_config c;
    c.vocab_size = vocabulary;
    c.d_model = 128;
    c.max_seq_len = o.time;
    c.meta_pool = meta_pool::causal;
    training t = start<chiar_config>("cpu f64", make_cpu_f64, c, o);
    t.step(o, 0, nullptr);
    c.tau.assign(static_cast<std::size_t>(c.n_layers), std::nullopt);
    for (auto& [layer, routes] : t.trace.layers) {
        auto& h = routes.entropy;
        std::sort(h.begin(), h.end());
        c.tau[static_cast<std::size_t>(layer)] = (h[h.size() / 2 - 1] + h[h.size() / 2]) / 2;
    }
    return c;
}

layer_route_model small_layer_route(const options& o) {
    layer_route_model m;
    m.backbone = {.vocab_size = vocabulary,
                  .hidden_size = 128,
                  .intermediate_size = 512,
                  .num_hidden_layers = 4,
                  .num_attention_heads = 4,
                  .num_key_value_heads = 2,
                  .max_position_embeddings = o.time,
                  .rope_theta = 1e4,
                  .tie_word_embeddings = true};
    m.route.lora = lora_options{};
    m.route.gates = skip_gate_options{.pool = gate_pool::sequence, .bias = 0.1};
    return m;
}

}  // namespace
}  // namespace spectral::cli

int main(int count, char** arguments) {
    using namespace spectral::cli;
    options o;
    for (int i = 1; i < count; ++i) {
        if (std::strcmp(arguments[i], "--steps") == 0 && i + 1 < count)
            o.steps = std::atoll(arguments[++i]);
        else if (std::strcmp(arguments[i], "--seed") == 0 && i + 1 < count)
            o.seed = std::strtoull(arguments[++i], nullptr, 10);
        else if (std::strcmp(arguments[i], "--threads") == 0 && i + 1 < count)
            o.threads = std::atoi(arguments[++i]);
        else if (std::strcmp(arguments[i], "--model") == 0 && i + 1 < count)
            o.model = arguments[++i];
        else {
            std::ifstream in(arguments[i], std::ios::binary);
            o.text.append(std::istreambuf_iterator<char>(in), {});
        }
    }
    if (static_cast<spectral::index>(o.text.size()) < 2 * o.time)
        return std::fprintf(stderr, "curves_cuda: expected files of at least %lld bytes together, found %zu\n",
                            static_cast<long long>(2 * o.time), o.text.size()),
               2;
    try {
        if (o.model != "layer_route")
            curves<spectral::chiar_config>("chiar", small_chiar(o),
                                           {make_cpu_f64, make_cpu_f32, make_cuda_f32, make_cuda_bf16}, o);
        if (o.model != "chiar")
            curves<spectral::layer_route_model>("layer_route", small_layer_route(o),
                                                {make_cpu_f64, make_cpu_f32, make_cuda_f32, make_cuda_bf16}, o);
    } catch (const std::exception& e) {
        return std::fprintf(stderr, "curves_cuda: %s\n", e.what()), 1;
    }
}
