// SPDX-License-Identifier: Apache-2.0
// bench/curves_cuda.cpp: one training on the CPU and on a GPU, batch by batch: how far their loss curves part, and why
//   curves_cuda [--steps 200] [--seed 1] [--threads 8] [--model chiar|layer_route] FILE...
// the files' bytes are the text; JSON lines: the losses of every step, then what was compared
// A small CHIAR and a small LayerRoute model, dropout on, start from the same numbers and see the same batches.
// "replayed": the routes (gates) that cpu f64 took are repeated by the others, so that what is left between the curves is
// rounding; cpu f32 shows how far rounding alone goes. The weights stay the same within rounding, so before each step
// CHIAR evaluates the batch too, every executor choosing for itself, and the routes that differ are counted.
// "own": all but cuda bf16 train with routes of their own. A token within rounding of a threshold, sooner or later, goes
// two ways; from there on the weights differ too. `while_together` counts the steps up to that one, its flips among them;
// `flips` is of all steps. Two cuda trainings must have the same losses, bit for bit.
//   cmake --preset cuda -DSPECTRAL_BENCH=ON && cmake --build build/cuda --target curves_cuda
#include "runners.hpp"

#include <spectral/io/json.hpp>
#include <spectral/models/layer_route_config.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace spectral::cli {
namespace {

using json = nlohmann::ordered_json;

struct options {
    index steps = 200, batch = 2, time = 256;  // longer than what one block of attention takes of the keys
    std::uint64_t seed = 1;
    int threads = 8;
    std::string model, text;  // model: empty for both
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

using routes_by_layer = std::map<index, layer_routes>;

// One model on one executor, with the routes of its last step.
struct training {
    std::string name;
    std::unique_ptr<runner> model;
    route_trace trace{};

    // the loss before the update; `routes`: another's, to be replayed
    double step(const options& o, index step, const routes_by_layer* routes) {
        trace = route_trace(routes ? route_trace::mode::replay : route_trace::mode::record);
        if (routes) trace.layers = *routes;
        model->set_trace(&trace);
        model->set_dropout(o.seed, static_cast<std::uint64_t>(step));
        const double loss = model->train(batch_at(o, step), 1).loss;
        check(std::isfinite(loss), name, "step ", step, ": expected a finite loss, found ", loss);
        model->update({.learning_rate = 1e-3}, 1.0);
        model->set_trace(nullptr);
        return loss;
    }
    // what it chooses for itself in an evaluation: routes; gates are recorded in training alone
    routes_by_layer choice(const options& o, index step) {
        route_trace own(route_trace::mode::record);
        model->set_trace(&own);
        model->evaluate(batch_at(o, step));
        model->set_trace(nullptr);
        return std::move(own.layers);
    }
};

// Routes of a layer, or gates: of operator 1, attention, or open.
std::vector<bool> decisions(const layer_routes& of) {
    std::vector<bool> out;
    if (of.op.empty())
        for (double gate : of.gates) out.push_back(gate != 0);
    else
        for (row_index op : of.op) out.push_back(op == 1);
    return out;
}
index count_of(const std::vector<bool>& decided) { return std::count(decided.begin(), decided.end(), true); }

// How far one training's losses and decisions are from another's.
struct comparison {
    std::size_t of, from;
    double largest = 0;  // relative difference of the losses
    index steps = 0, seen = 0;  // decisions, of all layers
    std::map<index, index> flips{};  // by layer
    bool together = true;  // no decision differed yet
    index together_steps = 0, together_seen = 0, first_flips = 0;

    void add_losses(const std::vector<double>& loss) {
        largest = std::max(largest, std::abs(loss[of] / loss[from] - 1));
    }
    void add_decisions(const routes_by_layer& a, const routes_by_layer& b) {
        index differ = 0, all = 0;
        for (const auto& [layer, routes] : a) {
            auto here = decisions(routes);
            const auto there = decisions(b.at(layer));
            for (std::size_t i = 0; i < here.size(); ++i) here[i] = here[i] != there[i];
            flips[layer] += count_of(here);
            differ += count_of(here);
            all += static_cast<index>(here.size());
        }
        ++steps;
        seen += all;
        if (!together) return;
        together_steps = steps;
        together_seen = seen;
        first_flips = differ;
        together = differ == 0;
    }
    json by_layer() const {
        json out = json::object();
        for (const auto& [layer, differ] : flips) out[std::to_string(layer)] = differ;
        return {{"differ", out}, {"of_each", seen / static_cast<index>(flips.size())}};
    }
};

struct bench {
    std::string name;
    const options& o;

    json line(const char* routes) const {
        return {{"model", name}, {"seed", o.seed}, {"threads", o.threads}, {"routes", routes}};
    }
    void print_losses(const char* routes, index step, const std::vector<training>& all,
                      const std::vector<double>& loss) const {
        json row = line(routes);
        row["step"] = step;
        for (std::size_t i = 0; i < all.size(); ++i) row[all[i].name] = loss[i];
        std::cout << row.dump() << '\n';
    }
    json line(const char* routes, const std::vector<training>& all, const comparison& c) const {
        json row = line(routes);
        row["of"] = all[c.of].name;
        row["from"] = all[c.from].name;
        row["largest_relative_difference"] = c.largest;
        return row;
    }
};

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

template <class Config>
void replayed(const bench& b, const Config& c, const factory<Config>& make) {
    const options& o = b.o;
    std::vector<training> all;
    all.push_back(start("cpu f64", make.cpu_f64, c, o));
    all.push_back(start("cpu f32", make.cpu_f32, c, o));
    all.push_back(start("cuda f32", make.cuda_f32, c, o));
    all.push_back(start("cuda bf16", make.cuda_bf16, c, o));
    std::vector<comparison> compared{{1, 0}, {2, 0}, {3, 0}};
    for (index step = 0; step < o.steps; ++step) {
        const auto choice = all[0].choice(o, step);
        for (comparison& pair : compared) pair.add_decisions(choice, all[pair.of].choice(o, step));
        std::vector<double> loss;
        for (training& t : all) loss.push_back(t.step(o, step, loss.empty() ? nullptr : &all[0].trace.layers));
        for (comparison& pair : compared) pair.add_losses(loss);
        b.print_losses("replayed", step, all, loss);
    }
    for (const comparison& pair : compared) {
        json row = b.line("replayed", all, pair);
        if (pair.seen > 0) row["flips_in_evaluation"] = pair.by_layer();
        std::cout << row.dump() << '\n';
    }
}

template <class Config>
void own_routes(const bench& b, const Config& c, const factory<Config>& make) {
    const options& o = b.o;
    std::vector<training> all;
    all.push_back(start("cpu f64", make.cpu_f64, c, o));
    all.push_back(start("cpu f32", make.cpu_f32, c, o));
    all.push_back(start("cuda f32", make.cuda_f32, c, o));
    all.push_back(start("cuda f32 again", make.cuda_f32, c, o));
    std::vector<comparison> compared{{1, 0}, {2, 0}, {2, 1}};
    std::map<index, double> chosen;  // share of cpu f64's decisions: attention, open
    for (index step = 0; step < o.steps; ++step) {
        std::vector<double> loss;
        for (training& t : all) loss.push_back(t.step(o, step, nullptr));
        for (comparison& pair : compared) {
            pair.add_losses(loss);
            pair.add_decisions(all[pair.from].trace.layers, all[pair.of].trace.layers);
        }
        for (const auto& [layer, routes] : all[0].trace.layers) {
            const auto decided = decisions(routes);
            chosen[layer] += static_cast<double>(count_of(decided)) / static_cast<double>(decided.size() * o.steps);
        }
        b.print_losses("own", step, all, loss);
        check(loss[2] == loss[3], b.name, "step ", step,
              ": expected the same bits of two cuda trainings, found losses ", loss[2], " and ", loss[3]);
    }
    for (const comparison& pair : compared) {
        json row = b.line("own", all, pair);
        row["flips"] = pair.by_layer();
        row["while_together"] = {
            {"steps", pair.together_steps}, {"flips", pair.first_flips}, {"decisions", pair.together_seen}};
        std::cout << row.dump() << '\n';
    }
    json row = b.line("own");
    for (const auto& [layer, share] : chosen) row["attention_or_open"][std::to_string(layer)] = share;
    row["two_cuda_trainings"] = "same bits";
    std::cout << row.dump() << '\n';
}

template <class Config>
void curves(const char* name, const Config& c, const factory<Config>& make, const options& o) {
    const bench b{name, o};
    replayed(b, c, make);
    own_routes(b, c, make);
}

// Half of the first step's tokens to attention. A threshold lies between the two entropies in the middle: on one of them
// rounding would route its token. Each layer's entropies depend on the routes before it.
chiar_config small_chiar(const options& o) {
    chiar_config c;
    c.vocab_size = 256;  // bytes
    c.d_model = 128;
    c.max_seq_len = o.time;
    c.meta_pool = meta_pool::causal;
    c.tau.assign(static_cast<std::size_t>(c.n_layers), c.thresholds(1)[0]);
    for (index layer = 1; layer + 1 < c.n_layers; ++layer) {
        training t = start<chiar_config>("cpu f64", make_cpu_f64, c, o);
        t.step(o, 0, nullptr);
        auto h = t.trace.layers.at(layer).entropy;
        std::sort(h.begin(), h.end());
        c.tau[static_cast<std::size_t>(layer)] = (h[h.size() / 2 - 1] + h[h.size() / 2]) / 2;
    }
    return c;
}

layer_route_model small_layer_route(const options& o) {
    layer_route_model m;
    m.backbone = {.vocab_size = 256,
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

void run(options& o, const std::vector<std::string>& files) {
    for (const auto& file : files) {
        std::ifstream in(file, std::ios::binary);
        check(in.good(), file, "expected a file that can be read");
        o.text.append(std::istreambuf_iterator<char>(in), {});
    }
    check(static_cast<index>(o.text.size()) >= 2 * o.time, "curves_cuda", "expected files of at least ", 2 * o.time,
          " bytes together, found ", o.text.size());
    if (o.model != "layer_route")
        curves<chiar_config>("chiar", small_chiar(o), {make_cpu_f64, make_cpu_f32, make_cuda_f32, make_cuda_bf16}, o);
    if (o.model != "chiar")
        curves<layer_route_model>("layer_route", small_layer_route(o),
                                  {make_cpu_f64, make_cpu_f32, make_cuda_f32, make_cuda_bf16}, o);
}

}  // namespace
}  // namespace spectral::cli

int main(int count, char** arguments) {
    using namespace spectral::cli;
    options o;
    std::vector<std::string> files;
    CLI::App app("one training on the CPU and on a GPU, batch by batch");
    option(app, "--steps", o.steps, "N", "of each training")->check(CLI::Range(1, 1 << 20));
    option(app, "--seed", o.seed, "N", "of weights, batches and dropout");
    option(app, "--threads", o.threads, "N", "of the cpu's trainings")->check(CLI::Range(1, 1 << 20));
    choice(app, "--model", o.model, {"chiar", "layer_route"}, "both, if left out");
    app.add_option("FILE", files, "the text")->required();
    CLI11_PARSE(app, count, arguments);
    try {
        run(o, files);
    } catch (const std::exception& e) {
        return std::fprintf(stderr, "curves_cuda: %s\n", e.what()), 1;
    }
}
