// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/status.hpp: every status of CUDA, cuBLASLt and cuFFT is looked at here, by name
//
//   detail::checked(cudaMalloc(&p, bytes), "cudaMalloc");     throws spectral::error{"cuda", "cudaMalloc failed: ..."}
//   detail::noted(cudaFree(p), "cudaFree");                   the same in a destructor: written to stderr
#pragma once
#include <spectral/core/check.hpp>

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <cufft.h>

#include <cstdio>

namespace spectral::cuda::detail {

inline std::string text(cudaError_t status) {
    return spectral::detail::join(cudaGetErrorName(status), " (", cudaGetErrorString(status), ")");
}
inline std::string text(cublasStatus_t status) { return cublasLtGetStatusName(status); }

inline std::string text(cufftResult status) {
    switch (status) {
        case CUFFT_ALLOC_FAILED: return "CUFFT_ALLOC_FAILED (no memory)";
        case CUFFT_INVALID_SIZE: return "CUFFT_INVALID_SIZE";
        case CUFFT_INTERNAL_ERROR: return "CUFFT_INTERNAL_ERROR";
        case CUFFT_EXEC_FAILED: return "CUFFT_EXEC_FAILED";
        case CUFFT_SETUP_FAILED: return "CUFFT_SETUP_FAILED";
        default: return spectral::detail::join("cufftResult ", static_cast<int>(status));
    }
}

inline bool good(cudaError_t status) { return status == cudaSuccess; }
inline bool good(cublasStatus_t status) { return status == CUBLAS_STATUS_SUCCESS; }
inline bool good(cufftResult status) { return status == CUFFT_SUCCESS; }

template <class Status>
void checked(Status status, const char* call) {
    if (good(status)) [[likely]]
        return;
    if constexpr (std::is_same_v<Status, cudaError_t>) (void)cudaGetLastError();  // a later check reports its own error
    fail("cuda", call, " failed: ", text(status));
}

// A destructor cannot throw: what went wrong is said, and the program goes on.
template <class Status>
void noted(Status status, const char* call) noexcept {
    if (!good(status)) std::fprintf(stderr, "spectral: cuda: %s failed: %s\n", call, text(status).c_str());
}

inline std::string free_memory() {
    std::size_t free = 0, total = 0;
    (void)cudaMemGetInfo(&free, &total);
    return spectral::detail::join(free, " of ", total);
}

// Made with the scope, given back with it.
struct event {
    cudaEvent_t it = nullptr;
    event() { checked(cudaEventCreate(&it), "cudaEventCreate"); }
    event(const event&) = delete;
    event& operator=(const event&) = delete;
    ~event() { noted(cudaEventDestroy(it), "cudaEventDestroy"); }
};

// Of a constructor that another one delegates to: whatever throws after it, the destructor runs.
struct delegated {};

}  // namespace spectral::cuda::detail
