// SPDX-License-Identifier: Apache-2.0
// include/spectral/core/executor.hpp: what an executor is, and how an operator finds its kernel
//
// An executor says where work runs. It owns its memory functions, an arena for activations and scratch, and whatever
// its kernels keep between calls (plans, handles, threads). Operators find kernels by argument-dependent look-up in
// the executor's namespace: x_forward(ex, ...) in ops/x.hpp checks shapes and calls x_forward_kernel(ex, ...).
#pragma once
#include <spectral/core/half.hpp>
#include <spectral/core/view.hpp>

#include <concepts>
#include <cstddef>

namespace spectral {

template <class Exec>
class arena;

template <class E>
concept executor = requires(E& ex, std::size_t bytes, void* p, const void* q, int byte) {
    { ex.allocate(bytes) } -> std::same_as<void*>;  // 64-byte aligned; throws when memory is out
    ex.deallocate(p, bytes);
    ex.copy_from_host(p, q, bytes);  // host -> executor
    ex.copy_to_host(p, q, bytes);  // executor -> host; waits for the work before it
    ex.fill_bytes(p, byte, bytes);
    { ex.memory() } -> std::same_as<arena<E>&>;
    { E::name } -> std::convertible_to<const char*>;
};

// The one place where a public operator meets its kernel. A missing kernel is a compile error with a sentence, never a
// slower path; the executor and scalar are named by the compiler in the lines around it.
// clang-format off
#define SPECTRAL_CALL_KERNEL(kernel, ...)                                                                              \
    do {                                                                                                               \
        static_assert(requires { kernel(__VA_ARGS__); },                                                               \
                      "spectral: this executor has no " #kernel " for this scalar type: include <spectral/cpu.hpp>, "  \
                      "<spectral/cuda.hpp>, <spectral/reference.hpp> or the header that defines your executor, which " \
                      "brings its kernels");                                                                           \
        if constexpr (requires { kernel(__VA_ARGS__); }) kernel(__VA_ARGS__);                                          \
    } while (false)
// clang-format on

}  // namespace spectral
