// SPDX-License-Identifier: Apache-2.0
// tests/cuda_on_host/cub/device/device_radix_sort.cuh: a stable sort of pairs, see cuda_runtime.h
#pragma once
#include <cuda_runtime.h>

#include <numeric>
namespace cub {
struct DeviceRadixSort {
    template <class K, class V>
    static cudaError_t SortPairs(void* temporary, std::size_t& bytes, const K* in, K* out, const V* values, V* sorted,
                                 int n, int first_bit, int last_bit, cudaStream_t) {
        if (!temporary) return bytes = 64, cudaSuccess;
        return queue_on_host([=] {
            std::vector<int> order(static_cast<std::size_t>(n));
            std::iota(order.begin(), order.end(), 0);
            const K mask = (last_bit < int(8 * sizeof(K)) ? (K(1) << last_bit) - 1 : ~K(0)) >> first_bit << first_bit;
            std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return (in[a] & mask) < (in[b] & mask); });
            for (int i = 0; i < n; ++i)
                out[i] = in[order[static_cast<std::size_t>(i)]], sorted[i] = values[order[static_cast<std::size_t>(i)]];
        });
    }
};
}  // namespace cub
