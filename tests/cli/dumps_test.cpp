// SPDX-License-Identifier: Apache-2.0
// tests/cli/dumps_test.cpp: `spectral logits` and `spectral gradients` against golden numbers; what they refuse
#include "cli/program.hpp"

#include <cmath>

namespace spectral::test {
namespace {

// ‖got − want‖ ≤ bound ‖want‖; tensors that are all rounding are held against `floor`
void check_close(const std::vector<double>& got, const std::vector<double>& want, double bound, const std::string& name,
                 double floor = 0) {
    INFO(name);
    REQUIRE(got.size() == want.size());
    double difference = 0, size = floor * floor;
    for (std::size_t i = 0; i < got.size(); ++i) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
    }
    CHECK(std::sqrt(difference) <= bound * std::sqrt(size));
}

void check_dump(const golden_model& model, bool gradients, double bound) {
    const safetensors_file got(model.dir / "out.safetensors");
    double floor = 0;
    for (const auto& [name, entry] : model.file.tensors())
        if (name.starts_with("grad.")) {
            double n = 0;
            for (double g : model.file.read<double>(name)) n += g * g;
            floor = std::max(floor, 1e-3 * std::sqrt(n));
        }
    std::size_t compared = 0;
    for (const auto& [name, entry] : model.file.tensors()) {
        const bool forward = name == "logits" || name == "meta_gate" || name.starts_with("routing.");
        if (!forward && !(gradients && (name == "loss" || name.starts_with("grad.")))) continue;
        INFO(name);
        REQUIRE(got.contains(name));
        CHECK(got.at(name).shape == entry.shape);
        CHECK(got.at(name).dtype == (name.ends_with(".op") ? dtype::i64 : dtype::f64));
        check_close(got.read<double>(name), model.file.read<double>(name), bound, name,
                    name.starts_with("grad.") ? floor : 0);
        ++compared;
    }
    for (const auto& [name, entry] : got.tensors()) compared += left_out(name) && !model.file.contains(name);
    CHECK(got.tensors().size() == compared);
}

}  // namespace

TEST_CASE("dumps agree with golden numbers", "[cli]") {
    temporary_dir dir;
    for (const char* name : {"chiar_threshold", "chiar_hard"}) {
        const golden_model model(small_golden_dir() / "a" / (std::string(name) + ".safetensors"), dir / name);
        for (const char* executor : {"reference", "cpu"})
            for (const char* scalar : {"f64", "f32"}) {
                INFO(name << " on " << executor << ", " << scalar);
                const std::string machine = std::string(" --executor ") + executor + " --dtype " + scalar;
                const double bound = std::string(scalar) == "f64" ? 1e-9 : 1e-4;
                REQUIRE(run("logits " + model.arguments("inputs.safetensors") + machine).code == 0);
                check_dump(model, false, bound);
                REQUIRE(run("gradients " + model.arguments("all.safetensors") + machine).code == 0);
                check_dump(model, true, bound);
            }
    }
}

TEST_CASE("the gate of a dump has one value for the batch, a sequence or a position", "[cli]") {
    temporary_dir dir;
    const golden_model model(small_golden_dir() / "a/chiar_threshold.safetensors", dir / "model");
    const std::string config = read_text_file(model.dir / "config.json");
    const auto shape = [&](const std::string& pool) {
        std::string changed = config;
        changed.replace(changed.find("\"batch\""), 7, "\"" + pool + "\"");
        write_text(model.dir / "config.json", changed);
        const auto got = run("logits " + model.arguments("inputs.safetensors"));
        INFO(got.err);
        REQUIRE(got.code == 0);
        return safetensors_file(model.dir / "out.safetensors").at("meta_gate").shape;
    };
    CHECK(shape("batch") == std::vector<index>{});
    CHECK(shape("sequence") == std::vector<index>{2});
    CHECK(shape("causal") == std::vector<index>{2, 24});
}

TEST_CASE("bad models and ids are refused with one sentence", "[cli]") {
    temporary_dir dir;
    const golden_model model(small_golden_dir() / "a/chiar_threshold.safetensors", dir / "model");
    const std::string config = read_text_file(model.dir / "config.json"),
                      arguments = "logits " + model.arguments("inputs.safetensors");
    const auto weights = model.dir / "model.safetensors";
    const auto restore = [&] { golden_model(small_golden_dir() / "a/chiar_threshold.safetensors", dir / "model"); };
    const auto with_config = [&](const std::string& from, const std::string& to) {
        std::string changed = config;
        changed.replace(changed.find(from), from.size(), to);
        write_text(model.dir / "config.json", changed);
        return run(arguments);
    };
    CHECK(run(arguments).code == 0);

    SECTION("an output that is read") {
        for (const char* command : {"logits ", "gradients "})
            for (const char* out : {"inputs.safetensors", "model.safetensors", "config.json"})
                check_refused(run(command + std::string("--model ") + quoted(model.dir) + " --ids " +
                                  quoted(model.dir / "inputs.safetensors") + " --out " + quoted(model.dir / out)),
                              {out, "expected an output that is no input"});
    }
    SECTION("config.json") {
        check_refused(with_config("n_heads", "n_haeds"), {"config.json", "n_haeds", "did you mean", "n_heads"});
        check_refused(with_config("\"d_model\": 32", "\"d_model\": \"32\""),
                      {"config.json", "d_model", "whole number"});
        check_refused(with_config("\"d_model\": 32", "\"d_model\": 33"), {"config.json", "d_model"});
        check_refused(with_config("\"d_model\": 32", "\"d_model\": 999999999999"), {"config.json", "d_model"});
        check_refused(with_config("\"vocab_size\": 97", "\"vocab_size\": 999999999"),
                      {"config.json", "parameters", "model.safetensors"});
        check_refused(with_config("\"threshold\"", "\"treshold\""), {"routing_mode", "treshold"});
        check_refused(with_config("{", ""), {"config.json", "not valid JSON"});
        write_text(model.dir / "config.json", "");
        check_refused(run(arguments), {"config.json"});
        std::filesystem::remove(model.dir / "config.json");
        check_refused(run(arguments), {"config.json"});
    }
    SECTION("weights") {
        const std::string bytes = read_text_file(weights);
        write_text(weights, bytes.substr(0, bytes.size() - 9));
        check_refused(run(arguments), {"model.safetensors", "expected", "found"});
        write_text(weights, bytes.substr(0, 5));
        check_refused(run(arguments), {"model.safetensors"});
        write_text(weights, "");
        check_refused(run(arguments), {"model.safetensors", "empty"});
        std::string lying = bytes;
        lying[7] = 0x7f;  // a header of 2^63 bytes
        write_text(weights, lying);
        check_refused(run(arguments), {"model.safetensors", "header length"});
        restore();
        const safetensors_file whole(small_golden_dir() / "a/chiar_threshold.safetensors");
        safetensors_writer writer;
        const std::vector<double> three{1, 2, 3};
        for (const auto& [name, entry] : whole.tensors()) {
            if (!name.starts_with("param.") || name == "param.norm.bias" || name == "param.layers.2.dct_mix.w")
                continue;
            if (name == "param.norm.weight")
                writer.add("norm.weight", {3}, std::span<const double>(three));
            else
                writer.add(name.substr(6), entry.dtype, entry.shape, entry.data);
        }
        writer.add("strange", {3}, std::span<const double>(three));
        writer.add("stranger", {3}, std::span<const double>(three));
        std::filesystem::remove(weights);  // mapped by `whole`? no: another file; a fresh inode all the same
        writer.write(weights);
        check_refused(run(arguments), {"2 missing", "norm.bias", "layers.2.dct_mix.w", "2 unexpected", "strange",
                                       "stranger", "norm.weight", "[32]", "[3]"});
    }
    SECTION("ids") {
        std::vector<std::int64_t> ids(24, 1);
        model.write_ids("inputs.safetensors", {1, 24}, (ids[5] = 97, ids));
        check_refused(run(arguments), {"inputs.safetensors", "element 5", "0 to 96", "found 97"});
        model.write_ids("inputs.safetensors", {1, 24}, (ids[5] = -1, ids));
        check_refused(run(arguments), {"found -1"});
        model.write_ids("inputs.safetensors", {1, 30}, std::vector<std::int64_t>(30, 1));
        check_refused(run(arguments), {"inputs.safetensors", "at most 24", "the model's context", "found 30"});
        model.write_ids("inputs.safetensors", {24}, std::vector<std::int64_t>(24, 1));
        check_refused(run(arguments), {"(B, T)"});
        model.write_ids("inputs.safetensors", {0, 24}, {});
        check_refused(run(arguments), {"inputs.safetensors"});
    }
    SECTION("the command line") {
        check_refused(run("logits --modle x"), {"--modle", "did you mean", "--model"});
        check_refused(run("logitz"), {"logitz"});
        check_refused(run("logits --model x"), {"required"});
        check_refused(run(arguments + " --dtype f16"), {"--dtype", "f16"});
        check_refused(run("logits --model " + quoted(dir / "nowhere") + " --ids x --out y"),
                      {"nowhere", "no such directory"});
        write_text(dir / "text.txt", "some text");
        check_refused(run("eval --model " + quoted(model.dir) + " --data " + quoted(dir / "text.txt")),
                      {"model/tokenizer.json", "no tokenizer", "--tokenizer FILE"});
    }
}

}  // namespace spectral::test
