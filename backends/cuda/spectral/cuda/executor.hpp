// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/executor.hpp: the executor of one CUDA device
//
// One device, one stream, one thread at a time. Kernels are queued on the stream and nothing waits for them but
// copy_to_host(). What outlives a call is made once and kept here: the cuBLASLt handle and its workspace, the chosen
// matrix product of every shape, the tables of every transform.
#pragma once
#if !defined(__CUDACC__)
#error "spectral: <spectral/cuda.hpp> holds CUDA kernels: compile this file as CUDA, with nvcc --extended-lambda --expt-relaxed-constexpr (CMake: set_source_files_properties(file.cpp PROPERTIES LANGUAGE CUDA) and link spectral::cuda)"
#endif
#include <spectral/core/arena.hpp>
#include <spectral/cuda/detail/status.hpp>

#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace spectral::cuda {

// Which device, its memory, and whether TF32 may be used.
struct executor_options {
    int device = 0;
    std::size_t arena_bytes = 0;   // reserved at construction; 0: the first step of a shape asks for what it needs
    bool tf32 = false;             // float matrix products on tensor cores, which read 10 fraction bits of 23
};

namespace detail {

template <int>   // a template, so that the header may be included anywhere
__global__ void probe_kernel() {}

// What a kernel keeps for as long as the executor lives: the matrix products chosen, tables of cosines.
struct kept {
    virtual ~kept() = default;
};

}  // namespace detail

class executor {
public:
    static constexpr const char* name = "cuda";

    explicit executor(const executor_options& options = {}) : options_(options) {
        int devices = 0, driver = 0, runtime = 0;
        const cudaError_t found = cudaGetDeviceCount(&devices);
        (void)cudaGetLastError();
        (void)cudaDriverGetVersion(&driver);
        (void)cudaRuntimeGetVersion(&runtime);
        // without any driver the runtime calls it insufficient too, and its version is 0
        check(found != cudaErrorInsufficientDriver || driver == 0, name, "the driver is too old: it supports CUDA ", version(driver),
              ", this program was built with ", version(runtime), ": update the driver or build with an older toolkit");
        check(found == cudaSuccess && devices > 0, name, "no CUDA device was found (",
              driver == 0 ? std::string("no driver is installed") : detail::text(found), "): use --executor cpu or a machine with an NVIDIA GPU");
        check(options.device >= 0 && options.device < devices, name, "there is no device ", options.device, ": this machine has ",
              devices, ", numbered from 0");
        detail::checked(cudaSetDevice(options.device), "cudaSetDevice");
        cudaDeviceProp about{};
        detail::checked(cudaGetDeviceProperties(&about, options.device), "cudaGetDeviceProperties");
        device_name_ = about.name;
        architecture_ = 10 * about.major + about.minor;
        multiprocessors_ = about.multiProcessorCount;
        shared_limit_ = about.sharedMemPerBlockOptin;
        cudaFuncAttributes probe{};
        const cudaError_t built_for_it = cudaFuncGetAttributes(&probe, detail::probe_kernel<0>);
        (void)cudaGetLastError();
        check(built_for_it == cudaSuccess, name, "this program holds no code for ", device_name_, " (sm_", architecture_,
              "): build with -DCMAKE_CUDA_ARCHITECTURES=", architecture_);
        detail::checked(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
        memory_ = std::make_unique<arena<executor>>(*this);
        if (options.arena_bytes) memory_->reserve(options.arena_bytes);
    }
    executor(const executor&) = delete;
    executor& operator=(const executor&) = delete;
    ~executor() {
        memory_.reset();
        kept_.clear();
        if (stream_) detail::noted(cudaStreamDestroy(stream_), "cudaStreamDestroy");
    }

    // ---- what core/executor.hpp asks for ----
    void* allocate(std::size_t bytes) {
        ++allocations_;
        void* p = nullptr;
        const cudaError_t status = cudaMalloc(&p, std::max<std::size_t>(bytes, 1));
        if (status == cudaErrorMemoryAllocation) {
            (void)cudaGetLastError();
            std::size_t free = 0, total = 0;
            (void)cudaMemGetInfo(&free, &total);
            fail(name, "out of memory on ", device_name_, ": ", bytes, " bytes asked for, ", free, " of ", total,
                 " free: use shorter sequences, a smaller batch or more accumulation steps");
        }
        detail::checked(status, "cudaMalloc");
        return p;
    }
    void deallocate(void* p, std::size_t) noexcept {
        if (p) detail::noted(cudaFree(p), "cudaFree");   // waits for the device, so nothing can still be using p
    }
    // `from` may be changed as soon as this returns: ordinary (pageable) memory is staged before the call comes back
    void copy_from_host(void* to, const void* from, std::size_t bytes) {
        if (bytes) detail::checked(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "copy to the device");
    }
    void copy_to_host(void* to, const void* from, std::size_t bytes) {
        if (bytes) detail::checked(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "copy from the device");
        synchronize();
    }
    void fill_bytes(void* p, int byte, std::size_t bytes) {
        if (bytes) detail::checked(cudaMemsetAsync(p, byte, bytes, stream_), "cudaMemsetAsync");
    }
    arena<executor>& memory() { return *memory_; }

    // ---- what kernels and programs ask for ----
    void synchronize() { detail::checked(cudaStreamSynchronize(stream_), "the work queued on the device"); }
    cudaStream_t stream() const { return stream_; }
    const executor_options& options() const { return options_; }
    const std::string& device_name() const { return device_name_; }
    int architecture() const { return architecture_; }         // 90 for sm_90
    int multiprocessors() const { return multiprocessors_; }
    std::size_t shared_limit() const { return shared_limit_; } // bytes of shared memory one block may have
    int threads() const { return 1; }
    std::size_t allocations() const { return allocations_; }   // calls of allocate since construction

    // The kept object of this type and key, made at first use.
    template <class Kept, class... Arguments>
    Kept& keep(index key, Arguments&&... arguments) {
        auto& slot = kept_[{&type_tag<Kept>, key}];
        if (!slot) slot = std::make_unique<Kept>(*this, std::forward<Arguments>(arguments)...);
        return static_cast<Kept&>(*slot);
    }

private:
    template <class Kept> static inline const char type_tag = 0;
    static std::string version(int v) { return spectral::detail::join(v / 1000, '.', v % 1000 / 10); }

    executor_options options_;
    std::string device_name_;
    int architecture_ = 0, multiprocessors_ = 0;
    std::size_t shared_limit_ = 0, allocations_ = 0;
    cudaStream_t stream_ = nullptr;
    std::unique_ptr<arena<executor>> memory_;
    std::map<std::pair<const void*, index>, std::unique_ptr<detail::kept>> kept_;
};

}  // namespace spectral::cuda
