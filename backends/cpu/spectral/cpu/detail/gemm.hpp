// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/gemm.hpp: matrix products, the one seam to Eigen
//   C (m, n) = α op(A) (m, k) · op(B) (k, n)  [+ C]  [+ bias on every row]
//
// Only the packing routines and the inner kernel are Eigen's; the loops around them are ours, for four reasons. The block
// of C is set to zero or to the bias just before its first product, while it is about to be in cache anyway, so that a
// bias costs nothing. Packing buffers belong to the thread and are kept, so that a step allocates nothing. Nothing is
// packed twice by a thread. And Eigen never starts threads of its own: the executor's number of threads holds.
// Every element of C is summed by one thread, over k in ascending blocks: same number of threads, same bits.
#pragma once
#include <spectral/cpu/detail/parallel.hpp>
#include <spectral/ops/embedding.hpp>

#include <Eigen/Core>
#include <new>

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

inline packing_buffer& left_packing() {
    static thread_local packing_buffer buffer;
    return buffer;
}
inline packing_buffer& right_packing() {
    static thread_local packing_buffer buffer;
    return buffer;
}

// n in equal parts no larger than `most`, each a multiple of `unit` (but the last)
constexpr index even_block(index n, index most, index unit) {
    const index parts = std::max<index>((n + most - 1) / most, 1);
    return std::max<index>(((n + parts - 1) / parts + unit - 1) / unit * unit, unit);
}

// The tile of C = α op(A) op(B) that starts at (row, column) and has the shape of `c`, on the calling thread.
// Eigen's kernel is written for column-major results: it computes Cᵀ = op(B)ᵀ op(A)ᵀ, so that B is its left factor.
template <transpose TransposeA, transpose TransposeB, class T>
void gemm_tile(index depth, T alpha, const T* a, index a_stride, const T* b, index b_stride, write mode,
               matrix_view<T> c, const T* bias) {
    namespace ei = Eigen::internal;
    using traits = ei::gebp_traits<T, T>;
    constexpr int left_order = TransposeB == transpose::no ? Eigen::ColMajor : Eigen::RowMajor;
    constexpr int right_order = TransposeA == transpose::no ? Eigen::ColMajor : Eigen::RowMajor;
    using left_mapper = ei::const_blas_data_mapper<T, index, left_order>;
    using right_mapper = ei::const_blas_data_mapper<T, index, right_order>;
    using result_mapper = ei::blas_data_mapper<T, index, Eigen::ColMajor, Eigen::Unaligned, 1>;
    ei::gemm_pack_lhs<T, index, left_mapper, traits::mr, traits::LhsProgress, typename traits::LhsPacket4Packing, left_order> pack_left;
    ei::gemm_pack_rhs<T, index, right_mapper, traits::nr, right_order> pack_right;
    ei::gebp_kernel<T, T, index, result_mapper, traits::mr, traits::nr, false, false> multiply;

    // Depth and rows so that a packed block of A takes half a megabyte (half of a usual second-level cache); columns so
    // that a packed panel of B stays in the last-level cache while all rows pass by it.
    const index m = c.rows(), n = c.width();
    const index depth_block = even_block(depth, 512, 8);
    const index row_block = even_block(m, (512 << 10) / (depth_block * index{sizeof(T)}), traits::nr);
    const index panel = even_block(n, std::max<index>((8 << 20) / (depth_block * index{sizeof(T)}), traits::mr), traits::mr);
    const index column_block = even_block(std::min(n, panel), 768, traits::mr);
    T* packed_left = left_packing().template reserve<T>(depth_block * std::min((n + traits::mr) / traits::mr * traits::mr, panel));
    T* packed_right = right_packing().template reserve<T>(depth_block * row_block);

    const auto start = [&](index i, index count, index j, index width) {
        for (index r = i; r < i + count; ++r) {
            T* out = c.row(r) + j;
            if (mode == write::overwrite) {
                if (bias) std::copy_n(bias + j, width, out);
                else std::fill_n(out, width, T(0));
            } else if (bias) {
                for (index x = 0; x < width; ++x) out[x] += bias[j + x];
            }
        }
    };
    if (depth == 0) return start(0, m, 0, n);

    for (index p = 0; p < n; p += panel) {
        const index panel_width = std::min(panel, n - p);
        for (index k = 0; k < depth; k += depth_block) {
            const index kc = std::min(depth_block, depth - k);
            for (index j = 0; j < panel_width; j += column_block) {
                const index width = std::min(column_block, panel_width - j);
                pack_left(packed_left + j * kc, left_mapper(b, b_stride).getSubMapper(p + j, k), kc, width);
            }
            for (index i = 0; i < m; i += row_block) {
                const index count = std::min(row_block, m - i);
                pack_right(packed_right, right_mapper(a, a_stride).getSubMapper(k, i), kc, count);
                for (index j = 0; j < panel_width; j += column_block) {
                    const index width = std::min(column_block, panel_width - j);
                    if (k == 0) start(i, count, p + j, width);
                    multiply(result_mapper(c.row(i) + p + j, c.row_stride, 1), packed_left + j * kc, packed_right, width, kc, count, alpha);
                }
            }
        }
    }
}

// The product on the calling thread: for use inside a parallel region.
template <class T>
void gemm_here(transpose ta, transpose tb, T alpha, const_matrix<T> a, const_matrix<T> b, write mode, matrix_view<T> c,
               const_vector<T> bias = {}) {
    if (c.rows() == 0 || c.width() == 0) return;
    const index depth = ta == transpose::no ? a.width() : a.rows();
    const auto run = [&]<transpose A, transpose B>() {
        gemm_tile<A, B, T>(depth, alpha, a.data, a.row_stride, b.data, b.row_stride, mode, c, bias.data);
    };
    using enum transpose;
    if (ta == no) return tb == no ? run.template operator()<no, no>() : run.template operator()<no, yes>();
    return tb == no ? run.template operator()<yes, no>() : run.template operator()<yes, yes>();
}

// The product on the executor's threads, C cut into a grid of tiles: one thread packs its rows of A and its columns of
// B, so the grid with the smallest half perimeter packs least.
template <class T>
void gemm(executor& ex, transpose ta, transpose tb, T alpha, const_matrix<T> a, const_matrix<T> b, write mode,
          matrix_view<T> c, const_vector<T> bias = {}) {
    const index m = c.rows(), n = c.width(), depth = ta == transpose::no ? a.width() : a.rows();
    if (m == 0 || n == 0) return;
    constexpr index row_unit = 16, column_unit = 192 / static_cast<index>(sizeof(T));   // tiles of whole inner kernels
    const double work = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(std::max<index>(depth, 1));
    const index threads = std::min<index>(ex.threads(), static_cast<index>(work / 65536) + 1);   // 2^17 FLOP: ~1 µs
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
