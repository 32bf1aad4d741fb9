// SPDX-License-Identifier: Apache-2.0
// include/spectral/core/host_copy.hpp: values on their way to the host
//
// start() queues the copy behind the work before it, finish() waits for that copy alone: an executor that queues work
// has what was queued in between to go on with while the host looks at a loss. Such an executor has
//   typename E::host_copy c;   c.start(ex, from, bytes);   const void* values = c.finish();
// For any other executor the values are copied at once.
#pragma once
#include <spectral/core/executor.hpp>
#include <spectral/core/view.hpp>

#include <span>
#include <vector>

namespace spectral {

template <class E>
concept sends_values = executor<E> && requires(E& ex, typename E::host_copy& c, const void* p, std::size_t bytes) {
    c.start(ex, p, bytes);
    { c.finish() } -> std::same_as<const void*>;
};

template <executor Exec, class T>
class host_copy {
public:
    template <class U, std::size_t Rank>
        requires std::is_same_v<std::remove_const_t<U>, T>
    void start(Exec& ex, view<U, Rank> v) {
        check(v.contiguous(), "host_copy", "the view must be contiguous");
        count_ = static_cast<std::size_t>(v.size());
        if constexpr (sends_values<Exec>) {
            values_.start(ex, v.data, count_ * sizeof(T));
        } else {
            values_.resize(count_);
            if (count_) ex.copy_to_host(values_.data(), v.data, count_ * sizeof(T));
        }
    }
    // They stay until the next start.
    std::span<const T> finish() {
        if constexpr (sends_values<Exec>) {
            const auto* values = static_cast<const T*>(values_.finish());
            return {values, values ? count_ : 0};
        } else {
            return values_;
        }
    }

private:
    template <class E>
    struct kept {
        using type = std::vector<T>;
    };
    template <sends_values E>
    struct kept<E> {
        using type = typename E::host_copy;
    };
    typename kept<Exec>::type values_;
    std::size_t count_ = 0;
};

}  // namespace spectral
