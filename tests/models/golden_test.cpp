// SPDX-License-Identifier: Apache-2.0
// tests/models/golden_test.cpp: whole models against numbers of the authors' PyTorch code (float64)
//
// The operators by themselves; of models logits, loss, every gradient, gates and routes, the losses of three AdamW
// steps and the parameters after them. ‖difference‖ / ‖value‖ per tensor: 1e-9 in double, 1e-4 in float. The files are
// described in tests/golden/README.md.
#include "support/golden.hpp"
#include "support/executors.hpp"

#include <spectral/io/json.hpp>
#include <spectral/io/mapped_file.hpp>
#include <spectral/io/weights.hpp>
#include <spectral/layers/identity_mixer.hpp>
#include <spectral/layers/rbf_mixer.hpp>
#include <spectral/models/chiar_former.hpp>
#include <spectral/models/full_attention.hpp>
#include <spectral/train/adamw.hpp>

namespace spectral::test::golden_test {
namespace {

template <class T>
constexpr double tolerance = std::is_same_v<T, float> ? 1e-4 : 1e-9;

std::vector<double> widen(const auto& v) { return {v.begin(), v.end()}; }

// ‖got − want‖ / ‖want‖; a tensor that is all rounding (dct_mix.w[0]: the norm removes it) is held against `floor`.
void check_close(const std::vector<double>& got, const std::vector<double>& want, double bound, const std::string& what,
                 double floor = 0) {
    INFO(what);
    REQUIRE(got.size() == want.size());
    double difference = 0, size = floor * floor;
    for (std::size_t i = 0; i < got.size(); ++i) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
    }
    INFO("relative difference " << std::sqrt(difference / size));
    CHECK(std::sqrt(difference) <= bound * std::sqrt(size));
}

chiar_config config_of(const safetensors_file& f) {
    const auto& m = f.metadata();
    chiar_config c;
    c.vocab_size = std::stoll(m.at("V"));
    c.d_model = std::stoll(m.at("d"));
    c.n_heads = std::stoll(m.at("h"));
    c.n_layers = std::stoll(m.at("L"));
    c.max_seq_len = std::stoll(m.at("T"));
    c.dropout = 0;
    c.dct_norm = dct_norm::reference;
    const std::string mode = m.at("routing");
    c.routing_mode = mode == "soft"   ? routing_mode::soft
                     : mode == "hard" ? routing_mode::hard
                                      : routing_mode::threshold;
    if (mode == "none") c.model_type = "full_attention";
    if (m.count("tau")) {
        const auto tau = parse_json(m.at("tau"), f.name());
        if (tau.is_array())
            for (const auto& t : tau)
                c.tau.push_back(t.is_null() ? std::nullopt : std::optional<double>(t.get<double>()));
        else
            c.tau = {tau.get<double>()};
    }
    if (m.count("lambda_reg")) c.lambda_reg = std::stod(m.at("lambda_reg"));
    c.use_collapse_reg = m.count("collapse_reg") && m.at("collapse_reg") == "True";
    c.collapse_reg_detached = true;
    if (m.count("num_classes")) {
        c.model_type = "chiar_classifier";
        c.num_classes = std::stoll(m.at("num_classes"));
    }
    return c;
}

std::vector<row_index> ids_of(const safetensors_file& f, const char* name) { return f.read<row_index>(name); }

// ids (B, T+1): inputs without the last, targets without the first
batch language_batch(const safetensors_file& f) {
    const auto ids = ids_of(f, "ids");
    const index B = f.at("ids").shape[0], T = f.at("ids").shape[1] - 1;
    batch b;
    b.lengths.assign(static_cast<std::size_t>(B), T);
    for (index s = 0; s < B; ++s)
        for (index t = 0; t < T; ++t) {
            b.ids.push_back(ids[static_cast<std::size_t>(s * (T + 1) + t)]);
            b.targets.push_back(ids[static_cast<std::size_t>(s * (T + 1) + t + 1)]);
        }
    return b;
}

bool absent(const safetensors_file& f, const std::string& parameter) {
    return left_out("grad." + parameter) && !f.contains("grad." + parameter);
}

template <class Model>
void check_gradients(Model& model, const safetensors_file& f, double bound) {
    double largest_norm = 0;
    for (const auto& [name, p] : model.parameters.named()) {
        if (absent(f, name)) continue;
        double n = 0;
        for (double g : f.read<double>("grad." + name)) n += g * g;
        largest_norm = std::max(largest_norm, std::sqrt(n));
    }
    for (const auto& [name, p] : model.parameters.named())
        if (!absent(f, name))
            check_close(widen(to_host(model.ex, p->grad)), f.read<double>("grad." + name), bound, "gradient of " + name,
                        1e-3 * largest_norm);
}

template <class Target, template <class, class> class Model>
void check_language_model(const std::filesystem::path& path) {
    using Exec = typename Target::executor;
    using T = typename Target::scalar;
    INFO(path.string() << " on " << Target::executor_name() << ", " << scalar_name<T>);
    const safetensors_file f(path);
    auto& ex = Target::instance();
    Model<Exec, T> model{ex, config_of(f)};
    load_weights(ex, model.parameters, f, weight_selection::prefixed("param."));
    const batch b = language_batch(f);
    const double bound = tolerance<T>;

    route_trace trace;
    model.trace = &trace;
    const auto logits = to_host(ex, model.forward(b.ids, b.sequences()));
    check_close(widen(logits), f.read<double>("logits"), bound, "logits");
    trace = route_trace();

    model.parameters.zero_gradients();
    const batch_result r = model.run(b, phase::training);
    CHECK(r.nats / static_cast<double>(r.targets) == Approx(f.read<double>("ce")[0]).epsilon(bound));
    CHECK(r.loss == Approx(f.read<double>("loss")[0]).epsilon(bound));
    if (f.contains("meta_gate")) CHECK(trace.meta_gate.at(0) == Approx(f.read<double>("meta_gate")[0]).epsilon(bound));
    for (const auto& [layer, routes] : trace.layers) {
        const std::string prefix = "routing." + std::to_string(layer) + ".";
        if (model.config.baseline()) continue;  // its trace holds entropies for calibration only
        check_close(routes.entropy, f.read<double>(prefix + "entropy"), bound, prefix + "entropy");
        check_close(routes.gates, f.read<double>(prefix + "gates"), bound, prefix + "gates");
        CHECK(routes.op == ids_of(f, (prefix + "op").c_str()));
    }
    check_gradients(model, f, bound);

    model.trace = nullptr;
    adamw<Exec, T> optimizer(ex, model.parameters);
    const auto losses = f.read<double>("losses");
    const adamw_options options{.learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.01};
    for (std::size_t i = 0; i < losses.size(); ++i) {
        model.parameters.zero_gradients();
        CHECK(model.run(b, phase::training).loss == Approx(losses[i]).epsilon(bound));
        const double norm = optimizer.step(options, 1.0);
        if (i == 0) CHECK(norm == Approx(f.read<double>("grad_norm")[0]).epsilon(bound));
    }
    if (f.contains("after3.norm.weight") &&
        std::is_same_v<T, double>)  // float: rounding of tiny gradients decides Adam's sign
        for (const auto& [name, p] : model.parameters.named())
            check_close(widen(to_host(ex, p->value)), f.read<double>("after3." + name), 1e-8,
                        "after three steps: " + name);
}

template <class Target>
void check_classifier(const std::filesystem::path& path) {
    using T = typename Target::scalar;
    INFO(path.string() << " on " << Target::executor_name() << ", " << scalar_name<T>);
    const safetensors_file f(path);
    auto& ex = Target::instance();
    chiar_former<typename Target::executor, T> model{ex, config_of(f)};
    load_weights(ex, model.parameters, f, weight_selection::prefixed("param."));
    batch b;
    b.lengths.assign(static_cast<std::size_t>(f.at("ids").shape[0]), f.at("ids").shape[1]);
    b.ids = ids_of(f, "ids");
    b.labels = ids_of(f, "labels");
    check_close(widen(to_host(ex, model.forward(b.ids, b.sequences()))), f.read<double>("logits"), tolerance<T>,
                "logits");
    model.parameters.zero_gradients();
    CHECK(model.run(b, phase::training).loss == Approx(f.read<double>("loss")[0]).epsilon(tolerance<T>));
    check_gradients(model, f, tolerance<T>);
}

// One v1 mixer with its own feed-forward: y, dx and its parameters' gradients
template <class Target, class Op>
void check_mixer(const std::filesystem::path& path) {
    using Exec = typename Target::executor;
    using T = typename Target::scalar;
    INFO(path.string() << " on " << Target::executor_name() << ", " << scalar_name<T>);
    const safetensors_file f(path);
    auto& ex = Target::instance();
    const index B = f.at("x").shape[0], time = f.at("x").shape[1], C = f.at("x").shape[2];
    Op op(operator_config<Exec, T>{
        .width = C, .heads = 1, .dct_norm = dct_norm::reference, .own_feed_forward = true, .rbf_causal = false});
    parameter_store<Exec, T> store(ex, op);
    load_weights(ex, store, f, weight_selection::prefixed("param."));

    arena_scope scratch(ex);
    pass<Exec, T> p{.ex = ex, .rows = uniform_rows(ex, B, time), .phase = phase::training};
    auto x = p.matrix(B * time, C), dy = p.matrix(B * time, C), y = p.matrix(B * time, C), dx = p.zeros(B * time, C);
    const auto fill = [&](matrix_view<T> v, const char* name) {
        const auto host = f.read<T>(name);
        ex.copy_from_host(v.data, host.data(), host.size() * sizeof(T));
    };
    fill(x, "x");
    fill(dy, "dy");
    typename Op::saved s;
    op.forward(p, x, selection::all(B * time), y, s);
    op.backward(p, dy, dx, s);
    check_close(widen(to_host(ex, y)), f.read<double>("y"), tolerance<T>, "y");
    check_close(widen(to_host(ex, dx)), f.read<double>("dx"), tolerance<T>, "dx");
    for (const auto& [name, q] : store.named())
        if (q->trainable && !absent(f, name))
            check_close(widen(to_host(ex, q->grad)), f.read<double>("grad." + name), tolerance<T>,
                        "gradient of " + name);
}

// The transform, the filter and the entropy, forward and backward, under both conventions
template <class Target>
void check_operators(const std::filesystem::path& path) {
    using T = typename Target::scalar;
    INFO(path.string() << " on " << Target::executor_name() << ", " << scalar_name<T>);
    const safetensors_file f(path);
    auto& ex = Target::instance();
    arena_scope scratch(ex);
    const index C = f.at("w").shape[0], N = f.at("dH").shape[0] * f.at("dH").shape[1];
    const auto matrix = [&](const char* name) {
        auto v = ex.memory().template matrix<T>(N, C);
        const auto host = f.read<T>(name);
        ex.copy_from_host(v.data, host.data(), host.size() * sizeof(T));
        return v;
    };
    const auto vector = [&](const char* name, index n) {
        auto v = ex.memory().template vector<T>(n);
        const auto host = f.read<T>(name);
        ex.copy_from_host(v.data, host.data(), host.size() * sizeof(T));
        return v;
    };
    const auto x = matrix("x"), dy = matrix("dy");
    const auto w = vector("w", C), dH = vector("dH", N);
    for (const auto& convention :
         {std::pair<std::string, dct_norm>{"reference.", dct_norm::reference}, {"ortho.", dct_norm::ortho}}) {
        const auto& prefix = convention.first;
        const auto norm = convention.second;
        auto y = ex.memory().template matrix<T>(N, C), dx = ex.memory().template zeros<T, 2>({N, C});
        auto dw = ex.memory().template zeros<T, 1>({C}), entropy = ex.memory().template vector<T>(N);
        const auto same = [&](auto got, const std::string& name) {
            check_close(widen(to_host(ex, got)), f.read<double>(prefix + name), tolerance<T>, prefix + name);
        };
        dct_forward<typename Target::executor, T>(ex, x, norm, y);
        same(y, "dct");
        spectral_filter_forward<typename Target::executor, T>(ex, x, w, norm, y);
        same(y, "filtered");
        spectral_filter_backward<typename Target::executor, T>(ex, dy, x, w, norm, dx, dw);
        same(dx, "filtered.dx");
        same(dw, "filtered.dw");
        spectral_entropy_forward<typename Target::executor, T>(ex, x, norm, entropy);
        same(entropy, "entropy");
        dx = ex.memory().template zeros<T, 2>({N, C});
        spectral_entropy_backward<typename Target::executor, T>(ex, dH, x, norm, dx);
        same(dx, "entropy.dx");
    }
}

template <class Exec, class T>
using chiar = chiar_former<Exec, T>;
template <class Exec, class T>
using baseline = full_attention<Exec, T>;

}  // namespace

// Every file of tests/golden/ stands in the first column of its README.md, and nothing else does.
TEST_CASE("golden: the README lists the files", "[golden]") {
    std::set<std::string> listed, there;
    std::istringstream text(read_text_file(small_golden_dir() / "README.md"));
    for (std::string line; std::getline(text, line);) {
        if (!line.starts_with("| a/") && !line.starts_with("| text/")) continue;
        std::istringstream names(line.substr(2, line.find(" |", 2) - 2));
        for (std::string name; names >> name;)
            listed.insert(name.ends_with(',') ? name.substr(0, name.size() - 1) : name);
    }
    for (const auto& entry : std::filesystem::recursive_directory_iterator(small_golden_dir()))
        if (entry.is_regular_file()) there.insert(entry.path().lexically_relative(small_golden_dir()).generic_string());
    REQUIRE(there.erase("README.md") == 1);
    CHECK(listed == there);
}

TEMPLATE_LIST_TEST_CASE("golden: operators", "[golden]", targets) {
    for_each_golden("operators.safetensors", check_operators<TestType>);
}
TEMPLATE_LIST_TEST_CASE("golden: threshold routing", "[golden]", targets) {
    for_each_golden("chiar_threshold.safetensors", check_language_model<TestType, chiar>);
}
TEMPLATE_LIST_TEST_CASE("golden: soft routing", "[golden]", targets) {
    for_each_full_golden("chiar_soft.safetensors", check_language_model<TestType, chiar>);
}
TEMPLATE_LIST_TEST_CASE("golden: hard routing", "[golden]", targets) {
    for_each_golden("chiar_hard.safetensors", check_language_model<TestType, chiar>);
}
TEMPLATE_LIST_TEST_CASE("golden: soft routing, collapse regulariser", "[golden]", targets) {
    for_each_full_golden("chiar_soft_reg.safetensors", check_language_model<TestType, chiar>);
}
TEMPLATE_LIST_TEST_CASE("golden: full attention", "[golden]", targets) {
    for_each_full_golden("baseline_full_attention.safetensors", check_language_model<TestType, baseline>);
}
TEMPLATE_LIST_TEST_CASE("golden: classifier", "[golden]", targets) {
    for_each_full_golden("chiar_classifier.safetensors", check_classifier<TestType>);
}
TEMPLATE_LIST_TEST_CASE("golden: DCT mixer of v1", "[golden]", targets) {
    for_each_golden("dct_mix_v1.safetensors",
                    check_mixer<TestType, dct_mixer<typename TestType::executor, typename TestType::scalar>>);
}
TEMPLATE_LIST_TEST_CASE("golden: RBF mixer of v1", "[golden]", targets) {
    for_each_golden("rbf_mix_v1.safetensors",
                    check_mixer<TestType, rbf_mixer<typename TestType::executor, typename TestType::scalar>>);
}

}  // namespace spectral::test::golden_test
