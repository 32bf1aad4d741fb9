// SPDX-License-Identifier: Apache-2.0
// tests/cli/layer_route_test.cpp: a backbone, LayerRoute on it, evaluation, chat and merge by the program; what it
// refuses
#include "cli/program.hpp"

#include <spectral/io/json.hpp>

#include <cmath>

namespace spectral::test {
namespace {

namespace fs = std::filesystem;

std::string conversation(int n, bool tool) {
    const std::string number = std::to_string(n);
    return tool
               ? R"({"messages": [{"role": "user", "content": "weather )" + number +
                     R"("}, {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "look", "arguments": {"n": )" +
                     number + R"(}}}]}], "tools": [{"type": "function", "function": {"name": "look"}}]})" + "\n"
               : R"({"messages": [{"role": "user", "content": "plan )" + number +
                     R"("}, {"role": "assistant", "content": "first )" + number +
                     R"(, then rest"}], "step_type": "planning"})" + "\n";
}

// a tiny backbone and conversations; made once
struct tiny_backbone {
    temporary_dir dir;
    std::string model = " --model " + quoted(dir / "backbone");

    tiny_backbone() {
        std::string lines, text;
        for (int n = 0; n < 24; ++n) lines += conversation(n, n % 2 == 0);
        for (int n = 0; n < 60; ++n) text += "the plan and the weather of day " + std::to_string(n) + "\n";
        write_text(dir / "data.jsonl", lines);
        write_text(dir / "text.txt", text);
        const auto ok = [](const outcome& o) {
            INFO(o.err);
            REQUIRE(o.code == 0);
        };
        ok(run("tokenizer train --train " + quoted(dir / "text.txt") + " --vocab 300 --pattern qwen2 --out " +
               quoted(dir / "tokenizer.json") + " --special '<|endoftext|>' '<|im_start|>' '<|im_end|>'"));
        ok(run(
            "train --quiet --model qwen2 --d-model 16 --heads 2 --layers 3 --set intermediate_size=24 num_key_value_heads=1 max_position_embeddings=1536"
            " --batch 2 --time 16 --steps 3 --threads 1 --train " +
            quoted(dir / "text.txt") + " --tokenizer " + quoted(dir / "tokenizer.json") + " --out " +
            quoted(dir / "backbone")));
    }
    outcome finetune(const std::string& name, const std::string& options) const {
        return run("finetune --quiet --steps 2 --batch 2 --max-length 1536 --threads 1" + model + " --train " +
                   quoted(dir / "data.jsonl") + " --out " + quoted(dir / name) + " " + options);
    }
    // with gates that close some blocks: the authors' band at a place where it closes something
    std::string tuned(const std::string& name, const std::string& options) const {
        const auto done = finetune(name, options);
        INFO(done.err);
        REQUIRE(done.code == 0);
        return (dir / name).string();
    }
    std::vector<double> logits(const std::string& options) const {
        safetensors_writer ids;
        const std::vector<std::int64_t> values{1, 5, 9, 200, 4, 17, 33, 250};
        ids.add("ids", {2, 4}, std::span<const std::int64_t>(values));
        ids.write(dir / "ids.safetensors");
        const auto done = run("logits --dtype f64 --ids " + quoted(dir / "ids.safetensors") + " --out " +
                              quoted(dir / "out.safetensors") + " " + options);
        INFO(done.err);
        REQUIRE(done.code == 0);
        return safetensors_file(dir / "out.safetensors").read<double>("logits");
    }
};

double distance(const std::vector<double>& a, const std::vector<double>& b) {
    REQUIRE(a.size() == b.size());
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return std::sqrt(sum);
}

}  // namespace

TEST_CASE("LayerRoute from a backbone to its evaluation", "[cli]") {
    const tiny_backbone t;
    std::string runs;
    for (const char* seed : {"0", "1"})
        runs += " " +
                quoted(t.tuned(
                    std::string("run") + seed,
                    "--seed " + std::string(seed) +
                        " --gate-bias 0 --gate-lr 20 --lr 1e-2 --objective budget:tool_call=0.4 budget:planning=0.1"));
    const auto evaluated = run("eval --json --by step_type --side all --max-length 1536 --resamples 50" + t.model +
                               " --data " + quoted(t.dir / "data.jsonl") + " --runs" + runs);
    INFO(evaluated.err);
    REQUIRE(evaluated.code == 0);
    const auto json = nlohmann::json::parse(evaluated.out);
    REQUIRE(json["runs"].size() == 2);
    for (const auto& r : json["runs"]) {
        for (const char* type : {"tool_call", "planning"}) {
            const auto& of = r["types"][type];
            CHECK(of["samples"] == 12);
            CHECK(of["gates"].size() == 3);
            CHECK(of["skip_share_95"][0].get<double>() <= of["skip_share"].get<double>());
            for (const char* mode : {"backbone", "adapters", "gates", "routed"})
                CHECK(of["perplexity"][mode].get<double>() > 1);
            const double skip = of["skip_share"];
            CHECK((of["executed_flops"].get<double>() < of["dense_flops"].get<double>()) == (skip > 0));
        }
        CHECK(r.contains("differential"));
        CHECK(r["rules"].contains("length"));
        CHECK(r["correlation"].contains("tool_call_given_length"));
    }
    for (const char* key : {"differential", "skip_share", "log_cost"}) CHECK(json["over_runs"].contains(key));
    CHECK(run("eval --by step_type --side all --max-length 1536 --resamples 50" + t.model + " --data " +
              quoted(t.dir / "data.jsonl") + " --runs" + runs)
              .out.find("2 runs") != std::string::npos);
    // without --max-length: the longest that this backbone takes, which is less than 2048; samples evenly over the file
    const auto few = run("eval --by step_type --side all --samples 5 --resamples 50" + t.model + " --data " +
                         quoted(t.dir / "data.jsonl") + " --runs" + runs);
    INFO(few.err);
    REQUIRE(few.code == 0);
    CHECK(few.out.find("samples of 10 conversations, side all") != std::string::npos);

    const std::string by_step = "eval --by step_type --side all" + t.model + " --data " + quoted(t.dir / "data.jsonl") +
                                " --runs " + quoted(t.dir / "run0") + " ";
    check_refused(run(by_step + quoted(t.dir / "run0/last")), {"run0/last", "--runs: expected each run once"});
    check_refused(run(by_step + quoted(t.dir / "backbone")), {"backbone", "expected a run with adapters or gates"});

    // a run of adapters and gates, or of two layers, beside one that routes tokens: the text is of that one alone
    for (const char* layers : {"2", "3"}) {
        const auto trained =
            run("train --quiet --d-model 16 --heads 2 --batch 2 --time 16 --steps 3 --threads 1 --layers " +
                std::string(layers) + " --train " + quoted(t.dir / "text.txt") + " --tokenizer " +
                quoted(t.dir / "tokenizer.json") + " --out " + quoted(t.dir / layers));
        INFO(trained.err);
        REQUIRE(trained.code == 0);
    }
    const std::string sources = "report " + quoted(t.dir / "run0") + " " + quoted(t.dir / "2") + " ",
                      text = " --text hi -o " + quoted(t.dir / "report.html");
    check_refused(run(sources + text), {"--text", "expected a run with a model that routes tokens"});
    const auto report = run(sources + quoted(t.dir / "3") + text);
    INFO(report.err);
    CHECK(report.code == 0);
}

TEST_CASE("what trains, by flag", "[cli]") {
    const tiny_backbone t;
    const auto files = [](const std::string& run) {
        return std::pair{fs::exists(run + "/last/adapter_model.safetensors"),
                         fs::exists(run + "/last/router.safetensors")};
    };
    CHECK(files(t.tuned("both", "--objective mean=1 --gate-bias published")) == std::pair{true, true});
    CHECK(
        files(t.tuned(
            "gates",
            "--tune gates --gate-kind hard_concrete --objective budget=0.5 oracle:planning=0.4 --oracle-samples 4")) ==
        std::pair{false, true});
    CHECK(files(t.tuned("adapters", "--tune adapters --rslora --lora-targets gate_proj up_proj down_proj")) ==
          std::pair{true, false});
    for (const char* scope : {"attention", "feed_forward"})
        t.tuned(
            scope,
            "--gate-scope " + std::string(scope) +
                " --pool last_prompt_token --write-kv --objective differential:tool_call:planning=1 supervised:tool_call=0.3");
    check_refused(t.finetune("bad", "--tune adapters --objective mean=1"), {"--objective", "trains no gates"});
    check_refused(t.finetune("bad2", "--objective mean"), {"--objective", "found \"mean\""});
    check_refused(t.finetune("bad4", "--objective budget:toolcall=0.4"),
                  {"--objective", "no training sample is of step type \"toolcall\"", "did you mean"});
    check_refused(t.finetune("bad5", "--objective budget=0.4 budget=0.5"),
                  {"--objective", "another one says the same"});
    check_refused(t.finetune("bad6", "--gate-lr -1"), {"--gate-lr", "found -1"});
    check_refused(t.finetune("bad3", "--lora-targets q_porj"), {"unknown module \"q_porj\"", "did you mean"});
}

TEST_CASE("chat, generate and merge with adapters and gates", "[cli]") {
    const tiny_backbone t;
    const std::string tuned = t.tuned("run", "--gate-bias 0 --gate-lr 20 --lr 1e-1 --objective budget=0.5");
    const std::string adapter = " --adapter " + quoted(tuned), router = " --router " + quoted(tuned);
    const auto chat =
        run("chat --mode both --max-new-tokens 6 --temperature 0 --prompt 'weather 3'" + t.model + adapter + router);
    INFO(chat.err);
    REQUIRE(chat.code == 0);
    CHECK(chat.err.find("blocks run: ") != std::string::npos);
    CHECK(chat.err.find("with every block: ") != std::string::npos);
    const auto generated =
        run("generate --jsonl --mode full --max-new-tokens 4 --temperature 0 --prompt plan 'the weather'" + t.model +
            adapter + router);
    INFO(generated.err);
    REQUIRE(generated.code == 0);
    CHECK(std::count(generated.out.begin(), generated.out.end(), '\n') == 2);
    const auto each = [&](const std::string& options) {  // the JSON lines of two prompts
        const auto done =
            run("generate --jsonl --max-new-tokens 4 --temperature 0 --prompt plan 'the weather'" + options);
        INFO(done.err);
        REQUIRE(done.code == 0);
        std::vector<nlohmann::json> lines;
        std::istringstream text(done.out);
        for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
        REQUIRE(lines.size() == 2);
        return lines;
    };
    for (const auto& line : each(t.model + adapter + router + " --mode full")) CHECK(line["skip_share"] == 0);
    for (const auto& line : each(t.model + adapter + router)) {  // three blocks
        const double blocks = 3 * line["skip_share"].get<double>();
        CHECK(blocks == Approx(std::round(blocks)).margin(1e-9));
    }
    const auto plain = each(t.model);
    CHECK(!plain[0].contains("skip_share"));
    for (const auto& line : each(t.model + adapter + router + " --mode both")) {
        CHECK(line["seconds"].get<double>() > 0);
        CHECK(line["seconds_full"].get<double>() > 0);
    }
    // any id of a list in generation_config.json ends an answer
    write_text(t.dir / "backbone/last/generation_config.json",
               R"({"eos_token_id": [0, )" + plain[0]["ids"][1].dump() + "]}");
    const auto ended = each(t.model)[0];
    CHECK(ended["finish"] == "end");
    CHECK(ended["ids"].size() <= 1);
    fs::remove(t.dir / "backbone/last/generation_config.json");

    const auto narrow =
        run("chat --storage bf16 --max-new-tokens 3 --temperature 0 --prompt 'weather 3'" + t.model + adapter + router);
    INFO(narrow.err);
    CHECK(narrow.code == 0);
    CHECK(narrow.err.find("warning") == std::string::npos);
    write_text(t.dir / "backbone/last/tokenizer_config.json",
               R"({"chat_template": "{{ '<|im_start|>' + messages }}"})");
    CHECK(
        run("chat --max-new-tokens 1 --prompt a" + t.model)
            .err.find(
                "warning: turns are written as Qwen2.5 has them, but the model's own chat template lacks \"<|im_end|>\"\n") !=
        std::string::npos);
    fs::remove(t.dir / "backbone/last/tokenizer_config.json");

    write_text(t.dir / "backbone/last/chat_template.jinja", "{{ messages }}");
    const auto merged = run("merge --dtype f64 --out " + quoted(t.dir / "merged") + t.model + adapter + router);
    INFO(merged.err);
    REQUIRE(merged.code == 0);
    CHECK(nlohmann::json::parse(read_text_file(t.dir / "merged/config.json"))["torch_dtype"] == "float64");
    CHECK(read_text_file(t.dir / "merged/chat_template.jinja") == "{{ messages }}");
    CHECK(merged.err.find("gates are not merged") == std::string::npos);  // --router: they are copied
    const auto alone = run("merge --out " + quoted(t.dir / "alone") + t.model + adapter);
    CHECK(alone.code == 0);
    CHECK(alone.err.find("gates are not merged and stay in ") != std::string::npos);
    const auto rounded = run("merge --storage bf16 --out " + quoted(t.dir / "rounded") + t.model + adapter);
    INFO(rounded.err);
    REQUIRE(rounded.code == 0);
    CHECK(nlohmann::json::parse(read_text_file(t.dir / "rounded/config.json"))["torch_dtype"] == "bfloat16");
    const safetensors_file narrow_weights(t.dir / "rounded/model.safetensors");
    for (const auto& [name, entry] : narrow_weights.tensors()) CHECK(entry.dtype == dtype::bf16);
    const auto backbone = t.logits(t.model), adapted = t.logits(t.model + adapter),
               folded = t.logits("--model " + quoted(t.dir / "merged"));
    CHECK(distance(backbone, adapted) > 1e-3);
    CHECK(distance(adapted, folded) < 1e-9);
    const double rounding = distance(adapted, t.logits("--model " + quoted(t.dir / "rounded")));
    CHECK(rounding > 0);
    CHECK(rounding < 0.02 * distance(adapted, std::vector<double>(adapted.size())));
    CHECK(distance(t.logits(t.model + adapter + router),
                   t.logits("--model " + quoted(t.dir / "merged") + " --router " + quoted(t.dir / "merged"))) < 1e-9);
    check_refused(run("merge --out " + quoted(t.dir / "merged") + t.model + adapter), {"merged", "new or empty"});
}

TEST_CASE("evaluation samples are spread over the dialogues of a file", "[cli]") {
    const tiny_backbone t;
    std::string lines;  // twelve dialogues of three turns each
    for (int n = 0; n < 12; ++n) {
        std::string messages;
        for (const char* turn : {"one ", "two ", "three "})
            messages += std::string(messages.empty() ? "" : ", ") + R"({"role": "user", "content": ")" + turn +
                        std::to_string(n) + R"("}, {"role": "assistant", "content": "plan )" + std::to_string(n) +
                        "\"}";
        lines += R"({"messages": [)" + messages + R"(], "step_type": "planning"})" + "\n";
    }
    write_text(t.dir / "dialogues.jsonl", lines);
    const std::string runs = quoted(t.tuned("run", "--objective mean=1"));
    for (const auto& [samples, conversations] : {std::pair{"12", 12}, {"6", 6}, {"0", 12}}) {
        const auto done = run("eval --json --by step_type --side all --resamples 20 --samples " + std::string(samples) +
                              t.model + " --data " + quoted(t.dir / "dialogues.jsonl") + " --runs " + runs);
        INFO(done.err);
        REQUIRE(done.code == 0);
        const auto of = nlohmann::json::parse(done.out)["runs"][0]["types"]["planning"];
        CHECK(of["conversations"] == conversations);
        CHECK(of["samples"] == (std::string(samples) == "0" ? 36 : conversations));
    }
}

TEST_CASE("finetune without --objective: mean=1, but not in a run that began without", "[cli]") {
    const tiny_backbone t;
    const fs::path old = t.tuned("old", ""), now = t.tuned("now", "");
    const auto state = [](const fs::path& run) {
        return nlohmann::json::parse(read_text_file(run / "last/trainer.json"));
    };
    CHECK(state(now)["options"]["objective"] == std::vector<std::string>{"mean=1"});
    const auto resumed = [&](const fs::path& run) {
        return spectral::test::run("finetune --resume --quiet --out " + quoted(run));
    };
    CHECK(resumed(now).code == 0);
    check_refused(spectral::test::run("train --resume --quiet --out " + quoted(now)),
                  {"run.json", "expected train", "\"finetune\""});
    for (const bool known : {true, false}) {  // as written before there was a default, and before there was the option
        auto json = state(old);
        known ? void(json["options"]["objective"] = nlohmann::json::array()) : void(json["options"].erase("objective"));
        write_text(fs::canonical(old / "last") / "trainer.json", json.dump());
        const auto done = resumed(old);
        INFO(done.err);
        CHECK(done.code == 0);
    }
}

TEST_CASE("a backbone kept as bfloat16 is fine-tuned; one with a broken weight is refused", "[cli]") {
    const tiny_backbone t;
    const std::string tuned = t.tuned("narrow", "--storage bf16 --objective mean=1");
    CHECK(fs::exists(tuned + "/last/adapter_model.safetensors"));
    CHECK(run("generate --storage bf16 --prompt a --max-new-tokens 1 --adapter " + quoted(tuned) + t.model).code == 0);
    check_refused(t.finetune("bad", "--storage f32 --dtype f64"), {"--storage f32", "expected bf16 or the same"});

    const fs::path weights = fs::canonical(t.dir / "backbone/last") / "model.safetensors";
    safetensors_writer writer;
    {
        const safetensors_file file(weights);
        std::map<std::string, std::vector<float>> kept;
        for (const auto& [name, entry] : file.tensors()) {
            auto& values = kept[name] = file.read<float>(name);
            if (name == "model.layers.1.mlp.up_proj.weight") values[5] = NAN;
            writer.add(name, entry.shape, std::span<const float>(values));
        }
        writer.write(t.dir / "broken.safetensors");
    }
    fs::rename(t.dir / "broken.safetensors", weights);
    for (const char* storage : {"", " --storage bf16"})
        check_refused(
            run("generate --prompt a" + t.model + storage),
            {"model.safetensors: tensor \"model.layers.1.mlp.up_proj.weight\": expected finite values, found nan"});
    check_refused(t.finetune("broken", ""), {"model.layers.1.mlp.up_proj.weight", "expected finite values"});
}

TEST_CASE("bad adapters, gates and conversations are refused with one sentence", "[cli]") {
    const tiny_backbone t;
    const std::string tuned = t.tuned("run", "--objective mean=1");
    const fs::path last = fs::canonical(tuned + "/last");
    const std::string both = t.model + " --prompt a --max-new-tokens 1";
    const auto copy = [&](const char* name) {
        fs::remove_all(t.dir / name);
        fs::copy(last, t.dir / name);
        return t.dir / name;
    };
    // gates of another depth
    const auto routers = copy("routers");
    auto json = nlohmann::json::parse(read_text_file(routers / "router_config.json"));
    json["num_layers"] = 5;
    write_text(routers / "router_config.json", json.dump());
    check_refused(run("generate --router " + quoted(routers) + both),
                  {"router_config.json", "num_layers: expected 3", "found 5"});
    json.erase("num_layers");
    json["treshold"] = 0.4;
    write_text(routers / "router_config.json", json.dump());
    check_refused(run("generate --router " + quoted(routers) + both),
                  {"unknown key \"treshold\"", "did you mean \"threshold\""});
    // an adapter for another model: every mismatch in one sentence
    REQUIRE(
        run("train --quiet --model qwen2 --d-model 24 --heads 2 --layers 2 --set intermediate_size=24 num_key_value_heads=1 --batch 2 --time 16 --steps 1"
            " --threads 1 --train " +
            quoted(t.dir / "text.txt") + " --tokenizer " + quoted(t.dir / "tokenizer.json") + " --out " +
            quoted(t.dir / "other"))
            .code == 0);
    check_refused(
        run("generate --prompt a --model " + quoted(t.dir / "other") + " --adapter " + quoted(tuned)),
        {"adapter_model.safetensors", "8 unexpected", "layers.2.self_attn.v_proj.lora_B", "16 of another shape",
         "layers.0.self_attn.q_proj.lora_A", "expected [8, 24], found [8, 16]", "layers.1.self_attn.o_proj.lora_B"});
    // conversations
    const auto with_line = [&](const std::string& line) {
        write_text(t.dir / "bad.jsonl", conversation(1, true) + conversation(2, false) + line + "\n");
        fs::remove_all(t.dir / "none");
        return run("finetune --quiet --steps 1" + t.model + " --max-length 1536 --train " +
                   quoted(t.dir / "bad.jsonl") + " --out " + quoted(t.dir / "none"));
    };
    check_refused(with_line(R"({"messages": [)"), {"bad.jsonl: line 3"});
    check_refused(with_line(R"({"messages": [{"role": "robot", "content": "x"}]})"),
                  {"bad.jsonl: line 3", "role", "robot"});
    check_refused(with_line(R"({"message": []})"), {"bad.jsonl: line 3", "messages"});
    check_refused(with_line("{\"messages\": [{\"role\": \"user\", \"content\": \"\xff\"}]}"), {"bad.jsonl: line 3"});
    // longer than the context
    const std::string words = "'" + std::string(4000, 'x') + "'";
    check_refused(run("generate --prompt " + words + t.model), {"prompt 0", "at most 1536"});
    check_refused(run("chat --prompt " + words + t.model), {"less than 1536"});
    // three turns do not fit: the conversation goes on without the first
    const std::string turn = " '" + std::string(1400, 'x') + "'";
    const auto chat = run("chat --max-new-tokens 1 --prompt" + turn + turn + turn + t.model);
    CHECK(chat.code == 0);
    CHECK(chat.err.find("the context of 1536 tokens is full: the oldest 2 turns are forgotten") != std::string::npos);
    // a line that is too long is refused, and the next one answered
    write_text(t.dir / "lines.txt", std::string(4000, 'x') + "\nhello\n");
    const auto lines = run("chat --max-new-tokens 1" + t.model + " < " + quoted(t.dir / "lines.txt"));
    CHECK(lines.code == 0);
    CHECK(lines.err.find("less than 1536") != std::string::npos);
    CHECK(lines.err.find("prompt of ") != std::string::npos);
    check_refused(run("finetune --max-length 1600" + t.model + " --train " + quoted(t.dir / "data.jsonl") + " --out " +
                      quoted(t.dir / "long")),
                  {"--max-length", "1536"});
}

TEST_CASE("dumps of Qwen2, adapter and gates agree with golden numbers", "[cli]") {
    for_each_golden("layerroute.safetensors", [](const fs::path& path) {
        INFO(path.string());
        const safetensors_file want(path);
        temporary_dir dir;
        fs::create_directories(dir / "router");
        safetensors_writer router, ids;
        for (const auto& [name, entry] : want.tensors()) {
            if (name.starts_with("router.")) router.add(name, entry.dtype, entry.shape, entry.data);
            if (name == "ids") ids.add(name, entry.dtype, entry.shape, entry.data);
        }
        router.write(dir / "router/router.safetensors");
        ids.write(dir / "ids.safetensors");
        write_text(dir / "router/router_config.json", R"({"pool": "sequence", "threshold": 0.5, "gate_reg_weight": )" +
                                                          want.metadata().at("gate_reg_weight") + "}");
        const fs::path folder = path.parent_path();
        const auto done = run("gradients --dtype f64 --model " + quoted(folder / "qwen2_tiny") + " --adapter " +
                              quoted(folder / "qwen2_tiny_lora") + " --router " + quoted(dir / "router") + " --ids " +
                              quoted(dir / "ids.safetensors") + " --out " + quoted(dir / "out.safetensors"));
        INFO(done.err);
        REQUIRE(done.code == 0);
        const safetensors_file got(dir / "out.safetensors");
        double largest = 0;
        const auto size = [](const std::vector<double>& v) { return distance(v, std::vector<double>(v.size())); };
        for (const auto& [name, entry] : want.tensors())
            if (name.starts_with("grad.")) largest = std::max(largest, size(want.read<double>(name)));
        for (const auto& [name, entry] : want.tensors()) {
            const bool gradient = name.starts_with("grad.");
            if (!gradient && name != "logits" && name != "soft_gates" && name != "hard_gates" && name != "lm_loss" &&
                name != "gate_reg" && name != "loss")
                continue;
            INFO(name);
            REQUIRE(got.contains(name));
            CHECK(got.at(name).shape == entry.shape);
            const auto expected = want.read<double>(name);
            CHECK(distance(got.read<double>(name), expected) <=
                  (gradient ? 1e-5 * std::max(size(expected), 1e-2 * largest) : 1e-6 * size(expected)));
        }
    });
}

}  // namespace spectral::test
