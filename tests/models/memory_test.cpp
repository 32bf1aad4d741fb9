// SPDX-License-Identifier: Apache-2.0
// tests/models/memory_test.cpp: after the first step a model asks its executor, and the heap, for no more memory
#include "model_test.hpp"

#include <spectral/train/adamw.hpp>

#include <atomic>
#include <cstdlib>
#include <new>

#if SPECTRAL_TEST_CPU
namespace {
std::atomic<long> heap_requests{0};
}  // namespace

// Every request of this program to the heap is counted. Eigen's packing buffers come from malloc: they are not in the
// count.
void* operator new(std::size_t bytes) {
    ++heap_requests;
    if (void* p = std::malloc(bytes ? bytes : 1)) return p;
    throw std::bad_alloc{};
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
#endif

namespace spectral::test::memory_test {

namespace {
// wide and long enough that a step needs several blocks of the arena (1 MiB at least) while it is new
chiar_config larger_config() {
    auto c = tiny_config();
    c.vocab_size = 101;
    c.d_model = 32;
    c.n_heads = 4;
    c.max_seq_len = 64;
    return c;
}

// allocations during f() for every one of steps 2 to 5
template <class Exec, class F>
void check_steady(Exec& ex, const std::string& about, F&& f) {
    f(0);
    const auto before = ex.allocations();
    for (int step = 1; step < 5; ++step) f(step);
    INFO(about);
    CHECK(ex.allocations() == before);
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("models: no allocation after the first step", "[models][memory]", model_targets) {
    auto& ex = TestType::instance();
    for (const named_config& entry : causal_configs()) {
        auto c = entry.config;
        const auto shape = larger_config();
        c.vocab_size = shape.vocab_size, c.d_model = shape.d_model, c.n_heads = shape.n_heads,
        c.max_seq_len = shape.max_seq_len;
        c.dropout = 0.1;
        with_model<TestType>(c, [&](auto& model) {
            const auto& about = entry.name;
            adamw optimizer(ex, model.parameters);
            const batch b = language_batch({60, 31, 7}, c.vocab_size, 5);
            check_steady(ex, about + ", training", [&](int) {
                model.step = 0;  // the same dropout masks
                model.parameters.zero_gradients();
                model.run(b, phase::training);
                optimizer.step({.learning_rate = 1e-5}, 1.0);  // the routes stay as they are, and so do the sizes
            });
            check_steady(ex, about + ", evaluation", [&](int) { model.run(b, phase::evaluation); });
            const auto ids = random_ids(60, c.vocab_size, 3);
            check_steady(ex, about + ", inference", [&](int) { model.forward(ids, 2); });
            auto state = model.stack.make_decode_state(ex, 2, 32);
            const std::vector<index> prompt{9, 9}, next{1, 1};
            model.decode(std::span<const row_index>(ids).first(18), prompt, state);
            check_steady(ex, about + ", decoding", [&](int step) {
                model.decode(std::span<const row_index>(ids).subspan(static_cast<std::size_t>(2 * step), 2), next,
                             state);
            });
        });
    }
}

#if SPECTRAL_TEST_CPU
// A training step on the CPU: the second grows what the first began, the third asks for nothing.
TEST_CASE("models: a training step asks the heap for nothing", "[models][memory]") {
    cpu::executor ex(2);
    chiar_config c = larger_config();
    c.dropout = 0.1;
    chiar_former<cpu::executor, float> model(ex, c);
    model.parameters.initialize(3);
    adamw optimizer(ex, model.parameters);
    const batch b = language_batch({60, 31, 7}, c.vocab_size, 5);
    const auto requests_of_a_step = [&] {
        const long before = heap_requests;
        model.parameters.zero_gradients();
        model.run(b, phase::training);
        optimizer.step({.learning_rate = 1e-5}, 1.0);
        return heap_requests - before;
    };
    CHECK(requests_of_a_step() > 0);
    requests_of_a_step();
    CHECK(requests_of_a_step() == 0);
}
#endif

// The arena is empty between calls, whatever ran: two models may share an executor and take turns.
TEMPLATE_LIST_TEST_CASE("models: results outlive another model's call", "[models][memory]", model_targets) {
    auto& ex = TestType::instance();
    const auto c = tiny_config();
    const auto ids = random_ids(12, c.vocab_size, 3);
    with_model<TestType>(c, [&](auto& one) {
        with_model<TestType>(c, [&](auto& two) {
            randomize(two, 1);
            const auto view_of_one = one.forward(ids, 2);
            const auto kept = to_host(ex, view_of_one);
            const auto view_of_two = two.forward(ids, 2);
            CHECK(to_host(ex, view_of_one) == kept);
            CHECK(to_host(ex, view_of_two) != kept);
            one.run(language_batch({5}, c.vocab_size, 1), phase::training);
            CHECK(to_host(ex, view_of_one) == kept);
            const auto mark = ex.memory().mark();
            CHECK((mark.block == 0 && mark.used == 0));
        });
    });
}

// An error in the middle of a call leaves the arena empty and the model usable.
TEST_CASE("models: after an error", "[models][memory]") {
    const auto c = tiny_config();
    with_model<oracle>(c, [&](auto& model) {
        const auto ids = random_ids(12, c.vocab_size, 3);
        const auto want = logits_of(model, ids, 2);
        auto bad = ids;
        bad[3] = -1;
        CHECK_THROWS_AS(model.forward(bad, 2), error);
        const auto mark = model.ex.memory().mark();
        CHECK((mark.block == 0 && mark.used == 0));
        CHECK(logits_of(model, ids, 2) == want);
    });
}

}  // namespace spectral::test::memory_test
