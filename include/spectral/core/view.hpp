// SPDX-License-Identifier: Apache-2.0
// include/spectral/core/view.hpp: non-owning row-major views of rank 1 to 4
//
// A view is a stack of rows: the last axis is contiguous, and consecutive rows (all leading axes flattened) lie
// `row_stride` elements apart. That one stride is enough for what models need: a block of columns of a matrix
// (q, k, v inside a fused projection) and a block of its rows.
// Shape letters used everywhere: B batch, T time, S sequences, N packed rows, C channels, H heads, D head width,
// V vocabulary, K operators or kept coefficients.
#pragma once
#include <spectral/core/check.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace spectral {

using index = std::int64_t;  // sizes and offsets
using row_index = std::int32_t;  // a row number, a position or a token id, as kept in device memory

// A shape in messages: (2, 8).
template <std::size_t Rank>
struct shape_text {
    std::array<index, Rank> shape;
    friend std::ostream& operator<<(std::ostream& out, const shape_text& s) {
        out << '(';
        for (std::size_t i = 0; i < Rank; ++i) out << (i ? ", " : "") << s.shape[i];
        return out << ')';
    }
    bool operator==(const shape_text&) const = default;
};

// The one type of argument of operators. Owns nothing; a default view is empty.
template <class T, std::size_t Rank>
struct view {
    static_assert(Rank >= 1 && Rank <= 4, "spectral::view has rank 1 to 4");
    using value_type = T;

    T* data = nullptr;
    std::array<index, Rank> shape{};
    index row_stride = 0;

    constexpr view() = default;
    constexpr view(T* data_, std::array<index, Rank> shape_)
        : data(data_), shape(shape_), row_stride(shape_[Rank - 1]) {}
    constexpr view(T* data_, std::array<index, Rank> shape_, index row_stride_)
        : data(data_), shape(shape_), row_stride(row_stride_) {}

    // a view of T converts to a view of const T
    constexpr operator view<const T, Rank>() const requires(!std::is_const_v<T>) { return {data, shape, row_stride}; }

    constexpr index width() const { return shape[Rank - 1]; }
    constexpr index rows() const {
        index n = 1;
        for (std::size_t i = 0; i + 1 < Rank; ++i) n *= shape[i];
        return n;
    }
    constexpr index size() const { return rows() * width(); }
    constexpr bool empty() const { return size() == 0; }
    constexpr bool contiguous() const { return row_stride == width() || rows() <= 1; }
    constexpr T* row(index n) const { return data + n * row_stride; }

    constexpr T& operator[](index i) const requires(Rank == 1) { return data[i]; }
    constexpr T& operator()(index n, index c) const requires(Rank == 2) { return data[n * row_stride + c]; }

    // columns [first, first + count)
    constexpr view columns(index first, index count) const {
        view out = *this;
        out.data += first;
        out.shape[Rank - 1] = count;
        return out;
    }
    // rows [first, first + count) of a matrix, elements of a vector
    constexpr view slice(index first, index count) const requires(Rank <= 2) {
        view out = *this;
        out.data += Rank == 1 ? first : first * row_stride;
        out.shape[0] = count;
        return out;
    }
    // the same rows as a matrix (rows(), width())
    constexpr view<T, 2> matrix() const { return {data, {rows(), width()}, row_stride}; }
};

// Vectors and matrices that an operator writes: their scalar is deduced.
template <class T>
using vector_view = view<T, 1>;
template <class T>
using matrix_view = view<T, 2>;

// Inputs of operators: never deduced, so that a view<T> argument converts to view<const T>.
template <class T>
using const_vector = std::type_identity_t<view<const T, 1>>;
template <class T>
using const_matrix = std::type_identity_t<view<const T, 2>>;
template <class T>
using out_vector = std::type_identity_t<view<T, 1>>;
template <class T>
using out_matrix = std::type_identity_t<view<T, 2>>;
// An input whose scalar is deduced, because no output has it (T is then const, or not): read as view<const T>.
template <class T>
using deduced_matrix = view<T, 2>;

// whether an output is replaced or added to
enum class write { overwrite, accumulate };

// Throws error "where: shape of what: expected (…), found (…)".
template <class T, std::size_t Rank>
void check_shape(const view<T, Rank>& v, std::array<index, Rank> expected, std::string_view where,
                 std::string_view what) {
    if (v.shape != expected) [[unlikely]]
        fail(where, "shape of ", what, ": expected ", shape_text<Rank>{expected}, ", found ",
             shape_text<Rank>{v.shape});
}

}  // namespace spectral
