// SPDX-License-Identifier: Apache-2.0
// bench/routed_products_cuda.cu: ways to multiply a routed part of the rows, whose count only the device knows
//   routed_products_cuda [ROWS]
// y[n] = W x[n] for a share of ROWS (8192) rows drawn at random, bfloat16, medians of event times in us, each with the
// moving of rows that it needs:
//   dense      the product of all rows
//   gathered   rows packed, a product of exactly as many, rows put back: what the library does; the host knows the count
//   buckets    a graph that packs, takes one of eight products (1/8, 2/8, ... of the rows, the next larger) by a
//              conditional node whose value a kernel sets from the count, and puts rows back: the host knows nothing
//   own        a wgmma kernel that gathers while it loads, scatters while it stores and reads the count where it lies
// wait: how long the host waited for the count with nothing else queued (what `gathered` costs at worst).
#include <spectral/cuda.hpp>

#include <cstdio>
#include <cstdlib>
#include <span>

#include "event_timing.hpp"

namespace spectral {
namespace {

using E = cuda::executor;
namespace D = cuda::detail;

// ---- a product that reads its count ---------------------------------------------------------------------------------

constexpr int tile = 128, depth = 64, stages = 4, groups = 2;
using slab = D::tile_layout<tile, depth>;
constexpr std::size_t own_shared = D::tile_alignment + 2 * stages * slab::bytes + sizeof(D::tile_ring<stages>);

template <int>
__global__ void __launch_bounds__(128 * (groups + 1), 1)
    own_product(const row_index* rows, const row_index* count, int width, D::rows_of<const bfloat16> x,
                D::rows_of<const bfloat16> w, D::rows_of<bfloat16> y) {
    if constexpr (D::warpgroup_products_built) {
        const index first = index{blockIdx.y} * tile, last = *count, column = index{blockIdx.x} * tile;
        if (first >= last) return;
        unsigned char *A = D::tile_memory(), *B = A + stages * slab::bytes;
        auto* ring = reinterpret_cast<D::tile_ring<stages>*>(B + stages * slab::bytes);
        const int group = D::warpgroup_number(), slabs = width / depth;
        if (threadIdx.x == 0) ring->init(128, 4 * groups);
        __syncthreads();
        if (group == groups) {
            D::give_registers<40>();
            const int t = threadIdx.x % 128, r = t / 8, c = t % 8;  // a thread loads its 16 bytes of every 16th row
            const bfloat16* from[tile / 16];
            for (int i = 0; i < tile / 16; ++i) from[i] = x(rows[min(first + r + 16 * i, last - 1)]) + 8 * c;
            for (int k = 0; k < slabs; ++k) {
                ring->wait_empty(k);
                unsigned char* to = A + k % stages * slab::bytes + slab::offset(r, c);
                for (int i = 0; i < tile / 16; ++i)
                    D::copy_async(to + 16 * i * slab::line, from[i] + k * depth, first + r + 16 * i < last);
                D::load_rows<tile, depth>(B + k % stages * slab::bytes, w, column, column + tile, k * depth, depth, t);
                ring->announce(k);
            }
        } else {
            D::take_registers<232>();
            float sum[tile / 8][4] = {};
            for (int k = 0; k < slabs; ++k) {
                ring->wait_full(k);
                const unsigned a = D::shared_address(A + k % stages * slab::bytes) + 64 * group * slab::line,
                               b = D::shared_address(B + k % stages * slab::bytes);
                D::warpgroup_begin();
                for (int d = 0; d < depth / 16; ++d)
                    D::warpgroup_multiply<tile>(sum, D::matrix_descriptor<slab::line>(a + 32 * d),
                                                D::matrix_descriptor<slab::line>(b + 32 * d), 1);
                D::warpgroup_commit();
                if (k > 0) {
                    D::warpgroup_wait<1>();
                    ring->done(k - 1);
                }
            }
            D::warpgroup_wait<0>();
            D::settle(sum);
            const int lane = threadIdx.x % 32;
            const index row = first + 64 * group + threadIdx.x / 32 % 4 * 16 + lane / 4;
            for (int half = 0; half < 2; ++half)
                if (row + 8 * half < last) {
                    bfloat16* to = y(rows[row + 8 * half]) + column + 2 * (lane % 4);
                    for (int j = 0; j < tile / 8; ++j)
                        *reinterpret_cast<unsigned*>(to + 8 * j) =
                            D::pack_bfloat16(sum[j][2 * half], sum[j][2 * half + 1]);
                }
        }
    }
}

// ---- a graph that chooses among eight products ----------------------------------------------------------------------

template <int>
__global__ void set_bucket(cudaGraphConditionalHandle chosen, const row_index* count, index rows) {
#if defined(__CUDA_ARCH__)
    cudaGraphSetConditional(chosen, *count == 0 ? 0 : static_cast<unsigned>((index{*count} * 8 - 1) / rows));
#endif
}

void require(cudaError_t status, const char* what) { D::checked(status, what); }

// before(); product(i) for the bucket i of the count; after()
template <class Before, class Product, class After>
cudaGraphExec_t bucket_graph(E& ex, const row_index* count, index rows, Before before, Product product, After after) {
    const cudaStream_t stream = ex.stream();
    cudaGraph_t graph = nullptr;
    require(cudaGraphCreate(&graph, 0), "cudaGraphCreate");
    cudaGraphConditionalHandle chosen{};
    require(cudaGraphConditionalHandleCreate(&chosen, graph, 0, 0), "cudaGraphConditionalHandleCreate");
    const auto capture = [&](cudaGraph_t into, const cudaGraphNode_t* after_node, auto&& work) {
        require(cudaStreamBeginCaptureToGraph(stream, into, after_node, nullptr, after_node ? 1 : 0,
                                              cudaStreamCaptureModeThreadLocal),
                "cudaStreamBeginCaptureToGraph");
        work();
        cudaStreamCaptureStatus status{};
        const cudaGraphNode_t* last = nullptr;
        std::size_t lasts = 0;
#if CUDART_VERSION >= 13000
        require(cudaStreamGetCaptureInfo(stream, &status, nullptr, nullptr, &last, nullptr, &lasts), "capture");
#else
        require(cudaStreamGetCaptureInfo_v2(stream, &status, nullptr, nullptr, &last, &lasts), "capture");
#endif
        const cudaGraphNode_t end = lasts ? *last : nullptr;
        require(cudaStreamEndCapture(stream, &into), "cudaStreamEndCapture");
        return end;
    };
    const cudaGraphNode_t packed = capture(graph, nullptr, [&] {
        before();
        set_bucket<0><<<1, 1, 0, stream>>>(chosen, count, rows);
    });
    cudaGraphNodeParams choice{};
    choice.type = cudaGraphNodeTypeConditional;
    choice.conditional.handle = chosen;
    choice.conditional.type = cudaGraphCondTypeSwitch;
    choice.conditional.size = 8;
    cudaGraphNode_t node = nullptr;
#if CUDART_VERSION >= 13000
    require(cudaGraphAddNode(&node, graph, &packed, nullptr, 1, &choice), "cudaGraphAddNode");
#else
    require(cudaGraphAddNode(&node, graph, &packed, 1, &choice), "cudaGraphAddNode");
#endif
    for (int i = 0; i < 8; ++i)
        capture(choice.conditional.phGraph_out[i], nullptr, [&] { product(rows * (i + 1) / 8); });
    capture(graph, &node, after);
    cudaGraphExec_t out = nullptr;
    require(cudaGraphInstantiate(&out, graph, 0), "cudaGraphInstantiate");
    require(cudaGraphDestroy(graph), "cudaGraphDestroy");
    return out;
}

// ---- measuring ------------------------------------------------------------------------------------------------------

tensor<E, bfloat16, 2> random(E& ex, index n, index width, std::uint64_t seed) {
    tensor<E, bfloat16, 2> t(ex, {n, width});
    bfloat16* p = t.data();
    D::for_each(ex, "random", n * width, [=] __device__(index i) {
        p[i] = D::narrow<bfloat16>(
            static_cast<float>(random_stream{seed, 7}.uniform(static_cast<std::uint64_t>(i)) - 0.5));
    });
    return t;
}

void measure(E& ex, index rows, index width, index outputs, double share) {
    using T = bfloat16;
    arena_scope scope(ex);
    std::vector<row_index> chosen;
    for (index n = 0; n < rows; ++n)
        if (random_stream{1, 2}.uniform(static_cast<std::uint64_t>(n)) < share)
            chosen.push_back(static_cast<row_index>(n));
    selection some = select_list(ex, chosen, rows);
    const auto n = static_cast<index>(chosen.size());
    const auto x = random(ex, rows, width, 1), w = random(ex, outputs, width, 2);
    tensor<E, T, 2> packed(ex, {rows, width}), result(ex, {rows, outputs}), y(ex, {rows, outputs}),
        other(ex, {rows, outputs});
    const auto first = [](tensor<E, T, 2>& t, index count) { return t.view().slice(0, count); };
    const auto product = [&](index count) {
        linear_forward<E, T>(ex, first(packed, count), w.view(), {}, first(result, count));
    };
    const auto gather = [&] { gather_rows<E, T>(ex, x.view(), some, first(packed, n)); };
    const auto scatter = [&] { scatter_rows<E, T>(ex, first(result, n), some, y.view(), write::overwrite); };
    for (int i = 1; i <= 8; ++i) product(rows * i / 8);  // plans are made outside of graphs
    const double dense =
        1000 * bench::event_ms(ex, [&] { linear_forward<E, T>(ex, x.view(), w.view(), {}, other.view()); });
    const double gathered = 1000 * bench::event_ms(ex, [&] { gather(), product(n), scatter(); });
    const double exact = 1000 * bench::event_ms(ex, [&] { product(n); });
    cudaGraphExec_t graph = bucket_graph(ex, some.count, rows, gather, product, scatter);
    const double buckets =
        1000 * bench::event_ms(ex, [&] { require(cudaGraphLaunch(graph, ex.stream()), "cudaGraphLaunch"); });
    require(cudaGraphExecDestroy(graph), "cudaGraphExecDestroy");
    const auto own = [&] {
        D::launch(ex, "own_product",
                  dim3(static_cast<unsigned>(outputs / tile), static_cast<unsigned>(D::divide_up(rows, tile))),
                  128 * (groups + 1), own_shared, own_product<0>, some.rows, some.count, static_cast<int>(width),
                  D::rows_in(view<const T, 2>(x.view())), D::rows_in(view<const T, 2>(w.view())),
                  D::rows_in(other.view()));
    };
    const double ours = 1000 * bench::event_ms(ex, own);
    gather(), product(n), scatter(), own();
    double worst = 0;
    const auto a = y.to_host(), b = other.to_host();
    for (row_index r : chosen)
        for (index c = 0; c < outputs; ++c) {
            const auto i = static_cast<std::size_t>(r * outputs + c);
            worst = std::max(worst, std::abs(double(float(a[i])) - double(float(b[i]))));
        }
    std::vector<double> waits;
    for (int i = 0; i < 25; ++i) {
        ex.synchronize();
        const double start = bench::seconds();
        selection sent = some;
        sent.known = -1, sent.sent = ex.send_counts(some.count, 1);
        if (selected_rows(ex, sent) != n) std::printf("WRONG COUNT ");
        waits.push_back(1e6 * (bench::seconds() - start));
    }
    std::printf(
        "%5d of %5d rows, %4d -> %4d: dense %6.1f  gathered %6.1f (its product %6.1f)  buckets %6.1f  own %6.1f  wait %5.1f us"
        "  (largest difference %.1e)\n",
        int(n), int(rows), int(width), int(outputs), dense, gathered, exact, buckets, ours, bench::median(waits),
        worst);
}

}  // namespace
}  // namespace spectral

int main(int count, char** arguments) try {
    using namespace spectral;
    E ex({.arena_bytes = std::size_t{1} << 28});
    std::printf("%s, bfloat16, us\n", ex.device_name().c_str());
    const spectral::index rows = count > 1 ? std::atoi(arguments[1]) : 8192;
    for (double share : {0.25, 0.5, 0.75})
        for (spectral::index outputs : {1024, 4096}) measure(ex, rows, 1024, outputs, share);
} catch (const std::exception& e) {
    return std::fprintf(stderr, "routed_products_cuda: %s\n", e.what()), 1;
}
