// SPDX-License-Identifier: Apache-2.0
// include/spectral/core/weight_view.hpp: a weight as operators read it: in the model's scalar, or kept as bfloat16
//
// A frozen weight may be kept narrow: half the memory, and decoding, which reads every weight once a token, in half the
// time. Only storage is narrow: kernels widen as they read and compute in T, so the result is that of the widened
// weight.
//   linear_forward(ex, x, w, b, y);      // w: a view of T, a view of bfloat16, or a parameter's matrix()
// A model that computes in bfloat16 has nothing to widen: its weights are views of T.
#pragma once
#include <spectral/core/half.hpp>
#include <spectral/core/view.hpp>

#include <concepts>

namespace spectral {

// How a model's frozen weights are kept.
enum class weight_storage { as_computed, bf16 };

template <class T>
struct weight_view {
    view<const T, 2> wide;
    view<const bfloat16, 2> narrow;  // used if it has data

    constexpr weight_view() = default;
    template <std::convertible_to<view<const T, 2>> V>  // views and tensors
    constexpr weight_view(const V& w) : wide(w) {}
    template <std::convertible_to<view<const bfloat16, 2>> V>
        requires(!std::same_as<T, bfloat16>)
    constexpr weight_view(const V& w) : narrow(w) {}

    constexpr bool is_narrow() const { return narrow.data != nullptr; }
    constexpr index rows() const { return is_narrow() ? narrow.rows() : wide.rows(); }
    constexpr index width() const { return is_narrow() ? narrow.width() : wide.width(); }
    constexpr weight_view slice(index first, index count) const {
        return is_narrow() ? weight_view(narrow.slice(first, count)) : weight_view(wide.slice(first, count));
    }

    // f(the view that holds the values)
    template <class F>
    constexpr void visit(F&& f) const {
        if constexpr (!std::same_as<T, bfloat16>)
            if (is_narrow()) return f(narrow);
        f(wide);
    }

    // where an operator reads T alone
    constexpr operator view<const T, 2>() const {
        check(!is_narrow(), "weight", "kept as bfloat16, where values of the model's scalar are needed");
        return wide;
    }
};

// As an argument of operators: not deduced, so that every kind of view converts.
template <class T>
using const_weight = std::type_identity_t<weight_view<T>>;

}  // namespace spectral
