// SPDX-License-Identifier: Apache-2.0
// tests/models/causality_test.cpp: no position sees a later one, no sequence sees another, except where it is said so
#include "model_test.hpp"

namespace spectral::test::causality_test {

namespace {
// The largest change of the logits at positions up to t when the tokens after t change, and at the position after t.
struct reaction {
    double before = 0, after = 0;
};
template <class Target>
reaction change_after(const chiar_config& c, index t) {
    constexpr index B = 2, time = 9;
    reaction r;
    with_model<Target>(c, [&](auto& model) {
        auto ids = random_ids(B * time, c.vocab_size, 1);
        const auto first = logits_of(model, ids, B);
        for (index s = 0; s < B; ++s)
            for (index u = t + 1; u < time; ++u) {
                auto& id = ids[static_cast<std::size_t>(s * time + u)];
                id = static_cast<row_index>((id + 7) % c.vocab_size);
            }
        const auto second = logits_of(model, ids, B);
        for (index n = 0; n < B * time; ++n)
            for (index v = 0; v < c.vocab_size; ++v) {
                const auto at = static_cast<std::size_t>(n * c.vocab_size + v);
                double& where = n % time <= t ? r.before : r.after;
                where = std::max(where, std::abs(first[at] - second[at]));
            }
    });
    return r;
}

// nats of the first sequence of a batch
template <class Target>
double nats_of_first(const chiar_config& c, const std::vector<index>& lengths, phase ph) {
    double nats = 0;
    with_model<Target>(c, [&](auto& model) {
        batch b = language_batch(lengths, c.vocab_size, 40);
        std::fill(b.targets.begin() + lengths.front(), b.targets.end(), -1);
        nats = model.run(b, ph).nats;
    });
    return nats;
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("models: later tokens change nothing before them", "[models][causality]", model_targets) {
    for (const auto& [name, c] : causal_configs())
        for (index t : {0, 3, 7}) {
            const auto r = change_after<TestType>(c, t);
            INFO(name << ", tokens after " << t << " on " << TestType::executor_name());
            CHECK(r.before <= model_tolerance<typename TestType::scalar>({10.0}));
            CHECK(r.after > 0.1);
        }
}

// What a test of this kind must find: means over whole sequences or batches, and the unmasked kernel of v1.
TEMPLATE_LIST_TEST_CASE("models: batch and sequence pooling and the bidirectional RBF see later tokens",
                        "[models][causality]", model_targets) {
    for (meta_pool pool : {meta_pool::batch, meta_pool::sequence}) {
        auto c = tiny_config();
        c.meta_pool = pool;
        CHECK(change_after<TestType>(c, 3).before > 1e-3);
    }
    auto c = tiny_config();
    c.architecture = architecture::v1;
    c.layer_variant = layer_variant::dct_rbf_attn;
    c.rbf_causal = false;
    CHECK(change_after<TestType>(c, 3).before > 1e-3);
}

TEMPLATE_LIST_TEST_CASE("models: a sequence does not depend on its batch mates", "[models][causality]", model_targets) {
    auto configs = causal_configs();
    configs.push_back({"v3, sequence pooling", tiny_config()});
    configs.back().config.meta_pool = meta_pool::sequence;
    for (const auto& [name, c] : configs)
        for (phase ph : {phase::evaluation, phase::training}) {
            INFO(name << (ph == phase::training ? ", training" : ", evaluation") << " on "
                      << TestType::executor_name());
            const double alone = nats_of_first<TestType>(c, {5}, ph);
            CHECK(nats_of_first<TestType>(c, {5, 9, 1, 12}, ph) ==
                  Approx(alone).epsilon(model_tolerance<typename TestType::scalar>({1.0})));
        }
    auto c = tiny_config();
    c.meta_pool = meta_pool::batch;
    const double alone = nats_of_first<TestType>(c, {5}, phase::evaluation);
    CHECK(std::abs(nats_of_first<TestType>(c, {5, 9, 1, 12}, phase::evaluation) - alone) >
          1e-3);  // the reference's pooling does
}

}  // namespace spectral::test::causality_test
