// SPDX-License-Identifier: Apache-2.0
// examples/cli/dumps.cpp: `spectral logits` and `spectral gradients`: tensors for comparison with other implementations
#include "commands.hpp"
#include "runners.hpp"

#include <deque>

namespace spectral::cli {
namespace {

struct dump_options {
    std::string model, ids, out;
    runner_choice runner;
    route_files route;
};

// What is written: float64 and int64 tensors, kept until write().
class dump {
public:
    void add(const std::string& name, std::vector<index> shape, std::vector<double> values) {
        real_.push_back(std::move(values));
        writer_.add(name, std::move(shape), std::span<const double>(real_.back()));
    }
    void add(const std::string& name, std::vector<index> shape, const std::vector<row_index>& values) {
        whole_.emplace_back(values.begin(), values.end());
        writer_.add(name, std::move(shape), std::span<const std::int64_t>(whole_.back()));
    }
    void write(const std::filesystem::path& path) const { writer_.write(path); }

private:
    std::deque<std::vector<double>> real_;
    std::deque<std::vector<std::int64_t>> whole_;
    safetensors_writer writer_;
};

// `ids` (B, T), each 0 to vocab_size - 1; `extra` tokens of a row are targets alone.
struct id_rows {
    std::vector<row_index> ids;
    index batch = 0, time = 0;
};
id_rows read_ids(const safetensors_file& file, const model_facts& facts, index extra) {
    const auto& entry = file.at("ids");
    check(entry.shape.size() == 2, file.name(), "ids: expected shape (B, T), found ",
          spectral::detail::shape_list(entry.shape));
    id_rows out{{}, entry.shape[0], entry.shape[1]};
    check(out.batch > 0 && out.time > extra, file.name(), "ids: expected at least 1 row of ", 1 + extra,
          " tokens, found ", spectral::detail::shape_list(entry.shape));
    check(out.time - extra <= facts.longest, file.name(), "ids: expected at most ", facts.longest + extra,
          " tokens a row (the model's context", extra ? " and one target" : "", "), found ", out.time);
    const auto wide = file.read<std::int64_t>("ids");
    for (std::size_t i = 0; i < wide.size(); ++i)
        check(wide[i] >= 0 && wide[i] < facts.vocabulary, file.name(), "ids, element ", i, ": expected 0 to ",
              facts.vocabulary - 1, " (vocab_size), found ", wide[i]);
    out.ids.assign(wide.begin(), wide.end());
    return out;
}

void add_gates(dump& out, const gate_values& g) {
    if (g.layers == 0) return;
    out.add("soft_gates", {g.layers, g.sequences}, g.soft);
    out.add("hard_gates", {g.layers, g.sequences}, g.hard);
}

// Logits of (B, T) ids; a CHIAR model's gate and routes; LayerRoute's gates.
void add_forward(dump& out, runner& r, const std::vector<row_index>& ids, index batch) {
    const index time = static_cast<index>(ids.size()) / batch;
    route_trace trace;
    r.set_trace(&trace);
    auto logits = r.logits(ids, batch);
    r.set_trace(nullptr);
    out.add("logits", logits.shape, std::move(logits.values));
    if (auto* skips = r.layer_route()) return add_gates(out, skips->gates());
    if (r.chiar()->baseline()) return;
    if (!trace.meta_gate.empty()) {
        const auto pool = r.chiar()->meta_pool;
        std::vector<index> shape;  // a scalar for one gate of the batch
        if (pool == meta_pool::sequence) shape = {batch};
        if (pool == meta_pool::causal) shape = {batch, time};
        out.add("meta_gate", shape, trace.meta_gate);
    }
    for (auto& [layer, routes] : trace.layers) {
        const std::string name = "routing." + std::to_string(layer) + ".";
        if (!routes.entropy.empty()) out.add(name + "entropy", {batch, time}, routes.entropy);
        out.add(name + "op", {batch, time}, routes.op);
        out.add(name + "gates", {batch, time, routes.operators}, routes.gates);
    }
}

std::unique_ptr<runner> load_without_dropout(const dump_options& o, bool for_training) {
    check_is_no_input(o.out, {o.ids, o.model, o.route.adapter, o.route.router});
    model_directory model(o.model);
    if (auto* c = std::get_if<chiar_config>(&model.config)) c->dropout = 0;
    return model.load(o.runner, o.route, for_training);
}

void write_logits(const dump_options& o) {
    const auto r = load_without_dropout(o, false);
    const safetensors_file file(o.ids);
    const id_rows rows = read_ids(file, r->facts(), 0);
    dump out;
    add_forward(out, *r, rows.ids, rows.batch);
    out.write(o.out);
}

// ids (B, T + 1): inputs without the last token, targets without the first; a classifier: ids (B, T) and labels (B);
// Qwen2: ids (B, T), targets inside the sequence
batch make_batch(const safetensors_file& file, const runner& r) {
    const bool classifies = r.facts().classifies, inside = r.facts().model_type == "qwen2";
    const id_rows rows = read_ids(file, r.facts(), classifies || inside ? 0 : 1);
    const index time = classifies || inside ? rows.time : rows.time - 1;
    batch b;
    b.lengths.assign(static_cast<std::size_t>(rows.batch), time);
    for (index s = 0; s < rows.batch; ++s) {
        const auto row = rows.ids.begin() + s * rows.time;
        b.ids.insert(b.ids.end(), row, row + time);
        if (!classifies) b.targets.insert(b.targets.end(), row + 1, row + rows.time);
        if (inside) b.targets.push_back(-1);
    }
    if (classifies) {
        check(file.at("labels").shape == std::vector<index>{rows.batch}, file.name(), "labels: expected shape [",
              rows.batch, "], found ", spectral::detail::shape_list(file.at("labels").shape));
        b.labels = file.read<row_index>("labels");
        const index classes = r.chiar()->num_classes;
        for (row_index l : b.labels)
            check(l >= 0 && l < classes, file.name(), "labels: expected 0 to ", classes - 1, " (num_classes), found ",
                  l);
    }
    return b;
}

void write_gradients(const dump_options& o) {
    const auto r = load_without_dropout(o, true);
    const safetensors_file file(o.ids);
    const batch b = make_batch(file, *r);
    dump out;
    add_forward(out, *r, b.ids, b.sequences());
    auto* skips = r->layer_route();
    const bool gated = skips && skips->config().route.gates;
    if (gated) skips->set_objective(mean_gate_objective(skips->config().route.gate_reg_weight));
    r->zero_gradients();
    const batch_result result = r->train(b, 1);
    out.add("loss", {}, std::vector<double>{result.loss});
    if (skips) out.add("lm_loss", {}, std::vector<double>{result.nats / static_cast<double>(result.targets)});
    if (gated) {
        const gate_values g = skips->gates();
        double sum = 0;
        for (double s : g.soft) sum += s;
        out.add("gate_reg", {}, std::vector<double>{sum / static_cast<double>(g.soft.size())});
    }
    for (auto& g : r->gradients())
        out.add("grad." + (is_adapter(g.name) ? peft_name(g.name) : g.name), g.shape, std::move(g.values));
    out.write(o.out);
}

void add_dump(CLI::App& app, const std::string& name, const std::string& about, const std::string& ids,
              void (*write)(const dump_options&)) {
    auto* c = app.add_subcommand(name, about);
    auto o = std::make_shared<dump_options>();
    option(*c, "--model", o->model, "DIR", "config.json and weights (F64, F32, F16 or BF16), or a run")->required();
    option(*c, "--ids", o->ids, "FILE", ids)->required();
    option(*c, "--out", o->out, "FILE", "safetensors to write, float64")->required();
    add_route_options(*c, o->route);
    add_storage_option(*c, o->runner);
    add_runner_options(*c, o->runner);
    c->callback([o, write] { write(*o); });
}

}  // namespace

void add_dumps(CLI::App& app) {
    add_dump(app, "logits", "writes logits, a CHIAR model's gate and routes, LayerRoute's gates, of given token ids",
             "safetensors with `ids` (int64, (B, T))", write_logits);
    add_dump(app, "gradients", "writes what logits writes, the loss and the gradient of every parameter",
             "safetensors with `ids` (int64, (B, T+1)); classifier: `ids` (B, T), `labels` (B); qwen2: `ids` (B, T)",
             write_gradients);
}

}  // namespace spectral::cli
