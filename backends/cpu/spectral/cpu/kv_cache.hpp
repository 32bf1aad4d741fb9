// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/kv_cache.hpp: append to a key/value cache
#pragma once
#include <spectral/cpu/executor.hpp>
#include <spectral/ops/kv_cache.hpp>

namespace spectral::cpu {

template <class T>
void kv_append_kernel(executor&, const_matrix<T> k, const_matrix<T> v, const row_map& map, kv_cache<T> cache) {
    for (index n = 0; n < map.rows(); ++n) {
        const index to = cache.end[map.sequence[n]]++;
        for (index c = 0; c < k.width(); ++c) {
            cache.k(to, c) = k(n, c);
            cache.v(to, c) = v(n, c);
        }
        cache.position[to] = map.position[n];
    }
}

}  // namespace spectral::cpu
