// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/cufft_plan.hpp: cuFFT's transforms of so many rows, with the memory they work in
#pragma once
#include <spectral/core/tensor.hpp>
#include <spectral/cuda/detail/small_dft.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace spectral::cuda::detail {

struct cufft_handle {
    cufftHandle plan = 0;
    cufft_handle() = default;
    cufft_handle(const cufft_handle&) = delete;
    ~cufft_handle() {
        if (plan) noted(cufftDestroy(plan), "cufftDestroy");
    }
    // of `batch` rows; returns the bytes of memory that it works in
    std::size_t make(cufftType type, index width, index batch, cudaStream_t stream) {
        int N = static_cast<int>(width);
        std::size_t asked = 0;
        checked(cufftCreate(&plan), "cufftCreate");
        checked(cufftSetAutoAllocation(plan, 0), "cufftSetAutoAllocation");
        const cufftResult made =
            cufftMakePlanMany(plan, 1, &N, nullptr, 1, N, nullptr, 1, N, type, static_cast<int>(batch), &asked);
        check(good(made), "cuda", "cufftMakePlanMany of ", batch, " rows of ", N, " values failed: ", text(made), ", ",
              free_memory(), " bytes free");
        checked(cufftSetStream(plan, stream), "cufftSetStream");
        return asked;
    }
};

// Even widths: real transforms. Odd ones: complex transforms, because cuFFT pairs the rows of odd real transforms, and
// a row must not reach its neighbour.
template <class A>
struct cufft_plan : kept {
    static constexpr bool is_double = std::is_same_v<A, double>;
    cufft_handle forward, inverse;  // odd: one for both
    tensor<executor, unsigned char> work;
    tensor<executor, complex<A>> table;
    const complex<A>* quarter = nullptr;  // e^{-iπk/2N}, k ≤ N/2

    cufft_plan(executor& ex, index width, index batch) {
        const bool odd = width % 2;
        const auto stream = ex.stream();
        std::size_t bytes = forward.make(odd         ? is_double ? CUFFT_Z2Z : CUFFT_C2C
                                         : is_double ? CUFFT_D2Z
                                                     : CUFFT_R2C,
                                         width, batch, stream);
        if (!odd) bytes = std::max(bytes, inverse.make(is_double ? CUFFT_Z2D : CUFFT_C2R, width, batch, stream));
        work = tensor<executor, unsigned char>(ex, {static_cast<index>(std::max<std::size_t>(bytes, 1))});
        for (const auto* h : {&forward, &inverse})
            if (h->plan) checked(cufftSetWorkArea(h->plan, work.data()), "cufftSetWorkArea");
        std::vector<complex<A>> host;
        for (index k = 0; k <= width / 2; ++k) {
            const double angle = -1.57079632679489661923 * static_cast<double>(k) / static_cast<double>(width);
            host.push_back({static_cast<A>(std::cos(angle)), static_cast<A>(std::sin(angle))});
        }
        table = tensor<executor, complex<A>>(ex, {static_cast<index>(host.size())}, host);
        quarter = table.data();
    }
    void real(A* from, complex<A>* to) const {
        if constexpr (is_double)
            checked(cufftExecD2Z(forward.plan, from, reinterpret_cast<cufftDoubleComplex*>(to)), "cufftExecD2Z");
        else
            checked(cufftExecR2C(forward.plan, from, reinterpret_cast<cufftComplex*>(to)), "cufftExecR2C");
    }
    void real_back(complex<A>* from, A* to) const {
        if constexpr (is_double)
            checked(cufftExecZ2D(inverse.plan, reinterpret_cast<cufftDoubleComplex*>(from), to), "cufftExecZ2D");
        else
            checked(cufftExecC2R(inverse.plan, reinterpret_cast<cufftComplex*>(from), to), "cufftExecC2R");
    }
    void in_place(complex<A>* bins, int direction) const {
        if constexpr (is_double) {
            auto* p = reinterpret_cast<cufftDoubleComplex*>(bins);
            checked(cufftExecZ2Z(forward.plan, p, p, direction), "cufftExecZ2Z");
        } else {
            auto* p = reinterpret_cast<cufftComplex*>(bins);
            checked(cufftExecC2C(forward.plan, p, p, direction), "cufftExecC2C");
        }
    }
};

}  // namespace spectral::cuda::detail
