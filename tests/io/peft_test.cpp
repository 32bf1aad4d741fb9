// SPDX-License-Identifier: Apache-2.0
// tests/io/peft_test.cpp: adapter_config.json and router_config.json: what is written is read back; what is refused
#include <spectral/io/peft.hpp>

#include "support/golden.hpp"

namespace spectral::test {

namespace {
qwen2_config backbone(index layers = 12) {
    qwen2_config c;
    c.num_hidden_layers = layers;
    return c;
}
using adapters = std::map<std::string, lora_options>;

// every module of the backbone that the configuration adapts
adapters adapters_of(const layer_route_config& r, const qwen2_config& b) {
    adapters out;
    for (index l = 0; l < b.num_hidden_layers; ++l)
        for (const std::string module : lora_modules) {
            const std::string path = "model.layers." + std::to_string(l) + "." + module;
            if (const auto o = r.adapter_of(path)) out.emplace(path, *o);
        }
    return out;
}
bool same(const adapters& a, const adapters& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
        const auto& [p, q] = std::pair(x.second, y.second);
        return x.first == y.first && p.rank == q.rank && p.alpha == q.alpha && p.dropout == q.dropout &&
               p.rank_stabilized == q.rank_stabilized;
    });
}
adapters read_back(const layer_route_config& r, const qwen2_config& b) {
    return parse_peft_config(parse_json(write_peft_config(r, b), "written"), "adapter_config.json", b);
}
adapters parsed(const std::string& more, const qwen2_config& b = backbone(2)) {
    return parse_peft_config(parse_json(R"({"peft_type": "LORA")" + more + "}", "given"), "adapter_config.json", b);
}
}  // namespace

TEST_CASE("peft: one set of options for named modules", "[io][peft]") {
    for (const std::vector<std::string>& targets :
         {std::vector<std::string>{"q_proj", "v_proj"},
          {"down_proj"},
          {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}})
        for (bool stabilized : {false, true}) {
            layer_route_config r;
            r.lora = lora_options{.rank = 4, .alpha = 12.5, .dropout = 0.07, .rank_stabilized = stabilized};
            r.lora_targets = targets;
            const auto back = read_back(r, backbone());
            CHECK(back.size() == 12 * targets.size());
            CHECK(same(back, adapters_of(r, backbone())));
        }
}

TEST_CASE("peft: ranks and alphas by module", "[io][peft]") {
    layer_route_config r;
    r.lora = lora_options{.rank = 4, .alpha = 8};
    index n = 1;
    for (const char* path : {"model.layers.1.self_attn.q_proj", "model.layers.10.self_attn.q_proj",
                             "model.layers.0.self_attn.k_proj", "model.layers.11.self_attn.o_proj"}) {
        r.lora_by_module[path] = lora_options{.rank = 4 + n, .alpha = 8 + 0.5 * static_cast<double>(n)};
        ++n;
    }
    r.lora_by_module["model.layers.3.self_attn.v_proj"] = lora_options{.rank = 1, .alpha = 8};  // its rank alone
    r.lora_by_module["model.layers.4.self_attn.v_proj"] = lora_options{.rank = 7, .alpha = 99};  // its alpha alone
    const auto back = read_back(r, backbone());
    CHECK(back.size() == 48);
    CHECK(same(back, adapters_of(r, backbone())));
    CHECK(back.at("model.layers.1.self_attn.q_proj").rank == 5);
    CHECK(back.at("model.layers.11.self_attn.q_proj").rank == 4);
}

TEST_CASE("peft: adapters of some blocks", "[io][peft]") {
    layer_route_config r;
    for (index l : {1, 2, 11})
        for (const char* module : {"self_attn.q_proj", "mlp.down_proj"})
            r.lora_by_module["model.layers." + std::to_string(l) + "." + module] =
                lora_options{.rank = l, .alpha = 2.0 * static_cast<double>(l), .dropout = 0};
    r.lora_by_module.erase("model.layers.2.mlp.down_proj");
    const auto back = read_back(r, backbone());
    CHECK(back.size() == 5);
    CHECK(same(back, r.lora_by_module));

    layer_route_config over = r;  // all blocks have q_proj, some a down_proj
    over.lora = lora_options{.rank = 7, .alpha = 3, .dropout = 0};
    over.lora_targets = {"q_proj"};
    CHECK(read_back(over, backbone()).size() == 14);
    CHECK(same(read_back(over, backbone()), adapters_of(over, backbone())));
}

TEST_CASE("peft: what PEFT writes", "[io][peft]") {
    CHECK(parsed(R"(, "target_modules": ["q_proj"])").size() == 2);
    CHECK(parsed(R"(, "target_modules": ["q_proj"])").begin()->second.rank == 8);  // PEFT's defaults
    CHECK(parsed(R"(, "target_modules": ["q_proj"])").begin()->second.alpha == 8);
    CHECK(parsed(R"(, "target_modules": "all-linear")").size() == 14);
    CHECK(parsed(R"(, "target_modules": ".*\\.(up|down)_proj", "exclude_modules": ["down_proj"])").size() == 2);
    CHECK(parsed(R"(, "target_modules": ["q_proj"], "layers_to_transform": [1])").begin()->first ==
          "model.layers.1.self_attn.q_proj");
    CHECK(parsed(R"(, "target_modules": ["q_proj"], "layers_to_transform": 0)").begin()->first ==
          "model.layers.0.self_attn.q_proj");
    const auto by_pattern = parsed(R"(, "r": 2, "target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 5},
        "alpha_pattern": {".*\\.1\\..*v_proj": 3})");
    CHECK(by_pattern.at("model.layers.1.self_attn.q_proj").rank == 5);
    CHECK(by_pattern.at("model.layers.1.self_attn.v_proj").rank == 2);
    CHECK(by_pattern.at("model.layers.1.self_attn.v_proj").alpha == 3);
    CHECK(by_pattern.at("model.layers.0.self_attn.v_proj").alpha == 8);
    const auto inside = parsed(R"(, "target_modules": ["q_proj"], "rank_pattern": {"self_attn": 5, "proj": 6})");
    CHECK(inside.begin()->second.rank == 8);  // a pattern means the end of a path, from a dot on
}

TEST_CASE("peft: sentences", "[io][peft]") {
    const std::string q = R"(, "target_modules": ["q_proj"])";
    CHECK_SENTENCE(parse_peft_config(parse_json(R"({"peft_type": "IA3"})", "x"), "x", backbone()),
                   "peft_type: expected \"LORA\", found \"IA3\"");
    CHECK_SENTENCE(parsed(""), "target_modules: expected a list");
    CHECK_SENTENCE(parsed(R"(, "target_modules": 3)"), "target_modules: expected a list");
    CHECK_SENTENCE(parsed(R"(, "target_modules": ["c_attn"])"), "none of the backbone's modules match");
    CHECK_SENTENCE(parsed(R"(, "target_modules": "(")"), "expected a regular expression");
    CHECK_SENTENCE(parsed(R"(, "target_modules": "(([a-z_.0-9]+)*)*!")"), "repeated groups are not taken");
    CHECK_SENTENCE(parsed(R"(, "target_modules": ".*.*.*.*.*!")"), "expected at most 4 repetitions");
    CHECK_SENTENCE(parsed(q + R"(, "use_rslora": "yes")"), "use_rslora: expected true or false");
    CHECK_SENTENCE(parsed(q + R"(, "layers_to_transform": {"a": 1})"), "layers_to_transform: expected a number");
    CHECK_SENTENCE(parsed(q + R"(, "layers_pattern": "blocks")"), "layers_pattern: expected \"layers\"");
    CHECK_SENTENCE(parsed(q + R"(, "rank_pattern": [1])"), "rank_pattern: expected an object");
    CHECK_SENTENCE(parsed(q + R"(, "init_lora_weights": "pissa")"), "init_lora_weights: expected true, false");
    CHECK_SENTENCE(parsed(q + R"(, "init_lora_weights": "loftq")"), "found \"loftq\"");
    CHECK_SENTENCE(parsed(q + R"(, "use_dora": true)"), "use_dora: not implemented");
    CHECK_SENTENCE(parsed(q + R"(, "modules_to_save": ["lm_head"])"), "modules_to_save: not implemented");
    CHECK_SENTENCE(parsed(q + R"(, "bias": "all")"), "bias: expected \"none\"");
    CHECK_SENTENCE(parsed(q + R"(, "lora_alpha": "16")"), "lora_alpha: expected a number");
    for (const char* rank : {"0", "-1", "2.5", "1e300"})
        CHECK_SENTENCE(parsed(q + ", \"r\": " + rank), "r: expected a whole number from 1");
    CHECK_SENTENCE(parsed(q + R"(, "rank_pattern": {"q_proj": 0.5})"), "r: expected a whole number from 1");
    CHECK_SENTENCE(parsed(q + R"(, "rank_pattern": {"q_proj": "5"})"), "rank_pattern[\"q_proj\"]: expected a number");

    layer_route_config r;
    CHECK_SENTENCE(write_peft_config(r, backbone()), "none of the backbone's modules is named");
    r.lora = lora_options{};
    r.lora_by_module["model.layers.1.self_attn.q_proj"] = lora_options{.dropout = 0.5};
    CHECK_SENTENCE(write_peft_config(r, backbone()), "dropout and rank stabilisation of an adapter");
}

TEST_CASE("peft: gates are read back", "[io][peft]") {
    for (gate_pool pool : {gate_pool::sequence, gate_pool::prompt, gate_pool::last_prompt_token})
        for (gate_kind kind : {gate_kind::straight_through, gate_kind::hard_concrete})
            for (gate_scope scope : {gate_scope::block, gate_scope::attention, gate_scope::feed_forward})
                for (bool flag : {false, true}) {
                    const skip_gate_options o{.pool = pool,
                                              .kind = kind,
                                              .scope = scope,
                                              .threshold = 0.35,
                                              .skip_first_position = flag,
                                              .write_kv = !flag};
                    const auto json = parse_json(write_router_config(o, 0.01, 12), "written");
                    const skip_gate_options back = parse_router_config(json, "router_config.json", 12);
                    CHECK((back.pool == pool && back.kind == kind && back.scope == scope && back.threshold == 0.35));
                    CHECK((back.skip_first_position == flag && back.write_kv == !flag));
                    CHECK(json["gate_reg_weight"] == 0.01);
                }
    const auto parse = [](const char* text) {
        return parse_router_config(parse_json(text, "x"), "router_config.json", 12);
    };
    CHECK_SENTENCE(parse(R"({"num_layers": 24})"), "num_layers: expected 12 as in the backbone, found 24");
    CHECK_SENTENCE(parse(R"({"pool": "mean"})"),
                   "pool: expected one of sequence, prompt, last_prompt_token; found \"mean\"");
    CHECK_SENTENCE(parse(R"({"treshold": 0.5})"), "unknown key \"treshold\"; did you mean \"threshold\"?");
    CHECK_SENTENCE(parse(R"({"threshold": true})"), "threshold: expected a number");
    CHECK_SENTENCE(parse(R"({"write_kv": 1})"), "write_kv: expected true or false");
    CHECK_SENTENCE(parse(R"({"threshold": 7})"), "threshold: expected a number between 0 and 1, found 7");
}

}  // namespace spectral::test
