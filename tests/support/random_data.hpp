// SPDX-License-Identifier: Apache-2.0
// tests/support/random_data.hpp: reproducible inputs, and the workbench that puts them on an executor
//
// Inputs are doubles that float represents exactly, so that every scalar type computes from the same numbers.
// A workbench surrounds every operand with bytes of ones (NaN to float and double): a kernel that reads outside its
// views yields NaN, one that writes outside them, or into an input, is reported by check_untouched(). Outputs start as
// NaN, so that one that should be overwritten and is not shows too.
#pragma once
#include <spectral/core/half.hpp>
#include <spectral/core/random.hpp>
#include <spectral/core/rows.hpp>
#include <spectral/core/tensor.hpp>
#include <support/catch.hpp>

#include <cstring>
#include <deque>
#include <map>
#include <tuple>
#include <vector>

namespace spectral::test {

inline constexpr double nan = std::numeric_limits<double>::quiet_NaN();
// What must be overwritten
inline std::vector<double> not_a_number(index n) { return std::vector<double>(static_cast<std::size_t>(n), nan); }

// Standard normal values times `scale`; the same seed gives the same values. Kept, because every case asks several
// times.
inline std::vector<double> normals(index count, std::uint64_t seed, double scale = 1) {
    static std::map<std::tuple<index, std::uint64_t, double>, std::vector<double>> known;
    std::vector<double>& out = known[{count, seed, scale}];
    if (out.empty() && count > 0) {
        const random_stream draw{20240607, seed};
        out.resize(static_cast<std::size_t>(count));
        for (std::size_t i = 0; i < out.size(); ++i) {
            out[i] = static_cast<float>(scale * draw.normal(i));
#if defined(SPECTRAL_TEST_BFLOAT16) && SPECTRAL_TEST_BFLOAT16
            out[i] = static_cast<float>(bfloat16(static_cast<float>(out[i])));  // what this scalar represents exactly
#endif
        }
    }
    return out;
}

// The same, rounded to bfloat16
inline std::vector<double> rounded_normals(index count, std::uint64_t seed) {
    std::vector<double> out = normals(count, seed);
    for (double& v : out) v = widen<double>(bfloat16(static_cast<float>(v)));
    return out;
}

// Whole numbers in [0, below)
inline std::vector<row_index> random_ids(index count, index below, std::uint64_t seed) {
    const random_stream draw{20240608, seed};
    std::vector<row_index> out(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = static_cast<row_index>(draw.bits(i) % static_cast<std::uint64_t>(below));
    return out;
}

// How operands lie in memory: `dense` is contiguous and 64-byte aligned, `columns` a block of columns of a wider
// matrix.
enum class layout { dense, columns };

template <class Target>
class workbench {
public:
    using target = Target;
    using executor = typename Target::executor;
    using scalar = typename Target::scalar;

    explicit workbench(layout l = layout::dense) : ex(Target::instance()), layout_(l), scope_(ex) {}
    executor& ex;

    // read by the operator and not written
    matrix_view<const scalar> input(index n, index c, const std::vector<double>& values) {
        return place<scalar>(n, c, &values, true);
    }
    vector_view<const scalar> input(const std::vector<double>& values) {
        return flat(place<scalar>(1, count(values), &values, true));
    }
    // numbers that a bfloat16 model keeps in float: means, losses, gradients of parameters
    using real = statistic<scalar>;
    vector_view<const real> statistics(const std::vector<double>& values) {
        return flat(place<real>(1, count(values), &values, true));
    }
    matrix_view<const real> statistics(index n, index c, const std::vector<double>& values) {
        return place<real>(n, c, &values, true);
    }
    // the same, kept as bfloat16
    matrix_view<const bfloat16> narrow_input(index n, index c, const std::vector<double>& values) {
        return place<bfloat16>(n, c, &values, true);
    }
    vector_view<const double> doubles(const std::vector<double>& values) {
        return flat(place<double>(1, count(values), &values, true));
    }
    vector_view<const row_index> ids(const std::vector<row_index>& values) {
        const std::vector<double> wide(values.begin(), values.end());
        return flat(place<row_index>(1, count(wide), &wide, true));
    }
    // read and written
    matrix_view<scalar> state(index n, index c, const std::vector<double>& values) {
        return place<scalar>(n, c, &values, false);
    }
    vector_view<real> state(const std::vector<double>& values) {
        return flat(place<real>(1, count(values), &values, false));
    }
    matrix_view<real> gradient(index n, index c, const std::vector<double>& values) {  // of a parameter
        return place<real>(n, c, &values, false);
    }
    // written only: NaN, or -1, at the start
    matrix_view<scalar> output(index n, index c) { return place<scalar>(n, c, nullptr, false); }
    matrix_view<statistic<scalar>> statistics(index n, index c) {
        return place<statistic<scalar>>(n, c, nullptr, false);
    }
    template <class U = statistic<scalar>>
    vector_view<U> output(index n) {
        return flat(place<U>(1, n, nullptr, false));
    }

    selection select(const std::vector<row_index>& rows, index capacity) {
        return {ids(rows).data, ids({static_cast<row_index>(rows.size())}).data, capacity};
    }

    template <class U, std::size_t Rank>
    std::vector<double> read(view<U, Rank> v) {
        std::vector<double> out;
        std::vector<std::remove_const_t<U>> row(static_cast<std::size_t>(v.width()));
        for (index n = 0; n < v.rows(); ++n) {
            if (!row.empty()) ex.copy_to_host(row.data(), v.row(n), row.size() * sizeof(U));
            for (const auto& value : row) {
                if constexpr (std::is_arithmetic_v<std::remove_const_t<U>>)
                    out.push_back(value);
                else
                    out.push_back(static_cast<float>(value));  // bfloat16
            }
        }
        return out;
    }

    // No byte outside the written views has changed.
    void check_untouched(const std::string& about) {
        for (const auto& b : blocks_) {
            const auto now = b.memory.to_host();
            bool same = true;
            for (std::size_t i = 0; i < now.size(); ++i) same = same && (now[i] == b.before[i] || b.written[i]);
            if (!same) FAIL_CHECK(about << ": wrote outside its outputs");
        }
    }

private:
    struct block {
        tensor<executor, std::byte> memory;
        std::vector<std::byte> before;
        std::vector<bool> written;
    };

    static index count(const std::vector<double>& v) { return static_cast<index>(v.size()); }
    template <class U>
    static vector_view<U> flat(matrix_view<U> m) {
        return {m.data, {m.width()}};
    }

    template <class U>
    matrix_view<U> place(index n, index c, const std::vector<double>* values, bool constant) {
        if (values) check_equal(count(*values), n * c, "workbench", "number of values");
        const bool wide = layout_ == layout::columns;
        const index stride = wide ? c + 5 : c, first = static_cast<index>(64 / sizeof(U)) + (wide ? 3 : 0);
        const auto elements = static_cast<std::size_t>(first + n * stride + static_cast<index>(64 / sizeof(U)));
        std::vector<std::byte> bytes(elements * sizeof(U), std::byte{0xFF});
        std::vector<bool> written(bytes.size());
        for (index r = 0; r < n; ++r)
            for (index i = 0; i < c; ++i) {
                const auto at = static_cast<std::size_t>(first + r * stride + i) * sizeof(U);
                if (values) {
                    const double given = (*values)[static_cast<std::size_t>(r * c + i)];
                    U value;
                    if constexpr (std::is_same_v<U, bfloat16>)
                        value = U(static_cast<float>(given));
                    else
                        value = static_cast<U>(given);
                    std::memcpy(bytes.data() + at, &value, sizeof(U));
                }
                if (!constant) std::fill_n(written.begin() + static_cast<std::ptrdiff_t>(at), sizeof(U), true);
            }
        tensor<executor, std::byte> memory(ex, {static_cast<index>(bytes.size())}, bytes);
        U* data = reinterpret_cast<U*>(memory.data()) + first;
        blocks_.push_back({std::move(memory), std::move(bytes), std::move(written)});
        return {data, {n, c}, stride};
    }

    layout layout_;
    arena_scope<executor> scope_;
    std::deque<block> blocks_;
};

}  // namespace spectral::test
