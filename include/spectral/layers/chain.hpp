// SPDX-License-Identifier: Apache-2.0
// include/spectral/layers/chain.hpp: the activations of a stack on their way up, its gradient on the way down
#pragma once
#include <spectral/layers/pass.hpp>

namespace spectral {

// The activations of consecutive layers. Training keeps every one; evaluation keeps two and frees what a layer took.
template <executor Exec, class T>
class activation_chain {
public:
    activation_chain(pass<Exec, T>& p, index rows, index width) : p_(p), now_(p.matrix(rows, width)) {
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
            f(const_matrix<T>(now_), next_);
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
    matrix_view<T> now_, next_;
};

// The gradient on its way down: layers add to a fresh zero.
template <executor Exec, class T>
class gradient_chain {
public:
    gradient_chain(pass<Exec, T>& p, index rows, index width)
        : p_(p), now_(p.matrix(rows, width)), next_(p.matrix(rows, width)) {}
    template <class F>
    void start(F&& f) {
        f(now_);
    }
    template <class F>
    void apply(F&& f) {
        p_.ex.fill_bytes(next_.data, 0, static_cast<std::size_t>(next_.size()) * sizeof(T));
        f(const_matrix<T>(now_), next_);
        std::swap(now_, next_);
    }
    matrix_view<T> value() const { return now_; }

private:
    pass<Exec, T>& p_;
    matrix_view<T> now_, next_;
};

}  // namespace spectral
