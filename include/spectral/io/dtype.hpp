// SPDX-License-Identifier: Apache-2.0
// include/spectral/io/dtype.hpp: element types of tensors in files, and their C++ types
#pragma once
#include <spectral/core/half.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

namespace spectral {

// clang-format off
// The names of the safetensors format, in the order of its reference implementation.
enum class dtype : std::uint8_t {
    boolean, f4, f6_e2m3, f6_e3m2, u8, i8, f8_e5m2, f8_e4m3, f8_e8m0, f8_e4m3fnuz, f8_e5m2fnuz, i16, u16, f16, bf16,
    i32, u32, f32, c64, f64, i64, u64
};

// Name and size of an element in a file.
struct dtype_info {
    std::string_view name;
    int bits;
};
inline constexpr std::array<dtype_info, 22> dtype_table{{
    {"BOOL", 8}, {"F4", 4}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8}, {"I8", 8}, {"F8_E5M2", 8}, {"F8_E4M3", 8},
    {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16}, {"U16", 16}, {"F16", 16}, {"BF16", 16},
    {"I32", 32}, {"U32", 32}, {"F32", 32}, {"C64", 64}, {"F64", 64}, {"I64", 64}, {"U64", 64},
}};
// clang-format on

// Name, bits, and the type of a name (none: no such name).
constexpr std::string_view dtype_name(dtype type) { return dtype_table[static_cast<std::size_t>(type)].name; }
constexpr int dtype_bits(dtype type) { return dtype_table[static_cast<std::size_t>(type)].bits; }
constexpr std::optional<dtype> dtype_from_name(std::string_view name) {
    for (std::size_t i = 0; i < dtype_table.size(); ++i)
        if (dtype_table[i].name == name) return static_cast<dtype>(i);
    return std::nullopt;
}

namespace detail {
template <class T>
constexpr std::optional<dtype> dtype_of_type() {
    if constexpr (std::is_same_v<T, bool>)
        return dtype::boolean;
    else if constexpr (std::is_same_v<T, double>)
        return dtype::f64;
    else if constexpr (std::is_same_v<T, float>)
        return dtype::f32;
    else if constexpr (std::is_same_v<T, bfloat16>)
        return dtype::bf16;
    else if constexpr (std::is_same_v<T, float16>)
        return dtype::f16;
    else if constexpr (std::is_integral_v<T>) {  // by size and sign: long and long long are one type in a file
        constexpr bool s = std::is_signed_v<T>;
        if constexpr (sizeof(T) == 1)
            return s ? dtype::i8 : dtype::u8;
        else if constexpr (sizeof(T) == 2)
            return s ? dtype::i16 : dtype::u16;
        else if constexpr (sizeof(T) == 4)
            return s ? dtype::i32 : dtype::u32;
        else if constexpr (sizeof(T) == 8)
            return s ? dtype::i64 : dtype::u64;
    }
    return std::nullopt;
}
}  // namespace detail

// clang-format off
// A C++ type that a tensor in a file can have, and the dtype of it.
template <class T> concept TensorElement = detail::dtype_of_type<std::remove_cv_t<T>>().has_value();
template <TensorElement T> inline constexpr dtype dtype_of = *detail::dtype_of_type<std::remove_cv_t<T>>();
// clang-format on

}  // namespace spectral
