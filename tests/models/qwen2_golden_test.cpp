// SPDX-License-Identifier: Apache-2.0
// tests/models/qwen2_golden_test.cpp: Qwen2, PEFT adapters and LayerRoute's gates against Transformers, PEFT and the
// authors
//
// Transformers computes norms, rotary tables and softmax in float inside a float64 model: double agrees to 1e-6
// (logits, losses) and 1e-5 (gradients); float to 1e-4. Gradients of blocks that every sequence skipped are exactly 0,
// so they are held against the file's largest.
#include "support/executors.hpp"
#include "support/golden.hpp"

#include <spectral/io/model_files.hpp>
#include <spectral/io/weight_files.hpp>
#include <spectral/models/qwen2.hpp>

namespace spectral::test::qwen2_golden_test {
namespace {

template <class T>
constexpr double value_bound = std::is_same_v<T, float> ? 1e-4 : 1e-6;
template <class T>
constexpr double gradient_bound = std::is_same_v<T, float> ? 1e-3 : 1e-5;

double norm_of(const std::vector<double>& v) {
    double sum = 0;
    for (double x : v) sum += x * x;
    return std::sqrt(sum);
}
void check_close(const auto& got, const std::vector<double>& want, double bound, const std::string& what,
                 double floor = 0) {
    INFO(what);
    REQUIRE(got.size() == want.size());
    std::vector<double> difference(want);
    for (std::size_t i = 0; i < want.size(); ++i) difference[i] -= static_cast<double>(got[i]);
    INFO("difference " << norm_of(difference) << " of " << norm_of(want));
    CHECK(norm_of(difference) <= bound * std::max(norm_of(want), floor));
}

// every next token inside the sequence is a target
batch next_tokens(const safetensors_file& f) {
    batch b;
    b.ids = f.read<row_index>("ids");
    const index B = f.at("ids").shape[0], time = f.at("ids").shape[1];
    b.lengths.assign(static_cast<std::size_t>(B), time);
    for (index i = 0; i < B * time; ++i)
        b.targets.push_back(i % time + 1 < time ? b.ids[static_cast<std::size_t>(i + 1)] : -1);
    return b;
}

template <class Target>
struct loaded {
    using Exec = typename Target::executor;
    using T = typename Target::scalar;
    Exec& ex = Target::instance();
    std::unique_ptr<qwen2<Exec, T>> model;

    loaded(const std::filesystem::path& folder, bool adapter, const safetensors_file* router) {
        typename qwen2_stack<Exec, T>::config_type c{read_qwen2_config(folder / "qwen2_tiny" / "config.json"), {}};
        if (adapter)
            c.route.lora_by_module = parse_peft_config(
                read_json_file(folder / "qwen2_tiny_lora" / "adapter_config.json"), "adapter_config.json", c.backbone);
        if (adapter) c.route.lora = lora_options{};
        if (router) c.route.gates = skip_gate_options{.pool = gate_pool::sequence};
        model = std::make_unique<qwen2<Exec, T>>(ex, c);
        weight_selection backbone{.holds = is_backbone}, adapters{.holds = is_adapter, .stored_as = peft_name},
            routers{.holds = is_router};
        routers.only = false;
        load_weights(ex, model->parameters, weight_files(folder / "qwen2_tiny"), backbone);
        if (adapter)
            load_weights(ex, model->parameters,
                         safetensors_file(folder / "qwen2_tiny_lora" / "adapter_model.safetensors"), adapters);
        if (router) load_weights(ex, model->parameters, *router, routers);
    }
};

// f(folder, file); the repository has LayerRoute's, which runs the backbone, the adapter and the gates
template <class F>
void with_golden(const std::string& file, F&& f) {
    const auto each = [&](const std::filesystem::path& path) {
        INFO(path.string());
        f(path.parent_path(), safetensors_file(path));
    };
    file == "layerroute.safetensors" ? for_each_golden(file, each) : for_each_full_golden(file, each);
}

template <class Model>
void check_gradients(Model& model, const safetensors_file& f, double bound) {
    double largest = 0;
    for (const auto& [name, p] : model.parameters.named())
        if (p->trainable)
            largest = std::max(largest, norm_of(f.read<double>("grad." + (is_adapter(name) ? peft_name(name) : name))));
    for (const auto& [name, p] : model.parameters.named()) {
        if (!p->trainable) {
            CHECK(p->grad.data == nullptr);  // a frozen weight has no gradient
            continue;
        }
        check_close(to_host(model.ex, p->grad), f.read<double>("grad." + (is_adapter(name) ? peft_name(name) : name)),
                    bound, "gradient of " + name, 1e-2 * largest);
    }
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("golden: Qwen2 logits", "[golden]", targets) {
    with_golden("qwen2_logits.safetensors", [](const auto& folder, const safetensors_file& f) {
        loaded<TestType> l(folder, false, nullptr);
        const batch b = next_tokens(f);
        check_close(to_host(l.ex, l.model->forward(b.ids, b.sequences())), f.read<double>("logits"),
                    value_bound<typename TestType::scalar>, "logits");
    });
}

TEMPLATE_LIST_TEST_CASE("golden: PEFT adapter", "[golden]", targets) {
    with_golden("peft_lora.safetensors", [](const auto& folder, const safetensors_file& f) {
        using T = typename TestType::scalar;
        loaded<TestType> l(folder, true, nullptr);
        const batch b = next_tokens(f);
        check_close(to_host(l.ex, l.model->forward(b.ids, b.sequences())), f.read<double>("logits"), value_bound<T>,
                    "logits");
        CHECK(l.model->run(b, phase::training).loss == Approx(f.read<double>("loss")[0]).epsilon(value_bound<T>));
        check_gradients(*l.model, f, gradient_bound<T>);
    });
}

TEMPLATE_LIST_TEST_CASE("golden: LayerRoute", "[golden]", targets) {
    with_golden("layerroute.safetensors", [](const auto& folder, const safetensors_file& f) {
        using T = typename TestType::scalar;
        loaded<TestType> l(folder, true, &f);
        l.model->stack.objective = mean_gate_objective(std::stod(f.metadata().at("gate_reg_weight")));
        const batch b = next_tokens(f);
        check_close(to_host(l.ex, l.model->forward(b.ids, b.sequences())), f.read<double>("logits"), value_bound<T>,
                    "logits");
        const batch_result r = l.model->run(b, phase::training);
        CHECK(r.nats / static_cast<double>(r.targets) == Approx(f.read<double>("lm_loss")[0]).epsilon(value_bound<T>));
        CHECK(r.loss == Approx(f.read<double>("loss")[0]).epsilon(value_bound<T>));
        check_close(l.model->gates().soft, f.read<double>("soft_gates"), value_bound<T>, "soft gates");
        check_close(l.model->gates().hard, f.read<double>("hard_gates"), value_bound<T>, "hard gates");
        check_gradients(*l.model, f, gradient_bound<T>);
    });
}

}  // namespace spectral::test::qwen2_golden_test
