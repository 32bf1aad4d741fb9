// SPDX-License-Identifier: Apache-2.0
// include/spectral/core/host_memory.hpp: memory functions shared by the executors that run on the host
#pragma once
#include <spectral/core/arena.hpp>

#include <cstdlib>
#include <cstring>
#include <memory>

namespace spectral::detail {

// Base of host executors: 64-byte aligned allocation, plain copies, an arena, and a count of allocations.
template <class Derived>
class host_memory {
public:
    static constexpr bool reads_host_memory = true;  // kernels may read what the host owns, a mapped file for instance

    host_memory() : memory_(std::make_unique<arena<Derived>>(static_cast<Derived&>(*this))) {}
    host_memory(const host_memory&) = delete;
    host_memory& operator=(const host_memory&) = delete;

    void* allocate(std::size_t bytes) {
        ++allocations_;
        void* p = std::aligned_alloc(64, (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64);
        check(p != nullptr, Derived::name, "out of memory: ", bytes, " bytes asked for");
        return p;
    }
    void deallocate(void* p, std::size_t) noexcept { std::free(p); }
    void copy_from_host(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
    void copy_to_host(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
    void fill_bytes(void* p, int byte, std::size_t bytes) { std::memset(p, byte, bytes); }
    arena<Derived>& memory() { return *memory_; }
    std::size_t allocations() const { return allocations_; }  // calls of allocate since construction

private:
    std::size_t allocations_ = 0;
    std::unique_ptr<arena<Derived>> memory_;
};

}  // namespace spectral::detail
