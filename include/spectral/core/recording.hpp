// SPDX-License-Identifier: Apache-2.0
// include/spectral/core/recording.hpp: work that an executor may record once and repeat (a CUDA graph)
//
// Recorded work names memory, not values: what changes from one time to the next lies in memory that stays where it is.
// It may neither wait for the device nor ask for memory. An executor that can record has
//   typename E::recording;   ex.record(f) -> recording;   ex.replay(recording)
// For any other executor a repeated_work runs its work every time.
#pragma once
#include <spectral/core/arena.hpp>

#include <optional>

namespace spectral {

template <class E>
concept recording_executor = executor<E> && requires(E& ex, typename E::recording& r, void (*f)()) {
    { ex.record(f) } -> std::same_as<typename E::recording>;
    ex.replay(r);
};

// The same work again and again: run as it is until a run finds all memory in place, then recorded, then repeated.
template <executor Exec>
class repeated_work {
public:
    template <class F>
    void run(Exec& ex, F&& work) {
        if constexpr (recording_executor<Exec>) {
            const std::size_t before = ex.memory().allocations();
            const auto top = ex.memory().mark();
            if (before != settled_ || top != top_) {  // scratch memory lies elsewhere, or this is the first time
                recorded_.reset();
                work();
                settled_ = ex.memory().allocations() == before ? before : moving;
                top_ = top;
                return;
            }
            if (!recorded_) recorded_.emplace(ex.record(work));
            ex.replay(*recorded_);
        } else {
            work();
        }
    }

private:
    static constexpr auto moving = ~std::size_t{0};
    template <class E>
    struct kept {
        struct type {};
    };
    template <recording_executor E>
    struct kept<E> {
        using type = typename E::recording;
    };
    std::optional<typename kept<Exec>::type> recorded_;
    std::size_t settled_ = moving;  // the arena's allocations when a run made none
    typename arena<Exec>::mark_type top_;  // and its top before that run
};

}  // namespace spectral
