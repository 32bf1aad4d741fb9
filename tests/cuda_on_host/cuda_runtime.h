// SPDX-License-Identifier: Apache-2.0
// tests/cuda_on_host/cuda_runtime.h: CUDA kernels run by a C++ compiler, for operator tests on machines without a GPU
//
// A block's threads are fibers of one host thread, switched at barriers and warp exchanges; blocks run one after
// another. So indices, arithmetic and barriers of the kernels in backends/cuda are tested as they stand. What is not:
// the compiler, the memory model, speed. SPECTRAL_HOST_ORDER=reverse runs the threads of a block from the last to the
// first: a result that depends on it lacks a barrier. A barrier that not all threads reach ends the program with a
// sentence.
#pragma once
#include <math.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#define __host__
#define __device__
#define __noinline__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ thread_local

// ---- the runtime's calls that backends/cuda makes ----------------------------------------------------------------------

enum cudaError_t { cudaSuccess, cudaErrorMemoryAllocation, cudaErrorInsufficientDriver, cudaErrorNoDevice, cudaErrorNoKernelImageForDevice };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum { cudaStreamNonBlocking = 1, cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
using cudaStream_t = struct host_stream*;
struct cudaFuncAttributes {
    std::size_t sharedSizeBytes = 1;  // of the probe for Hopper's own instructions
    int ptxVersion = 1000;
};
struct cudaDeviceProp {
    char name[32];
    int major, minor, multiProcessorCount;
    std::size_t sharedMemPerBlockOptin;
};
// What a program finds; tests make it worse.
struct host_machine {
    int devices = 1, driver = 13000, runtime = 13000;
    bool has_code = true;
    std::size_t free_bytes = ~std::size_t{0};  // of one allocation
    long long allocations_left = 1LL << 60;
};
inline host_machine& machine() {
    static host_machine here;
    return here;
}
inline const char* cudaGetErrorName(cudaError_t) { return "cudaError"; }
inline const char* cudaGetErrorString(cudaError_t) { return "error"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* n) {
    *n = machine().devices;
    return machine().driver < machine().runtime ? cudaErrorInsufficientDriver : *n ? cudaSuccess : cudaErrorNoDevice;
}
inline cudaError_t cudaDriverGetVersion(int* v) { return *v = machine().driver, cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int* v) { return *v = machine().runtime, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
    const char* architecture = std::getenv("SPECTRAL_HOST_ARCHITECTURE");  // 8: products by mma.sync instead of wgmma
    const int major = architecture ? std::atoi(architecture) : 9;
    *p = {"host", major, 0, 2, (major == 8 ? 99 : 227) * 1024};  // the shared memory of sm_86 and sm_90
    return cudaSuccess;
}
template <class K>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, K) {
    return machine().has_code ? cudaSuccess : cudaErrorNoKernelImageForDevice;
}
template <class K>
cudaError_t cudaFuncSetAttribute(K, int, int) {
    return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, int) { return *s = nullptr, cudaSuccess; }
using cudaEvent_t = struct host_event*;
enum { cudaEventDisableTiming = 2 };
inline cudaError_t cudaEventCreate(cudaEvent_t* e) { return *e = nullptr, cudaSuccess; }
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return *e = nullptr, cudaSuccess; }
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) { return *ms = 0, cudaSuccess; }
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaMallocHost(void** p, std::size_t bytes) { return *p = std::malloc(bytes), cudaSuccess; }
inline cudaError_t cudaFreeHost(void* p) { return std::free(p), cudaSuccess; }
inline cudaError_t cudaMalloc(void** p, std::size_t bytes) {
    if (bytes > machine().free_bytes || --machine().allocations_left < 0) return *p = nullptr, cudaErrorMemoryAllocation;
    *p = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFree(void* p) { return std::free(p), cudaSuccess; }
inline cudaError_t cudaMemGetInfo(std::size_t* f, std::size_t* t) { return *f = *t = machine().free_bytes, cudaSuccess; }

// What a stream is given: done at once, or kept while a graph is recorded and done whenever that is launched
struct host_graph {
    std::vector<std::function<void()>> work;
};
using cudaGraph_t = host_graph*;
using cudaGraphExec_t = host_graph*;
inline host_graph*& recorded_graph() {
    static host_graph* graph = nullptr;
    return graph;
}
template <class F>
cudaError_t queue_on_host(F f) {
    if (recorded_graph())
        recorded_graph()->work.push_back(f);
    else
        f();
    return cudaSuccess;
}
enum { cudaStreamCaptureModeThreadLocal = 1 };
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, int) { return recorded_graph() = new host_graph, cudaSuccess; }
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* g) {
    return *g = std::exchange(recorded_graph(), nullptr), cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* e, cudaGraph_t g, unsigned) {
    return *e = new host_graph(*g), cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t g) { return delete g, cudaSuccess; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) { return delete e, cudaSuccess; }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t) {
    for (const auto& work : e->work) work();
    return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t n, cudaMemcpyKind, cudaStream_t) {
    return queue_on_host([=] { std::memcpy(to, from, n); });
}
inline cudaError_t cudaMemsetAsync(void* to, int byte, std::size_t n, cudaStream_t) {
    return queue_on_host([=] { std::memset(to, byte, n); });
}

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
enum { cudaLaunchAttributeProgrammaticStreamSerialization = 6 };
struct cudaLaunchAttribute {
    int id;
    struct {
        int programmaticStreamSerializationAllowed;
    } val;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
    cudaLaunchAttribute* attrs = nullptr;
    unsigned numAttrs = 0;
};

// ---- fibers ------------------------------------------------------------------------------------------------------------

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_host {

extern "C" void cuda_on_host_switch(void** from, void* to);

enum class waits { nothing, warp, block, other, done };  // other: for what other threads do, looked at again and again

struct fiber {
    std::unique_ptr<std::byte[]> stack;
    void* sp = nullptr;
    dim3 index;
    waits state = waits::done;
};

struct block_runner {
    static constexpr std::size_t stack_bytes = 96 * 1024;
    std::vector<fiber> fibers;
    std::vector<std::uint64_t> exchanged;  // one word for each thread
    void* home = nullptr;
    unsigned current = 0, threads = 0;
    std::function<void()> body;
    static block_runner& instance() {
        static thread_local block_runner r;
        return r;
    }

    static void entry() {
        block_runner& r = instance();
        r.body();
        r.wait(waits::done);
        std::abort();
    }
    void wait(waits what) {
        fiber& f = fibers[current];
        f.state = what;
        cuda_on_host_switch(&f.sp, home);
    }
    void run_block() {
        threads = blockDim.x * blockDim.y * blockDim.z;
        if (fibers.size() < threads) fibers.resize(threads);
        exchanged.resize(threads);
        for (unsigned t = 0; t < threads; ++t) {
            fiber& f = fibers[t];
            if (!f.stack) f.stack.reset(new std::byte[stack_bytes]);
            auto top = (reinterpret_cast<std::uintptr_t>(f.stack.get()) + stack_bytes) & ~std::uintptr_t{15};
            auto* words = reinterpret_cast<void**>(top) - 2;
            words[0] = reinterpret_cast<void*>(&entry);  // where the first switch returns to
            words[1] = nullptr;
            f.sp = words - 6;
            std::memset(f.sp, 0, 6 * sizeof(void*));
            f.index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
            f.state = waits::nothing;
        }
        static const bool reverse = std::getenv("SPECTRAL_HOST_ORDER") != nullptr;
        for (;;) {
            for (unsigned i = 0; i < threads; ++i) {
                current = reverse ? threads - 1 - i : i;
                fiber& f = fibers[current];
                if (f.state != waits::nothing) continue;
                threadIdx = f.index;
                cuda_on_host_switch(&home, f.sp);
            }
            bool moved = false, block = true, live = false;
            for (unsigned t = 0; t < threads; ++t)
                if (fibers[t].state == waits::other) fibers[t].state = waits::nothing, moved = true;
            for (unsigned w = 0; w < threads; w += 32) {
                const unsigned end = std::min(w + 32, threads);
                bool all = true, any = false;
                for (unsigned t = w; t < end; ++t) {
                    const waits s = fibers[t].state;
                    all = all && (s == waits::warp || s == waits::done);
                    any = any || s == waits::warp;
                    block = block && (s == waits::block || s == waits::done);
                    live = live || s != waits::done;
                }
                if (all && any) {
                    moved = true;
                    for (unsigned t = w; t < end; ++t)
                        if (fibers[t].state == waits::warp) fibers[t].state = waits::nothing;
                }
            }
            if (!live) return;
            if (moved) continue;
            if (!block) {
                std::fprintf(stderr, "cuda_on_host: threads of block (%u, %u, %u) wait at different barriers\n",
                             blockIdx.x, blockIdx.y, blockIdx.z);
                std::abort();
            }
            for (unsigned t = 0; t < threads; ++t)
                if (fibers[t].state == waits::block) fibers[t].state = waits::nothing;
        }
    }
};

template <class T>
T exchange(T value, int lane_of_other) {  // < 0: keep one's own
    static_assert(sizeof(T) <= 8);
    auto& r = block_runner::instance();
    const unsigned me = r.current, first = me / 32 * 32;
    std::memcpy(&r.exchanged[me], &value, sizeof value);
    r.wait(waits::warp);
    T out = value;
    const unsigned other = first + static_cast<unsigned>(lane_of_other);
    if (lane_of_other >= 0 && other < r.threads) std::memcpy(&out, &r.exchanged[other], sizeof out);
    r.wait(waits::warp);
    return out;
}

}  // namespace cuda_on_host

template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* c, void (*kernel)(P...), A&&... a) {
    const dim3 grid = c->gridDim, block = c->blockDim;
    if (block.x * block.y * block.z % 32)
        std::fprintf(stderr, "cuda_on_host: a block of %u threads\n", block.x), std::abort();
    return queue_on_host([=, arguments = std::tuple<P...>(static_cast<P>(a)...)] {
        auto& r = cuda_on_host::block_runner::instance();
        gridDim = grid;
        blockDim = block;
        r.body = [&] { std::apply(kernel, arguments); };
        for (unsigned z = 0; z < grid.z; ++z)
            for (unsigned y = 0; y < grid.y; ++y)
                for (unsigned x = 0; x < grid.x; ++x) {
                    blockIdx = {x, y, z};
                    r.run_block();
                }
    });
}

// ---- what kernels call -------------------------------------------------------------------------------------------------

inline void __syncthreads() {
    auto& r = cuda_on_host::block_runner::instance();
    r.wait(cuda_on_host::waits::block);
}
inline void __syncwarp() { cuda_on_host::block_runner::instance().wait(cuda_on_host::waits::warp); }
inline int host_lane() { return static_cast<int>(cuda_on_host::block_runner::instance().current % 32); }
template <class T>
T __shfl_xor_sync(unsigned, T v, int mask) {
    return cuda_on_host::exchange(v, host_lane() ^ mask);
}
template <class T>
T __shfl_up_sync(unsigned, T v, int step) {
    return cuda_on_host::exchange(v, host_lane() - step);
}
template <class T>
T __shfl_sync(unsigned, T v, int lane) {
    return cuda_on_host::exchange(v, lane % 32);
}
inline unsigned __ballot_sync(unsigned, int predicate) {
    unsigned out = 0;
    for (int lane = 0; lane < 32; ++lane) out |= (cuda_on_host::exchange(predicate != 0, lane) ? 1u : 0u) << lane;
    return out;
}
struct float2 {
    float x, y;
};
template <class T>
T __ldcg(const T* from) {
    return *from;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __ffs(unsigned v) { return v ? std::countr_zero(v) + 1 : 0; }
template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const std::uint64_t bytes = std::uint64_t{b} << 32 | a;
    unsigned out = 0;
    for (int i = 0; i < 4; ++i) out |= static_cast<unsigned>(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return out;
}
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }
inline float __expf(float x) { return std::exp(x); }
template <class T>
T __ldcs(const T* from) {
    return *from;
}
template <class T>
void __stcs(T* to, T value) {
    *to = value;
}
inline unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
inline float normcdff(float x) { return 0.5f * std::erfc(-x * 0.70710678118654752440f); }
inline double normcdf(double x) { return 0.5 * std::erfc(-x * 0.70710678118654752440); }
