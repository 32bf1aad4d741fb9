// SPDX-License-Identifier: Apache-2.0
// tests/packaging/missing_kernel/main.cpp: an executor without a kernel is refused by the compiler with our sentence
//
// Compiles with WITH_KERNEL, so that the failure without it has no other cause.
#include <spectral/core/host_memory.hpp>
#include <spectral/core/tensor.hpp>
#include <spectral/ops/linear.hpp>

namespace mine {

class executor : public spectral::detail::host_memory<executor> {
public:
    static constexpr const char* name = "mine";
};

#ifdef WITH_KERNEL
template <class T, class W>   // W: T, or bfloat16
void linear_forward_kernel(executor&, spectral::const_matrix<T>, spectral::view<const W, 2>, spectral::const_vector<T>,
                           spectral::matrix_view<T>, spectral::write) {}
#endif

}  // namespace mine

int main() {
    mine::executor ex;
    spectral::tensor<mine::executor, float, 2> x{ex, {1, 2}}, w{ex, {1, 2}}, y{ex, {1, 1}};
    spectral::linear_forward<mine::executor, float>(ex, x, w, {}, y);
}
