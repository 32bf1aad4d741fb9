// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/embedding.hpp: rows of a table by id
//
// Backward without atomics: the rows are sorted by id (CUB's radix sort is stable, so rows of one id stay in order),
// and one block adds up each id's rows. The same bits in every run.
#pragma once
#include <spectral/cuda/partition.hpp>
#include <spectral/ops/embedding.hpp>

#include <cub/device/device_radix_sort.cuh>

namespace spectral::cuda {

namespace detail {

template <class T>
__global__ void add_rows_by_id(index count, index width, const row_index* ids, const row_index* rows,
                               rows_of<const T> dL_dy, rows_of<compute<T>> dL_dtable) {
    using A = compute<T>;
    for (index first = blockIdx.x; first < count; first += gridDim.x) {
        const row_index id = ids[first];
        if (first > 0 && ids[first - 1] == id) continue;  // another block begins this id
        A* to = dL_dtable(id);
        for (index c = threadIdx.x; c < width; c += blockDim.x) {
            A sum = to[c];
            for (index i = first; i < count && ids[i] == id; ++i) sum += widen(dL_dy(rows[i])[c]);
            to[c] = sum;
        }
    }
}

}  // namespace detail

template <class T>
void embedding_forward_kernel(executor& ex, const_vector<row_index> ids, const_matrix<T> table, matrix_view<T> y,
                              write mode) {
    detail::move<T>(ex, "embedding_forward", ids.size(), table, ids.data, y, nullptr, mode == write::accumulate);
}

// a table kept as bfloat16 while the model computes in another type
template <class T>
    requires(!std::is_same_v<T, bfloat16>)
void embedding_forward_kernel(executor& ex, const_vector<row_index> ids, view<const bfloat16, 2> table,
                              matrix_view<T> y, write mode) {
    const auto from = detail::rows_in(table);
    const auto to = detail::rows_in(y);
    const row_index* id = ids.data;
    const bool accumulate = mode == write::accumulate;
    detail::for_each_element(ex, "embedding_forward", ids.size(), y.width(), [=] __device__(index n, index c) {
        to(n)[c] = static_cast<T>(detail::widen(from(id[n])[c])) + (accumulate ? to(n)[c] : T(0));
    });
}

template <class T>
void embedding_backward_kernel(executor& ex, const_vector<row_index> ids, view<const T, 2> dL_dy,
                               matrix_view<statistic<T>> dL_dtable) {
    if (dL_dy.empty()) return;
    arena_scope scratch(ex);
    const index n = ids.size();
    auto order = ex.memory().template vector<row_index>(n), sorted_ids = ex.memory().template vector<row_index>(n),
         sorted_rows = ex.memory().template vector<row_index>(n);
    row_index* to = order.data;
    detail::for_each(ex, "embedding_backward", n, [=] __device__(index i) { to[i] = static_cast<row_index>(i); });
    int bits = 1;  // of the largest id
    while (bits < 31 && (index{1} << bits) < dL_dtable.rows()) ++bits;
    std::size_t bytes = 0;
    const auto sort = [&](void* temporary) {
        detail::checked(cub::DeviceRadixSort::SortPairs(temporary, bytes, ids.data, sorted_ids.data, order.data,
                                                        sorted_rows.data, static_cast<int>(n), 0, bits, ex.stream()),
                        "embedding_backward");
    };
    sort(nullptr);
    sort(ex.memory().template vector<std::byte>(static_cast<index>(bytes)).data);
    detail::launch(ex, "embedding_backward", detail::blocks_for(ex, n), detail::threads_for(dL_dy.width()), 0,
                   detail::add_rows_by_id<T>, n, dL_dy.width(), static_cast<const row_index*>(sorted_ids.data),
                   static_cast<const row_index*>(sorted_rows.data), detail::rows_in(dL_dy), detail::rows_in(dL_dtable));
}

}  // namespace spectral::cuda
