// SPDX-License-Identifier: Apache-2.0
// tests/cuda_on_host/cufft.h: cuFFT's batched real transforms by their definition, unnormalised, see cuda_runtime.h
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <vector>

enum cufftResult {
    CUFFT_SUCCESS = 0,
    CUFFT_INVALID_PLAN = 1,
    CUFFT_ALLOC_FAILED = 2,
    CUFFT_INTERNAL_ERROR = 5,
    CUFFT_EXEC_FAILED = 6,
    CUFFT_SETUP_FAILED = 7,
    CUFFT_INVALID_SIZE = 8
};
enum cufftType { CUFFT_R2C, CUFFT_C2R, CUFFT_C2C, CUFFT_D2Z, CUFFT_Z2D, CUFFT_Z2Z };
#define CUFFT_FORWARD -1
#define CUFFT_INVERSE 1
struct cufftComplex {
    float x, y;
};
struct cufftDoubleComplex {
    double x, y;
};
using cufftReal = float;
using cufftDoubleReal = double;

struct host_transform {
    int length = 0, batch = 0;
};
inline std::vector<host_transform>& host_transforms() {
    static std::vector<host_transform> all(1);  // 0 is no plan
    return all;
}
using cufftHandle = int;

inline cufftResult cufftCreate(cufftHandle* h) {
    host_transforms().emplace_back();
    *h = static_cast<int>(host_transforms().size()) - 1;
    return CUFFT_SUCCESS;
}
inline cufftResult cufftDestroy(cufftHandle) { return CUFFT_SUCCESS; }
inline cufftResult cufftSetAutoAllocation(cufftHandle, int) { return CUFFT_SUCCESS; }
inline cufftResult cufftSetWorkArea(cufftHandle, void*) { return CUFFT_SUCCESS; }
inline cufftResult cufftSetStream(cufftHandle, cudaStream_t) { return CUFFT_SUCCESS; }
inline cufftResult cufftMakePlanMany(cufftHandle h, int rank, int* n, int* inembed, int, int, int* onembed, int, int, cufftType, int batch, std::size_t* work) {
    if (rank != 1 || inembed || onembed || *n < 1 || batch < 1) return CUFFT_INVALID_SIZE;
    if (machine().free_bytes < *n * sizeof(cufftDoubleComplex)) return CUFFT_ALLOC_FAILED;  // a plan keeps tables on the device
    host_transforms()[static_cast<std::size_t>(h)] = {*n, batch};
    *work = 0;
    return CUFFT_SUCCESS;
}

inline std::vector<cufftDoubleComplex> host_roots(int n) {  // e^{-2πi j/n}
    std::vector<cufftDoubleComplex> out;
    for (int j = 0; j < n; ++j) out.push_back({std::cos(6.283185307179586477 * j / n), -std::sin(6.283185307179586477 * j / n)});
    return out;
}
template <class Real, class Complex>
cufftResult host_forward(cufftHandle h, const Real* in, Complex* out) {
    const auto [n, batch] = host_transforms()[static_cast<std::size_t>(h)];
    const auto roots = host_roots(n);
    for (int b = 0; b < batch; ++b, in += n, out += n / 2 + 1)
        for (int k = 0; k <= n / 2; ++k) {
            double re = 0, im = 0;
            for (long long j = 0, at = 0; j < n; ++j, at = (at + k) % n) re += in[j] * roots[at].x, im += in[j] * roots[at].y;
            out[k] = {static_cast<Real>(re), static_cast<Real>(im)};
        }
    return CUFFT_SUCCESS;
}
template <class Real, class Complex>
cufftResult host_inverse(cufftHandle h, const Complex* in, Real* out) {
    const auto [n, batch] = host_transforms()[static_cast<std::size_t>(h)];
    const auto roots = host_roots(n);
    for (int b = 0; b < batch; ++b, in += n / 2 + 1, out += n)
        for (int j = 0; j < n; ++j) {
            double sum = in[0].x;
            for (int k = 1; k <= n / 2; ++k) {
                const auto& w = roots[static_cast<std::size_t>(static_cast<long long>(j) * k % n)];
                sum += (2 * k == n ? 1 : 2) * (in[k].x * w.x + in[k].y * w.y);  // Re(in[k] conj(w))
            }
            out[j] = static_cast<Real>(sum);
        }
    return CUFFT_SUCCESS;
}
inline cufftResult cufftExecR2C(cufftHandle h, float* in, cufftComplex* out) { return queue_on_host([=] { host_forward(h, in, out); }), CUFFT_SUCCESS; }
inline cufftResult cufftExecD2Z(cufftHandle h, double* in, cufftDoubleComplex* out) { return queue_on_host([=] { host_forward(h, in, out); }), CUFFT_SUCCESS; }
inline cufftResult cufftExecC2R(cufftHandle h, cufftComplex* in, float* out) { return queue_on_host([=] { host_inverse(h, in, out); }), CUFFT_SUCCESS; }
inline cufftResult cufftExecZ2D(cufftHandle h, cufftDoubleComplex* in, double* out) { return queue_on_host([=] { host_inverse(h, in, out); }), CUFFT_SUCCESS; }
template <class Complex>
cufftResult host_in_place(cufftHandle h, const Complex* in, Complex* out, int sign) {
    const auto [n, batch] = host_transforms()[static_cast<std::size_t>(h)];
    const auto roots = host_roots(n);
    std::vector<Complex> row(static_cast<std::size_t>(n));
    for (int b = 0; b < batch; ++b, in += n, out += n) {
        for (int k = 0; k < n; ++k) {
            double re = 0, im = 0;
            for (long long j = 0, at = 0; j < n; ++j, at = (at + k) % n) {
                const double x = roots[at].x, y = sign < 0 ? roots[at].y : -roots[at].y;
                re += in[j].x * x - in[j].y * y, im += in[j].x * y + in[j].y * x;
            }
            row[static_cast<std::size_t>(k)] = {static_cast<decltype(in->x)>(re), static_cast<decltype(in->x)>(im)};
        }
        std::copy(row.begin(), row.end(), out);
    }
    return CUFFT_SUCCESS;
}
inline cufftResult cufftExecC2C(cufftHandle h, cufftComplex* in, cufftComplex* out, int sign) { return queue_on_host([=] { host_in_place(h, in, out, sign); }), CUFFT_SUCCESS; }
inline cufftResult cufftExecZ2Z(cufftHandle h, cufftDoubleComplex* in, cufftDoubleComplex* out, int sign) { return queue_on_host([=] { host_in_place(h, in, out, sign); }), CUFFT_SUCCESS; }
