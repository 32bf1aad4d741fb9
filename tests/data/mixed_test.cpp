// SPDX-License-Identifier: Apache-2.0
// tests/data/mixed_test.cpp: shares, order and resuming of interleaved tasks
#include <spectral/data/mixed.hpp>

#include "support/catch.hpp"

namespace mixed_test {
using spectral::index;
using spectral::mixed_batches;
using spectral::row_index;

// a batch that names its task and its step
spectral::mixed_task task(const std::string& name, double weight, row_index mark) {
    return {name, weight, [mark](index step) {
                return spectral::batch{{2}, {mark, static_cast<row_index>(step)}, {}, {0}, "unnamed"};
            }};
}

template <class Call>
std::string sentence(Call&& call) {
    try {
        call();
    } catch (const spectral::error& e) {
        return e.what();
    }
    return "no error";
}

TEST_CASE("shares hold exactly in every round, and no task skips or repeats a step", "[data]") {
    const mixed_batches data({task("lm", 0.5, 0), task("list_ops", 0.3, 1), task("imdb", 0.2, 2)}, 7);
    CHECK(data.steps_per_round(0) == 120);
    CHECK(data.steps_per_round(1) == 72);
    CHECK(data.steps_per_round(2) == 48);
    const std::string names[] = {"lm", "list_ops", "imdb"};
    index next[3] = {0, 0, 0};
    for (index step = 0; step < 3 * mixed_batches::round; ++step) {
        const auto b = data.batch_at(step);
        const row_index which = b.ids[0];
        CHECK(b.ids[1] == next[which]++);
        CHECK(b.task == names[which]);
        if ((step + 1) % mixed_batches::round == 0) {
            const index rounds = (step + 1) / mixed_batches::round;
            CHECK(next[0] == 120 * rounds);
            CHECK(next[1] == 72 * rounds);
            CHECK(next[2] == 48 * rounds);
        }
    }
}

TEST_CASE("shares that do not divide the round are rounded and add up", "[data]") {
    const mixed_batches sevenths({task("a", 3, 0), task("b", 3, 1), task("c", 1, 2)}, 0);
    CHECK(sevenths.steps_per_round(0) == 103);  // 102.86, 102.86, 34.29: two units go to the largest remainders
    CHECK(sevenths.steps_per_round(1) == 103);
    CHECK(sevenths.steps_per_round(2) == 34);
    const mixed_batches alone({task("a", 0.01, 0)}, 0);
    CHECK(alone.at(1000) == spectral::mixed_step{0, 1000});
}

TEST_CASE("tasks are mixed, differently for rounds and seeds, and a step is a pure function", "[data]") {
    const auto make = [](std::uint64_t seed) { return mixed_batches({task("a", 1, 0), task("b", 1, 1)}, seed); };
    const auto data = make(3), again = make(3), other = make(4);
    int changes = 0, rounds_differ = 0, seeds_differ = 0;
    for (index step = 0; step < 240; ++step) {
        changes += step > 0 && data.at(step).task != data.at(step - 1).task;
        rounds_differ += data.at(step).task != data.at(step + 240).task;
        seeds_differ += data.at(step).task != other.at(step).task;
    }
    // half of 240 independent coin flips, +- 5 standard deviations
    for (int n : {changes, rounds_differ, seeds_differ}) CHECK(std::abs(n - 120) < 39);
    for (index step : {479, 5, 240, 0}) CHECK(data.at(step) == again.at(step));
}

TEST_CASE("weights and tasks that cannot work are refused", "[data]") {
    CHECK(sentence([] { mixed_batches({}, 0); }) == "mixed tasks: expected at least one task, found none");
    CHECK(sentence([] { mixed_batches({task("a", 0, 0)}, 0); }) ==
          "mixed tasks: weight of \"a\": expected above 0, found 0");
    CHECK(sentence([] { mixed_batches({task("a", std::nan(""), 0)}, 0); }) ==
          "mixed tasks: weight of \"a\": expected above 0, found nan");
    CHECK(sentence([] {
              mixed_batches({task("a", 1000, 0), task("b", 1, 0)}, 0);
          }).find("mixed tasks: weight of \"b\": expected at least one step in 240, found a share of") == 0);
    CHECK(sentence([] { mixed_batches({{"a", 1, {}}}, 0); }) == "mixed tasks: task \"a\" has no batches");
    CHECK_THROWS_AS(mixed_batches({task("a", 1, 0)}, 0).at(-1), spectral::error);
}

}  // namespace mixed_test
