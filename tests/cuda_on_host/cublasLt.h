// SPDX-License-Identifier: Apache-2.0
// tests/cuda_on_host/cublasLt.h: the matrix product of cuBLASLt as its documentation defines it, see cuda_runtime.h
//   D = α op(A) op(B) + β C (+ bias over the rows of D; or the sums of op(B)'s columns), all column-major
#pragma once
#include <spectral/core/half.hpp>

#include <cuda_runtime.h>

enum cublasStatus_t { CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_INVALID_VALUE };
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F, CUBLAS_COMPUTE_32F_FAST_TF32 };
enum cudaDataType_t { CUDA_R_32F, CUDA_R_64F, CUDA_R_16BF };
enum cublasLtMatmulDescAttributes_t {
    CUBLASLT_MATMUL_DESC_TRANSA,
    CUBLASLT_MATMUL_DESC_TRANSB,
    CUBLASLT_MATMUL_DESC_EPILOGUE,
    CUBLASLT_MATMUL_DESC_BIAS_POINTER,
    CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE
};
enum cublasLtEpilogue_t { CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_BGRADB };
enum cublasLtMatmulPreferenceAttributes_t {
    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
};
struct cublasLtMatmulAlgo_t {
    unsigned char data[64];
};
enum cublasLtMatrixLayoutAttribute_t { CUBLASLT_MATRIX_LAYOUT_ROWS, CUBLASLT_MATRIX_LAYOUT_COLS };
struct cublasLtMatmulHeuristicResult_t {
    cublasLtMatmulAlgo_t algo;
};
struct host_layout {
    cudaDataType_t type;
    std::int64_t rows, columns, stride;
};
struct host_operation {
    cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const void* bias = nullptr;
    cudaDataType_t type, bias_type;
};
using cublasLtHandle_t = void*;
using cublasLtMatmulPreference_t = void*;
using cublasLtMatrixLayout_t = host_layout*;
using cublasLtMatmulDesc_t = host_operation*;

inline const char* cublasLtGetStatusName(cublasStatus_t) { return "cublasStatus"; }
inline cublasStatus_t cublasLtCreate(void** h) { return *h = nullptr, CUBLAS_STATUS_SUCCESS; }
inline cublasStatus_t cublasLtDestroy(void*) { return CUBLAS_STATUS_SUCCESS; }
inline cublasStatus_t cublasLtMatmulPreferenceCreate(void** p) { return *p = nullptr, CUBLAS_STATUS_SUCCESS; }
inline cublasStatus_t cublasLtMatmulPreferenceDestroy(void*) { return CUBLAS_STATUS_SUCCESS; }
inline cublasStatus_t cublasLtMatmulPreferenceSetAttribute(void*, int, const void*, std::size_t) { return CUBLAS_STATUS_SUCCESS; }
inline cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d, cublasComputeType_t, cudaDataType_t t) {
    *d = new host_operation;
    (*d)->type = t;
    return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) { return delete d, CUBLAS_STATUS_SUCCESS; }
inline cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a, const void* v, std::size_t n) {
    switch (a) {
        case CUBLASLT_MATMUL_DESC_TRANSA: std::memcpy(&d->a, v, n); break;
        case CUBLASLT_MATMUL_DESC_TRANSB: std::memcpy(&d->b, v, n); break;
        case CUBLASLT_MATMUL_DESC_EPILOGUE: std::memcpy(&d->epilogue, v, n); break;
        case CUBLASLT_MATMUL_DESC_BIAS_POINTER: std::memcpy(&d->bias, v, n); break;
        case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: std::memcpy(&d->bias_type, v, n); break;
    }
    return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* l, cudaDataType_t t, std::uint64_t rows, std::uint64_t columns, std::int64_t stride) {
    *l = new host_layout{t, static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns), stride};
    return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t a, const void* v, std::size_t n) {
    std::memcpy(a == CUBLASLT_MATRIX_LAYOUT_ROWS ? &l->rows : &l->columns, v, n);
    return CUBLAS_STATUS_SUCCESS;
}
inline std::size_t cublasLtGetVersion() { return 0; }
inline cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) { return delete l, CUBLAS_STATUS_SUCCESS; }
inline cublasStatus_t cublasLtMatmulAlgoGetHeuristic(void*, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                                     cublasLtMatrixLayout_t, void*, int, cublasLtMatmulHeuristicResult_t*, int* n) {
    return *n = 1, CUBLAS_STATUS_SUCCESS;
}
inline double host_value(const void* p, cudaDataType_t t, std::int64_t i) {
    return t == CUDA_R_32F ? static_cast<const float*>(p)[i] : t == CUDA_R_64F ? static_cast<const double*>(p)[i]
                                                                              : static_cast<float>(static_cast<const spectral::bfloat16*>(p)[i]);
}
inline cublasStatus_t cublasLtMatmul(void*, cublasLtMatmulDesc_t d, const void* alpha, const void* a, cublasLtMatrixLayout_t la, const void* b,
                                     cublasLtMatrixLayout_t lb, const void* beta, const void* c, cublasLtMatrixLayout_t lc, void* out,
                                     cublasLtMatrixLayout_t ld, const cublasLtMatmulAlgo_t*, void*, std::size_t, cudaStream_t) {
    const std::int64_t m = ld->rows, n = ld->columns, k = d->a == CUBLAS_OP_N ? la->columns : la->rows;
    const std::int64_t a_rows = d->a == CUBLAS_OP_N ? la->rows : la->columns, b_rows = d->b == CUBLAS_OP_N ? lb->rows : lb->columns,
                       b_columns = d->b == CUBLAS_OP_N ? lb->columns : lb->rows;
    if (a_rows != m || b_rows != k || b_columns != n || la->stride < la->rows || lb->stride < lb->rows || ld->stride < ld->rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    const double by = host_value(alpha, d->type, 0), keep = host_value(beta, d->type, 0);
    queue_on_host([=, op = *d, left = *la, right = *lb, added = *lc, result = *ld] {
        for (std::int64_t j = 0; j < n && op.epilogue == CUBLASLT_EPILOGUE_BGRADB; ++j) {
            double sum = 0;
            for (std::int64_t l = 0; l < k; ++l) sum += host_value(b, right.type, op.b == CUBLAS_OP_N ? l + j * right.stride : j + l * right.stride);
            static_cast<float*>(const_cast<void*>(op.bias))[j] = static_cast<float>(sum);
        }
        for (std::int64_t j = 0; j < n; ++j)
            for (std::int64_t i = 0; i < m; ++i) {
                double sum = 0;
                for (std::int64_t l = 0; l < k; ++l)
                    sum += host_value(a, left.type, op.a == CUBLAS_OP_N ? i + l * left.stride : l + i * left.stride) *
                           host_value(b, right.type, op.b == CUBLAS_OP_N ? l + j * right.stride : j + l * right.stride);
                sum *= by;
                if (keep != 0) sum += keep * host_value(c, added.type, i + j * added.stride);
                if (op.epilogue == CUBLASLT_EPILOGUE_BIAS) sum += host_value(op.bias, op.bias_type, i);
                const std::int64_t at = i + j * result.stride;
                if (result.type == CUDA_R_32F) static_cast<float*>(out)[at] = static_cast<float>(sum);
                else if (result.type == CUDA_R_64F) static_cast<double*>(out)[at] = sum;
                else static_cast<spectral::bfloat16*>(out)[at] = spectral::bfloat16(static_cast<float>(sum));
            }
    });
    return CUBLAS_STATUS_SUCCESS;
}
