// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/linear.hpp: y = x Wᵀ + b with its parameters and, perhaps, a low-rank adapter
#pragma once
#include <spectral/layers/lora.hpp>
#include <spectral/ops/bias_gradient.hpp>
#include <spectral/ops/few_rows.hpp>

#include <optional>
#include <utility>

namespace spectral {

template <executor Exec, class T>
struct linear {
    parameter<T> weight;  // (O, I)
    parameter<T> bias;  // (O), unused without bias
    std::optional<lora<Exec, T>> adapter;
    bool adapter_on = true;  // off: as if there were none
    bool bias_handed_over = false;  // between hand_over_bias and backward

    linear() = default;
    linear(index in, index out, bool with_bias = true, initializer init = initializer::normal(0.02))
        : weight({out, in}, init) {
        if (with_bias) bias = parameter<T>({out}, initializer::zeros());
        weight.written_first = bias.written_first = true;
    }
    index in() const { return weight.shape[1]; }
    index out() const { return weight.shape[0]; }
    void adapt(const lora_options& o, const std::string& name) { adapter.emplace(in(), out(), o, name); }
    // whether backward reads x: of a frozen map it does not, and nobody need keep it
    bool keeps_input() const { return weight.grad.data || (adapter && adapter_on); }

    // y = x Wᵀ + b + addend, addend (N, O) or empty: a residual
    void forward(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y, const_matrix<T> addend = {}) {
        forward_part(p, 0, out(), x, y, addend);
    }
    // dL_dx may be empty (nothing below trains); gradients of frozen parameters are not computed
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, const_matrix<T> x, matrix_view<T> dL_dx,
                  write mode = write::overwrite) {
        backward_part(p, 0, out(), dL_dy, x, dL_dx, mode);
    }
    // For the operator that makes dL_dy, which sums the bias's gradient on its way: the backward that follows leaves it
    // alone. Empty where that would not sum it either.
    bias_gradient<T> hand_over_bias() {
        if (!weight.grad.data || !bias.grad.data) return {};
        bias_handed_over = true;
        return {bias.grad_vector(), bias.write_mode(0, out())};
    }

    // the map as operators take it that fuse it with others, without dropout
    projection<T> map() {
        if (!adapter || !adapter_on) return {weight.matrix(), bias.vector()};
        return {weight.matrix(), bias.vector(), adapter->a.value, adapter->b.value, adapter->scale};
    }

    // forward and backward of outputs [first, first + count) alone: one projection of a fused one
    void forward_part(pass<Exec, T>& p, index first, index count, const_matrix<T> x, matrix_view<T> y,
                      const_matrix<T> addend = {}) {
        linear_forward(p.ex, x, weight.matrix().slice(first, count),
                       bias.used() ? bias.vector().slice(first, count) : const_vector<T>{}, y, addend);
        if (adapter && adapter_on) adapter->forward(p, first, x, y);
    }
    void backward_part(pass<Exec, T>& p, index first, index count, const_matrix<T> dL_dy, const_matrix<T> x,
                       matrix_view<T> dL_dx, write mode) {
        if (dL_dx.data) linear_backward_input(p.ex, dL_dy, weight.matrix().slice(first, count), dL_dx, mode);
        if (weight.grad.data) {
            const write how = weight.write_mode(first, count);
            const bool sums = bias.grad.data && !std::exchange(bias_handed_over, false);
            if (sums) bias.write_mode(first, count);  // its parts are the weight's
            linear_backward_weight(p.ex, dL_dy, x, weight.grad.slice(first, count),
                                   sums ? bias.grad_vector().slice(first, count) : out_vector<statistic<T>>{}, how);
        }
        if (adapter && adapter_on) adapter->backward(p, first, dL_dy, x, dL_dx);
    }

    // folds the adapter into the weight and drops it; throws error for a weight that is kept as bfloat16 or trained
    void merge(Exec& ex) {
        check(!(adapter && weight.narrow), "linear::merge",
              "a weight kept as bfloat16 takes no adapter in: load it wide");
        check(!(adapter && weight.master.data && static_cast<const void*>(weight.master.data) != weight.value.data),
              "linear::merge", "a trained weight with a float master takes no adapter in: load it frozen");
        if (adapter) adapter->merge_into(ex, weight.value);
        adapter.reset();
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        if constexpr (requires { f.visit_linear(prefix, *this); }) f.visit_linear(prefix, *this);
        f(prefix + "weight", weight);
        f(prefix + "bias", bias);
        if (adapter) adapter->visit_parameters(f, prefix);
    }
};

namespace detail {
// A visitor of parameters that stops at linear maps.
template <class F>
struct linear_visitor {
    F& f;
    template <class Parameter>
    void operator()(const std::string&, Parameter&) const {}
    template <class Linear>
    void visit_linear(const std::string& prefix, Linear& map) const {
        if (map.weight.used()) f(prefix.substr(0, prefix.size() - 1), map);
    }
};
}  // namespace detail

// f(path, linear) for every linear map of a model or layer: what an adapter may sit on
template <class Model, class F>
void for_each_linear(Model& model, F&& f) {
    model.visit_parameters(detail::linear_visitor<F>{f}, std::string{});
}

}  // namespace spectral
