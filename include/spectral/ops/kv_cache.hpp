// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/kv_cache.hpp: keys and values of the rows seen so far, appended while decoding
//
// Sequence s owns the rows [s·capacity, (s+1)·capacity) of k and v; map.end[s] says how far it is filled. A layer whose
// attention keeps keys of routed rows only appends those: sequences then fill at their own pace, each row with its
// position.
// Throws error for keys of another width than the cache's and for another number of sequences.
#pragma once
#include <spectral/core/rows.hpp>

namespace spectral {

template <class T>
struct kv_cache {
    matrix_view<T> k, v;  // (S·capacity, width)
    vector_view<row_index> begin, end;  // (S)
    vector_view<row_index> position;  // (S·capacity)
    index capacity = 0;

    // the cached rows as attention reads them
    row_map map() const { return {begin, end, position, {}}; }
};

// Appends k[n], v[n] (N, width) of every row of `map` to its sequence. Overflow is checked by the model beforehand.
template <executor Exec, class T>
void kv_append(Exec& ex, const_matrix<T> k, const_matrix<T> v, const row_map& map, kv_cache<T> cache) {
    check_equal(k.width(), cache.k.width(), "kv_append", "width of k");
    check_equal(map.sequences(), cache.begin.size(), "kv_append", "sequences");
    SPECTRAL_CALL_KERNEL(kv_append_kernel, ex, k, v, map, cache);
}

}  // namespace spectral
