// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/any_router.hpp: a router chosen at run time
#pragma once
#include <spectral/layers/control_routers.hpp>
#include <spectral/layers/entropy_threshold.hpp>
#include <spectral/layers/learned_gate.hpp>

#include <variant>

namespace spectral {

// A router chosen by a configuration.
template <executor Exec, class T>
struct any_router {
    using choices = std::variant<entropy_threshold<Exec, T>, learned_gate<Exec, T>, random_share<Exec, T>,
                                 constant_choice<Exec, T>>;
    choices router;

    any_router(Exec& ex, const operator_config<Exec, T>& c, const router_options& o) : router(make(ex, c, o)) {}

    const std::vector<double>* entropy_thresholds() const {
        const auto* r = std::get_if<entropy_threshold<Exec, T>>(&router);
        return r ? r->entropy_thresholds() : nullptr;
    }

    using saved = typename learned_gate<Exec, T>::saved;  // the others keep nothing
    void forward(pass<Exec, T>& p, const_matrix<T> x, routing<T>& route, saved& s) {
        std::visit([&](auto& r) { with_saved(r, s, [&](auto& its) { r.forward(p, x, route, its); }); }, router);
    }
    void backward(pass<Exec, T>& p, const_matrix<statistic<T>> dL_dweight, matrix_view<T> dL_dx, saved& s) {
        std::visit([&](auto& r) { with_saved(r, s, [&](auto& its) { r.backward(p, dL_dweight, dL_dx, its); }); },
                   router);
    }
    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        std::visit([&](auto& r) { r.visit_parameters(f, prefix); }, router);
    }

private:
    template <class Router, class F>
    static void with_saved(Router&, saved& s, F&& f) {
        if constexpr (std::is_same_v<typename Router::saved, saved>) {
            f(s);
        } else {
            typename Router::saved nothing;
            f(nothing);
        }
    }
    static choices make(Exec& ex, const operator_config<Exec, T>& c, const router_options& o) {
        switch (o.mode) {
            case routing_mode::threshold:
            case routing_mode::permuted: return entropy_threshold<Exec, T>(c, o, &ex);
            case routing_mode::random: return random_share<Exec, T>(c, o);
            case routing_mode::attention:
            case routing_mode::dct: return constant_choice<Exec, T>(c, o);
            default: return learned_gate<Exec, T>(c, o);
        }
    }
};

}  // namespace spectral
