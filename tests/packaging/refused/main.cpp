// SPDX-License-Identifier: Apache-2.0
// tests/packaging/refused/main.cpp: mistakes that the compiler must refuse with our sentence, one per number in MISTAKE
//
// Without MISTAKE everything compiles, so that a failure with it has no other cause.
#include <spectral/core/host_memory.hpp>
#include <spectral/core/tensor.hpp>
#include <spectral/layers/entropy_threshold.hpp>
#include <spectral/layers/identity_mixer.hpp>
#include <spectral/layers/routed.hpp>
#include <spectral/ops/linear.hpp>
#include <spectral/reference.hpp>
#if MISTAKE == 5
#include <spectral/cuda.hpp>  // in a source that is not CUDA
#endif

namespace mine {

class executor : public spectral::detail::host_memory<executor> {
public:
    static constexpr const char* name = "mine";
};

#if MISTAKE != 1  // an executor without a kernel
template <class T, class W>  // W: T, or bfloat16
void linear_forward_kernel(executor&, spectral::const_matrix<T>, spectral::view<const W, 2>, spectral::const_vector<T>,
                           spectral::matrix_view<T>, spectral::const_matrix<T>, double) {}
#endif

using reference = spectral::reference::executor;

struct unfinished : spectral::identity_mixer<reference, float> {  // an operator without backward
    using identity_mixer::identity_mixer;
    void backward() = delete;
};
struct no_router {  // nothing of a router
    no_router(const spectral::operator_config<reference, float>&, const spectral::router_options&) {}
};

}  // namespace mine

int main() {
    mine::executor ex;
    spectral::tensor<mine::executor, float, 2> x{ex, {1, 2}}, w{ex, {1, 2}}, y{ex, {1, 1}};
    spectral::linear_forward<mine::executor, float>(ex, x, w, {}, y);

    using whole = spectral::identity_mixer<mine::reference, float>;
    using router = spectral::entropy_threshold<mine::reference, float>;
    mine::reference reference;
    spectral::routed<mine::reference, float,
#if MISTAKE == 2
                     mine::no_router,
#else
                     router,
#endif
#if MISTAKE == 3
                     mine::unfinished,
#elif MISTAKE != 4
                     whole,
#endif
                     whole>
        routed{reference, {.width = 2}, {.thresholds = {0.5}}};
#if MISTAKE == 6
    spectral::view<float, 5> deep;
#endif
}
