// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/gemm.hpp: the one place where matrix products meet cuBLASLt
//
//   detail::gemm<T>(ex, what, {a, transposed}, {b, transposed}, alpha, addend, c, bias, sums)
//       C = α op(A) op(B) + addend (+ bias);   sums[m] = Σ_k op(A)[m, k]
// addend: empty, C itself, or a matrix of C's stride.
// All row-major with their strides. cuBLASLt counts columns first, so the product asked of it is Cᵀ = op(B)ᵀ op(A)ᵀ.
// An algorithm is chosen once for a class of shapes (sizes rounded up: a routed layer has another number of rows in
// every step) and kept: cuBLASLt's first proposal, or with options().tune the fastest of its proposals. Choices are
// written out and read back (../plans.hpp), so that a later process repeats this one's bits.
// Float is computed in float, not in TF32, unless the executor's options say so; bfloat16 accumulates in float.
#pragma once
#include <spectral/cuda/detail/launch.hpp>

#include <array>

namespace spectral::cuda {

namespace detail {

template <class T>
inline constexpr cudaDataType_t cuda_type = CUDA_R_32F;
template <>
inline constexpr cudaDataType_t cuda_type<double> = CUDA_R_64F;
template <>
inline constexpr cudaDataType_t cuda_type<bfloat16> = CUDA_R_16BF;

// What an algorithm is chosen for.
struct product_class {
    static constexpr int numbers = 18;
    std::array<index, numbers> value{};
    bool operator<(const product_class& o) const { return value < o.value; }
};

// A size as algorithms see it: small ones exactly, large ones rounded up, and whether 16-byte accesses divide it.
inline index size_class(index n) { return n <= 16 ? n : n <= 512 ? (n + 31) / 32 * 32 : (n + 127) / 128 * 128; }
// 64, 32, 16, …: what the address is a multiple of
inline std::uint32_t alignment(const void* p) {
    std::uint32_t bytes = 64;
    while (reinterpret_cast<std::uintptr_t>(p) % bytes) bytes /= 2;
    return bytes;
}

struct matrix_products : kept {
    static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;  // what NVIDIA suggests for Hopper
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
    std::map<product_class, plan> plans;
    std::map<product_class, cublasLtMatmulAlgo_t> given;  // choices of an earlier process

    explicit matrix_products(executor& ex_) : matrix_products(ex_, delegated{}) {
        checked(cublasLtCreate(&handle), "cublasLtCreate");
        checked(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
        const std::size_t bytes = workspace_bytes;
        checked(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                                     sizeof bytes),
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
    matrix_products(executor& ex_, delegated) : ex(ex_) {}

    cublasStatus_t run(const plan& p, const cublasLtMatmulAlgo_t& algorithm, const void* alpha, const void* left,
                       const void* right, const void* beta, const void* addend, void* result) {
        return cublasLtMatmul(handle, p.operation, alpha, left, p.left, right, p.right, beta, addend, p.result, result,
                              p.result, &algorithm, workspace, workspace_bytes, ex.stream());
    }

    // The first of cuBLASLt's proposals, or the fastest: `scratch` takes what the trials write.
    template <class F>
    void choose(plan& p, bool timed, F&& trial) {
        constexpr int most = 12;
        cublasLtMatmulHeuristicResult_t found[most] = {};
        int count = 0;
        const auto status = cublasLtMatmulAlgoGetHeuristic(handle, p.operation, p.left, p.right, p.result, p.result,
                                                           preference, timed ? most : 1, found, &count);
        p.usable = status == CUBLAS_STATUS_SUCCESS && count > 0;
        if (!p.usable) return;
        p.algorithm = found[0].algo;
        if (!timed || count < 2) return;
        float best = INFINITY;
        for (int i = 0; i < count; ++i) {
            const float fastest = fastest_ms(ex, [&] { return good(trial(found[i].algo)); });
            if (fastest < best) best = fastest, p.algorithm = found[i].algo;
        }
    }
};

template <class T>
struct factor {
    view<const T, 2> matrix;
    bool transposed = false;
    index rows() const { return transposed ? matrix.width() : matrix.rows(); }
    index columns() const { return transposed ? matrix.rows() : matrix.width(); }
};

// T: of the factors; U: of the result, the bias and the sums. Returns whether the sums, if asked for (then without a
// bias), were made: where cuBLASLt has no such product for a shape, the product is made without them.
template <class T, class U = T>
bool gemm(executor& ex, const char* what, factor<T> a, factor<T> b, double alpha, const_matrix<U> addend, view<U, 2> c,
          const U* bias = nullptr, U* sums = nullptr) {
    using A = compute<T>;
    const index m = c.rows(), n = c.width(), k = a.columns();
    if (m == 0 || n == 0) return false;
    const void* vector = bias ? static_cast<const void*>(bias) : sums;
    auto& products = ex.keep<matrix_products>(0);
    const A alpha_value = static_cast<A>(alpha), beta_value = addend.data ? 1 : 0;
    const U* const base = addend.data ? addend.data : c.data;
    // a stride is only meaningful with more than one row, but cuBLASLt wants it large enough
    const auto stride = [](const auto& v) { return std::max(v.row_stride, std::max<index>(v.width(), 1)); };
    const index tf32 = std::is_same_v<T, float> && ex.options().tf32;
    const product_class key{{size_class(m), size_class(n), size_class(k),
                             index{m % 8 == 0} + 2 * (n % 8 == 0) + 4 * (k % 8 == 0), stride(a.matrix),
                             stride(b.matrix), stride(c), a.transposed, b.transposed, cuda_type<T>, cuda_type<U>,
                             bias   ? 1
                             : sums ? 2
                                    : 0,
                             addend.data != nullptr, alignment(a.matrix.data), alignment(b.matrix.data),
                             std::min(alignment(c.data), alignment(base)), vector ? alignment(vector) : 0, tf32}};
    auto& plan = products.plans[key];
    const auto sizes = [&](auto&& f) {  // f(layout, matrix) of the three
        f(plan.left, b.matrix);
        f(plan.right, a.matrix);
        f(plan.result, c);
    };
    const bool fresh = !plan.operation;
    if (fresh) {
        const cublasComputeType_t how = std::is_same_v<A, double> ? CUBLAS_COMPUTE_64F
                                        : tf32                    ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                                  : CUBLAS_COMPUTE_32F;
        checked(cublasLtMatmulDescCreate(&plan.operation, how, cuda_type<A>), "cublasLtMatmulDescCreate");
        const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
            checked(cublasLtMatmulDescSetAttribute(plan.operation, attribute, &value, sizeof value),
                    "cublasLtMatmulDescSetAttribute");
        };
        set(CUBLASLT_MATMUL_DESC_TRANSA, b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
        set(CUBLASLT_MATMUL_DESC_TRANSB, a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
        if (vector) {  // op(A) is the right factor of the product asked for: B in the epilogue's name
            set(CUBLASLT_MATMUL_DESC_EPILOGUE, bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_BGRADB);
            set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, cuda_type<U>);
        }
        sizes([&](cublasLtMatrixLayout_t& layout, const auto& v) {
            using S = std::remove_const_t<std::remove_pointer_t<decltype(v.data)>>;
            checked(cublasLtMatrixLayoutCreate(&layout, cuda_type<S>, static_cast<std::uint64_t>(v.width()),
                                               static_cast<std::uint64_t>(v.rows()), stride(v)),
                    "cublasLtMatrixLayoutCreate");
        });
    } else {  // another shape of the same class
        sizes([&](cublasLtMatrixLayout_t layout, const auto& v) {
            const std::uint64_t rows = static_cast<std::uint64_t>(v.width()),
                                columns = static_cast<std::uint64_t>(v.rows());
            checked(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_ROWS, &rows, sizeof rows),
                    "cublasLtMatrixLayout");
            checked(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_COLS, &columns, sizeof columns),
                    "cublasLtMatrixLayout");
        });
    }
    if (vector)
        checked(
            cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &vector, sizeof vector),
            "cublasLtMatmulDescSetAttribute");
    const auto choose = [&](bool timed) {
        const auto aligned = [&](cublasLtMatmulPreferenceAttributes_t attribute, const void* p) {
            const std::uint32_t bytes = alignment(p);
            checked(cublasLtMatmulPreferenceSetAttribute(products.preference, attribute, &bytes, sizeof bytes),
                    "cublasLt alignment");
        };
        aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b.matrix.data);
        aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a.matrix.data);
        aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, base);
        aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c.data);
        arena_scope scope(ex);
        void* scratch = timed ? ex.memory().template vector<U>(m * stride(c)).data : nullptr;
        products.choose(plan, timed, [&](const cublasLtMatmulAlgo_t& algorithm) {
            return products.run(plan, algorithm, &alpha_value, b.matrix.data, a.matrix.data, &beta_value,
                                addend.data ? base : scratch, scratch);
        });
    };
    if (fresh) {
        if (const auto known = products.given.find(key); known != products.given.end())
            plan.algorithm = known->second, plan.usable = true;
        else
            choose(ex.options().tune);
    }
    const auto run = [&] {
        return products.run(plan, plan.algorithm, &alpha_value, b.matrix.data, a.matrix.data, &beta_value, base,
                            c.data);
    };
    bool without_sums = false;
    ex.queue(what, [&] {
        if (plan.usable && good(run())) return;
        without_sums = sums != nullptr;
        if (without_sums) return;
        choose(false);  // the class's algorithm does not take this shape: one that does
        check(plan.usable, what, "cuBLASLt has no matrix product for (", m, ", ", k, ") times (", k, ", ", n,
              ") of strides ", stride(a.matrix), ", ", stride(b.matrix), ", ", stride(c), " on ", ex.device_name());
        checked(run(), what);
    });
    if (without_sums) {
        plan.usable = false;
        gemm<T, U>(ex, what, a, b, alpha, addend, c);
    }
    return sums && !without_sums;
}

}  // namespace detail

}  // namespace spectral::cuda
