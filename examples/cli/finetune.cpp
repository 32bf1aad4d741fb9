// SPDX-License-Identifier: Apache-2.0
// examples/cli/finetune.cpp: `spectral finetune`: adapters and skip gates on a frozen Qwen2 backbone
#include "commands.hpp"
#include "conversation_options.hpp"
#include "loop_options.hpp"
#include "runners.hpp"
#include "stack_only.hpp"

#include <spectral/io/names.hpp>
#include <spectral/train/checkpoint.hpp>
#include <spectral/train/oracle.hpp>

#include <cmath>
#include <iostream>

namespace spectral::cli {
namespace {

namespace fs = std::filesystem;

struct finetune_options : loop_options {
    std::string model;
    std::vector<std::string> train, valid;
    conversation_choice data;
    double held_out = 0.1;
    index batch = 4;
    std::uint64_t seed = 0;
    bool unbalanced = false;

    std::string tune = "both";
    lora_options lora;
    std::vector<std::string> targets{"q_proj", "k_proj", "v_proj", "o_proj"};

    std::string pool = "prompt", kind = "straight_through", scope = "block", bias = "1";
    skip_gate_options gates;
    double gate_rate = 1;

    std::vector<std::string> objectives;
    index oracle_samples = 64;
    runner_choice runner;

    finetune_options() {
        learning_rate = 2e-4;
        loop.optimizer.beta2 = 0.999;
    }
};

const std::vector<std::string> finetune_paths{"model", "train", "valid", "tensorboard"};

template <class Enum>
Enum value_of(const std::string& text, std::initializer_list<std::pair<const char*, Enum>> names) {
    for (const auto& [name, value] : names)
        if (text == name) return value;
    fail(text, "no such choice");  // the command line has checked it
}

layer_route_config route_of(const finetune_options& o, const qwen2_config& backbone) {
    layer_route_config r;
    r.base_model = o.model;
    check(std::isfinite(o.gate_rate) && o.gate_rate >= 0, "--gate-lr", "expected at least 0, found ", o.gate_rate);
    r.gate_rate = o.gate_rate;
    if (o.tune != "gates") {
        r.lora = o.lora;
        r.lora_targets = o.targets;
        static const std::vector<std::string> known{"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                    "gate_proj", "up_proj", "down_proj"};
        for (const auto& t : o.targets)
            check(std::find(known.begin(), known.end(), t) != known.end(), "--lora-targets", "unknown module ",
                  in_quotes(t), suggestion(t, known));
    }
    if (o.tune != "adapters") {
        skip_gate_options g = o.gates;
        g.pool = value_of<gate_pool>(o.pool, {{"prompt", gate_pool::prompt},
                                              {"last_prompt_token", gate_pool::last_prompt_token},
                                              {"sequence", gate_pool::sequence}});
        g.kind = value_of<gate_kind>(
            o.kind, {{"straight_through", gate_kind::straight_through}, {"hard_concrete", gate_kind::hard_concrete}});
        g.scope = value_of<gate_scope>(o.scope, {{"block", gate_scope::block},
                                                 {"attention", gate_scope::attention},
                                                 {"feed_forward", gate_scope::feed_forward}});
        if (o.bias == "published") {
            r.gate_bias = layer_route_config::published_bias(backbone.num_hidden_layers);
        } else {
            const auto number = nlohmann::json::parse(o.bias, nullptr, false);
            check(number.is_number(), "--gate-bias", "expected a number or published, found ", in_quotes(o.bias));
            g.bias = number.get<double>();
        }
        check(g.threshold > 0 && g.threshold < 1, "--gate-threshold", "expected a number in (0, 1), found ",
              g.threshold);
        r.gates = g;
    }
    return r;
}

// "mean=1"  "budget=0.25"  "budget:tool_call=0.4"  "differential:tool_call:planning=0.5"  "supervised:tool_call=0.3"
// "oracle:tool_call=0.4"
struct objective_spec {
    std::string kind;
    std::vector<std::string> types;
    double value = 0;
};
objective_spec parse_objective(const std::string& text) {
    const auto bad = [&] {
        fail("--objective",
             "expected mean=λ, budget=SHARE, budget:TYPE=SHARE, differential:TYPE:TYPE=λ, "
             "supervised:TYPE=OPENNESS or oracle:TYPE=SHARE, found ",
             in_quotes(text));
    };
    objective_spec out;
    const std::size_t equals = text.rfind('=');
    if (equals == text.npos) bad();
    const auto number = nlohmann::json::parse(text.substr(equals + 1), nullptr, false);
    if (!number.is_number()) bad();
    out.value = number.get<double>();
    std::istringstream parts(text.substr(0, equals));
    std::getline(parts, out.kind, ':');
    for (std::string part; std::getline(parts, part, ':');) out.types.push_back(part);
    const std::size_t wanted = out.kind == "mean"           ? 0
                               : out.kind == "differential" ? 2
                               : out.kind == "budget"       ? out.types.size()
                                                            : 1;
    const bool known = out.kind == "mean" || out.kind == "budget" || out.kind == "differential" ||
                       out.kind == "supervised" || out.kind == "oracle";
    if (!known || out.types.size() != wanted || out.types.size() > 2 || (out.kind == "budget" && wanted > 1)) bad();
    const bool share = out.kind == "budget" || out.kind == "supervised" || out.kind == "oracle";
    check(!share || (out.value >= 0 && out.value <= 1), "--objective", in_quotes(text),
          ": expected a share from 0 to 1");
    return out;
}

// Every step type that an objective names is one of the data's; no two objectives say something else of the same.
void check_objectives(const std::vector<std::string>& objectives, const conversation_data& data) {
    std::vector<std::string> known, seen;
    for (const auto& [type, lengths] : lengths_by_type(data)) known.push_back(type);
    for (const auto& text : objectives) {
        const objective_spec spec = parse_objective(text);
        for (const auto& type : spec.types)
            check(std::find(known.begin(), known.end(), type) != known.end(), "--objective", in_quotes(text),
                  ": no training sample is of step type ", in_quotes(type), suggestion(type, known));
        std::string what = spec.kind == "oracle" ? "supervised" : spec.kind;
        for (const auto& type : spec.types) what += ":" + type;
        check(std::find(seen.begin(), seen.end(), what) == seen.end(), "--objective", in_quotes(text),
              ": another one says the same of the same type");
        seen.push_back(what);
    }
}

gate_objective make_objective(const finetune_options& o, runner& r, const tokenizer& tok) {
    std::vector<gate_objective> parts;
    skip_budget budget;
    std::map<std::string, std::vector<double>> supervised;
    for (const auto& text : o.objectives) {
        const objective_spec spec = parse_objective(text);
        if (spec.kind == "mean") parts.push_back(mean_gate_objective(spec.value));
        if (spec.kind == "budget") budget.targets[spec.types.empty() ? "" : spec.types[0]] = spec.value;
        if (spec.kind == "differential")
            parts.push_back(differential_objective(spec.value, spec.types[0], spec.types[1]));
        if (spec.kind == "supervised") supervised[spec.types[0]] = {spec.value};
        if (spec.kind == "oracle") {
            conversation_choice few = o.data;
            conversation_data data =
                read_samples(o.train, tok, few, conversation_side::training, o.held_out, {spec.types[0]});
            check(!data.turns.empty(), "--objective " + text, "no samples of this step type in the training data");
            if (static_cast<index>(data.turns.size()) > o.oracle_samples)
                data.turns.resize(static_cast<std::size_t>(o.oracle_samples));
            const conversation_batches batches(std::move(data), batch_options(o.data, o.batch, o.seed, false));
            const auto increase = leave_one_out(
                r, {spec.types[0], batches.evaluation_batches(), [&](index n) { return batches.evaluation_at(n); }});
            supervised[spec.types[0]] = oracle_openness(increase, spec.value);
            if (o.loop.quiet) continue;
            std::cerr << "oracle: loss of " << spec.types[0] << " without block";
            for (std::size_t l = 0; l < increase.size(); ++l) std::fprintf(stderr, " %zu: %+.4f", l, increase[l]);
            std::cerr << '\n';
        }
    }
    if (!budget.targets.empty()) parts.push_back(budget.objective());
    if (!supervised.empty()) parts.push_back(supervised_objective(1, supervised));
    return sum_of(std::move(parts));
}

void say_data(const char* what, const conversation_data& data) {
    std::cerr << what << ": " << data.turns.size() << " samples of " << data.conversations.size() << " conversations";
    for (const auto& [type, lengths] : lengths_by_type(data))
        std::cerr << ", " << lengths.prompt.count << " " << (type.empty() ? "untyped" : type) << " (prompts of "
                  << lengths.prompt.least << " to " << lengths.prompt.most << " tokens)";
    if (data.cut) std::cerr << ", " << data.cut << " prompts cut";
    if (data.left_out) std::cerr << ", " << data.left_out << " left out: longer than --max-length";
    std::cerr << '\n';
}

// whether the run to resume trains its gates by the language loss alone: before mean=1 was the default
bool began_without_objective(const finetune_options& o) {
    const auto options = read_trainer_state(find_checkpoint(o.out)).options;
    return !options.contains("objective") || options["objective"].empty();
}

void run_finetune(finetune_options& o, CLI::App& command) {
    const bool begun = open_run(o, command, finetune_paths);
    check(!o.model.empty(), "spectral finetune", "expected --model DIR, found none");  // --resume has it from the run
    // the language loss alone gives a gate no reason to close; a run that began when none was the default keeps it
    if (o.objectives.empty() && o.tune != "adapters" && !(begun && began_without_objective(o)))
        o.objectives = {"mean=1"};
    const model_directory model(o.model);
    const qwen2_config& backbone = model.qwen2();
    check(!o.train.empty(), "spectral finetune", "expected conversations to train on (--train FILE...), found none");
    check(o.data.max_length > 0 && o.data.max_length <= model.longest(), "--max-length", "expected 1 to ",
          model.longest(), " (max_position_embeddings), found ", o.data.max_length);
    const auto tok = tokenizer::from_file(model.tokenizer());
    check(tok.vocab_size() <= backbone.vocab_size, model.tokenizer().string(), "expected at most ", backbone.vocab_size,
          " tokens (vocab_size), found ", tok.vocab_size());

    auto train_data = read_samples(o.train, tok, o.data, conversation_side::training, o.held_out);
    auto valid_data = o.valid.empty() ? read_samples(o.train, tok, o.data, conversation_side::held_out, o.held_out)
                                      : read_samples(o.valid, tok, o.data, conversation_side::all, 0);
    if (!o.loop.quiet) say_data("training", train_data), say_data("evaluation", valid_data);
    check_objectives(o.objectives, train_data);
    const conversation_batches batches(std::move(train_data), batch_options(o.data, o.batch, o.seed, !o.unbalanced));
    std::vector<evaluation_set> sets;
    std::optional<conversation_batches> valid;
    if (!valid_data.turns.empty()) {
        valid.emplace(std::move(valid_data), batch_options(o.data, o.batch, o.seed, false));
        sets.push_back({"valid", valid->evaluation_batches(), [&](index n) { return valid->evaluation_at(n); }});
    }
    set_schedule(o, total_steps(o, static_cast<double>(batches.samples()) / static_cast<double>(o.batch)));
    o.loop.seed = o.seed;
    o.loop.resume = begun;
    o.loop.keep_frozen = true;
    o.loop.more_identity = {{"objective", o.objectives}, {"tune", o.tune}};

    layer_route_model m{backbone, route_of(o, backbone), o.runner.backbone_storage()};
    check(m.route.gates || o.objectives.empty(), "--objective", "expected none: --tune adapters trains no gates");
    for (const auto& text : o.objectives)
        if (const auto spec = parse_objective(text); spec.kind == "mean") m.route.gate_reg_weight = spec.value;
    const auto r = o.runner.make(m, true);
    r->load_weights(weight_files(model.path), backbone_weights);
    r->initialize_trainable(o.seed);
    r->layer_route()->set_objective(make_objective(o, *r, tok));
    if (!o.loop.quiet) {
        index trained = 0, all = 0;
        for (const auto& p : parameters_of(m)) all += p.size, trained += p.trainable ? p.size : 0;
        std::cerr << "model: " << backbone.num_hidden_layers << " blocks of width " << backbone.hidden_size << ", "
                  << trained << " of " << all << " values train\nplan: " << o.loop.steps << " steps of " << o.batch
                  << " x " << o.loop.accumulation << " samples, learning rate " << o.learning_rate << '\n';
    }
    const training_end end = spectral::train(
        *r, [&](index step) { return batches.batch_at(step); }, sets, o.loop, std::cerr);
    finish(o, "finetune", end);
}

}  // namespace

void add_finetune(CLI::App& app) {
    auto* c = app.add_subcommand("finetune", "LayerRoute: trains adapters and skip gates on a frozen Qwen2 model");
    auto o = std::make_shared<finetune_options>();
    add_run_options(*c, *o);
    option(*c, "--model", o->model, "DIR",
           "Qwen2 model: config.json, weights, tokenizer.json [the run's, with --resume]")
        ->group("Data");
    option(*c, "--train", o->train, "FILE...", "conversations as JSON lines: messages, tools, step_type")
        ->group("Data");
    option(*c, "--valid", o->valid, "FILE...", "the same for evaluation [the held-out share of --train]")
        ->group("Data");
    option(*c, "--held-out", o->held_out, "SHARE",
           "of --train's conversations kept from training, by a hash of the first user turn")
        ->group("Data");
    add_conversation_options(*c, o->data);
    option(*c, "--batch", o->batch, "N", "samples a batch")
        ->group("Data")
        ->check(CLI::Range(1, 1 << 20).description(""));
    c->add_flag("--unbalanced", o->unbalanced, "samples as they come, instead of step types in turn")->group("Data");
    option(*c, "--seed", o->seed, "N", "of adapters, data order and dropout")->group("Data");
    const char* lora = "Adapters";
    choice(*c, "--tune", o->tune, {"both", "adapters", "gates"}, "what trains")->group(lora);
    option(*c, "--lora-rank", o->lora.rank, "N", "of every adapter")->group(lora);
    option(*c, "--lora-alpha", o->lora.alpha, "X", "scale is alpha / rank")->group(lora);
    option(*c, "--lora-dropout", o->lora.dropout, "X", "of an adapter's input")->group(lora);
    option(*c, "--lora-targets", o->targets, "NAME...",
           "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj [q, k, v, o]")
        ->group(lora);
    c->add_flag("--rslora", o->lora.rank_stabilized, "scale is alpha / sqrt(rank)")->group(lora);
    const char* gates = "Gates";
    choice(*c, "--pool", o->pool, {"prompt", "last_prompt_token", "sequence"},
           "what a gate reads; sequence includes the answer")
        ->group(gates);
    choice(*c, "--gate-kind", o->kind, {"straight_through", "hard_concrete"}, "how a gate trains")->group(gates);
    choice(*c, "--gate-scope", o->scope, {"block", "attention", "feed_forward"}, "what a closed gate leaves out")
        ->group(gates);
    option(*c, "--gate-bias", o->bias, "X|published", "at the start; published: +1, and -1 in blocks 8 to 16")
        ->group(gates);
    option(*c, "--gate-threshold", o->gates.threshold, "X", "open above this probability")->group(gates);
    option(*c, "--gate-lr", o->gate_rate, "X", "learning rate of the gates as a multiple of --lr")->group(gates);
    c->add_flag("--skip-first-position", o->gates.skip_first_position, "leave the first token out of the pool")
        ->group(gates);
    c->add_flag("--write-kv", o->gates.write_kv, "closed blocks still write keys and values")->group(gates);
    option(*c, "--objective", o->objectives, "SPEC...",
           "of the gates, summed: mean=1 (the authors'), budget=0.25, budget:TYPE=0.4, differential:TYPE:TYPE=1, "
           "supervised:TYPE=0.3 (openness), oracle:TYPE=0.4 (blocks that cost least); mean=0: the language loss alone "
           "[mean=1 where gates train]")
        ->group(gates);
    option(*c, "--oracle-samples", o->oracle_samples, "N", "samples behind oracle targets")->group(gates);
    add_loop_options(*c, *o);
    add_storage_option(*c, o->runner);
    add_runner_options(*c, o->runner);
    c->callback([o, c] { run_finetune(*o, *c); });
}

}  // namespace spectral::cli
