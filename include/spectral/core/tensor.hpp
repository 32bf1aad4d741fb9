// SPDX-License-Identifier: Apache-2.0
// include/spectral/core/tensor.hpp: memory that outlives a step, owned on one executor
#pragma once
#include <spectral/core/executor.hpp>

#include <span>
#include <utility>
#include <vector>

namespace spectral {

// A row-major block of T on an executor, zero at construction; converts to a view.
template <class Exec, class T, std::size_t Rank = 1>
class tensor {
public:
    tensor() = default;
    tensor(Exec& ex, std::array<index, Rank> shape) : ex_(&ex), shape_(shape) {
        for (index s : shape) check(s >= 0, "tensor", "negative extent in shape ", shape_text<Rank>{shape});
        data_ = static_cast<T*>(ex.allocate(bytes()));
        ex.fill_bytes(data_, 0, bytes());
    }
    tensor(Exec& ex, std::array<index, Rank> shape, std::span<const T> host) : tensor(ex, shape) { assign(host); }
    tensor(tensor&& o) noexcept
        : ex_(std::exchange(o.ex_, nullptr)), data_(std::exchange(o.data_, nullptr)), shape_(o.shape_) {}
    tensor& operator=(tensor&& o) noexcept {
        std::swap(ex_, o.ex_);
        std::swap(data_, o.data_);
        std::swap(shape_, o.shape_);
        return *this;
    }
    ~tensor() {
        if (ex_) ex_->deallocate(data_, bytes());
    }

    index size() const { return view().size(); }
    spectral::view<T, Rank> view() const { return {data_, shape_}; }
    operator spectral::view<T, Rank>() const { return view(); }
    operator spectral::view<const T, Rank>() const { return view(); }

    void assign(std::span<const T> host) {
        check_equal(static_cast<index>(host.size()), size(), "tensor::assign", "number of values");
        if (!host.empty()) ex_->copy_from_host(data_, host.data(), host.size_bytes());
    }
    std::vector<T> to_host() const {
        std::vector<T> out(static_cast<std::size_t>(size()));
        if (!out.empty()) ex_->copy_to_host(out.data(), data_, out.size() * sizeof(T));
        return out;
    }
    T* data() const { return data_; }

private:
    std::size_t bytes() const {
        std::size_t n = sizeof(T);
        for (index s : shape_) n *= static_cast<std::size_t>(s);
        return n;
    }
    Exec* ex_ = nullptr;
    T* data_ = nullptr;
    std::array<index, Rank> shape_{};
};

// A contiguous view's values on the host.
template <class Exec, class T, std::size_t Rank>
std::vector<std::remove_const_t<T>> to_host(Exec& ex, view<T, Rank> v) {
    check(v.contiguous(), "to_host", "the view must be contiguous");
    std::vector<std::remove_const_t<T>> out(static_cast<std::size_t>(v.size()));
    if (!out.empty()) ex.copy_to_host(out.data(), v.data, out.size() * sizeof(T));
    return out;
}

// The same into memory that is kept from call to call.
template <class Exec, class T, std::size_t Rank>
void to_host(Exec& ex, view<T, Rank> v, std::vector<std::remove_const_t<T>>& out) {
    check(v.contiguous(), "to_host", "the view must be contiguous");
    out.resize(static_cast<std::size_t>(v.size()));
    if (!out.empty()) ex.copy_to_host(out.data(), v.data, out.size() * sizeof(T));
}

// The same as numbers to compute with: bfloat16 widened to float.
template <class Exec, class T, std::size_t Rank>
std::vector<statistic<T>> to_host_widened(Exec& ex, view<T, Rank> v) {
    const auto stored = to_host(ex, v);
    std::vector<statistic<T>> out(stored.size());
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = widen<statistic<T>>(stored[i]);
    return out;
}

}  // namespace spectral
