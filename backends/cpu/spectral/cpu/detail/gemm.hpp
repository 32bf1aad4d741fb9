// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/gemm.hpp: matrix products, the one seam behind which they are computed
//   C (m, n) = α op(A) (m, k) · op(B) (k, n)  [+ C]  [+ bias on every row]
//
// The blocked scheme of Goto and van de Geijn (TOMS 34, 2008): panels of B are packed once per block of the depth and
// pass from the second-level cache to the first while a block of A goes by; the products happen in register_tile.hpp.
// What libraries leave to the caller is done here while C is in registers: the bias is what sums start from, and an
// overwritten C is never read. B may be kept as bfloat16: packing widens it. Packing buffers belong to the thread and
// are kept, so that a step allocates nothing. The executor's number of threads holds. Every element of C is summed by
// one thread, over k in ascending order: same number of threads, same bits. bench/gemm_bench.cpp runs it against
// Eigen's product.
#pragma once
#include <spectral/cpu/detail/parallel.hpp>
#include <spectral/cpu/detail/register_tile.hpp>
#include <spectral/ops/embedding.hpp>

namespace spectral::cpu::detail {

enum class transpose { no, yes };

// Memory of one thread, kept from call to call: it only grows.
class packing_buffer {
public:
    packing_buffer() = default;
    packing_buffer(const packing_buffer&) = delete;
    packing_buffer& operator=(const packing_buffer&) = delete;
    ~packing_buffer() { std::free(data_); }

    template <class T>
    T* reserve(index count) {
        const std::size_t bytes = (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
        if (bytes > size_) {
            std::free(data_);
            size_ = 0;
            data_ = std::aligned_alloc(64, bytes);
            check(data_ != nullptr, "cpu::gemm", "out of memory: ", bytes, " bytes asked for");
            size_ = bytes;
        }
        return static_cast<T*>(data_);
    }

private:
    void* data_ = nullptr;
    std::size_t size_ = 0;
};

inline packing_buffer& packed_panels() {
    static thread_local packing_buffer buffer;
    return buffer;
}
inline packing_buffer& packed_block() {
    static thread_local packing_buffer buffer;
    return buffer;
}

// n in equal parts no larger than `most`, each a multiple of `unit` (but the last)
constexpr index even_block(index n, index most, index unit) {
    const index parts = std::max<index>((n + most - 1) / most, 1);
    return std::max<index>(((n + parts - 1) / parts + unit - 1) / unit * unit, unit);
}

// f(column, width, vectors) for the panels of a width: three vectors each, then what is left in one
template <class T, class F>
void for_each_panel(index width, F&& f) {
    constexpr index lanes = lane_count<T>;
    for (index j = 0; j < width; j += 3 * lanes) {
        const index count = std::min(3 * lanes, width - j), vectors = (count + lanes - 1) / lanes;
        if (vectors == 3)
            f(j, count, std::integral_constant<int, 3>{});
        else if (vectors == 2)
            f(j, count, std::integral_constant<int, 2>{});
        else
            f(j, count, std::integral_constant<int, 1>{});
    }
}

// C = α op(A) op(B) on the calling thread.
template <transpose TransposeA, transpose TransposeB, class T, class B>
void gemm_tile(index depth, T alpha, const T* a, index a_stride, const B* b, index b_stride, write mode,
               matrix_view<T> c, const T* bias) {
    constexpr index size = sizeof(T), lanes = lane_count<T>, R = tile_rows;
    constexpr bool panels_of_a = TransposeA == transpose::yes;
    const index m = c.rows(), n = c.width();
    // A block of A takes about a third of a megabyte (second-level cache); the panels of B at most eight (last level).
    const index depth_block = even_block(depth, 1536 / size, 8);
    const index row_block = even_block(m, std::max<index>((384 << 10) / (depth_block * size), R), R);
    const index most_columns = even_block(n, std::max<index>((8 << 20) / (depth_block * size), 3 * lanes), 3 * lanes);
    // Rows of A that lie a multiple of a kilobyte apart share few sets of the first-level cache: move them together.
    const index row_stride = depth_block + 64 / size;
    const bool moved = !panels_of_a && depth > depth_block && a_stride * size % 1024 == 0;
    T* panels = packed_panels().template reserve<T>(depth_block * (std::min(most_columns, n) + lanes));
    T* block = panels_of_a || moved ? packed_block().template reserve<T>(row_stride * row_block) : nullptr;

    for (index p = 0; p < n; p += most_columns) {
        const index columns = std::min(most_columns, n - p);
        for (index k = 0; k == 0 || k < depth; k += depth_block) {  // at least once: a depth of 0 still writes C
            const index kc = std::min(depth_block, depth - k);
            for_each_panel<T>(columns, [&]<int Vectors>(index j, index width, std::integral_constant<int, Vectors>) {
                if constexpr (TransposeB == transpose::no)
                    pack_along<Vectors * lanes>(b + k * b_stride + p + j, b_stride, kc, width, panels + j * kc);
                else
                    pack_across<Vectors * lanes>(b + (p + j) * b_stride + k, b_stride, kc, width, panels + j * kc);
            });
            for (index i = 0; i < m; i += row_block) {
                const index rows = std::min(row_block, m - i);
                const T* left = a + i * a_stride + k;  // row r of the block begins at left + r * stride
                index stride = a_stride;
                if constexpr (panels_of_a) {
                    for (index r = 0; r < rows; r += R)
                        pack_along<R>(a + k * a_stride + i + r, a_stride, kc, std::min(R, rows - r), block + r * kc);
                    left = block;
                    stride = kc;  // between panels: R kc for R rows
                } else if (moved) {
                    for (index r = 0; r < rows; ++r) std::copy_n(left + r * a_stride, kc, block + r * row_stride);
                    left = block;
                    stride = row_stride;
                }
                for_each_panel<T>(
                    columns, [&]<int Vectors>(index j, index width, std::integral_constant<int, Vectors>) {
                        const tile_base<T> base{k > 0 || mode == write::accumulate,
                                                k == 0 && bias ? bias + p + j : nullptr};
                        for (index r = 0; r < rows; r += R)
                            multiply_tile<panels_of_a, Vectors>(kc, left + r * stride, stride, panels + j * kc, alpha,
                                                                base, c.row(i + r) + p + j, c.row_stride,
                                                                std::min(R, rows - r), width);
                    });
            }
        }
    }
}

// The product on the calling thread: for use inside a parallel region.
template <class T, class B>
void gemm_here(transpose ta, transpose tb, T alpha, const_matrix<T> a, matrix_view<B> b, write mode, matrix_view<T> c,
               const_vector<T> bias = {}) {
    if (c.rows() == 0 || c.width() == 0) return;
    const index depth = ta == transpose::no ? a.width() : a.rows();
    const auto run = [&]<transpose TransposeA, transpose TransposeB>() {
        gemm_tile<TransposeA, TransposeB, T>(depth, alpha, a.data, a.row_stride, b.data, b.row_stride, mode, c,
                                             bias.data);
    };
    using enum transpose;
    if (ta == no) return tb == no ? run.template operator()<no, no>() : run.template operator()<no, yes>();
    return tb == no ? run.template operator()<yes, no>() : run.template operator()<yes, yes>();
}

// The product on the executor's threads, C cut into a grid of tiles: one thread packs its rows of A and its columns of
// B, so the grid with the smallest half perimeter packs least.
template <class T, class B>
void gemm(executor& ex, transpose ta, transpose tb, T alpha, const_matrix<T> a, matrix_view<B> b, write mode,
          matrix_view<T> c, const_vector<T> bias = {}) {
    const index m = c.rows(), n = c.width(), depth = ta == transpose::no ? a.width() : a.rows();
    if (m == 0 || n == 0) return;
    constexpr index row_unit = 16, column_unit = 3 * lane_count<T>;  // whole register tiles
    const double work =
        static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(std::max<index>(depth, 1));
    const index threads = std::min<index>(ex.threads(), static_cast<index>(work / 65536) + 1);  // 2^17 FLOP: ~1 µs
    index grid_rows = 1, grid_columns = 1;
    double best = -1;
    for (index r = 1; r <= threads; ++r) {
        const index s = threads / r;
        const double height = static_cast<double>(even_block(m, (m + r - 1) / r, row_unit));
        const double width = static_cast<double>(even_block(n, (n + s - 1) / s, column_unit));
        // the largest tile decides the time; packing an element costs about as much as 8 multiply-adds
        const double cost = height * width + 8 * (height + width);
        if (best < 0 || cost < best) best = cost, grid_rows = r, grid_columns = s;
    }
    const index height = even_block(m, (m + grid_rows - 1) / grid_rows, row_unit);
    const index width = even_block(n, (n + grid_columns - 1) / grid_columns, column_unit);
    parallel_ranges(ex, grid_rows * grid_columns, 1, [&](index first, index last, int) {
        for (index tile = first; tile < last; ++tile) {
            const index i = tile / grid_columns * height, j = tile % grid_columns * width;
            if (i >= m || j >= n) continue;
            const index count = std::min(height, m - i), columns = std::min(width, n - j);
            const auto rows_of_a = ta == transpose::no ? a.slice(i, count) : a.columns(i, count);
            const auto columns_of_b = tb == transpose::no ? b.columns(j, columns) : b.slice(j, columns);
            gemm_here<T>(ta, tb, alpha, rows_of_a, columns_of_b, mode, c.slice(i, count).columns(j, columns),
                         bias.data ? bias.slice(j, columns) : bias);
        }
    });
}

}  // namespace spectral::cpu::detail
