// SPDX-License-Identifier: Apache-2.0
// tests/cuda_on_host/cub/block/block_scan.cuh: exclusive sums over a block, see cuda_runtime.h
#pragma once
#include <cuda_runtime.h>
namespace cub {
enum BlockScanAlgorithm { BLOCK_SCAN_RAKING, BLOCK_SCAN_WARP_SCANS };  // the same sums
template <class T, int Threads, BlockScanAlgorithm = BLOCK_SCAN_RAKING>
struct BlockScan {
    struct TempStorage {
        T value[Threads];
    };
    TempStorage& memory;
    explicit BlockScan(TempStorage& m) : memory(m) {}
    void ExclusiveSum(T in, T& out, T& total) {
        memory.value[threadIdx.x] = in;
        __syncthreads();
        T before = 0, all = 0;
        for (unsigned t = 0; t < Threads; ++t) {
            if (t == threadIdx.x) before = all;
            all += memory.value[t];
        }
        out = before;
        total = all;
    }
};
}  // namespace cub
