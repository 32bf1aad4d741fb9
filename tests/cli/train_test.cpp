// SPDX-License-Identifier: Apache-2.0
// tests/cli/train_test.cpp: `spectral train`: resumed = uninterrupted; a full disk; whole runs
#include "cli/program.hpp"

#include <spectral/io/json.hpp>

#include <sstream>

namespace spectral::test {
namespace {

// A tiny run on a text of this repository.
struct tiny_run {
    temporary_dir dir;

    tiny_run() {
        std::string text;
        for (int i = 0; i < 3; ++i)
            text += read_text_file(small_golden_dir() / "README.md") +
                    read_text_file(small_golden_dir() / "text/tokens_subset.jsonl");
        write_text(dir / "text.txt", text);
        write_text(dir / "valid.txt", read_text_file(small_golden_dir() / "README.md"));
    }
    std::string arguments(const std::string& name, int steps) const {
        return "train --quiet --out " + quoted(dir / name) + " --train " + quoted(dir / "text.txt") + " --valid " +
               quoted(dir / "valid.txt") +
               " --train-tokenizer 300 --d-model 16 --heads 2 --layers 3 --time 16 --batch 2 --threads 1"
               " --log-every 1 --eval-every 20 --save-every 5 --warmup 5 --steps " +
               std::to_string(steps);
    }
    // step -> loss, as written
    std::vector<std::string> losses(const std::string& name) const {
        std::vector<std::string> out;
        std::istringstream in(read_text_file(dir / name / "metrics.jsonl"));
        for (std::string line; std::getline(in, line);) {
            const auto json = nlohmann::json::parse(line);
            out.push_back(json["step"].dump() + " " + json.value("set", "") + " " + json["loss"].dump());
        }
        return out;
    }
};

// Starts a run in the background, sends `signal` once it has done some steps, waits; the shell's exit code is the
// run's.
std::string interrupted(const tiny_run& t, const std::string& arguments, const std::string& name,
                        const std::string& signal) {
    const std::string metrics = quoted(t.dir / name / "metrics.jsonl");
    return "\"$SPECTRAL\" " + arguments +
           " & pid=$!\n"
           "for i in $(seq 3000); do [ -e " +
           quoted(t.dir / name / "last") + " ] && [ \"$(wc -l < " + metrics +
           ")\" -ge 23 ] && break; sleep 0.01; done\n"
           "kill -" +
           signal + " $pid; wait $pid";
}

}  // namespace

TEST_CASE("a run that was interrupted continues to the same losses", "[cli]") {
    const tiny_run t;
    constexpr int steps = 400;
    const auto whole = run(t.arguments("whole", steps));
    INFO(whole.err);
    REQUIRE(whole.code == 0);
    const auto want = t.losses("whole");
    REQUIRE(want.size() == steps + steps / 20);
    for (const auto& [signal, code] : {std::pair{"INT", 130}, std::pair{"TERM", 143}, std::pair{"KILL", 137}}) {
        INFO("signal " << signal);
        const auto stopped = run_shell("set -m\n" + interrupted(t, t.arguments(signal, steps), signal, signal));
        INFO(stopped.err);
        CHECK(stopped.code == code);
        CHECK(t.losses(signal).size() < want.size());
        const auto resumed = run("train --resume --quiet --out " + quoted(t.dir / signal));
        INFO(resumed.err);
        REQUIRE(resumed.code == 0);
        CHECK(t.losses(signal) == want);
        CHECK(read_text_file(t.dir / signal / "last/model.safetensors") ==
              read_text_file(t.dir / "whole/last/model.safetensors"));
    }
    check_refused(run(t.arguments("whole", steps)), {"holds a run already", "--resume"});
    check_refused(run("train --resume --quiet --out " + quoted(t.dir / "whole") + " --batch 3"),
                  {"run.json", "--batch", "\"2\"", "\"3\""});
    check_refused(run("train --resume --quiet --out " + quoted(t.dir / "nowhere")), {"nowhere", "run.json"});
}

TEST_CASE("event files lie where they were asked for, and of a resumed run beside them", "[cli]") {
    const tiny_run t;
    const std::string logs = " --tensorboard " + quoted(t.dir / "logs");
    REQUIRE(run(t.arguments("run", 10) + logs).code == 0);
    const auto files = [&] { return std::distance(std::filesystem::directory_iterator(t.dir / "logs"), {}); };
    CHECK(files() == 1);
    CHECK(read_text_file(std::filesystem::directory_iterator(t.dir / "logs")->path()).find("loss/valid") !=
          std::string::npos);
    const auto plain = run(t.arguments("plain", 3).replace(6, 7, "--plain"));
    CHECK(plain.err.find("step 3/3 100%  loss ") != plain.err.npos);
    CHECK(plain.err.find("routed ") != plain.err.npos);
}

TEST_CASE("a checkpoint that finds no space leaves the one before it", "[cli]") {
    const tiny_run t;
    REQUIRE(run(t.arguments("full", 10)).code == 0);
    const auto size = std::filesystem::file_size(t.dir / "full/step-5/optimizer.safetensors");
    // as if it had been killed after step 5; then a limit on file sizes meets the second checkpoint
    std::filesystem::remove_all(t.dir / "full/step-10");
    std::filesystem::remove(t.dir / "full/last");
    std::filesystem::create_directory_symlink("step-5", t.dir / "full/last");
    const std::string kept = read_text_file(t.dir / "full/last/model.safetensors");
    const auto limited = run_shell("ulimit -f " + std::to_string(size / 1024 - 1) +
                                   "; exec \"$SPECTRAL\" train --resume --quiet --out " + quoted(t.dir / "full"));
    check_refused(limited, {"step-10", "cannot be written", "untouched"});
    CHECK(read_text_file(t.dir / "full/last/model.safetensors") == kept);
    CHECK(!std::filesystem::exists(t.dir / "full/step-10.tmp"));
    REQUIRE(run("train --resume --quiet --out " + quoted(t.dir / "full")).code == 0);
    CHECK(std::filesystem::exists(t.dir / "full/step-10/model.safetensors"));
}

TEST_CASE("options that cannot be are refused with their value, before anything is written", "[cli]") {
    const tiny_run t;
    const auto refused = [&](const std::string& more, const std::vector<std::string>& parts) {
        check_refused(run(t.arguments("none", 3) + more), parts);
        CHECK(!std::filesystem::exists(t.dir / "none/last"));
    };
    refused(" --seed -1", {"--seed", "-1"});
    refused(" --seed 1.5", {"--seed", "1.5"});
    refused(" --seed 99999999999999999999", {"--seed", "99999999999999999999"});
    refused(" --epochs nan", {"--epochs", "found nan"});
    refused(" --epochs 2", {"--steps, --epochs", "found both"});
    std::string larger = t.arguments("none", 3);
    larger.replace(larger.find("--batch 2"), 9, "--batch 200000000");
    check_refused(run(larger), {"--batch, --time", "expected at most 2147483647 tokens", "200000000 times 16"});
    refused(" --beta2 1.5", {"beta2", "found 1.5"});
    refused(" --accumulation 0", {"--accumulation", "Value 0 not in range"});
    refused(" --eval-batches -1", {"--eval-batches", "found -1"});
    refused(" --task mixed --mix language=0", {"--mix", "\"language\"", "found 0"});
    refused(" --lora-rank -1", {"--lora-rank", "found -1"});
}

TEST_CASE("one process trains in a directory", "[cli]") {
    const tiny_run t;
    const std::string last = quoted(t.dir / "run/last");
    const auto got =
        run_shell("\"$SPECTRAL\" " + t.arguments("run", 100000) + " & pid=$!\nfor i in $(seq 3000); do [ -e " + last +
                  " ] && break; sleep 0.01; done\n\"$SPECTRAL\" train --resume --quiet --out " + quoted(t.dir / "run") +
                  "; code=$?; kill -INT $pid; wait $pid; exit $code");
    INFO(got.err);
    CHECK(got.code == 2);
    CHECK(got.err.find("another process trains in this directory") != got.err.npos);
    CHECK(run("train --resume --quiet --steps 5 --out " + quoted(t.dir / "run")).err.find("another process") ==
          std::string::npos);
}

TEST_CASE("weights that overflow or are whole numbers, and batches out of range, are refused", "[cli]") {
    const tiny_run t;
    REQUIRE(run(t.arguments("run", 5)).code == 0);
    check_refused(run("info --batch 0 --model " + quoted(t.dir / "run")), {"--batch", "found 0"});
    check_refused(run("info --batch 999999999999 --model " + quoted(t.dir / "run")), {"--batch", "found 999999999999"});
    const auto file = t.dir / "run/last/model.safetensors";
    const std::string model = " --model " + quoted(t.dir / "run"), good = read_text_file(file);
    // the run's weights with the embedding as `type`, every byte of it 0x7f: huge numbers
    const auto rewrite = [&](dtype type) {
        write_text(t.dir / "good", good);
        const safetensors_file in(t.dir / "good");
        safetensors_writer out;
        std::vector<std::byte> huge;
        for (const auto& [name, entry] : in.tensors()) {
            if (name != "token_emb.weight") {
                out.add(name, entry.dtype, entry.shape, entry.data);
                continue;
            }
            huge.assign(entry.data.size(), std::byte{0x7f});
            out.add(name, type, entry.shape, huge);
        }
        out.write(file);
    };
    rewrite(dtype::i32);
    check_refused(run("eval" + model), {"token_emb.weight", "I32"});
    rewrite(dtype::f32);  // sums overflow
    check_refused(run("route --text 'the quick brown fox'" + model), {"entropy is NaN"});
    check_refused(run("calibrate --data " + quoted(t.dir / "text.txt") + model), {"entropy is NaN"});
}

TEST_CASE("a trained run is evaluated, sampled, routed and calibrated", "[cli]") {
    const tiny_run t;
    REQUIRE(run(t.arguments("run", 30)).code == 0);
    const std::string model = " --model " + quoted(t.dir / "run");
    const auto evaluated = run("eval --json" + model);
    INFO(evaluated.err);
    REQUIRE(evaluated.code == 0);
    const auto figures = nlohmann::json::parse(evaluated.out)["language"];
    for (const char* key :
         {"perplexity", "bits_per_byte", "word_perplexity", "unigram_perplexity", "bigram_perplexity", "windows",
          "flops", "attention_only_flops", "attention_share", "meta_gate", "tokens_per_second", "seconds",
          "operator_seconds", "entropy_histogram", "entropy_router"}) {
        INFO(key);
        CHECK(figures.contains(key));
    }
    CHECK(figures["attention_share"].size() == 1);
    double timed = 0, rows = 0;
    for (const auto& seconds : figures["operator_seconds"]) timed += seconds.get<double>();
    for (const auto& n : figures["entropy_histogram"]["1"]["count"]) rows += n.get<double>();
    CHECK(timed > 0);
    CHECK(timed <= figures["seconds"].get<double>());
    CHECK(rows == figures["targets"].get<double>());
    CHECK(figures["entropy_router"]["thresholds"]["1"].size() == 1);
    CHECK(run("eval" + model + " --data " + quoted(t.dir / "text.txt")).out.find("bits per byte") != std::string::npos);

    const auto reported =
        run("report " + quoted(t.dir / "run") + " -o " + quoted(t.dir / "report.html") + " --text 'The end of <it>.'");
    INFO(reported.err);
    REQUIRE(reported.code == 0);
    const std::string page = read_text_file(t.dir / "report.html");
    for (const char* id : {"loss", "meta-gate", "routed-share", "entropy", "work", "routing-1"})
        CHECK(page.find("<figure id=\"" + std::string(id) + "\"") != page.npos);

    const std::string sampling = "generate" + model + " --prompt 'The ' --seed 3 --max-new-tokens 10";
    const auto generated = run(sampling);
    REQUIRE(generated.code == 0);
    CHECK(generated.out.starts_with("The "));
    CHECK(run(sampling).out == generated.out);
    const auto line = nlohmann::json::parse(run(sampling + " --jsonl").out);
    CHECK("The " + line["text"].get<std::string>() + "\n" == generated.out);
    check_refused(run("generate" + model + " --prompt '" + std::string(100, 'x') + " y z'"), {"the model's context"});
    check_refused(run("generate" + model + " --prompt a --top-p 2"), {"top_p", "found 2"});

    const auto routes = nlohmann::json::parse(run("route --json --text 'the quick brown fox'" + model).out);
    CHECK(routes["layers"]["1"]["op"].size() == routes["ids"].size());
    CHECK(run("route --text 'the quick brown fox'" + model).out.find("% to attention") != std::string::npos);
    CHECK(run("route --color --text 'the quick brown fox'" + model).out.find("\x1b[") != std::string::npos);

    write_text(t.dir / "new.json", read_text_file(t.dir / "run/last/config.json"));
    const auto calibrated = run("calibrate --per-layer --share 0.25 --data " + quoted(t.dir / "text.txt") +
                                " --write " + quoted(t.dir / "new.json") + model);
    INFO(calibrated.err);
    REQUIRE(calibrated.code == 0);
    CHECK(nlohmann::json::parse(read_text_file(t.dir / "new.json"))["tau"].size() == 3);
    write_text(t.dir / "run/last/config.json", read_text_file(t.dir / "new.json"));
    const double share = nlohmann::json::parse(
        run("eval --json" + model + " --data " + quoted(t.dir / "text.txt")).out)["language"]["attention_share"]["1"];
    CHECK(share == Approx(0.25).margin(0.02));
    CHECK(run("calibrate --data " + quoted(t.dir / "text.txt") + model).out.find("tau_low") != std::string::npos);
}

TEST_CASE("ListOps, labelled texts and a mix train", "[cli]") {
    const tiny_run t;
    const std::string small = " --quiet --d-model 16 --heads 2 --layers 3 --batch 4 --steps 6 --threads 1";
    std::string tsv;
    for (int i = 0; i < 40; ++i)
        tsv += std::to_string(i % 2) + "\t" + (i % 2 ? "a good film" : "a bad film") + " number " + std::to_string(i) +
               "\n";
    write_text(t.dir / "reviews.tsv", tsv);
    const std::string reviews = quoted(t.dir / "reviews.tsv"), text = quoted(t.dir / "text.txt");
    const auto trained = [&](const std::string& arguments) {
        const auto got = run("train" + small + arguments);
        INFO(got.err);
        CHECK(got.code == 0);
    };
    trained(" --out " + quoted(t.dir / "nested") + " --task list_ops --time 64 --list-valid 20");
    trained(" --out " + quoted(t.dir / "flat") +
            " --task list_ops_flat --model full_attention --time 16 --list-valid 20");
    trained(" --out " + quoted(t.dir / "tsv") + " --task classification --time 16 --train-tokenizer 300 --train " +
            reviews + " --valid " + reviews);
    trained(" --out " + quoted(t.dir / "mixed") +
            " --task mixed --mix language=0.5,list_ops=0.25,imdb=0.25 --time 128 --train-tokenizer 400 --list-valid 20"
            " --train " +
            text + " --valid " + quoted(t.dir / "valid.txt") + " --train-tsv " + reviews + " --valid-tsv " + reviews);
    for (const char* name : {"nested", "flat", "tsv", "mixed"}) {
        INFO(name);
        const auto got = run("eval --json --model " + quoted(t.dir / name));
        INFO(got.err);
        REQUIRE(got.code == 0);
        CHECK(got.out.find("accuracy") != std::string::npos);
    }
}

TEST_CASE("info counts the published parameters without their memory", "[cli]") {
    temporary_dir dir;
    write_text(dir / "config.json", R"({"d_model": 1024, "n_heads": 16, "n_layers": 28, "vocab_size": 50257})");
#ifdef __SANITIZE_ADDRESS__
    const std::string limit;  // the sanitizer's shadow needs more than any limit
#else
    const std::string limit = "ulimit -v 1000000; ";
#endif
    const auto got = run_shell(limit + "exec \"$SPECTRAL\" info --json " + quoted(dir / "config.json"));
    INFO(got.err);
    REQUIRE(got.code == 0);
    CHECK(nlohmann::json::parse(got.out)["parameters"]["total"] == 400043009);
    write_text(dir / "qwen2.json", R"({"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "hidden_act": "silu",
        "tie_word_embeddings": true})");
    const auto qwen2 = run_shell(limit + "exec \"$SPECTRAL\" info --json " + quoted(dir / "qwen2.json"));
    INFO(qwen2.err);
    REQUIRE(qwen2.code == 0);
    const auto json = nlohmann::json::parse(qwen2.out);
    CHECK(json["parameters"]["tensors"] == 290);
    CHECK(json["parameters"]["total"] == 494032768);
    CHECK(json["published_layer_route"]["adapters"] == 1081344);  // q, k, v, o at rank 8
    CHECK(json["published_layer_route"]["gates"] == 21528);
    const auto build = run("info --build");
    CHECK(build.out.find("threads") != std::string::npos);
    CHECK(build.out.find("cpu/f32") != std::string::npos);
    CHECK(run("--help").out.find("calibrate") != std::string::npos);
}

TEST_CASE("adapters on a CHIAR model: trained over a run, resumed, used", "[cli]") {
    const tiny_run t;
    REQUIRE(run(t.arguments("base", 20)).code == 0);
    const std::string base = quoted(t.dir / "base"), out = quoted(t.dir / "tuned");
    const auto tune = [&](const std::string& options) {
        return run("train --quiet --out " + out + " --from " + base + " --train " + quoted(t.dir / "valid.txt") +
                   " --valid " + quoted(t.dir / "valid.txt") +
                   " --time 16 --batch 2 --threads 1 --lr 1e-2 --warmup 2 --steps 30 " + options);
    };
    check_refused(tune("--lora-alpha 4"), {"--lora-alpha", "expected --lora-rank"});
    check_refused(tune("--lora-rank 2 --d-model 32"), {"--lora-rank", "expected no options of a new one"});
    check_refused(tune("--lora-rank 2 --lora-targets qvk"), {"unknown module \"qvk\"", "did you mean"});
    check_refused(tune("--lora-rank 2 --time-products"), {"--time-products", "expected --executor cuda, found cpu"});
    check_refused(tune("--lora-rank 2 --plans " + base), {"--plans", "expected --executor cuda, found cpu"});
    std::filesystem::remove_all(t.dir / "tuned");
    const auto tuned = tune("--lora-rank 2 --lora-alpha 4");
    INFO(tuned.err);
    REQUIRE(tuned.code == 0);
    CHECK(!std::filesystem::exists(t.dir / "tuned/last/model.safetensors"));
    const safetensors_file adapter(t.dir / "tuned/last/adapter_model.safetensors");
    for (const auto& [name, entry] : adapter.tensors()) CHECK(name.find("lora_") != std::string::npos);
    const auto resumed = run("train --resume --quiet --steps 40 --out " + out);
    CHECK(resumed.code == 2);  // another schedule
    const auto perplexity = [&](const std::string& options) {
        const auto done = run("eval --json --model " + base + " --data " + quoted(t.dir / "valid.txt") + options);
        INFO(done.err);
        REQUIRE(done.code == 0);
        return nlohmann::json::parse(done.out)["language"]["perplexity"].get<double>();
    };
    CHECK(perplexity(" --adapter " + out) < perplexity(""));
    // stopped after its first checkpoint, it goes on
    const auto json = nlohmann::json::parse(read_text_file(t.dir / "tuned/last/trainer.json"));
    CHECK(json["options"]["lora_targets"] == std::vector<std::string>{"qkv", "out_proj"});
    CHECK(run("train --resume --quiet --out " + out).code == 0);
}

}  // namespace spectral::test
