// SPDX-License-Identifier: Apache-2.0
// tests/cuda_on_host/spectral/cuda/detail/block_halves.hpp: blocks of threads that wait for each other do not run here
#pragma once
#include <spectral/cuda/detail/few_rows.hpp>

namespace spectral::cuda::detail {

template <class T>
bool run_block_halves(executor&, const_matrix<T>, std::span<const block_half<T>>, const row_map&, matrix_view<T>) {
    return false;
}

}  // namespace spectral::cuda::detail
