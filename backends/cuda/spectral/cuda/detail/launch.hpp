// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/detail/launch.hpp: starting kernels, the type they compute in, 16-byte packs of values
#pragma once
#include <spectral/core/half.hpp>
#include <spectral/core/rows.hpp>
#include <spectral/cuda/executor.hpp>

#include <cuda_bf16.h>

#include <algorithm>

namespace spectral::cuda::detail {

// ---- values: stored as T, computed with as compute<T> ---------------------------------------------------------------

template <class T>
struct compute_type {
    using type = T;
};
template <>
struct compute_type<bfloat16> {
    using type = float;
};
template <class T>
using compute = typename compute_type<T>::type;

template <class T>
__device__ inline compute<T> widen(T value) {
    if constexpr (std::is_same_v<T, bfloat16>)
        return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
    else
        return value;
}
template <class T>
__device__ inline T narrow(compute<T> value) {
    if constexpr (std::is_same_v<T, bfloat16>) {
        const __nv_bfloat16 rounded = __float2bfloat16_rn(value);  // one instruction; the same bits as bfloat16(float)
        T out;
        out.bits = __bfloat16_as_ushort(rounded);
        return out;
    } else {
        return static_cast<T>(value);
    }
}

// V values that travel as one access
template <class T, int V>
struct alignas(sizeof(T) * V) pack {
    T value[V];
};
template <class T>
inline constexpr int wide = 16 / static_cast<int>(sizeof(T));  // values in 16 bytes

template <int V, class T>
__device__ inline void load(const T* from, compute<T> (&to)[V]) {
    const auto p = *reinterpret_cast<const pack<T, V>*>(from);
#pragma unroll
    for (int i = 0; i < V; ++i) to[i] = widen(p.value[i]);
}
template <int V, class T>
__device__ inline void store(T* to, const compute<T> (&from)[V]) {
    pack<T, V> p;
#pragma unroll
    for (int i = 0; i < V; ++i) p.value[i] = narrow<T>(from[i]);
    *reinterpret_cast<pack<T, V>*>(to) = p;
}

// The same for values that leave the caches before they are read again: they make room first.
template <std::size_t Bytes>
using wide_access =
    std::conditional_t<Bytes == 16, uint4,
                       std::conditional_t<Bytes == 8, uint2, std::conditional_t<Bytes == 4, unsigned, unsigned short>>>;
template <int V, class T>
__device__ inline void load_once(const T* from, compute<T> (&to)[V]) {
    using access = wide_access<sizeof(T) * V>;
    const access read = __ldcs(reinterpret_cast<const access*>(from));
    load<V>(reinterpret_cast<const T*>(&read), to);
}
template <int V, class T>
__device__ inline void store_once(T* to, const compute<T> (&from)[V]) {
    using access = wide_access<sizeof(T) * V>;
    access written;
    store<V>(reinterpret_cast<T*>(&written), from);
    __stcs(reinterpret_cast<access*>(to), written);
}

// Whether every row of every view starts at 16 bytes and is a whole number of packs long.
template <class... Views>
bool takes_packs(const Views&... views) {
    const auto fits = [](const auto& v) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype(v.data)>>;
        constexpr index w = wide<T>;
        return !v.data || (reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0 && v.width() % w == 0 &&
                           (v.row_stride % w == 0 || v.rows() <= 1));
    };
    return (fits(views) && ...);
}
// f(integral_constant<int, V>) with V values of T to an access
template <class T, class F>
void with_packs(bool packs, F&& f) {
    if (packs)
        f(std::integral_constant<int, wide<T>>{});
    else
        f(std::integral_constant<int, 1>{});
}

// A view as a kernel takes it: no shape, two words.
template <class T>
struct rows_of {
    T* data;
    index stride;
    __device__ T* operator()(index n) const { return data + n * stride; }
};
template <class T>
rows_of<T> rows_in(const view<T, 2>& v) {
    return {v.data, v.row_stride};
}

// y where a result is added to it, an empty view where it is overwritten
template <class T>
matrix_view<T> added_to(write mode, const view<T, 2>& y) {
    return mode == write::accumulate ? y : matrix_view<T>{};
}

extern __shared__ __align__(16) unsigned char shared_bytes[];  // a block's dynamic shared memory

// ---- launches -------------------------------------------------------------------------------------------------------

inline index divide_up(index a, index b) { return (a + b - 1) / b; }

// In a kernel that overlaps the one before it: waits for that one's results; lets the next one start.
__device__ inline void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ inline void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Queues a kernel and checks that it was accepted. `what` names the operator in errors. `overlap`: it may start while
// the kernel before it runs (where the architecture can), and waits by itself (wait_for_previous).
template <class... Parameters, class... Arguments>
void launch_overlapping(executor& ex, const char* what, dim3 grid, dim3 block, std::size_t shared, bool overlap,
                        void (*kernel)(Parameters...), const Arguments&... arguments) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    if (shared > 40 * 1024) {  // more than 48 KB, with what the kernel itself declares, has to be asked for
        check(shared <= ex.shared_limit(), what, "needs ", shared, " bytes of shared memory a block, ",
              ex.device_name(), " has ", ex.shared_limit(), ": use a smaller width");
        checked(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
                what);
    }
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = ex.stream();
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute;
    config.numAttrs = overlap && ex.options().overlap && ex.architecture() >= 90 ? 1 : 0;
    ex.queue(what, [&] { checked(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), what); });
}
template <class... Parameters, class... Arguments>
void launch(executor& ex, const char* what, dim3 grid, dim3 block, std::size_t shared, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
    launch_overlapping(ex, what, grid, block, shared, false, kernel, arguments...);
}

// Blocks for `work` units, `each` to a block: enough to fill the device some times over, the rest by striding.
inline unsigned blocks_for(const executor& ex, index work, index each = 1) {
    return static_cast<unsigned>(std::min<index>(divide_up(work, each), index{32} * ex.multiprocessors()));
}
// The power of two from `least` up that is not below `units`, `most` at most
inline unsigned threads_covering(index units, unsigned least, unsigned most) {
    unsigned threads = least;
    while (threads < most && threads < units) threads *= 2;
    return threads;
}
// Threads of a block that works through a row of `units` accesses, two or more each: a power of two from 32 to 256.
inline unsigned threads_for(index units) { return threads_covering(divide_up(units, 2), 32, 256); }

// The fastest of three runs, after one that loads their kernels, in ms; infinity where run() says that it could not
template <class F>
float fastest_ms(executor& ex, F&& run) {
    const event begin, end;
    float fastest = INFINITY;
    for (int repeat = 0; repeat < 4; ++repeat) {
        checked(cudaEventRecord(begin.it, ex.stream()), "cudaEventRecord");
        if (!run()) return INFINITY;
        checked(cudaEventRecord(end.it, ex.stream()), "cudaEventRecord");
        checked(cudaEventSynchronize(end.it), "work on trial");
        float ms = 0;
        checked(cudaEventElapsedTime(&ms, begin.it, end.it), "cudaEventElapsedTime");
        if (repeat > 0) fastest = std::min(fastest, ms);
    }
    return fastest;
}

// ---- elements -------------------------------------------------------------------------------------------------------

// Threads of V neighbouring columns each, side by side along the rows: a kernel over them strides by the whole grid.
struct row_grid {
    dim3 blocks, threads;
};
inline row_grid grid_over(const executor& ex, index rows, index width, int V) {
    const unsigned x = threads_covering(divide_up(width, V), 1, 256), y = 256 / x;
    const index columns = std::min<index>(divide_up(width, index{x} * V), index{32} * ex.multiprocessors());
    const index lines = std::clamp<index>(index{32} * ex.multiprocessors() / columns, 1, divide_up(rows, y));
    return {dim3(static_cast<unsigned>(columns), static_cast<unsigned>(std::min<index>(lines, 65535))), dim3(x, y)};
}
// f(n, c) in such a kernel, c the first of V columns
template <int V, class F>
__device__ void for_my_packs(index rows, index width, F f) {
    const index step = index{V} * gridDim.x * blockDim.x;
    for (index n = index{blockIdx.y} * blockDim.y + threadIdx.y; n < rows; n += index{gridDim.y} * blockDim.y)
        for (index c = index{V} * (index{blockIdx.x} * blockDim.x + threadIdx.x); c < width; c += step) f(n, c);
}

template <class T, int Count>
struct row_list {
    rows_of<T> view[Count];
};

template <int V, class T, int I, int O, class F>
__global__ void map_kernel(index rows, index width, row_list<const T, I> in, row_list<T, O> out, F f) {
    using A = compute<T>;
    for_my_packs<V>(rows, width, [&](index n, index c) {
        A read[I][V], written[O][V];
#pragma unroll
        for (int k = 0; k < I; ++k) load<V>(in.view[k](n) + c, read[k]);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            A from[I], to[O];
#pragma unroll
            for (int k = 0; k < I; ++k) from[k] = read[k][i];
            f(from, to);
#pragma unroll
            for (int k = 0; k < O; ++k) written[k][i] = to[k];
        }
#pragma unroll
        for (int k = 0; k < O; ++k) store<V>(out.view[k](n) + c, written[k]);
    });
}

// f(const compute<T>* in, compute<T>* out) on every element of equal shapes; an output may be the memory of an input.
template <class T, int I, int O, class F>
void map_elements(executor& ex, const char* what, const view<const T, 2> (&in)[I], const view<T, 2> (&out)[O], F f) {
    index rows = out[0].rows(), width = out[0].width();
    if (rows == 0 || width == 0) return;
    row_list<const T, I> inputs;
    row_list<T, O> outputs;
    bool contiguous = true;
    for (int k = 0; k < I; ++k) inputs.view[k] = rows_in(in[k]), contiguous = contiguous && in[k].contiguous();
    for (int k = 0; k < O; ++k) outputs.view[k] = rows_in(out[k]), contiguous = contiguous && out[k].contiguous();
    if (contiguous) width *= rows, rows = 1;  // one long row: no remainder at each row's end
    const auto fits = [=](const auto& v) {
        return reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0 && width % wide<T> == 0 &&
               (rows == 1 || v.row_stride % wide<T> == 0);
    };
    const bool packs = std::all_of(in, in + I, fits) && std::all_of(out, out + O, fits);
    with_packs<T>(packs, [&](auto v) {
        const auto grid = grid_over(ex, rows, width, v());
        launch(ex, what, grid.blocks, grid.threads, 0, map_kernel<v(), T, I, O, F>, rows, width, inputs, outputs, f);
    });
}

template <class F>
__global__ void each_kernel(index count, F f) {
    for (index i = index{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += index{gridDim.x} * blockDim.x) f(i);
}

// f(i) for every i below count: small things, where no access pattern matters
template <class F>
void for_each(executor& ex, const char* what, index count, F f) {
    if (count > 0) launch(ex, what, blocks_for(ex, count, 256), 256, 0, each_kernel<F>, count, f);
}

template <class F>
__global__ void each_element_kernel(index rows, index width, F f) {
    for (index n = index{blockIdx.y} * blockDim.y + threadIdx.y; n < rows; n += index{gridDim.y} * blockDim.y)
        for (index c = index{blockIdx.x} * blockDim.x + threadIdx.x; c < width; c += index{gridDim.x} * blockDim.x)
            f(n, c);
}

// f(n, c) for every element, neighbouring threads on neighbouring columns
template <class F>
void for_each_element(executor& ex, const char* what, index rows, index width, F f) {
    if (rows == 0 || width == 0) return;
    const unsigned x = threads_covering(width, 1, 256), y = 256 / x;
    const index columns = std::min<index>(divide_up(width, x), 1024);
    const index lines = std::clamp<index>(index{64} * ex.multiprocessors() / columns, 1, divide_up(rows, y));
    launch(ex, what, dim3(static_cast<unsigned>(columns), static_cast<unsigned>(std::min<index>(lines, 65535))),
           dim3(x, y), 0, each_element_kernel<F>, rows, width, f);
}

template <class T>
void fill(executor& ex, const char* what, const view<T, 2>& m, compute<T> value) {
    const auto to = rows_in(m);
    for_each_element(ex, what, m.rows(), m.width(), [=] __device__(index n, index c) { to(n)[c] = narrow<T>(value); });
}

}  // namespace spectral::cuda::detail
