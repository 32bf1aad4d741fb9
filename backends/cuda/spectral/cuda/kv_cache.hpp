// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/kv_cache.hpp: append to a key/value cache
#pragma once
#include <spectral/cuda/detail/launch.hpp>
#include <spectral/ops/kv_cache.hpp>

namespace spectral::cuda {

// The rows of a sequence are consecutive in the map: row n goes n − begin rows past the end, and the ends move
// afterwards.
template <class T>
void kv_append_kernel(executor& ex, const_matrix<T> k, const_matrix<T> v, const row_map& map, kv_cache<T> cache) {
    const auto from_k = detail::rows_in(k), from_v = detail::rows_in(v);
    const auto to_k = detail::rows_in(cache.k), to_v = detail::rows_in(cache.v);
    const row_index *begin = map.begin.data, *last = map.end.data, *position = map.position.data,
                    *sequence = map.sequence.data;
    row_index *end = cache.end.data, *at = cache.position.data;
    detail::for_each_element(ex, "kv_append", map.rows(), k.width(), [=] __device__(index n, index c) {
        const row_index s = sequence[n];
        const index to = end[s] + (n - begin[s]);
        to_k(to)[c] = from_k(n)[c];
        to_v(to)[c] = from_v(n)[c];
        if (c == 0) at[to] = position[n];
    });
    detail::for_each(ex, "kv_append", map.sequences(), [=] __device__(index s) { end[s] += last[s] - begin[s]; });
}

}  // namespace spectral::cuda
