// SPDX-License-Identifier: Apache-2.0
// tests/layers/linear_test.cpp: a linear map with and without bias, one projection of a fused one, frozen maps, no
// dL_dx
#include <spectral/layers/linear.hpp>
#include <spectral/ops/elementwise.hpp>
#include "layer_test.hpp"

namespace spectral::test::linear_test {

namespace {
constexpr index outputs_of_map = 5;

// Outputs [first, first + count) of a map 8 -> 5; `frozen` trains nothing of it.
struct part {
    index first = 0, count = outputs_of_map;
    bool bias = true, frozen = false;
    write mode = write::accumulate;
};

template <class Exec, class T>
struct linear_map : linear<Exec, T> {
    struct saved {
        const_matrix<T> x;
    };
    linear_map(index in, index out, const part& o) : linear<Exec, T>(in, out, o.bias) {
        this->weight.trainable = this->bias.trainable = !o.frozen;
    }
};

template <class Rig>
struct part_calls {
    Rig& rig;
    part o;
    template <class Pass, class X, class Y, class Saved>
    void forward(Pass& p, X x, Y y, Saved& s) {
        s.x = x;
        if (o.count == outputs_of_map) return rig.layer.forward(p, x, y);
        rig.layer.forward_part(p, o.first, o.count, x, y);
    }
    template <class Pass, class Y, class X, class Saved>
    void backward(Pass& p, Y dL_dy, X dL_dx, Saved& s) {
        auto fresh = p.matrix(dL_dx.rows(), dL_dx.width());
        const auto to = o.mode == write::accumulate ? dL_dx : fresh;
        if (o.count == outputs_of_map)
            rig.layer.backward(p, dL_dy, s.x, to, o.mode);
        else
            rig.layer.backward_part(p, o.first, o.count, dL_dy, s.x, to, o.mode);
        if (o.mode == write::overwrite) add(p.ex, fresh, dL_dx);
    }
};

std::string describe(const part& o) {
    return "outputs " + std::to_string(o.first) + " + " + std::to_string(o.count) + (o.bias ? "" : ", without bias") +
           (o.frozen ? ", frozen" : "") + (o.mode == write::accumulate ? ", +=" : ", =");
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("linear layer: values and gradients", "[layers][linear]", targets) {
    const layer_case c;
    for (bool bias : {true, false})
        for (bool frozen : {true, false})
            for (write mode : {write::accumulate, write::overwrite})
                for (const auto& range : {std::pair<index, index>{0, 5}, {0, 2}, {2, 3}}) {
                    const auto first = range.first, count = range.second;
                    const part o{first, count, bias, frozen, mode};
                    const auto run = [&]<class On>(auto use) {
                        using Layer = linear_map<typename On::executor, typename On::scalar>;
                        layer_rig<On, Layer> rig(c, c.width, outputs_of_map, o);
                        rig.output(c.rows(), count);
                        return use(rig, part_calls<decltype(rig)>{rig, o});
                    };
                    compare_with_oracle<TestType>("linear", describe(o), [&]<class On>() {
                        return run.template operator()<On>([](auto& rig, auto calls) {
                            using Layer = std::remove_reference_t<decltype(rig.layer)>;
                            return rig.template results<typename Layer::saved>(calls);
                        });
                    });
                    if constexpr (std::is_same_v<TestType, oracle>)
                        run.template operator()<oracle>([&](auto& rig, auto calls) {
                            using Layer = std::remove_reference_t<decltype(rig.layer)>;
                            rig.template require_gradients<typename Layer::saved>(calls, "linear, " + describe(o));
                            CHECK(rig.store.gradients_view().empty() == frozen);
                        });
                }
}

// Rounding aside, the parts of a fused projection are its columns.
TEMPLATE_LIST_TEST_CASE("linear layer: parts are columns of the whole", "[layers][linear]", targets) {
    using T = typename TestType::scalar;
    using Layer = linear_map<typename TestType::executor, T>;
    const layer_case c;
    const auto y_of = [&](const part& o) {
        layer_rig<TestType, Layer> rig(c, c.width, outputs_of_map, o);
        rig.output(c.rows(), o.count);
        part_calls<decltype(rig)> calls{rig, o};
        rig.template loss<typename Layer::saved>(calls);
        return rig.y;
    };
    const auto whole = y_of({});
    for (index first : {0, 1, 4}) {
        const auto one = y_of({.first = first, .count = 1});
        std::vector<double> want;
        for (index n = 0; n < c.rows(); ++n)
            want.push_back(whole[static_cast<std::size_t>(n * outputs_of_map + first)]);
        compare(one, want, allowed<T>(2.0 * static_cast<double>(c.width), 4),
                {"linear", "one output", TestType::executor_name(), scalar_name<T>, std::to_string(first)});
    }
}

TEST_CASE("linear layer: without dL_dx the parameters' gradients are the same", "[layers][linear]") {
    using Layer = linear_map<reference::executor, double>;
    const layer_case c;
    const auto gradients_with = [&](bool below) {
        layer_rig<oracle, Layer> rig(c, c.width, outputs_of_map, part{});
        auto& ex = rig.ex;
        arena_scope scratch(ex);
        pass<reference::executor, double> p{
            .ex = ex, .rows = pack_rows(ex, std::span<const index>(c.lengths)), .phase = phase::training};
        auto dL_dy = p.matrix(c.rows(), outputs_of_map);
        rig.put(dL_dy, normals(c.rows() * outputs_of_map, 91));
        rig.layer.backward(p, dL_dy, rig.x.view(), below ? rig.dL_dx.view() : matrix_view<double>{});
        return rig.wide(rig.store.gradients_view());
    };
    CHECK(largest(gradients_with(true)) > 0);
    CHECK(gradients_with(false) == gradients_with(true));
}

}  // namespace spectral::test::linear_test
