// SPDX-License-Identifier: Apache-2.0
// examples/cli/calibrate.cpp: `spectral calibrate`: thresholds from the entropies that a trained model shows
#include "commands.hpp"
#include "runners.hpp"
#include "text_files.hpp"

#include <spectral/io/chiar_config_json.hpp>

#include <cmath>
#include <iostream>

namespace spectral::cli {
namespace {

struct calibrate_options {
    std::string model, data, write;
    index tokens = 65536, batch = 8;
    bool per_layer = false;
    double share = -1;
    runner_choice runner;
};

struct statistics {
    std::vector<double> sorted;
    double mean = 0, deviation = 0;

    explicit statistics(std::vector<double> values) : sorted(std::move(values)) {
        for (double v : sorted) check(!std::isnan(v), "calibrate", "an entropy is NaN: the model's weights are broken");
        std::sort(sorted.begin(), sorted.end());
        for (double v : sorted) mean += v / static_cast<double>(sorted.size());
        for (double v : sorted) deviation += (v - mean) * (v - mean) / static_cast<double>(sorted.size());
        deviation = std::sqrt(deviation);
    }
    double at(double share) const {  // linear between neighbours
        const double x = share * static_cast<double>(sorted.size() - 1);
        const auto i = static_cast<std::size_t>(x);
        return i + 1 < sorted.size() ? sorted[i] + (x - std::floor(x)) * (sorted[i + 1] - sorted[i]) : sorted[i];
    }
};

double null_entropy(index d) { return 1 - 0.7296 / std::log(static_cast<double>(d)); }

void print_line(const std::string& what, const statistics& s) {
    std::printf("%-12s %8zu tokens  mean %.4f  deviation %.4f  33 %% %.4f  50 %% %.4f  67 %% %.4f\n", what.c_str(),
                s.sorted.size(), s.mean, s.deviation, s.at(0.33), s.at(0.5), s.at(0.67));
}

std::vector<double> embedding_entropies(runner& r, const std::vector<row_index>& ids) {
    std::vector<double> out;
    for (std::size_t i = 0; i < ids.size(); i += 4096) {
        const auto part = r.embedding_entropy(std::span(ids).subspan(i, std::min<std::size_t>(4096, ids.size() - i)));
        out.insert(out.end(), part.begin(), part.end());
    }
    return out;
}

// Entropies of the layers' inputs, by layer, over windows of the model's length.
std::map<index, std::vector<double>> layer_entropies(runner& r, const std::vector<row_index>& ids, index batch_size) {
    std::map<index, std::vector<double>> out;
    const evaluation_windows windows(token_stream(ids), {.batch = batch_size, .window = r.facts().longest});
    for (index n = 0; n < windows.batches(); ++n) {
        route_trace trace;
        r.set_trace(&trace);
        r.evaluate(windows.batch_at(n));
        r.set_trace(nullptr);
        for (const auto& [layer, routes] : trace.layers)
            out[layer].insert(out[layer].end(), routes.entropy.begin(), routes.entropy.end());
    }
    return out;
}

// One threshold a layer, so that `share` of its tokens lie above. A CHIAR model's later layers depend on the routes of
// the earlier ones: they are set one after another.
void calibrate_layers(const calibrate_options& o, const model_directory& model, const std::vector<row_index>& ids,
                      double share, chiar_config& result) {
    chiar_config c = model.chiar();
    std::vector<std::optional<double>> tau(static_cast<std::size_t>(c.n_layers));
    const bool sequential = !c.baseline() && c.routing_mode == routing_mode::threshold && c.operators() == 2;
    if (sequential) {
        c.tau.clear();
        for (index l = 0; l < c.n_layers; ++l)
            c.tau.push_back(l > 0 && l + 1 < c.n_layers ? std::optional(model.chiar().thresholds(l)[0]) : std::nullopt);
    }
    for (index l = 1; l + 1 < c.n_layers; ++l) {
        model_directory now = model;
        now.config = c;
        const auto seen = layer_entropies(*now.load(o.runner), ids, o.batch);
        for (index k = sequential ? l : 0; k < (sequential ? l + 1 : c.n_layers); ++k) {
            if (!seen.count(k) || seen.at(k).empty()) continue;
            const statistics s(seen.at(k));
            print_line("layer " + std::to_string(k), s);
            if (k > 0 && k + 1 < c.n_layers) tau[static_cast<std::size_t>(k)] = s.at(1 - share);
        }
        if (!sequential) break;
        c.tau[static_cast<std::size_t>(l)] = tau[static_cast<std::size_t>(l)];
    }
    result.tau = tau;
    std::printf("tau for a share of %.2f to attention:", share);
    for (const auto& t : tau) t ? std::printf(" %.6f", *t) : std::printf(" null");
    std::printf("\n");
}

void run_calibrate(const calibrate_options& o) {
    check(o.share == -1 || (o.share >= 0 && o.share <= 1), "--share", "expected a number in [0, 1], found ", o.share);
    check(o.tokens >= 2 && o.batch >= 1, "--tokens, --batch", "expected at least 2 and 1, found ", o.tokens, " and ",
          o.batch);
    const model_directory model(o.model);
    const auto file = model.path / "tokenizer.json";
    const auto stream =
        open_stream(
            {.files = {o.data}, .tokenizer = std::filesystem::exists(file) ? file.string() : "", .name = "data"},
            model.chiar().vocab_size)
            .stream;
    std::vector<row_index> ids;
    stream.append_to(ids, 0, std::min(o.tokens, stream.size()));
    check(ids.size() >= 2, o.data, "expected at least 2 tokens, found ", ids.size());

    std::printf("a Gaussian of width %lld has entropy %.4f: a router that sees no more than noise sits there\n",
                static_cast<long long>(model.chiar().d_model), null_entropy(model.chiar().d_model));
    chiar_config result = o.write.empty() ? model.chiar() : read_chiar_config(o.write);
    if (o.per_layer) {
        check(o.write.empty() || result.n_layers == model.chiar().n_layers, o.write, "n_layers: expected ",
              model.chiar().n_layers, ", as in the model, found ", result.n_layers);
        calibrate_layers(o, model, ids, o.share < 0 ? 0.5 : o.share, result);
    } else {
        const statistics s(embedding_entropies(*model.load(o.runner), ids));
        print_line("embeddings", s);
        result.tau_low = s.at(0.33);
        result.tau_high = s.at(0.67);
        result.tau.clear();  // (tau_low + tau_high) / 2
        if (o.share >= 0) result.tau = {s.at(1 - o.share)};
        std::printf("tau_low %.6f  tau_high %.6f  tau %.6f\n", result.tau_low, result.tau_high,
                    result.tau.empty() ? (result.tau_low + result.tau_high) / 2 : *result.tau[0]);
    }
    if (o.write.empty()) return;
    result.validate();
    write_file_atomically(o.write, write_chiar_config(result));
    std::printf("written to %s\n", o.write.c_str());
}

}  // namespace

void add_calibrate(CLI::App& app) {
    auto* c = app.add_subcommand("calibrate",
                                 "entropy thresholds from a trained model and text, as in the paper or per layer");
    auto o = std::make_shared<calibrate_options>();
    option(*c, "--model", o->model, "DIR", "model directory or run; the paper uses the full-attention baseline")
        ->required();
    option(*c, "--data", o->data, "FILE", "text or token file")->required();
    option(*c, "--tokens", o->tokens, "N", "tokens read, from the start");
    option(*c, "--batch", o->batch, "N", "windows a batch of --per-layer");
    c->add_flag("--per-layer", o->per_layer,
                "entropies of the layers' inputs, a threshold for each, instead of the embeddings'");
    option(*c, "--share", o->share, "X",
           "share of tokens to attention; -1: the 33rd and 67th percentiles, per layer 0.5");
    option(*c, "--write", o->write, "FILE", "config.json to update with tau_low, tau_high, tau");
    add_runner_options(*c, o->runner);
    c->callback([o] { run_calibrate(*o); });
}

}  // namespace spectral::cli
