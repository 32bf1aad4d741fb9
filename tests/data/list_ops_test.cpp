// SPDX-License-Identifier: Apache-2.0
// tests/data/list_ops_test.cpp: the ListOps grammar, its evaluator, its generator and its splits
#include <spectral/data/list_ops.hpp>

#include "support/catch.hpp"

#include <set>

namespace list_ops_test {
using spectral::data_split;
using spectral::index;
using spectral::list_ops_options;
using spectral::row_index;

template <class Call>
std::string sentence(Call&& call) {
    try {
        call();
    } catch (const spectral::error& e) {
        return e.what();
    }
    return "no error";
}

row_index value(std::string_view text) { return spectral::evaluate_list_ops(spectral::parse_list_ops(text)); }

TEST_CASE("expressions worked by hand", "[data]") {
    CHECK(value("7") == 7);
    CHECK(value("[MAX 2 9 [MIN 4 7 ] 0 ]") == 9);
    CHECK(value("[MIN 5 3 8 ]") == 3);
    CHECK(value("[SM 9 9 9 ]") == 7);
    CHECK(value("[SM 5 5 ]") == 0);
    CHECK(value("[MED 1 9 2 ]") == 2);
    CHECK(value("[MED 1 2 ]") == 1);  // 1.5 rounded down
    CHECK(value("[MED 9 1 4 7 ]") == 5);  // (4 + 7) / 2 rounded down
    CHECK(value("[MED 3 ]") == 3);
    CHECK(value("[MAX [SM 4 4 4 ] [MED 8 1 1 ] [MIN 6 [MAX 5 3 ] ] ]") == 5);  // max(2, 1, 5)
    CHECK(value("[SM [SM [SM 1 2 ] 3 ] [MAX 0 9 ] ]") == 5);  // (6 + 9) mod 10
}

TEST_CASE("text and ids are two forms of one thing", "[data]") {
    const std::vector<row_index> ids{10, 2, 9, 11, 4, 7, 14, 0, 14};
    CHECK(spectral::list_ops_text(ids) == "[MAX 2 9 [MIN 4 7 ] 0 ]");
    CHECK(spectral::parse_list_ops("[MAX 2 9 [MIN 4 7 ] 0 ]") == ids);
    CHECK(spectral::parse_list_ops("  [MAX 2  9 [MIN 4 7 ] 0 ] ") == ids);
}

TEST_CASE("malformed expressions get a sentence", "[data]") {
    const auto parsed = [](std::string_view text) {
        return sentence([&] { spectral::parse_list_ops(text, "row 3"); });
    };
    CHECK(parsed("") == "row 3: expected an expression, found nothing");
    CHECK(parsed("   ") == "row 3: expected an expression, found nothing");
    CHECK(parsed("[MAX 1 [MOD 2 ] ]") ==
          "row 3: column 8: expected a digit, [MAX, [MIN, [MED, [SM or ], found \"[MOD\"");
    CHECK(parsed("[MAX 1 2]") == "row 3: column 8: expected a digit, [MAX, [MIN, [MED, [SM or ], found \"2]\"");
    CHECK(parsed("[MAX 10 ]") == "row 3: column 6: expected a digit, [MAX, [MIN, [MED, [SM or ], found \"10\"");
    CHECK(parsed("[MAX [MIN 1") == "row 3: expected \"]\" for 2 open lists, found the end of the expression");
    CHECK(parsed("[MAX [MIN ] ]") == "row 3: token 2: expected an argument of \"[MIN\", found \"]\"");
    CHECK(parsed("]") == "row 3: token 0: expected a digit or an operator, found \"]\" with no open list");
    CHECK(parsed("[MAX 1 ] 2") == "row 3: token 3: expected the end of the expression, found id 2");
    CHECK(parsed("[MAX 1 ] ]") == "row 3: token 3: expected the end of the expression, found id 14");
    CHECK(sentence([] {
              spectral::evaluate_list_ops(std::vector<row_index>{10, 15});
          }) == "list_ops: token 1: expected an id of 0 to 14, found 15");
    CHECK(sentence([] { spectral::evaluate_list_ops(std::vector<row_index>{-1}); }) ==
          "list_ops: token 0: expected an id of 0 to 14, found -1");
    // depth is bounded by memory, not by the call stack
    CHECK_THROWS_AS(spectral::evaluate_list_ops(std::vector<row_index>(1000000, spectral::list_max)), spectral::error);
}

TEST_CASE("generated expressions keep their limits and their labels", "[data]") {
    const auto limits = GENERATE(list_ops_options::flat(), list_ops_options::small(),
                                 list_ops_options{4, 2, 3, 10, 30, 0.5, true}, list_ops_options::long_range_arena());
    std::set<row_index> labels, operators;
    index deepest = 0, most = 0, fewest = 100;
    const index examples = limits.min_length > 100 ? 60 : 600;
    for (index n = 0; n < examples; ++n) {
        const auto e = spectral::make_list_ops(limits, 5, data_split::train, n);
        REQUIRE(static_cast<index>(e.ids.size()) >= limits.min_length);
        REQUIRE(static_cast<index>(e.ids.size()) <= limits.max_length);
        REQUIRE(spectral::parse_list_ops(spectral::list_ops_text(e.ids)) == e.ids);
        REQUIRE(spectral::evaluate_list_ops(e.ids) == e.label);
        labels.insert(e.label);
        std::vector<index> arguments{0};  // of the open lists
        for (row_index id : e.ids) {
            if (id != spectral::list_end) ++arguments.back();
            if (id >= spectral::list_max && id <= spectral::list_sm) {
                operators.insert(id);
                arguments.push_back(0);
                deepest = std::max(deepest, static_cast<index>(arguments.size()));
            } else if (id == spectral::list_end) {
                most = std::max(most, arguments.back());
                fewest = std::min(fewest, arguments.back());
                arguments.pop_back();
            }
        }
        REQUIRE(arguments == std::vector<index>{1});
    }
    CHECK(labels.size() == 10);
    CHECK(operators.size() == 4);
    CHECK(deepest == limits.max_depth);  // an operator whose digits stand at max_depth
    CHECK(most == limits.max_args);
    CHECK(fewest == limits.min_args);
}

TEST_CASE("example n is a pure function, and splits do not meet", "[data]") {
    const auto o = list_ops_options::flat();
    std::set<std::vector<row_index>> seen[3];
    for (auto split : {data_split::train, data_split::valid, data_split::test})
        for (index n = 0; n < 3000; ++n)
            seen[static_cast<int>(split)].insert(spectral::make_list_ops(o, 1, split, n).ids);
    for (int a = 0; a < 3; ++a)
        for (int b = 0; b < a; ++b)
            for (const auto& ids : seen[a]) REQUIRE(seen[b].count(ids) == 0);
    for (const auto& s : seen) CHECK(s.size() > 1500);  // short ones repeat inside a split

    const auto e = spectral::make_list_ops(o, 1, data_split::train, 77),
               again = spectral::make_list_ops(o, 1, data_split::train, 77);
    CHECK(e.ids == again.ids);
    CHECK(spectral::make_list_ops(o, 2, data_split::train, 77).ids != e.ids);
    CHECK(spectral::make_list_ops(o, 1, data_split::train, 78).ids != e.ids);
    auto shared = o;
    shared.disjoint = false;
    std::set<std::vector<row_index>> train, valid;
    for (index n = 0; n < 3000; ++n) {
        train.insert(spectral::make_list_ops(shared, 1, data_split::train, n).ids);
        valid.insert(spectral::make_list_ops(shared, 1, data_split::valid, n).ids);
    }
    index common = 0;
    for (const auto& ids : valid) common += static_cast<index>(train.count(ids));
    CHECK(common > 0);  // what `disjoint` is for
}

TEST_CASE("a generated value is pinned: the same on every compiler and in every version", "[data]") {
    const auto e = spectral::make_list_ops(list_ops_options::small(), 2024, data_split::train, 3);
    CHECK(spectral::list_ops_text(e.ids) == "[MED 9 9 8 [MIN 3 1 6 6 ] ]");
}

TEST_CASE("batches of expressions", "[data]") {
    spectral::list_ops_source source{
        .options = list_ops_options::small(), .seed = 4, .batch = 5, .evaluation_examples = 12};
    const spectral::list_ops_batches fresh(source);
    for (index step : {0, 9}) {
        const auto b = fresh.batch_at(step);
        REQUIRE_NOTHROW(check_batch(b, spectral::list_ops_vocabulary, spectral::list_ops_classes));
        CHECK(b.sequences() == 5);
        index row = 0;
        for (std::size_t s = 0; s < 5; ++s) {
            const auto e =
                spectral::make_list_ops(source.options, 4, data_split::train, 5 * step + static_cast<index>(s));
            CHECK(b.lengths[s] == static_cast<index>(e.ids.size()));
            CHECK(b.labels[s] == e.label);
            CHECK(std::equal(e.ids.begin(), e.ids.end(), b.ids.begin() + row));
            row += b.lengths[s];
        }
    }
    CHECK(fresh.evaluation_batches() == 3);
    CHECK(fresh.evaluation_at(data_split::test, 2).sequences() == 2);
    CHECK_THROWS_AS(fresh.evaluation_at(data_split::test, 3), spectral::error);

    source.train_examples = 10;  // two batches are an epoch
    const spectral::list_ops_batches epochs(source);
    std::multiset<index> first, second;
    for (index step = 0; step < 4; ++step)
        for (index n : epochs.batch_at(step).lengths) (step < 2 ? first : second).insert(n);
    CHECK(first == second);
    CHECK(epochs.batch_at(0) == spectral::list_ops_batches(source).batch_at(0));

    source.encode = [](std::string_view text) { return std::vector<row_index>(text.begin(), text.end()); };
    const auto b = spectral::list_ops_batches(source).batch_at(0);
    std::string text(b.ids.begin(), b.ids.begin() + b.lengths[0]);
    CHECK(value(text) == b.labels[0]);
}

TEST_CASE("options that cannot work are refused", "[data]") {
    const auto made = [](list_ops_options o) {
        return sentence([&] { spectral::make_list_ops(o, 0, data_split::train, 0); });
    };
    CHECK(made({1, 2, 10, 4, 12, 1, false}) == "list_ops options: max_depth: expected 2 to 1000, found 1");
    CHECK(made({2, 3, 2, 4, 12, 1, false}) ==
          "list_ops options: arguments: expected 1 <= min_args <= max_args, found 3 and 2");
    CHECK(made({2, 2, 3, 9, 8, 1, false}) ==
          "list_ops options: length: expected 1 <= min_length <= max_length, found 9 and 8");
    CHECK(made({2, 2, 3, 4, 8, 0, false}) ==
          "list_ops options: operator_probability: expected above 0 and at most 1, found 0");
    CHECK(made({2, 2, 3, 100, 200, 1, false}) ==
          "list_ops options: none of 1000000 expressions had 100 to 200 tokens: raise max_depth, max_args or the range "
          "of lengths");
}

}  // namespace list_ops_test
