// SPDX-License-Identifier: Apache-2.0
// tests/train/trainer_test.cpp: the training loop on a tiny model: NaN, one batch by heart, `best` and `last`, signals,
// resuming
#include <spectral/io/mapped_file.hpp>
#include <spectral/train/chiar_runner.hpp>
#include <spectral/train/trainer.hpp>
#include <support/golden.hpp>
#include <support/operator_test.hpp>

#include <fstream>

namespace spectral::test {

namespace {
namespace fs = std::filesystem;

constexpr index vocabulary = 23;

// A small model, and a way to break its weights. Everything these tests know of how a runner is made stands here.
struct tiny_run {
    std::unique_ptr<runner> model;
    std::function<void()> poison;

    tiny_run() {
        using Exec = reference::executor;
        using tiny = chiar_runner<Exec, float, chiar_stack<Exec, float>>;
        chiar_config c;
        c.vocab_size = vocabulary;
        c.d_model = 16;
        c.n_heads = 2;
        c.n_layers = 2;
        c.max_seq_len = 8;
        c.dropout = 0.1;
        c.meta_pool = meta_pool::causal;
        auto made = std::make_unique<tiny>(std::make_unique<Exec>(), c, true);
        poison = [m = made.get()] { m->model().parameters.named().front().second->value.data[0] = std::nanf(""); };
        model = std::move(made);
    }
};

// Two sequences of random ids: nothing to learn but by heart. First ids differ, so that every target has a prefix of
// its own. `number` names the batch.
batch batch_of(index number) {
    batch b;
    b.lengths = {8, 5};
    row_index first = static_cast<row_index>(number % vocabulary);
    for (index n : b.lengths) {
        auto ids = random_ids(n + 1, vocabulary, static_cast<std::uint64_t>(number));
        ids[0] = first = static_cast<row_index>((first + 5) % vocabulary);
        b.ids.insert(b.ids.end(), ids.begin(), ids.end() - 1);
        b.targets.insert(b.targets.end(), ids.begin() + 1, ids.end());
    }
    return b;
}

training_options options_in(const fs::path& run, index steps) {
    training_options o;
    o.steps = steps;
    o.schedule = {.peak = 3e-3, .last = 3e-4, .warmup = 2, .steps = steps};
    o.seed = 5;
    o.log_every = 1;
    o.quiet = true;
    o.run = run;
    return o;
}

training_end trained(tiny_run& r, const training_options& o, const std::function<batch(index)>& batch_at = batch_of,
                     const std::vector<evaluation_set>& sets = {}) {
    std::ostringstream out;
    return train(*r.model, batch_at, sets, o, out);
}

double loss_on(tiny_run& r, index number) {
    const batch_result result = r.model->evaluate(batch_of(number));
    return result.nats / static_cast<double>(result.targets);
}

std::set<std::string> checkpoints(const fs::path& run) {
    std::set<std::string> out;
    for (const auto& entry : fs::directory_iterator(run))
        if (entry.is_directory() && !entry.is_symlink()) out.insert(entry.path().filename().string());
    return out;
}
std::string target_of(const fs::path& link) {
    return fs::is_symlink(link) ? fs::read_symlink(link).string() : std::string("no link");
}
std::vector<nlohmann::json> metrics_of(const fs::path& run) {
    std::vector<nlohmann::json> out;
    std::istringstream in(read_text_file(run / "metrics.jsonl"));
    for (std::string line; std::getline(in, line);) out.push_back(nlohmann::json::parse(line));
    return out;
}
}  // namespace

TEST_CASE("train: a NaN loss stops, names the last good checkpoint, and the run resumes from it", "[train][trainer]") {
    temporary_dir dir;
    auto o = options_in(dir / "run", 8);
    o.save_every = 2;
    tiny_run r;
    const auto poisoned = [&](index number) {
        if (number == 5) r.poison();  // in step 6, after the checkpoint of step 4
        return batch_of(number);
    };
    CHECK_SENTENCE(trained(r, o, poisoned), "train: step 6: the loss is");
    CHECK(target_of(o.run / "last") == "step-4");
    CHECK(checkpoints(o.run) == std::set<std::string>{"step-2", "step-4"});
    CHECK(metrics_of(o.run).back()["step"] == 5);

    fs::remove_all(o.run);
    tiny_run again;
    const auto poisoned_again = [&](index number) {
        if (number == 5) again.poison();
        return batch_of(number);
    };
    CHECK_SENTENCE(trained(again, o, poisoned_again),
                   "nan; the last good checkpoint is " + (o.run / "step-4").string());

    o.resume = true;
    tiny_run resumed, whole;
    CHECK(trained(resumed, o) == training_end::done);
    auto straight = o;
    straight.resume = false;
    straight.run = dir / "whole";
    CHECK(trained(whole, straight) == training_end::done);
    for (const char* file : {"model.safetensors", "optimizer.safetensors"})
        CHECK(read_text_file(o.run / "last" / file) == read_text_file(straight.run / "last" / file));
}

TEST_CASE("train: without a checkpoint a NaN says that there is none", "[train][trainer]") {
    temporary_dir dir;
    tiny_run r;
    const auto at_once = [&](index number) {
        r.poison();
        return batch_of(number);
    };
    CHECK_SENTENCE(trained(r, options_in(dir / "run", 3), at_once),
                   "step 1: the loss is nan; the last good checkpoint is none");
}

TEST_CASE("train: a NaN at evaluation is not saved", "[train][trainer]") {
    temporary_dir dir;
    auto o = options_in(dir / "run", 8);
    o.save_every = 1;
    o.evaluate_every = 4;
    tiny_run r;
    const evaluation_set valid{"held out", 1, [&](index) {
                                   r.poison();
                                   return batch_of(100);
                               }};
    CHECK_SENTENCE(trained(r, o, batch_of, {valid}),
                   "step 4: the loss of held out is nan; the last good checkpoint is " + (o.run / "step-3").string());
    CHECK(target_of(o.run / "last") == "step-3");
    CHECK(!fs::exists(o.run / "best"));
}

TEST_CASE("train: overfit_one_batch learns the first batch by heart", "[train][trainer]") {
    temporary_dir dir;
    for (index accumulation : {1, 2}) {
        auto o = options_in(dir / ("run" + std::to_string(accumulation)), 200);
        o.schedule.peak = 1e-2;
        o.accumulation = accumulation;
        o.overfit_one_batch = true;
        std::set<index> asked;
        tiny_run r;
        const auto noting = [&](index number) {
            asked.insert(number);
            return batch_of(number);
        };
        CHECK(trained(r, o, noting) == training_end::done);
        CHECK(asked.size() == static_cast<std::size_t>(accumulation));  // the same step again and again
        CHECK(*asked.begin() == 0);
        const auto metrics = metrics_of(o.run);
        CHECK(metrics.front()["loss"].get<double>() == Approx(std::log(vocabulary)).margin(0.5));
        for (index number : asked) CHECK(loss_on(r, number) < 0.1);
        CHECK(loss_on(r, 50) > 1);  // and nothing else
    }
}

TEST_CASE("train: `best` points at the best evaluation and outlives pruning", "[train][trainer]") {
    temporary_dir dir;
    auto o = options_in(dir / "run", 10);
    o.evaluate_every = 2;
    o.save_every = 1;
    o.keep = 2;
    o.schedule.peak = 1e-2;
    o.overfit_one_batch = true;
    // the second evaluation is an easy one: it asks for what is being trained
    index evaluations = 0;
    const evaluation_set valid{"valid", 1, [&](index) { return batch_of(++evaluations == 2 ? 0 : 100 + evaluations); }};
    // falls all the time: the first decides
    const evaluation_set other{"other", 1, [&](index) { return batch_of(0); }};
    tiny_run r;
    CHECK(trained(r, o, batch_of, {valid, other}) == training_end::done);
    CHECK(evaluations == 5);
    std::map<index, double> losses;
    for (const auto& line : metrics_of(o.run))
        if (line.value("set", "") == "valid") losses[line["step"].get<index>()] = line["loss"].get<double>();
    REQUIRE(losses.size() == 5);
    for (const auto& [step, loss] : losses) CHECK((step == 4 || loss > losses[4]));
    CHECK(target_of(o.run / "best") == "step-4");
    CHECK(target_of(o.run / "last") == "step-10");
    CHECK(checkpoints(o.run) == std::set<std::string>{"step-4", "step-9", "step-10"});
    const trainer_state state = read_trainer_state(o.run / "last");
    CHECK(state.best_step == 4);
    CHECK(state.best_loss == losses[4]);
    // what `best` points at is the model of that step
    tiny_run best;
    load_checkpoint(o.run / "best", *best.model);
    CHECK(loss_on(best, 0) == Approx(losses[4]).epsilon(1e-6));
}

TEST_CASE("train: keep 0 keeps every checkpoint", "[train][trainer]") {
    temporary_dir dir;
    auto o = options_in(dir / "run", 4);
    o.save_every = 1;
    o.keep = 0;
    tiny_run r;
    trained(r, o);
    CHECK(checkpoints(o.run) == std::set<std::string>{"step-1", "step-2", "step-3", "step-4"});
    CHECK(!fs::exists(o.run / "best"));  // nothing was evaluated
}

TEST_CASE("train: checkpoints without `last` are not trained over, and a step that was written is not pruned",
          "[train][trainer]") {
    temporary_dir dir;
    auto o = options_in(dir / "run", 6);
    o.save_every = 1;
    o.keep = 2;
    tiny_run r;
    trained(r, o);
    CHECK(checkpoints(o.run) == std::set<std::string>{"step-5", "step-6"});
    const std::string metrics = read_text_file(o.run / "metrics.jsonl");
    for (bool dangling : {false, true}) {
        fs::remove(o.run / "last");
        if (dangling) fs::create_symlink("step-7", o.run / "last");
        for (bool resume : {false, true}) {
            o.resume = resume;
            tiny_run again;
            CHECK_SENTENCE(trained(again, o), std::string("expected a link to a checkpoint, found ") +
                                                  (dangling ? "one to step-7, which is not there" : "none") +
                                                  ": make it a link to step-6");
        }
    }
    CHECK(read_text_file(o.run / "metrics.jsonl") == metrics);
    // back to the older one: what it writes stays, though newer ones are there
    fs::remove(o.run / "last");
    fs::create_symlink("step-5", o.run / "last");
    fs::rename(o.run / "step-6", o.run / "step-9");
    o.resume = true;
    tiny_run back;
    CHECK(trained(back, o) == training_end::done);
    CHECK(target_of(o.run / "last") == "step-6");
    CHECK(checkpoints(o.run) == std::set<std::string>{"step-5", "step-6", "step-9"});
}

TEST_CASE("train: a run that was copied with its links followed goes on", "[train][trainer]") {
    temporary_dir dir;
    auto o = options_in(dir / "run", 4);
    tiny_run r;
    trained(r, o, [](index number) {
        if (number == 1) std::raise(SIGTERM);
        return batch_of(number);
    });
    fs::remove(o.run / "last");
    fs::copy(o.run / "step-2", o.run / "last");
    o.resume = true;
    tiny_run resumed;
    CHECK(trained(resumed, o) == training_end::done);
    CHECK(target_of(o.run / "last") == "step-4");
}

TEST_CASE("train: a signal saves and stops; resumed, the run ends as if nothing had happened", "[train][trainer]") {
    temporary_dir dir;
    tiny_run whole;
    CHECK(trained(whole, options_in(dir / "whole", 6)) == training_end::done);
    for (int signal : {SIGTERM, SIGINT}) {
        auto o = options_in(dir / std::to_string(signal), 6);
        tiny_run r;
        const auto interrupted = [&](index number) {
            if (number == 2) std::raise(signal);  // the step that runs is finished
            return batch_of(number);
        };
        CHECK(trained(r, o, interrupted) == training_end::stopped);
        CHECK(target_of(o.run / "last") == "step-3");
        CHECK(read_trainer_state(o.run / "last").step == 3);
        o.resume = true;
        tiny_run resumed;
        CHECK(trained(resumed, o) == training_end::done);
        CHECK(read_text_file(o.run / "last/model.safetensors") == read_text_file(dir / "whole/last/model.safetensors"));
        std::vector<double> losses, want;
        for (const auto& line : metrics_of(o.run)) losses.push_back(line["loss"]);
        for (const auto& line : metrics_of(dir / "whole")) want.push_back(line["loss"]);
        CHECK(losses == want);
    }
}

// A runner whose executor chooses how it computes.
struct planning_runner : model_runner<reference::executor, float, chiar_stack<reference::executor, float>> {
    using model_runner::model_runner;
    executor_plans here{"a device", {{"8 8 8", "c0de"}}, 4096};

    executor_plans plans() override { return here; }
    bool use_plans(const executor_plans& p) override {
        if (p.made_by != here.made_by) return false;
        here = p;
        return true;
    }
};

TEST_CASE("train: a resumed run repeats the executor's plans, or says that they hold elsewhere", "[train][trainer]") {
    temporary_dir dir;
    tiny_run plain;
    auto o = options_in(dir / "run", 6);
    o.quiet = false, o.plain = true;
    const auto planning = [&] {
        return std::make_unique<planning_runner>(std::make_unique<reference::executor>(), *plain.model->chiar(), true);
    };
    // what a run says that is stopped in the step of this batch
    const auto said = [&](runner& r, index stop) {
        std::ostringstream out;
        const auto stopping = [&](index number) {
            if (number == stop) std::raise(SIGTERM);
            return batch_of(number);
        };
        train(r, stopping, {}, o, out);
        return out.str();
    };
    const auto first = planning(), second = planning(), elsewhere = planning();
    first->here.products["4 4 4"] = "f00d";
    first->here.arena_bytes = 5000;
    said(*first, 1);
    o.resume = true;
    CHECK(said(*second, 3).find("plans.json") == std::string::npos);
    CHECK(second->here.products == first->here.products);
    CHECK(second->here.arena_bytes == 5000);
    elsewhere->here.made_by = "another device";
    CHECK(said(*elsewhere, 5).find("plans.json holds for a device: this machine chooses its own") != std::string::npos);
    CHECK(elsewhere->here.products.size() == 1);

    for (const auto& [text, sentence] :
         {std::pair{"[]", "made_by: expected a text"}, std::pair{R"({"made_by": 1})", "made_by: expected a text"},
          std::pair{R"({"made_by": "x"})", "products: expected texts by name"},
          std::pair{R"({"made_by": "x", "products": {"a": 1}})", "expected texts"},
          std::pair{R"({"made_by": "x", "products": {}, "arena_bytes": -1})",
                    "arena_bytes: expected a number of bytes"}}) {
        std::ofstream(o.run / "last/plans.json") << text;
        CHECK_SENTENCE(read_plans(o.run / "last"), sentence);
    }
    trained(plain, options_in(dir / "plain", 1));
    CHECK(!fs::exists(dir / "plain/last/plans.json"));
}

TEST_CASE("train: batches made ahead are the same, each once", "[train][trainer]") {
    temporary_dir dir;
    tiny_run plain, ahead;
    auto o = options_in(dir / "plain", 3);
    o.accumulation = 2;
    trained(plain, o);
    o.read_ahead = true;
    o.run = dir / "ahead";
    std::vector<index> made;
    trained(ahead, o, [&](index number) { return made.push_back(number), batch_of(number); });
    CHECK(made == std::vector<index>{0, 1, 2, 3, 4, 5});
    CHECK(read_text_file(o.run / "last/model.safetensors") == read_text_file(dir / "plain/last/model.safetensors"));
    o.run = dir / "broken";
    tiny_run broken;
    const auto fails = [](index number) {
        check(number < 3, "batch", "number 3 cannot be read");
        return batch_of(number);
    };
    CHECK_SENTENCE(trained(broken, o, fails), "batch: number 3 cannot be read");
}

TEST_CASE("train: with activations computed again the run ends in the same bits and takes less memory",
          "[train][trainer]") {
    const temporary_dir dir;
    std::vector<std::string> weights;
    std::vector<double> bytes;
    for (bool recompute : {false, true}) {
        tiny_run r;
        auto o = options_in(dir / (recompute ? "again" : "kept"), 6);
        o.accumulation = 2;
        o.recompute = recompute;
        REQUIRE(trained(r, o) == training_end::done);
        weights.push_back(read_text_file(o.run / "last/model.safetensors"));
        std::ifstream lines(o.run / "metrics.jsonl");
        std::string line;
        REQUIRE(std::getline(lines, line));
        bytes.push_back(nlohmann::json::parse(line)["activation_bytes"].get<double>());
    }
    CHECK(weights[0] == weights[1]);
    CHECK(bytes[1] < bytes[0]);
}

TEST_CASE("train: a signal during the last step is a run that is done", "[train][trainer]") {
    temporary_dir dir;
    tiny_run r;
    const auto last_step = [&](index number) {
        if (number == 2) std::raise(SIGTERM);
        return batch_of(number);
    };
    CHECK(trained(r, options_in(dir / "run", 3), last_step) == training_end::done);
    CHECK(target_of(dir / "run/last") == "step-3");
}

TEST_CASE("train: sentences", "[train][trainer]") {
    temporary_dir dir;
    auto o = options_in(dir / "run", 2);
    tiny_run r;
    trained(r, o);
    CHECK_SENTENCE(trained(r, o), "the directory holds a run already");
    o.resume = true;
    o.seed = 6;
    CHECK_SENTENCE(trained(r, o), "option seed: expected 5 as in the run so far, found 6");
    o.seed = 5;
    o.more_identity = {{"new_option", 3}};  // this run is older than the option
    CHECK(trained(r, o) == training_end::done);
    o.seed = 6;
    o.run = dir / "nowhere";
    CHECK_SENTENCE(trained(r, o), "no such directory");
}

TEST_CASE("train: weights that are not finite are never saved", "[train][trainer]") {
    temporary_dir dir;
    auto o = options_in(dir / "run", 3);
    o.save_every = 1;
    o.schedule = {.peak = 1e300, .last = 0, .warmup = 0, .steps = 3};  // more than a float holds
    tiny_run r;
    CHECK_SENTENCE(trained(r, o), "train: step 1: a weight is not finite after the update");
    CHECK(checkpoints(o.run).empty());
}

TEST_CASE("train: numbers that no training can use are refused", "[train][trainer]") {
    temporary_dir dir;
    const auto refused = [&](auto&& change, const std::string& sentence) {
        auto o = options_in(dir / "run", 3);
        change(o);
        tiny_run r;
        CHECK_SENTENCE(trained(r, o), sentence);
        CHECK(!fs::exists(o.run));
    };
    refused([](auto& o) { o.schedule.peak = std::nan(""); }, "learning rate: expected a finite number of at least 0");
    refused([](auto& o) { o.schedule.peak = -1; }, "learning rate: expected");
    refused([](auto& o) { o.schedule.last = 1; }, "last learning rate: expected a number from 0 to the learning rate");
    refused([](auto& o) { o.schedule.warmup = -5; }, "warm-up: expected at least 0 steps");
    refused([](auto& o) { o.optimizer.weight_decay = std::nan(""); }, "weight decay: expected");
    refused([](auto& o) { o.optimizer.beta1 = 2; }, "beta1: expected a number from 0 to below 1");
    refused([](auto& o) { o.optimizer.beta2 = 1; }, "beta2: expected a number from 0 to below 1");
    refused([](auto& o) { o.accumulation = 0; }, "accumulation: expected at least 1");
    refused([](auto& o) { o.steps = 0; }, "steps: expected at least 1");
    refused([](auto& o) { o.clip = -1; }, "clip: expected");
}

}  // namespace spectral::test
