// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/chain.hpp: the activations of a stack on their way up, its gradient on the way down
#pragma once
#include <spectral/layers/pass.hpp>

namespace spectral {

// What each layer of a stack was given, in order.
template <class T>
using layer_inputs = std::vector<const_matrix<T>>;

// The activations of consecutive layers. Training keeps every one, and what the layers took for backward, unless that
// is to be computed again; evaluation keeps two and frees what a layer took.
template <executor Exec, class T>
class activation_chain {
public:
    activation_chain(pass<Exec, T>& p, index rows, index width, layer_inputs<T>& inputs)
        : p_(p), inputs_(inputs), now_(p.matrix(rows, width)) {
        inputs.clear();
        if (!p.training()) next_ = p.matrix(rows, width);
    }
    template <class F>
    void start(F&& f) {
        f(now_);
    }
    template <class F>
    void apply(F&& f) {
        if (p_.training()) {
            next_ = p_.matrix(now_.rows(), now_.width());
            inputs_.push_back(now_);
            const auto before = p_.ex.memory().mark();
            f(const_matrix<T>(now_), next_);
            if (p_.recompute) p_.ex.memory().release(before);
            now_ = next_;
        } else {
            arena_scope layer(p_.ex);
            f(const_matrix<T>(now_), next_);
            std::swap(now_, next_);
        }
    }
    // evaluation: f(x, y) -> whether it made y; if not, x stays
    template <class F>
    bool attempt(F&& f) {
        if (p_.training()) return false;
        arena_scope layer(p_.ex);
        if (!f(const_matrix<T>(now_), next_)) return false;
        std::swap(now_, next_);
        return true;
    }
    matrix_view<T> value() const { return now_; }

private:
    pass<Exec, T>& p_;
    layer_inputs<T>& inputs_;
    matrix_view<T> now_, next_;
};

// The gradient on its way down: layers add to a fresh zero, or write. Where training kept their inputs
// alone, a layer's forward runs again first, with the same random numbers and so to the same bits.
template <executor Exec, class T>
class gradient_chain {
public:
    gradient_chain(pass<Exec, T>& p, index rows, index width, layer_inputs<T>& inputs)
        : p_(p), inputs_(inputs), now_(p.matrix(rows, width)), next_(p.matrix(rows, width)) {}
    template <class F>
    void start(F&& f) {
        f(now_);
    }
    // the layer's forward(x, y) and backward(dL_dy, dL_dx), which adds to dL_dx or overwrites it
    template <class Forward, class Backward>
    void apply(Forward&& forward, Backward&& backward, write mode = write::accumulate) {
        if (mode == write::accumulate) p_.clear(next_);
        const arena_scope layer(p_.ex);
        if (p_.recompute) {
            const double loss = p_.auxiliary_loss;
            p_.again = true;
            forward(inputs_.back(), p_.matrix(now_.rows(), now_.width()));
            p_.again = false;
            p_.auxiliary_loss = loss;
        }
        inputs_.pop_back();
        backward(const_matrix<T>(now_), next_);
        std::swap(now_, next_);
    }
    matrix_view<T> value() const { return now_; }

private:
    pass<Exec, T>& p_;
    layer_inputs<T>& inputs_;
    matrix_view<T> now_, next_;
};

}  // namespace spectral
