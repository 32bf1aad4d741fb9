// SPDX-License-Identifier: Apache-2.0
// include/spectral/core/arena.hpp: stack memory for activations and scratch, so that a step allocates nothing
//
// take() moves a mark up, an arena_scope moves it back down. A step that needs more than was ever planned gets an extra
// block; when the arena is next empty all blocks become one, so that the second step of a shape allocates nothing.
// Debug builds fill released memory with 0xFF bytes (NaN), so that a view used after its scope shows at once.
#pragma once
#include <spectral/core/executor.hpp>

#include <algorithm>
#include <vector>

namespace spectral {

template <class Exec>
class arena {
public:
    explicit arena(Exec& ex) : ex_(&ex) {}
    arena(const arena&) = delete;
    arena& operator=(const arena&) = delete;
    ~arena() { free_blocks(); }

    // Where the top of the stack is.
    struct mark_type {
        std::size_t block = 0, used = 0;
        bool operator==(const mark_type&) const = default;
    };

    // Uninitialised memory of `shape`, 64-byte aligned, alive until the enclosing scope ends.
    template <class T, std::size_t Rank>
    view<T, Rank> take(std::array<index, Rank> shape) {
        index count = 1;
        for (index s : shape) count *= s;
        return {static_cast<T*>(take_bytes(static_cast<std::size_t>(count) * sizeof(T))), shape};
    }
    template <class T>
    vector_view<T> vector(index n) {
        return take<T, 1>({n});
    }
    template <class T>
    matrix_view<T> matrix(index n, index c) {
        return take<T, 2>({n, c});
    }
    template <class T, std::size_t Rank>
    view<T, Rank> zeros(std::array<index, Rank> shape) {
        auto v = take<T, Rank>(shape);
        ex_->fill_bytes(v.data, 0, static_cast<std::size_t>(v.size()) * sizeof(T));
        return v;
    }

    // Room for `bytes` in one block, made now rather than in the first step.
    void reserve(std::size_t bytes) {
        if (top_.block == 0 && top_.used == 0 && (blocks_.empty() || blocks_[0].size < bytes)) {
            free_blocks();
            add_block(bytes);
        }
    }

    mark_type mark() const { return top_; }
    void release(mark_type m) {
#ifndef NDEBUG
        for (std::size_t b = m.block; b < blocks_.size() && b <= top_.block; ++b) {
            const std::size_t from = b == m.block ? m.used : 0, to = b == top_.block ? top_.used : blocks_[b].size;
            if (to > from) ex_->fill_bytes(blocks_[b].data + from, 0xFF, to - from);
        }
#endif
        top_ = m;
    }

    std::size_t capacity() const {
        std::size_t total = 0;
        for (const auto& b : blocks_) total += b.size;
        return total;
    }
    std::size_t peak() const { return peak_; }  // most bytes ever in use
    std::size_t allocations() const { return allocations_; }  // how often the executor was asked for memory

private:
    struct block {
        std::byte* data;
        std::size_t size;
    };

    void* take_bytes(std::size_t bytes) {
        bytes = (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64;
        if (top_.block == 0 && top_.used == 0 && blocks_.size() > 1) {  // between steps: one block that holds the peak
            const std::size_t total = std::max(peak_, capacity());
            free_blocks();
            add_block(total);
        }
        while (top_.block < blocks_.size() && top_.used + bytes > blocks_[top_.block].size) {
            if (top_.block + 1 == blocks_.size()) break;
            ++top_.block;
            top_.used = 0;
        }
        if (blocks_.empty() || top_.used + bytes > blocks_[top_.block].size) {
            grow(bytes);
            top_ = {blocks_.size() - 1, 0};
        }
        void* p = blocks_[top_.block].data + top_.used;
        top_.used += bytes;
        std::size_t in_use = top_.used;
        for (std::size_t b = 0; b < top_.block; ++b) in_use += blocks_[b].size;
        peak_ = std::max(peak_, in_use);
        return p;
    }
    // By as much as there is already, so that blocks stay few; by what is asked for where there is no room for that.
    void grow(std::size_t bytes) {
        const std::size_t wanted = std::max({bytes, capacity(), std::size_t{1} << 20});
        try {
            add_block(wanted);
        } catch (const error&) {
            if (wanted == bytes) throw;
            add_block(bytes);
        }
    }
    void add_block(std::size_t bytes) {
        bytes = (bytes + 4095) / 4096 * 4096;
        auto* data = static_cast<std::byte*>(ex_->allocate(bytes));
        blocks_.push_back({data, bytes});
        ++allocations_;
    }
    void free_blocks() {
        for (const auto& b : blocks_) ex_->deallocate(b.data, b.size);
        blocks_.clear();
        top_ = {};
    }

    Exec* ex_;
    std::vector<block> blocks_;
    mark_type top_;
    std::size_t peak_ = 0, allocations_ = 0;
};

// Everything taken from the arena during its life is released at its end.
template <class Exec>
class arena_scope {
public:
    explicit arena_scope(Exec& ex) : memory_(ex.memory()), mark_(memory_.mark()) {}
    ~arena_scope() { memory_.release(mark_); }
    arena_scope(const arena_scope&) = delete;
    arena_scope& operator=(const arena_scope&) = delete;

private:
    arena<Exec>& memory_;
    typename arena<Exec>::mark_type mark_;
};

}  // namespace spectral
