// SPDX-License-Identifier: Apache-2.0
// bench/async_copies_cuda.cu: the way of attention's query statistics by itself, for compute-sanitizer
//   compute-sanitizer --tool racecheck async_copies_cuda [each]
// One warp asks for numbers with cp.async and announces them with cp.async.mbarrier.arrive; another waits on that barrier and
// reads them: the same tile_ring that attention's kernels use, and nothing else. With `each`, every lane that has read says
// so by itself, instead of one for its warp after __syncwarp. PTX orders this (cp.async.mbarrier.arrive:
// the arrive happens once the thread's earlier cp.async have completed); what racecheck says of it here is what it can see.
#include <spectral/cuda/detail/attention_fragments.hpp>

#include <cstdio>

namespace spectral::cuda::detail {

template <bool Each>
__global__ void hand_over(const float2* from, int tiles, float* sums) {
    __shared__ float2 tile[2][32];
    __shared__ tile_ring<2> ring;
    const int lane = threadIdx.x % 32;
    if (threadIdx.x == 0) ring.init(32, Each ? 32 : 1);
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < tiles; ++i)
        if (threadIdx.x < 32) {
            ring.wait_empty(i);
            copy_async<8>(&tile[i % 2][lane], from + 32 * i + lane, true);
            ring.announce(i);
        } else {
            ring.wait_full(i);
            sum += tile[i % 2][31 - lane].x;
            if constexpr (Each)
                ring.empty[i % 2].arrive();
            else
                ring.done(i);
        }
    if (threadIdx.x >= 32) sums[lane] = sum;
}

}  // namespace spectral::cuda::detail

int main(int count, char**) try {
    constexpr int tiles = 6;
    spectral::cuda::executor ex;
    std::vector<float2> host(32 * tiles);
    for (std::size_t i = 0; i < host.size(); ++i) host[i] = {static_cast<float>(i), 0};
    auto from = ex.memory().vector<float2>(32 * tiles);
    auto sums = ex.memory().vector<float>(32);
    ex.copy_from_host(from.data, host.data(), host.size() * sizeof host[0]);
    spectral::cuda::detail::launch(
        ex, "hand_over", 1, 64, 0,
        count > 1 ? spectral::cuda::detail::hand_over<true> : spectral::cuda::detail::hand_over<false>,
        static_cast<const float2*>(from.data), tiles, sums.data);
    float got[32];
    ex.copy_to_host(got, sums.data, sizeof got);
    for (int lane = 0; lane < 32; ++lane) {
        float want = 0;
        for (int i = 0; i < tiles; ++i) want += static_cast<float>(32 * i + 31 - lane);
        if (got[lane] != want) return std::printf("lane %d: %g, expected %g\n", lane, got[lane], want), 1;
    }
    std::printf("right\n");
} catch (const std::exception& e) {
    return std::fprintf(stderr, "async_copies_cuda: %s\n", e.what()), 1;
}
