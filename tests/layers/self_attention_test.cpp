// SPDX-License-Identifier: Apache-2.0
// tests/layers/self_attention_test.cpp: attention with rotary positions, both key scopes, on every kind of selection
#include <spectral/layers/self_attention.hpp>
#include "layer_test.hpp"

namespace spectral::test::self_attention_test {

TEMPLATE_LIST_TEST_CASE("self_attention: keys of all rows or of the routed ones", "[layers][self_attention]", targets) {
    for (kv_scope keys : {kv_scope::all, kv_scope::routed})
        for (double dropout : {0.0, 0.3})
            check_operator<TestType, self_attention>(
                "self_attention", {.dropout = dropout, .keys = keys},
                std::string(keys == kv_scope::all ? "keys of all" : "keys of routed") + ", dropout " +
                    std::to_string(dropout));
}

TEMPLATE_LIST_TEST_CASE("self_attention: without rotation, one head", "[layers][self_attention]", targets) {
    check_operator<TestType, self_attention>("self_attention", {.width = 6, .heads = 1, .rotary = false}, "one head");
}

// Routing must not change what a routed row sees: with keys of all rows, y[rows] of a selection is y of all rows there.
TEMPLATE_LIST_TEST_CASE("self_attention: a selection is the dense result on its rows", "[layers][self_attention]",
                        targets) {
    using T = typename TestType::scalar;
    using Op = self_attention<typename TestType::executor, T>;
    const layer_case c;
    layer_rig<TestType, Op> rig(c, operator_config_of<TestType>(c));
    operator_calls<decltype(rig)> calls{rig};
    rig.template loss<typename Op::saved>(calls);
    const auto dense = rig.y;
    for (const auto& rows : selections(c.rows())) {
        if (!rows) continue;
        rig.rows = rows;
        rig.template loss<typename Op::saved>(calls);
        std::vector<double> got, want;
        for (row_index n : *rows)
            for (index i = 0; i < c.width; ++i) {
                got.push_back(rig.y[static_cast<std::size_t>(n * c.width + i)]);
                want.push_back(dense[static_cast<std::size_t>(n * c.width + i)]);
            }
        compare(got, want, allowed<T>(256, 4),
                {"self_attention", "y", TestType::executor_name(), scalar_name<T>, describe(rows)});
    }
}

// `saved` outlives a pass (a model keeps it). A pass that sends no row here must leave nothing of the one before.
TEST_CASE("self_attention: no rows after some rows", "[layers][self_attention]") {
    using Op = self_attention<reference::executor, double>;
    const layer_case c;
    layer_rig<oracle, Op> rig(c, operator_config_of<oracle>(c));
    Op::saved s;
    auto& ex = rig.ex;
    for (const row_list& rows : {row_list{std::vector<row_index>{1, 4}}, row_list{std::vector<row_index>{}}}) {
        rig.rows = rows;
        arena_scope scratch(ex);
        pass<reference::executor, double> p{
            .ex = ex, .rows = pack_rows(ex, std::span<const index>(c.lengths)), .phase = phase::training};
        auto y = p.zeros(c.rows(), c.width), dL_dx = p.zeros(c.rows(), c.width);
        rig.store.zero_gradients();
        rig.layer.forward(p, rig.x.view(), rig.select(), y, s);
        rig.layer.backward(p, y, dL_dx, s);
        if (!rows->empty()) continue;
        CHECK(largest(rig.wide(dL_dx)) == 0);
        CHECK(largest(rig.wide(rig.store.gradients_view())) == 0);
    }
}

TEST_CASE("self_attention: a width that heads do not divide", "[layers][self_attention]") {
    check_throws([] { self_attention<reference::executor, double> op({.width = 10, .heads = 4}); },
                 {"self_attention", "width 10", "heads 4"});
}

}  // namespace spectral::test::self_attention_test
