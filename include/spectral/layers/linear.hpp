// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/linear.hpp: y = x Wᵀ + b with its parameters
#pragma once
#include <spectral/layers/pass.hpp>
#include <spectral/ops/linear.hpp>

namespace spectral {

template <executor Exec, class T>
struct linear {
    parameter<T> weight;   // (O, I)
    parameter<T> bias;     // (O), unused without bias

    linear() = default;
    linear(index in, index out, bool with_bias = true, initializer init = initializer::normal(0.02))
        : weight({out, in}, init) {
        if (with_bias) bias = parameter<T>({out}, initializer::zeros());
    }
    index out() const { return weight.shape[0]; }

    void forward(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y) { linear_forward(p.ex, x, weight.matrix(), bias_view(), y); }
    // dL_dx may be empty (nothing below trains); gradients of frozen parameters are not computed
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dy, const_matrix<T> x, matrix_view<T> dL_dx, write mode = write::overwrite) {
        if (dL_dx.data) linear_backward_input(p.ex, dL_dy, weight.matrix(), dL_dx, mode);
        if (weight.grad.data) linear_backward_weight(p.ex, dL_dy, x, weight.grad, bias.grad_vector());
    }
    // the same for output columns [first, first + count) alone: one projection of a fused one
    void forward_part(pass<Exec, T>& p, index first, index count, const_matrix<T> x, matrix_view<T> y) {
        linear_forward(p.ex, x, weight.matrix().slice(first, count), bias_view().slice(first, count), y);
    }
    void backward_part(pass<Exec, T>& p, index first, index count, const_matrix<T> dL_dy, const_matrix<T> x,
                       matrix_view<T> dL_dx, write mode) {
        linear_backward_input(p.ex, dL_dy, weight.matrix().slice(first, count), dL_dx, mode);
        linear_backward_weight(p.ex, dL_dy, x, weight.grad.slice(first, count), bias.grad_vector().slice(first, count));
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        f(prefix + "weight", weight);
        f(prefix + "bias", bias);
    }

private:
    const_vector<T> bias_view() const { return bias.used() ? bias.vector() : const_vector<T>{}; }
};

}  // namespace spectral
