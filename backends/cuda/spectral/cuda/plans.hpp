// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/plans.hpp: choices that outlive a process
#pragma once
#include <spectral/cuda/detail/composed_rows.hpp>

#include <map>
#include <sstream>
#include <string>

namespace spectral::cuda {

// The algorithm of every class of products, and the form of every class of composed transforms, so far, as text: to be
// kept beside a checkpoint.
inline std::map<std::string, std::string> products_chosen(executor& ex) {
    std::map<std::string, std::string> out;
    const auto add = [&](const detail::product_class& key, const cublasLtMatmulAlgo_t& algorithm) {
        std::ostringstream name, bytes;
        for (index v : key.value) name << (name.tellp() > 0 ? " " : "") << v;
        const auto* b = reinterpret_cast<const unsigned char*>(&algorithm);
        for (std::size_t i = 0; i < sizeof algorithm; ++i)
            bytes << "0123456789abcdef"[b[i] / 16] << "0123456789abcdef"[b[i] % 16];
        out[name.str()] = bytes.str();
    };
    const auto& products = ex.keep<detail::matrix_products>(0);
    for (const auto& [key, algorithm] : products.given) add(key, algorithm);  // also those not met again so far
    for (const auto& [key, plan] : products.plans)
        if (plan.usable) add(key, plan.algorithm);
    for (const auto& [name, by_matrix] : ex.keep<detail::transform_choices>(0).by_matrix)
        out[name] = by_matrix ? "matrix" : "cuFFT";
    return out;
}

// Uses these from now on, for classes that have none yet. They hold for one device and version of cuBLASLt: see
// products_made_by.
inline void choose_products(executor& ex, const std::map<std::string, std::string>& chosen) {
    auto& products = ex.keep<detail::matrix_products>(0);
    for (const auto& [name, bytes] : chosen) {
        if (name.starts_with("dct ")) {
            check(bytes == "matrix" || bytes == "cuFFT", "plans", "\"", name,
                  "\": expected \"matrix\" or \"cuFFT\", found \"", bytes, "\"");
            ex.keep<detail::transform_choices>(0).by_matrix.emplace(name, bytes == "matrix");
            continue;
        }
        detail::product_class key;
        std::istringstream in(name);
        for (index& v : key.value) in >> v;
        cublasLtMatmulAlgo_t algorithm{};
        const auto digit = [](char c) {
            return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        };
        bool good = !in.fail() && bytes.size() == 2 * sizeof algorithm;
        for (std::size_t i = 0; good && i < sizeof algorithm; ++i) {
            const int high = digit(bytes[2 * i]), low = digit(bytes[2 * i + 1]);
            good = high >= 0 && low >= 0;
            reinterpret_cast<unsigned char*>(&algorithm)[i] = static_cast<unsigned char>(16 * high + low);
        }
        check(good, "plans", "\"", name, "\": expected ", detail::product_class::numbers, " numbers and ",
              2 * sizeof algorithm, " hexadecimal digits, found \"", bytes, "\"");
        products.given[key] = algorithm;
    }
}

// What choices belong to: "NVIDIA H200, cuBLASLt 130001"
inline std::string products_made_by(const executor& ex) {
    return spectral::detail::join(ex.device_name(), ", cuBLASLt ", cublasLtGetVersion());
}

}  // namespace spectral::cuda
