// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/gemm.hpp: the one place where matrix products meet cuBLASLt
//
//   detail::gemm<T>(ex, what, {a, transposed}, {b, transposed}, alpha, beta, c, bias)       C = α op(A) op(B) + β C (+ bias)
// All row-major with their strides. cuBLASLt counts columns first, so the product asked of it is Cᵀ = op(B)ᵀ op(A)ᵀ.
// The algorithm of a shape is asked for once and kept. Float is computed in float, not in TF32, unless the executor's
// options say so; bfloat16 accumulates in float.
#pragma once
#include <spectral/cuda/detail/launch.hpp>

#include <array>

namespace spectral::cuda::detail {

template <class T> inline constexpr cudaDataType_t cuda_type = CUDA_R_32F;
template <> inline constexpr cudaDataType_t cuda_type<double> = CUDA_R_64F;
template <> inline constexpr cudaDataType_t cuda_type<bfloat16> = CUDA_R_16BF;

struct matrix_products : kept {
    static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;   // what NVIDIA suggests for Hopper
    executor& ex;
    cublasLtHandle_t handle = nullptr;
    cublasLtMatmulPreference_t preference = nullptr;
    void* workspace = nullptr;

    struct plan {
        cublasLtMatmulDesc_t operation = nullptr;
        cublasLtMatrixLayout_t left = nullptr, right = nullptr, result = nullptr;
        cublasLtMatmulAlgo_t algorithm{};
        bool usable = false;
    };
    using key = std::array<index, 16>;
    std::map<key, plan> plans;

    explicit matrix_products(executor& ex_) : ex(ex_) {
        checked(cublasLtCreate(&handle), "cublasLtCreate");
        checked(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
        const std::size_t bytes = workspace_bytes;
        checked(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes),
                "cublasLt workspace");
        workspace = ex.allocate(workspace_bytes);
    }
    ~matrix_products() override {
        for (auto& [k, p] : plans) {
            if (p.operation) noted(cublasLtMatmulDescDestroy(p.operation), "cublasLtMatmulDescDestroy");
            for (auto layout : {p.left, p.right, p.result})
                if (layout) noted(cublasLtMatrixLayoutDestroy(layout), "cublasLtMatrixLayoutDestroy");
        }
        if (preference) noted(cublasLtMatmulPreferenceDestroy(preference), "cublasLtMatmulPreferenceDestroy");
        if (handle) noted(cublasLtDestroy(handle), "cublasLtDestroy");
        ex.deallocate(workspace, workspace_bytes);
    }
};

// 16, 8, 4, …: what the address is a multiple of
inline std::uint32_t alignment(const void* p) {
    std::uint32_t bytes = 256;
    while (reinterpret_cast<std::uintptr_t>(p) % bytes) bytes /= 2;
    return bytes;
}

template <class T>
struct factor {
    view<const T, 2> matrix;
    bool transposed = false;
    index rows() const { return transposed ? matrix.width() : matrix.rows(); }
    index columns() const { return transposed ? matrix.rows() : matrix.width(); }
};

// T: of the factors; U: of the result and the bias
template <class T, class U = T>
void gemm(executor& ex, const char* what, factor<T> a, factor<T> b, double alpha, double beta, view<U, 2> c, const U* bias = nullptr) {
    using A = compute<T>;
    const index m = c.rows(), n = c.width(), k = a.columns();
    if (m == 0 || n == 0) return;
    auto& products = ex.keep<matrix_products>(0);
    const A alpha_value = static_cast<A>(alpha), beta_value = static_cast<A>(beta);
    // a stride is only meaningful with more than one row, but cuBLASLt wants it large enough
    const auto stride = [](const auto& v) { return std::max(v.row_stride, std::max<index>(v.width(), 1)); };
    const index tf32 = std::is_same_v<T, float> && ex.options().tf32;
    const typename matrix_products::key key{m, n, k, stride(a.matrix), stride(b.matrix), stride(c), a.transposed, b.transposed,
                                            cuda_type<T>, cuda_type<U>, bias != nullptr, beta != 0, alignment(a.matrix.data),
                                            alignment(b.matrix.data), alignment(c.data), bias ? alignment(bias) : 0};
    auto& plan = products.plans[key];
    if (!plan.operation) {
        const cublasComputeType_t how = std::is_same_v<A, double> ? CUBLAS_COMPUTE_64F
                                        : tf32                    ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                                  : CUBLAS_COMPUTE_32F;
        checked(cublasLtMatmulDescCreate(&plan.operation, how, cuda_type<A>), "cublasLtMatmulDescCreate");
        const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
            checked(cublasLtMatmulDescSetAttribute(plan.operation, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
        };
        set(CUBLASLT_MATMUL_DESC_TRANSA, b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
        set(CUBLASLT_MATMUL_DESC_TRANSB, a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
        if (bias) {
            set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
            set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
            set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, cuda_type<U>);
        }
        const auto layout = [&](cublasLtMatrixLayout_t& to, cudaDataType_t type, const auto& v) {
            checked(cublasLtMatrixLayoutCreate(&to, type, static_cast<std::uint64_t>(v.width()), static_cast<std::uint64_t>(v.rows()), stride(v)),
                    "cublasLtMatrixLayoutCreate");
        };
        layout(plan.left, cuda_type<T>, b.matrix);
        layout(plan.right, cuda_type<T>, a.matrix);
        layout(plan.result, cuda_type<U>, c);
        const auto aligned = [&](cublasLtMatmulPreferenceAttributes_t attribute, const void* p) {
            const std::uint32_t bytes = alignment(p);
            checked(cublasLtMatmulPreferenceSetAttribute(products.preference, attribute, &bytes, sizeof bytes), "cublasLt alignment");
        };
        aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b.matrix.data);
        aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a.matrix.data);
        aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c.data);
        aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c.data);
        cublasLtMatmulHeuristicResult_t found{};
        int count = 0;
        const auto status = cublasLtMatmulAlgoGetHeuristic(products.handle, plan.operation, plan.left, plan.right, plan.result, plan.result,
                                                           products.preference, 1, &found, &count);
        plan.usable = status == CUBLAS_STATUS_SUCCESS && count > 0;
        plan.algorithm = found.algo;
    }
    check(plan.usable, what, "cuBLASLt has no matrix product for (", m, ", ", k, ") times (", k, ", ", n, ") of strides ", stride(a.matrix), ", ",
          stride(b.matrix), ", ", stride(c), " on ", ex.device_name());
    if (bias)
        checked(cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias),
                "cublasLtMatmulDescSetAttribute");
    ex.queue(what, [&] {
        checked(cublasLtMatmul(products.handle, plan.operation, &alpha_value, b.matrix.data, plan.left, a.matrix.data, plan.right, &beta_value,
                               c.data, plan.result, c.data, plan.result, &plan.algorithm, products.workspace,
                               matrix_products::workspace_bytes, ex.stream()),
                what);
    });
}

}  // namespace spectral::cuda::detail
