// SPDX-License-Identifier: Apache-2.0
// tests/layers/layer_test.hpp: one layer on one executor: its values, and its gradients against finite differences
//
//   layer_rig<oracle, feed_forward<...>> rig(c, c.width, 0.0, 0, 0);
//   rig.template require_gradients<saved>(calls, "feed_forward");
//       calls.forward(p, x, y, s), calls.backward(p, dL_dy, dL_dx, s)
//
// The scalar is L = Σ dL_dy ⊙ y + the pass's auxiliary loss. Gradients accumulate into values that are not zero, rows
// that a selection leaves out hold NaN in dL_dy, and a mark in y: neither may be read or written.
#pragma once
#include <spectral/layers/token_operator.hpp>
#include <spectral/train/gradient_check.hpp>
#include <support/operator_test.hpp>

#include <functional>
#include <optional>

namespace spectral::test {

// Sizes and switches of one layer in a small pack of sequences.
struct layer_case {
    std::vector<index> lengths{5, 1, 4};
    index width = 8, heads = 2, layer = 3, features = 6;
    double dropout = 0;
    dct_norm norm = dct_norm::ortho;
    kv_scope keys = kv_scope::all;
    bool own_feed_forward = false, rotary = true, rbf_causal = true;
    spectral::phase phase = phase::training;
    std::uint64_t seed = 11, step = 2;  // of dropout
    double loss_weight = 1;

    index rows() const {
        index n = 0;
        for (index t : lengths) n += t;
        return n;
    }
};

template <class Target>
auto operator_config_of(const layer_case& c) {
    using Exec = typename Target::executor;
    using T = typename Target::scalar;
    auto& ex = Target::instance();
    operator_config<Exec, T> o{.width = c.width,
                               .heads = c.heads,
                               .layer = c.layer,
                               .dropout = c.dropout,
                               .dct_norm = c.norm,
                               .kv_scope = c.keys};
    if (c.rotary) {
        constexpr index positions = 32;
        const index head_width = c.width / c.heads;
        o.rotary = std::make_shared<tensor<Exec, T, 2>>(ex, std::array<index, 2>{positions, head_width},
                                                        rotary_table<T>(positions, head_width, 100));
    }
    o.own_feed_forward = c.own_feed_forward;
    o.rbf_causal = c.rbf_causal;
    o.rbf_gamma = 0.3;
    o.n_random_features = c.features;
    return o;
}

using row_list = std::optional<std::vector<row_index>>;  // nothing: selection::all

// No rows, one, some at random, every one by number, and all without a list.
inline std::vector<row_list> selections(index rows) {
    std::vector<row_list> out{std::nullopt, std::vector<row_index>{},
                              std::vector<row_index>{static_cast<row_index>(rows / 2)}};
    std::vector<row_index> some, every;
    const random_stream draw{5, 5};
    for (row_index n = 0; n < rows; ++n) {
        every.push_back(n);
        if (draw.bits(static_cast<std::uint64_t>(n)) % 2) some.push_back(n);
    }
    out.push_back(some);
    out.push_back(every);
    return out;
}
// named values: y, dL_dx, the parameters' gradients
using layer_values = std::vector<std::pair<std::string, std::vector<double>>>;

inline std::string describe(const row_list& r) { return r ? std::to_string(r->size()) + " rows selected" : "all rows"; }

template <class Target, class Layer>
class layer_rig {
public:
    using executor = typename Target::executor;
    using T = typename Target::scalar;
    static constexpr double mark = 7.5;  // of what nobody may write

    template <class... Arguments>
    explicit layer_rig(const layer_case& c_, Arguments&&... arguments)
        : ex(Target::instance()),
          c(c_),
          layer(std::forward<Arguments>(arguments)...),
          store(ex, layer),
          x(ex, {c.rows(), c.width}),
          dL_dx(ex, {c.rows(), c.width}),
          dL_dy(normals(c.rows() * c.width, 91)),
          y_rows(c.rows()),
          y_width(c.width) {
        std::uint64_t seed = 1000;
        for (const auto& [name, p] : store.named()) {  // off the initial values: a bias of 0 hides mistakes
            auto v = normals(p->size(), seed++, 0.4);
            for (double& e : v) e += p->init.how == initializer::kind::constant && p->init.scale == 1 ? 1 : 0;
            put(p->value, v);
        }
        put(x.view(), normals(c.rows() * c.width, 90));
    }

    executor& ex;
    layer_case c;
    Layer layer;
    parameter_store<executor, T> store;
    tensor<executor, T, 2> x, dL_dx;
    std::vector<double> dL_dy;  // (y_rows, y_width)
    index y_rows, y_width;
    row_list rows;  // which rows y has: the others are not read or written
    std::vector<double> y;  // of the last pass
    route_trace* trace = nullptr;
    write mode = write::accumulate;  // of dL_dx, where the layer can write it
    std::function<void()> before = [] {};  // every pass: puts back what a pass changes

    // the output's shape where it differs from the input's
    layer_rig& output(index n, index width) {
        y_rows = n;
        y_width = width;
        dL_dy = normals(n * width, 91);
        return *this;
    }

    selection select() {
        if (!rows) return selection::all(c.rows());
        auto memory = ex.memory().template vector<row_index>(static_cast<index>(rows->size()) + 1);
        const auto n = static_cast<row_index>(rows->size());
        if (n) ex.copy_from_host(memory.data, rows->data(), rows->size() * sizeof(row_index));
        ex.copy_from_host(memory.data + n, &n, sizeof n);
        return {memory.data, memory.data + n, c.rows()};
    }

    // L of a forward pass; with a backward pass, gradients added to dL_dx and the parameters'
    template <class Saved, class Calls>
    double loss(Calls& calls, bool backward = false) {
        arena_scope scratch(ex);
        before();
        pass<executor, T> p{.ex = ex,
                            .rows = pack_rows(ex, std::span<const index>(c.lengths)),
                            .phase = c.phase,
                            .loss_weight = c.loss_weight,
                            .seed = c.seed,
                            .step = c.step,
                            .trace = trace};
        auto out = p.matrix(y_rows, y_width), gradient = p.matrix(y_rows, y_width);
        put(out, std::vector<double>(static_cast<std::size_t>(y_rows * y_width), mark));
        Saved s{};
        calls.forward(p, x.view(), out, s);
        const auto host = to_host(ex, out);
        y.assign(host.begin(), host.end());
        double sum = p.auxiliary_loss;
        std::vector<double> g(y.size(), nan);
        for (index n = 0; n < y_rows; ++n)
            for (index i = 0; i < y_width; ++i) {
                const auto at = static_cast<std::size_t>(n * y_width + i);
                if (chosen(n))
                    sum += dL_dy[at] * y[at], g[at] = dL_dy[at];
                else if (y[at] != mark)
                    FAIL("row " << n << " is not selected and was written");
            }
        if (!backward) return sum;
        put(gradient, g);
        calls.backward(p, gradient, dL_dx.view(), s);
        return sum;
    }

    // y, dL_dx and the parameters' gradients, of gradients that start at 1/4
    template <class Saved, class Calls>
    layer_values results(Calls calls) {
        constexpr double start = 0.25;
        if (store.gradients_view().size())
            put(store.gradients_view(),
                std::vector<double>(static_cast<std::size_t>(store.gradients_view().size()), start));
        put(dL_dx.view(), std::vector<double>(static_cast<std::size_t>(dL_dx.size()), start));
        loss<Saved>(calls, true);
        subtract(dL_dx.view(), start);
        layer_values out{{"y", y}, {"dL_dx", wide(dL_dx.view())}};
        for (const auto& [name, p] : store.named())
            if (p->grad.data) {
                subtract(p->grad, start);
                out.push_back({"gradient of " + name, wide(p->grad)});
            }
        return out;
    }

    // Finite differences of L, or of `surrogate` where the gradient is that of another function, for x and all
    // parameters.
    template <class Saved, class Calls>
    void require_gradients(Calls calls, const std::string& about, double bound = 1e-6) {
        require_gradients_of<Saved>(
            calls, [&] { return loss<Saved>(calls); }, about, bound);
    }
    template <class Saved, class Calls, class Surrogate>
    void require_gradients_of(Calls calls, Surrogate surrogate, const std::string& about, double bound = 1e-6) {
        if constexpr (requires { requires Calls::writes; }) require_written<Saved>(calls, about);
        results<Saved>(calls);
        report(check_gradient(ex, x.view(), dL_dx.view(), surrogate), about + ": dL_dx", bound);
        auto worst = check_parameter_gradients(ex, store, surrogate);
        report(worst, about + ": " + worst.name, bound);
    }

    // the layer's backward, in the rig's mode where it has one
    template <class Pass, class Y, class X, class Saved>
    void backward(Pass& p, Y dL_dy, X dx, Saved& s) {
        if constexpr (writes_gradient<Layer, executor, T>)
            layer.backward(p, dL_dy, dx, s, mode);
        else
            layer.backward(p, dL_dy, dx, s);
    }

    // A layer that can write dL_dx writes every row of it, what it would have added to zeros.
    template <class Saved, class Calls>
    void require_written(Calls calls, const std::string& about) {
        const auto size = static_cast<std::size_t>(dL_dx.size());
        put(dL_dx.view(), std::vector<double>(size, 0));
        loss<Saved>(calls, true);
        const auto want = wide(dL_dx.view());
        put(dL_dx.view(), std::vector<double>(size, nan));
        mode = write::overwrite;
        loss<Saved>(calls, true);
        mode = write::accumulate;
        const auto got = wide(dL_dx.view());
        double worst = 0;
        for (std::size_t i = 0; i < size; ++i) {
            const double off = std::abs(got[i] - want[i]);
            worst = off <= worst ? worst : off;  // a NaN stays
        }
        INFO(about << ": dL_dx written instead of added to zeros differs by " << worst);
        CHECK(worst <= 1e-12 * std::max(1.0, largest(want)));
    }

    template <std::size_t Rank>
    void put(view<T, Rank> to, const std::vector<double>& values) {
        const std::vector<T> narrow(values.begin(), values.end());
        check_equal(static_cast<index>(narrow.size()), to.size(), "layer_rig", "number of values");
        if (!narrow.empty()) ex.copy_from_host(to.data, narrow.data(), narrow.size() * sizeof(T));
    }
    template <std::size_t Rank>
    std::vector<double> wide(view<T, Rank> v) {
        const auto host = to_host(ex, v);
        return {host.begin(), host.end()};
    }

private:
    bool chosen(index n) const { return !rows || std::find(rows->begin(), rows->end(), n) != rows->end(); }
    template <std::size_t Rank>
    void subtract(view<T, Rank> v, double start) {
        auto values = wide(v);
        for (double& e : values) e -= start;
        put(v, values);
    }
    static void report(const gradient_check_result& r, const std::string& about, double bound) {
        INFO(about << ": element (" << r.row << ", " << r.column << "): analytic " << r.analytic << ", numeric "
                   << r.numeric << ", relative error " << r.error << " of " << r.checked << " elements checked");
        CHECK(r.error < bound);
    }
};

// How a rig drives a token operator: on its selection.
template <class Rig>
struct operator_calls {
    static constexpr bool writes = writes_gradient<decltype(Rig::layer), typename Rig::executor, typename Rig::T>;
    Rig& rig;
    template <class Pass, class X, class Y, class Saved>
    void forward(Pass& p, X x, Y y, Saved& s) {
        rig.layer.forward(p, x, rig.select(), y, s);
    }
    template <class Pass, class Y, class X, class Saved>
    void backward(Pass& p, Y dL_dy, X dL_dx, Saved& s) {
        rig.backward(p, dL_dy, dL_dx, s);
    }
};

// ... and any other layer of forward(p, x, y, saved), backward(p, dL_dy, dL_dx, saved)
template <class Rig>
struct layer_calls {
    static constexpr bool writes = operator_calls<Rig>::writes;
    Rig& rig;
    template <class Pass, class X, class Y, class Saved>
    void forward(Pass& p, X x, Y y, Saved& s) {
        rig.layer.forward(p, x, y, s);
    }
    template <class Pass, class Y, class X, class Saved>
    void backward(Pass& p, Y dL_dy, X dL_dx, Saved& s) {
        rig.backward(p, dL_dy, dL_dx, s);
    }
};

// run.template operator()<Target>() -> layer_values, on this target and on the oracle. `terms`: roundings along the
// longest chain, of two normalisations and a few matrix products of these widths.
template <class Target, class Run>
void compare_with_oracle(const std::string& layer, const std::string& about, Run&& run, double terms = 1024) {
    using T = typename Target::scalar;
    const layer_values want = run.template operator()<oracle>(), got = run.template operator()<Target>();
    REQUIRE(got.size() == want.size());
    for (std::size_t i = 0; i < got.size(); ++i)
        compare(got[i].second, want[i].second, allowed<T>(terms, std::max(1.0, largest(want[i].second))),
                {layer, got[i].first, Target::executor_name(), scalar_name<T>, about});
}

// The whole test of a token operator: gradients of every selection in double, values and gradients on every target.
template <class Target, template <class, class> class Operator>
void check_operator(const char* name, const layer_case& c, const std::string& about) {
    for (const auto& rows : selections(c.rows())) {
        const std::string text = about + ", " + describe(rows);
        compare_with_oracle<Target>(name, text, [&]<class On>() {
            using Op = Operator<typename On::executor, typename On::scalar>;
            layer_rig<On, Op> rig(c, operator_config_of<On>(c));
            rig.rows = rows;
            return rig.template results<typename Op::saved>(operator_calls<decltype(rig)>{rig});
        });
        if constexpr (std::is_same_v<Target, oracle>) {
            using Op = Operator<typename Target::executor, double>;
            layer_rig<Target, Op> rig(c, operator_config_of<Target>(c));
            rig.rows = rows;
            rig.template require_gradients<typename Op::saved>(operator_calls<decltype(rig)>{rig},
                                                               std::string(name) + ", " + text);
        }
    }
}

}  // namespace spectral::test
