// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/executor.hpp: the executor of one CUDA device
//
// One device, one stream, one thread at a time. Kernels are queued on the stream; copy_to_host() waits for all of them,
// receive_count() and host_copy for what was queued before a value. Work may be recorded as a CUDA graph and replayed.
// What outlives a call is made once and kept here: the cuBLASLt handle and its workspace, the chosen matrix product of
// every shape, the form and the tables of every transform.
#pragma once
#if !defined(__CUDACC__)
#error \
    "spectral: <spectral/cuda.hpp> holds CUDA kernels: compile this file as CUDA, with nvcc --extended-lambda --expt-relaxed-constexpr (CMake: set_source_files_properties(file.cpp PROPERTIES LANGUAGE CUDA) and link spectral::cuda)"
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error \
    "spectral: kernels are for sm_80 and newer: compile with -DCMAKE_CUDA_ARCHITECTURES=90a (nvcc -arch=sm_90a), or what your GPU is"
#endif
#include <spectral/core/recording.hpp>
#include <spectral/core/rows.hpp>
#include <spectral/cuda/detail/status.hpp>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace spectral::cuda {

// Which device, its memory, and whether TF32 may be used.
struct executor_options {
    int device = 0;  // becomes the calling thread's; a thread that has used another since calls cudaSetDevice first
    std::size_t arena_bytes = 0;  // reserved at construction; 0: the first step of a shape asks for what it needs
    bool overlap = true;  // some kernels, most of decoding, start before the one before them ends (sm_90 and later)
    bool read_ahead = true;  // ... and bring weights that come later into the second level cache
    bool tf32 = false;  // float matrix products on tensor cores, which read 10 fraction bits of 23
    bool fused_bias_gradient = false;  // bfloat16: a bias's gradient from the product that makes its weight's
    // once for a class of shapes, time what cuBLASLt proposes for a product, or the two forms of a composed transform
    bool tune = false;
    bool timings = false;  // time_by_operator(): events around every kernel, which then start a little later
};

namespace detail {

template <class T>
__global__ void probe_kernel() {}

// What the driver says of a kernel that was compiled where the kernels of T were (kernels.hpp).
template <class T>
cudaError_t attributes_of_kernels(cudaFuncAttributes& attributes) {
    return cudaFuncGetAttributes(&attributes, probe_kernel<T>);
}

// Events around everything that an operator queues, added up by its name when asked.
class operator_timings {
public:
    ~operator_timings() {
        for (const auto& s : spans_)
            noted(cudaEventDestroy(s.begin), "cudaEventDestroy"), noted(cudaEventDestroy(s.end), "cudaEventDestroy");
    }
    void begin(const char* what, cudaStream_t stream) {
        if (used_ == spans_.size()) {
            spans_.push_back({});
            checked(cudaEventCreate(&spans_.back().begin), "cudaEventCreate");
            checked(cudaEventCreate(&spans_.back().end), "cudaEventCreate");
        }
        spans_[used_].what = what;
        checked(cudaEventRecord(spans_[used_].begin, stream), "cudaEventRecord");
    }
    void end(cudaStream_t stream) { checked(cudaEventRecord(spans_[used_++].end, stream), "cudaEventRecord"); }
    // (milliseconds, kernels) since the last call; the stream must be idle
    std::map<std::string, std::pair<double, index>> take() {
        std::map<std::string, std::pair<double, index>> out;
        for (std::size_t i = 0; i < used_; ++i) {
            float ms = 0;
            checked(cudaEventElapsedTime(&ms, spans_[i].begin, spans_[i].end), "cudaEventElapsedTime");
            auto& [total, kernels] = out[spans_[i].what];
            total += static_cast<double>(ms), ++kernels;
        }
        used_ = 0;
        return out;
    }

private:
    struct span {
        const char* what = nullptr;
        cudaEvent_t begin = nullptr, end = nullptr;
    };
    std::vector<span> spans_;
    std::size_t used_ = 0;
};

// What a kernel keeps for as long as the executor lives: the matrix products chosen, tables of cosines.
struct kept {
    virtual ~kept() = default;
};

}  // namespace detail

// A CUDA graph, ready to be launched. Host memory that its copies read lives with it: until a launch is over.
class recording {
public:
    recording() = default;
    recording(recording&& o) noexcept { swap(o); }
    recording& operator=(recording&& o) noexcept { return swap(o), *this; }
    ~recording() {
        if (!copied_.empty()) detail::noted(cudaStreamSynchronize(stream_), "the work queued on the device");
        if (graph_) detail::noted(cudaGraphExecDestroy(graph_), "cudaGraphExecDestroy");
    }

private:
    friend class executor;
    void swap(recording& o) noexcept {
        std::swap(graph_, o.graph_);
        std::swap(stream_, o.stream_);
        std::swap(copied_, o.copied_);
    }
    cudaGraphExec_t graph_ = nullptr;
    cudaStream_t stream_ = nullptr;
    std::deque<std::vector<std::byte>> copied_;
};

class executor;

// A copy to pinned memory and the event of its arrival.
class host_copy {
public:
    host_copy() = default;
    host_copy(host_copy&& o) noexcept { swap(o); }
    host_copy& operator=(host_copy&& o) noexcept { return swap(o), *this; }
    ~host_copy() {
        if (arrived_) {
            detail::noted(cudaEventSynchronize(arrived_), "the work queued on the device");
            detail::noted(cudaEventDestroy(arrived_), "cudaEventDestroy");
        }
        if (values_) detail::noted(cudaFreeHost(values_), "cudaFreeHost");
    }
    void start(executor& ex, const void* from, std::size_t bytes);
    const void* finish() {
        if (arrived_) detail::checked(cudaEventSynchronize(arrived_), "the work queued on the device");
        return values_;
    }

private:
    void swap(host_copy& o) noexcept {
        std::swap(values_, o.values_);
        std::swap(room_, o.room_);
        std::swap(arrived_, o.arrived_);
    }
    void* values_ = nullptr;
    std::size_t room_ = 0;
    cudaEvent_t arrived_ = nullptr;
};

class executor {
public:
    static constexpr const char* name = "cuda";

    explicit executor(const executor_options& options = {}) : executor(options, detail::delegated{}) {
        int devices = 0, driver = 0, runtime = 0;
        const cudaError_t found = cudaGetDeviceCount(&devices);
        (void)cudaGetLastError();
        (void)cudaDriverGetVersion(&driver);
        (void)cudaRuntimeGetVersion(&runtime);
        // without any driver the runtime calls it insufficient too, and its version is 0
        check(found != cudaErrorInsufficientDriver || driver == 0, name, "the driver is too old: it supports CUDA ",
              version(driver), ", this program was built with ", version(runtime),
              ": update the driver or build with an older toolkit");
        check(found == cudaSuccess && devices > 0, name, "no CUDA device was found (",
              driver == 0 ? std::string("no driver is installed") : detail::text(found),
              "): use --executor cpu or a machine with an NVIDIA GPU");
        check(options.device >= 0 && options.device < devices, name, "there is no device ", options.device,
              ": this machine has ", devices, ", numbered from 0");
        detail::checked(cudaSetDevice(options.device), "cudaSetDevice");
        cudaDeviceProp about{};
        detail::checked(cudaGetDeviceProperties(&about, options.device), "cudaGetDeviceProperties");
        device_name_ = about.name;
        architecture_ = 10 * about.major + about.minor;
        multiprocessors_ = about.multiProcessorCount;
        shared_limit_ = about.sharedMemPerBlockOptin;
        cudaFuncAttributes probe{};
        const cudaError_t built_for_it = detail::attributes_of_kernels<float>(probe);
        (void)cudaGetLastError();
        check(built_for_it == cudaSuccess, name, "this program holds no code for ", device_name_, " (sm_",
              architecture_, "): build with -DCMAKE_CUDA_ARCHITECTURES=", architecture_,
              architecture_ == 90 ? "a" : "");
        // kernels that the driver compiles from the PTX of an older architecture are that architecture's
        architecture_ = std::min(architecture_, probe.ptxVersion);
        detail::checked(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
        memory_ = std::make_unique<arena<executor>>(*this);
        if (options.timings) timings_ = std::make_unique<detail::operator_timings>();
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
        check(!recording_, name, "work that asks for memory cannot be recorded");
        ++allocations_;
        void* p = nullptr;
        const cudaError_t status = cudaMalloc(&p, std::max<std::size_t>(bytes, 1));
        if (status == cudaErrorMemoryAllocation) {
            (void)cudaGetLastError();
            fail(name, "out of memory on ", device_name_, ": ", bytes, " bytes asked for, ", detail::free_memory(),
                 " free: use shorter sequences, a smaller batch or more accumulation steps");
        }
        detail::checked(status, "cudaMalloc");
        return p;
    }
    // of the host, for copies that it does not wait for; given back by cudaFreeHost
    void* allocate_pinned(std::size_t bytes) {
        ++allocations_;
        void* p = nullptr;
        const cudaError_t status = cudaMallocHost(&p, bytes);
        if (status == cudaErrorMemoryAllocation) {
            (void)cudaGetLastError();
            fail(name, "out of pinned memory of the host: ", bytes, " bytes asked for");
        }
        detail::checked(status, "cudaMallocHost");
        return p;
    }
    void deallocate(void* p, std::size_t) noexcept {
        if (p) detail::noted(cudaFree(p), "cudaFree");  // waits for the device, so nothing can still be using p
    }
    // `from` may be changed as soon as this returns: ordinary (pageable) memory is staged before the call comes back
    void copy_from_host(void* to, const void* from, std::size_t bytes) {
        if (bytes && recording_) {
            const auto* values = static_cast<const std::byte*>(from);
            from = recording_->copied_.emplace_back(values, values + bytes).data();
        }
        if (bytes)
            detail::checked(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "copy to the device");
    }
    void copy_to_host(void* to, const void* from, std::size_t bytes) {
        check(!recording_, name, "work that the host waits for cannot be recorded");
        if (bytes)
            detail::checked(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "copy from the device");
        synchronize();
    }
    void fill_bytes(void* p, int byte, std::size_t bytes) {
        if (bytes) detail::checked(cudaMemsetAsync(p, byte, bytes, stream_), "cudaMemsetAsync");
    }
    arena<executor>& memory() { return *memory_; }

    // ---- what core/host_copy.hpp and core/recording.hpp ask for ----
    using host_copy = cuda::host_copy;
    using recording = cuda::recording;
    template <class F>
    recording record(F&& work) {
        recording out;
        out.stream_ = stream_;
        cudaGraph_t graph = nullptr;
        detail::checked(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
        recording_ = &out;
        try {
            work();
        } catch (...) {
            recording_ = nullptr;
            (void)cudaStreamEndCapture(stream_, &graph);
            (void)cudaGetLastError();
            if (graph) (void)cudaGraphDestroy(graph);
            throw;
        }
        recording_ = nullptr;
        detail::checked(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
        const cudaError_t made = cudaGraphInstantiate(&out.graph_, graph, 0);
        detail::checked(cudaGraphDestroy(graph), "cudaGraphDestroy");
        detail::checked(made, "cudaGraphInstantiate");
        return out;
    }
    bool records() const { return recording_ != nullptr; }
    void replay(recording& r) { detail::checked(cudaGraphLaunch(r.graph_, stream_), "cudaGraphLaunch"); }

    // ---- what kernels and programs ask for ----
    void synchronize() { detail::checked(cudaStreamSynchronize(stream_), "the work queued on the device"); }
    cudaStream_t stream() const { return stream_; }
    const executor_options& options() const { return options_; }
    const std::string& device_name() const { return device_name_; }
    int architecture() const { return architecture_; }  // that kernels were compiled for: 90 for sm_90
    int multiprocessors() const { return multiprocessors_; }
    std::size_t shared_limit() const { return shared_limit_; }  // bytes of shared memory one block may have
    int threads() const { return 1; }
    // of memory, the device's and the host's pinned, since construction
    std::size_t allocations() const { return allocations_; }

    // Counts on their way to the host: the copy is queued, and receiving waits for it alone, not for what was queued
    // since.
    count_ticket send_counts(const row_index* from, int count) {
        check(count <= sent_counts::most, name, "at most ", sent_counts::most, " counts are sent at once, found ",
              count);
        if (recording_) return {};  // a recorded step asks for no count
        if (!sent_) sent_ = std::make_unique<sent_counts>();
        auto& s = sent_->slot[static_cast<std::size_t>(++sent_->last % sent_counts::slots)];
        s.number = sent_->last;
        detail::checked(cudaMemcpyAsync(s.values, from, static_cast<std::size_t>(count) * sizeof *from,
                                        cudaMemcpyDeviceToHost, stream_),
                        "counts to the host");
        detail::checked(cudaEventRecord(s.arrived, stream_), "cudaEventRecord");
        return {s.number, 0};
    }
    bool receive_count(count_ticket t, row_index& count) {
        if (t.number < 0 || !sent_) return false;
        auto& s = sent_->slot[static_cast<std::size_t>(t.number % sent_counts::slots)];
        if (s.number != t.number) return false;  // long ago: its place was used again
        detail::checked(cudaEventSynchronize(s.arrived), "the work queued on the device");
        count = s.values[t.which];
        return true;
    }

    // Queues one kernel of the operator `what`.
    template <class F>
    void queue(const char* what, F&& f) {
        if (timings_) timings_->begin(what, stream_);
        f();
        if (timings_) timings_->end(stream_);
    }
    // (milliseconds, kernels) of every operator since the last call, with options().timings; waits for the device
    std::map<std::string, std::pair<double, index>> time_by_operator() {
        check(timings_ != nullptr, name, "time_by_operator needs an executor made with options.timings");
        synchronize();
        return timings_->take();
    }

    // The kept object of this type and key, made at first use.
    template <class Kept, class... Arguments>
    Kept& keep(index key, Arguments&&... arguments) {
        auto& slot = kept_[{&type_tag<Kept>, key}];
        if (!slot) slot = std::make_unique<Kept>(*this, std::forward<Arguments>(arguments)...);
        return static_cast<Kept&>(*slot);
    }

private:
    struct sent_counts {
        static constexpr int most = 8, slots = 256;
        struct {
            std::int64_t number = -1;
            row_index* values = nullptr;
            cudaEvent_t arrived = nullptr;
        } slot[slots];
        row_index* memory = nullptr;  // pinned: copies to other memory would wait
        std::int64_t last = 0;

        sent_counts() {
            detail::checked(cudaMallocHost(reinterpret_cast<void**>(&memory), slots * most * sizeof *memory),
                            "cudaMallocHost");
            for (int i = 0; i < slots; ++i) {
                slot[i].values = memory + i * most;
                detail::checked(cudaEventCreateWithFlags(&slot[i].arrived, cudaEventDisableTiming), "cudaEventCreate");
            }
        }
        ~sent_counts() {
            for (auto& s : slot)
                if (s.arrived) detail::noted(cudaEventDestroy(s.arrived), "cudaEventDestroy");
            if (memory) detail::noted(cudaFreeHost(memory), "cudaFreeHost");
        }
    };
    template <class Kept>
    static inline const char type_tag = 0;
    static std::string version(int v) { return spectral::detail::join(v / 1000, '.', v % 1000 / 10); }

    executor(const executor_options& options, detail::delegated) : options_(options) {}

    executor_options options_;
    std::string device_name_;
    int architecture_ = 0, multiprocessors_ = 0;
    std::size_t shared_limit_ = 0, allocations_ = 0;
    cudaStream_t stream_ = nullptr;
    recording* recording_ = nullptr;  // while work is recorded
    std::unique_ptr<arena<executor>> memory_;
    std::unique_ptr<sent_counts> sent_;
    std::unique_ptr<detail::operator_timings> timings_;
    std::map<std::pair<const void*, index>, std::unique_ptr<detail::kept>> kept_;
};

inline void host_copy::start(executor& ex, const void* from, std::size_t bytes) {
    check(!ex.records(), executor::name, "work that the host waits for cannot be recorded");
    if (room_ < bytes) {
        host_copy larger;
        detail::checked(cudaEventCreateWithFlags(&larger.arrived_, cudaEventDisableTiming), "cudaEventCreate");
        larger.room_ = std::max(bytes, 2 * room_);
        larger.values_ = ex.allocate_pinned(larger.room_);
        swap(larger);
    }
    if (bytes == 0) return;
    detail::checked(cudaMemcpyAsync(values_, from, bytes, cudaMemcpyDeviceToHost, ex.stream()), "copy from the device");
    detail::checked(cudaEventRecord(arrived_, ex.stream()), "cudaEventRecord");
}

// in plans.hpp
std::map<std::string, std::string> products_chosen(executor& ex);
void choose_products(executor& ex, const std::map<std::string, std::string>& chosen);
std::string products_made_by(const executor& ex);

}  // namespace spectral::cuda
