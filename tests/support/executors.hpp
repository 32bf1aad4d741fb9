// SPDX-License-Identifier: Apache-2.0
// tests/support/executors.hpp: what is tested: the pairs of executor and scalar, as types
//
// A test is written once, over `targets`; the oracle is the reference executor in double. With SPECTRAL_TEST_CUDA the
// same source is compiled as CUDA and the list is that of the GPU (Eigen stays out of .cu files, so the cpu pairs are
// not in it). A further executor: one more entry, and a specialisation of make_executor if it is not made from a thread
// count.
#pragma once
#include <spectral/core/half.hpp>
#include <spectral/reference.hpp>

#ifndef SPECTRAL_TEST_CUDA
#define SPECTRAL_TEST_CUDA 0
#endif
#ifndef SPECTRAL_TEST_CPU
#define SPECTRAL_TEST_CPU !SPECTRAL_TEST_CUDA
#endif
#ifndef SPECTRAL_TEST_BFLOAT16
#define SPECTRAL_TEST_BFLOAT16 0  // 1: the CUDA executor in bfloat16 alone, for the tests that hold in it
#endif
#ifndef SPECTRAL_TEST_CPU_ONCE
#define SPECTRAL_TEST_CPU_ONCE 0  // 1: the cpu executor alone, once a scalar; the oracle runs beside it as ever
#endif
#ifndef SPECTRAL_TEST_SANITIZED
#define SPECTRAL_TEST_SANITIZED 0  // 1: slow; what only shows in values need not run once more
#endif
#if SPECTRAL_TEST_CUDA
#include <spectral/cuda.hpp>
#endif
#if defined(__NVCC__)
#define SPECTRAL_TEST_GPU 1  // a real one: what needs its many blocks, and would take long on a processor
#else
#define SPECTRAL_TEST_GPU 0
#endif
#if SPECTRAL_TEST_CPU
#include <spectral/cpu.hpp>
#endif

#include <concepts>
#include <limits>
#include <string>
#include <tuple>

template <>
struct std::numeric_limits<spectral::bfloat16> {  // what tolerances ask for
    static constexpr double epsilon() { return 0x1p-7; }
};

namespace spectral::test {

template <class Exec>
Exec make_executor(int threads) {
    if constexpr (std::constructible_from<Exec, int>)
        return Exec(threads);
    else
        return Exec();
}

template <class T>
constexpr const char* scalar_name = "?";
template <>
inline constexpr const char* scalar_name<float> = "float";
template <>
inline constexpr const char* scalar_name<double> = "double";
template <>
inline constexpr const char* scalar_name<bfloat16> = "bfloat16";

// One pair under test; the executor lives as long as the test program, as it does in a training run.
template <class Exec, class T, int Threads = 1>
struct target {
    using executor = Exec;
    using scalar = T;
    static Exec& instance() {
        static Exec ex = make_executor<Exec>(Threads);
        return ex;
    }
    static std::string executor_name() { return std::string(Exec::name) + ", threads " + std::to_string(Threads); }
};

using oracle = target<reference::executor, double>;

template <class Exec>
constexpr bool on_cuda(const Exec&) {
    return std::string_view(Exec::name) == "cuda";
}

// targets: all that is tested. backends: those that treat some sizes apart; the reference executor is what they are
// held against. model_targets: what whole models run on; every pair compiles all of them anew.
#if SPECTRAL_TEST_CUDA && SPECTRAL_TEST_BFLOAT16
using targets = std::tuple<target<cuda::executor, bfloat16>>;
using backends = targets;
using model_targets = targets;
#elif SPECTRAL_TEST_CUDA
using targets = std::tuple<target<cuda::executor, float>, target<cuda::executor, double>>;
using backends = targets;
using model_targets = targets;
#elif SPECTRAL_TEST_CPU && SPECTRAL_TEST_CPU_ONCE
using targets = std::tuple<target<cpu::executor, float, 3>, target<cpu::executor, double, 2>>;
using backends = targets;
using model_targets = targets;
#elif SPECTRAL_TEST_CPU
using targets = std::tuple<target<reference::executor, float>, oracle, target<cpu::executor, float, 1>,
                           target<cpu::executor, float, 3>, target<cpu::executor, double, 2>>;
using backends =
    std::tuple<target<cpu::executor, float, 1>, target<cpu::executor, float, 3>, target<cpu::executor, double, 2>>;
using model_targets = std::tuple<oracle, target<cpu::executor, float, 3>, target<cpu::executor, double, 2>>;
#else
using targets = std::tuple<target<reference::executor, float>, oracle>;
using backends = targets;
using model_targets = targets;
#endif

}  // namespace spectral::test
