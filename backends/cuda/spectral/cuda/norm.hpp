// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/norm.hpp: layer norm, root-mean-square norm, layer norm of a residual sum
//
// One block a row, the row in registers: every value is read once and written once. A thread has the same columns in
// every row, so backward sums the parameters' gradients in registers too and leaves one part a block, which are added
// in order. Backward of rows of up to 1024 values takes a warp a row, which waits in shared memory: no barrier comes
// between one row and the next.
#pragma once
#include <spectral/cuda/detail/reduce.hpp>
#include <spectral/cuda/detail/tensor_core.hpp>
#include <spectral/cuda/elementwise.hpp>
#include <spectral/ops/norm.hpp>

namespace spectral::cuda {

namespace detail {

enum class norm_kind { layer, rms };

// f(pack number, column) for the packs of a thread: P of V values, a block's width apart
template <int V, int P, class F>
__device__ inline void each_pack(index width, F&& f) {
#pragma unroll
    for (int p = 0; p < P; ++p)
        if (const index c = index{V} * (threadIdx.x + p * blockDim.x); c < width) f(p, c);
}

// s = x (+ r, kept in s);  y = (s − mean) rstd γ + β, or s rstd γ
template <norm_kind Kind, bool Residual, int V, int P, class T>
__global__ void norm_forward_rows(index rows, index width, rows_of<const T> x, rows_of<const T> r, const T* gamma,
                                  const T* beta, compute<T> eps, rows_of<T> s, rows_of<T> y, compute<T>* mean,
                                  compute<T>* rstd) {
    using A = compute<T>;
    for (index n = blockIdx.x; n < rows; n += gridDim.x) {
        A a[P][V] = {};
        A sum = 0;
        each_pack<V, P>(width, [&](int p, index c) {
            load<V>(x(n) + c, a[p]);
            if constexpr (Residual) {
                A b[V];
                load<V>(r(n) + c, b);
#pragma unroll
                for (int i = 0; i < V; ++i) a[p][i] = widen(narrow<T>(a[p][i] + b[i]));  // what backward will read
                store<V>(s(n) + c, a[p]);
            }
#pragma unroll
            for (int i = 0; i < V; ++i) sum += Kind == norm_kind::layer ? a[p][i] : a[p][i] * a[p][i];
        });
        sum = block_reduce(sum);
        A m = 0, square = sum;
        if constexpr (Kind == norm_kind::layer) {
            m = sum / static_cast<A>(width), square = 0;
            each_pack<V, P>(width, [&](int p, index) {
#pragma unroll
                for (int i = 0; i < V; ++i) square += (a[p][i] - m) * (a[p][i] - m);
            });
            square = block_reduce(square);
        }
        const A factor = 1 / sqrt(square / static_cast<A>(width) + eps);
        each_pack<V, P>(width, [&](int p, index c) {
            A g[V], b[V] = {};
            load<V>(gamma + c, g);
            if constexpr (Kind == norm_kind::layer) load<V>(beta + c, b);
#pragma unroll
            for (int i = 0; i < V; ++i) g[i] = (a[p][i] - m) * factor * g[i] + b[i];
            store<V>(y(n) + c, g);
        });
        if (threadIdx.x == 0) {
            if constexpr (Kind == norm_kind::layer) mean[n] = m;
            rstd[n] = factor;
        }
    }
}

// dL_ds = rstd (g − mean(g) − ŝ mean(g ŝ)) (+ addend), without mean(g) for rms; parts, if asked for: Σ dL_dy ŝ and, of a
// layer norm, Σ dL_dy over the block's rows. dL_ds may be the memory of dL_dy.
template <norm_kind Kind, int V, int P, class T>
__global__ void norm_backward_rows(index rows, index width, rows_of<const T> dL_dy, rows_of<const T> s, const T* gamma,
                                   const compute<T>* mean, const compute<T>* rstd, rows_of<T> dL_ds,
                                   rows_of<const T> addend, compute<T>* parts) {
    using A = compute<T>;
    constexpr bool layer = Kind == norm_kind::layer;
    A dgamma[P][V] = {}, dbeta[P][V] = {};
    for (index n = blockIdx.x; n < rows; n += gridDim.x) {
        const A m = layer ? mean[n] : A(0), factor = rstd[n];
        A g[P][V] = {}, hat[P][V] = {};
        A sum_g = 0, sum_gs = 0;
        each_pack<V, P>(width, [&](int p, index c) {
            A dy[V], scale[V];
            load<V>(dL_dy(n) + c, dy);
            load<V>(s(n) + c, hat[p]);
            load<V>(gamma + c, scale);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                hat[p][i] = (hat[p][i] - m) * factor;
                g[p][i] = dy[i] * scale[i];
                dgamma[p][i] += dy[i] * hat[p][i];
                if constexpr (layer) dbeta[p][i] += dy[i];
                sum_g += g[p][i];
                sum_gs += g[p][i] * hat[p][i];
            }
        });
        const pair_of<A> sums = block_reduce(pair_of<A>{sum_g, sum_gs}, plus{});
        const A mean_g = layer ? sums.a / static_cast<A>(width) : A(0), mean_gs = sums.b / static_cast<A>(width);
        each_pack<V, P>(width, [&](int p, index c) {
            A before[V] = {};
            if (addend.data) load<V>(addend(n) + c, before);
#pragma unroll
            for (int i = 0; i < V; ++i) before[i] += factor * (g[p][i] - mean_g - hat[p][i] * mean_gs);
            store<V>(dL_ds(n) + c, before);
        });
    }
    if (!parts) return;
    A* mine = parts + index{blockIdx.x} * (layer ? 2 : 1) * width;
    each_pack<V, P>(width, [&](int p, index c) {
#pragma unroll
        for (int i = 0; i < V; ++i) {
            mine[c + i] = dgamma[p][i];
            if constexpr (layer) mine[width + c + i] = dbeta[p][i];
        }
    });
}

// The same with a warp a row, for rows of up to 32 P V values, while its next row is on its way to shared memory: that
// leaves registers to a lane's sums for its columns: of dL_dy ŝ, of dL_dy (layer norm) and, the third, of what dL_ds was
// given. The sums of the block's warps are added in order at the end.
template <int Sums>
inline constexpr int norm_warps = Sums > 2 ? 12 : 16;
inline constexpr int norm_stages = 2;
template <norm_kind Kind, int Sums, int V, int P, class T>
__global__ void __launch_bounds__(32 * norm_warps<Sums>, 1)
    norm_backward_warps(index rows, int width, rows_of<const T> dL_dy, rows_of<const T> s, const T* gamma,
                        const compute<T>* mean, const compute<T>* rstd, rows_of<T> dL_ds, rows_of<const T> addend,
                        compute<T>* parts) {
    using A = compute<T>;
    const int lane = threadIdx.x, warp = threadIdx.y, warps = blockDim.y, stage_values = (addend.data ? 3 : 2) * width;
    T* const stages = reinterpret_cast<T*>(shared_bytes) + warp * norm_stages * stage_values;
    const auto each = [&](auto&& f) {
#pragma unroll
        for (int p = 0; p < P; ++p)
            if (const int c = V * (lane + 32 * p); c < width) f(p, c);
    };
    const index first = index{blockIdx.x} * warps + warp, step = index{gridDim.x} * warps;
    const auto fetch = [&](index n, int stage) {
        if (n < rows)
            each([&](int, int c) {
                T* to = stages + stage * stage_values + c;
                copy_async(to, dL_dy(n) + c, true);
                copy_async(to + width, s(n) + c, true);
                if (addend.data) copy_async(to + 2 * width, addend(n) + c, true);
            });
        copies_end_group();
    };
    A sum[Sums][P][V] = {};
    fetch(first, 0);
    int stage = 0;
    for (index n = first; n < rows; n += step, stage ^= 1) {
        fetch(n + step, stage ^ 1);
        const A m = Kind == norm_kind::layer ? mean[n] : A(0), factor = rstd[n];
        copies_wait<1>();  // a lane reads what it copied itself
        const T* row = stages + stage * stage_values;
        pair_of<A> sums{0, 0};
        each([&](int p, int c) {
            A dy[V], hat[V], scale[V];
            load<V>(row + c, dy);
            load<V>(row + width + c, hat);
            load<V>(gamma + c, scale);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                hat[i] = (hat[i] - m) * factor;
                sum[0][p][i] += dy[i] * hat[i];
                if constexpr (Kind == norm_kind::layer) sum[1][p][i] += dy[i];
                sums.a += dy[i] * scale[i];
                sums.b += dy[i] * scale[i] * hat[i];
            }
        });
        sums = warp_reduce(sums, plus{});
        const A mean_g = Kind == norm_kind::layer ? sums.a / static_cast<A>(width) : A(0),
                mean_gs = sums.b / static_cast<A>(width);
        each([&](int p, int c) {
            A dy[V], hat[V], scale[V], out[V] = {};
            load<V>(row + c, dy);
            load<V>(row + width + c, hat);
            load<V>(gamma + c, scale);
            if (addend.data) load<V>(row + 2 * width + c, out);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                hat[i] = (hat[i] - m) * factor;
                const A slope = factor * (dy[i] * scale[i] - mean_g - hat[i] * mean_gs);
                if constexpr (Sums > 2) sum[2][p][i] += slope;
                out[i] += slope;
            }
            store<V>(dL_ds(n) + c, out);
        });
    }
    if (!parts) return;
    A* const of_warps = reinterpret_cast<A*>(shared_bytes);  // (warps, width), where rows were
    for (int k = 0; k < Sums; ++k) {
        __syncthreads();
        each([&](int p, int c) {
#pragma unroll
            for (int i = 0; i < V; i += 4) {
                const A four[4] = {sum[k][p][i], sum[k][p][i + 1], sum[k][p][i + 2], sum[k][p][i + 3]};
                store<4>(of_warps + warp * width + c + i, four);
            }
        });
        __syncthreads();
        for (int c = lane + 32 * warp; c < width; c += 32 * warps) {
            A total = of_warps[c];
            for (int w = 1; w < warps; ++w) total += of_warps[w * width + c];
            parts[(index{blockIdx.x} * Sums + k) * width + c] = total;
        }
    }
}

template <class T>
bool vectors_take_packs(index width, const T* a, const T* b) {
    return takes_packs(view<const T, 1>{a, {width}}, view<const T, 1>{b, {width}});
}

// f(values to an access, packs to a thread, threads): a row in the registers of one block
template <class T, class F>
void with_row_in_block(const char* what, bool packs, index width, F&& f) {
    with_packs<T>(packs, [&](auto v) {
        const index units = divide_up(width, v());
        const auto threads = [&](int each) {
            return static_cast<unsigned>(divide_up(divide_up(units, each), 32) * 32);
        };
        if (units <= 512)
            f(v, std::integral_constant<int, 1>{}, std::max(threads(1), 32u));
        else if (units <= 2048)
            f(v, std::integral_constant<int, 4>{}, threads(4));
        else {
            check(units <= 16384, what, "rows of up to ", 16384 * v(), " values are supported on cuda, found ", width);
            f(v, std::integral_constant<int, 16>{}, threads(16));
        }
    });
}

template <norm_kind Kind, bool Residual, class T>
void norm_forward(executor& ex, const char* what, const_matrix<T> x, const_matrix<T> r, const T* gamma, const T* beta,
                  double eps, matrix_view<T> s, matrix_view<T> y, compute<T>* mean, compute<T>* rstd) {
    if (x.rows() == 0) return;
    with_row_in_block<T>(what, takes_packs(x, r, s, y) && vectors_take_packs(x.width(), gamma, beta), x.width(),
                         [&](auto v, auto p, unsigned threads) {
                             launch(ex, what, blocks_for(ex, x.rows()), threads, 0,
                                    norm_forward_rows<Kind, Residual, v(), p(), T>, x.rows(), x.width(), rows_in(x),
                                    rows_in(r), gamma, beta, static_cast<compute<T>>(eps), rows_in(s), rows_in(y), mean,
                                    rstd);
                         });
}

// What backward has for the parameters, and for a bias (layer norm alone); a struct, since nvcc takes no __device__
// lambda inside a generic one
template <class T>
struct norm_gradients {
    compute<T>* dL_dgamma;
    compute<T>* dL_dbeta = nullptr;
    bias_gradient<T> bias{};

    template <int Sums>
    __device__ void operator()(index c, const compute<T> (&total)[Sums]) const {
        dL_dgamma[c] += total[0];
        if constexpr (Sums > 1) dL_dbeta[c] += total[1];
        if constexpr (Sums > 2) bias.put(c, total[2]);
    }
};

// Whether a warp takes a row as its own: then everything is done.
template <norm_kind Kind, int Sums, class T>
bool norm_backward_by_warps(executor& ex, const char* what, const_matrix<T> dL_dy, const_matrix<T> s, const T* gamma,
                            const compute<T>* mean, const compute<T>* rstd, matrix_view<T> dL_ds,
                            const norm_gradients<T>& gradients, const_matrix<T> addend) {
    if constexpr (std::is_same_v<T, double>)  // which has no room for a row in a warp's registers
        return false;
    else {
        using A = compute<T>;
        const index width = s.width();
        const auto each =
            static_cast<std::size_t>(norm_stages * (addend.data ? 3 : 2) * width) * sizeof(T);  // of a warp
        const auto warps = std::min<std::size_t>(norm_warps<Sums>, ex.shared_limit() / std::max<std::size_t>(each, 1));
        if (width > 1024 || warps == 0 || !takes_packs(dL_dy, s, dL_ds, addend) ||
            !vectors_take_packs(width, gamma, gamma))
            return false;
        constexpr int V = wide<T>;
        const auto launch_with = [&](auto p) {
            const index blocks = std::min<index>(divide_up(s.rows(), static_cast<index>(warps)),
                                                 (width <= 256 ? 2 : 1) * ex.multiprocessors());
            A* parts = gradients.dL_dgamma ? ex.memory().template vector<A>(blocks * Sums * width).data : nullptr;
            launch(ex, what, static_cast<unsigned>(blocks), dim3(32, static_cast<unsigned>(warps)), warps * each,
                   norm_backward_warps<Kind, Sums, V, p(), T>, s.rows(), static_cast<int>(width), rows_in(dL_dy),
                   rows_in(s), gamma, mean, rstd, rows_in(dL_ds), rows_in(addend), parts);
            if (parts) column_totals<Sums, A>(ex, what, width, blocks, static_cast<const A*>(parts), gradients);
        };
        if (width <= 256)
            launch_with(std::integral_constant<int, 256 / (32 * V)>{});
        else
            launch_with(std::integral_constant<int, 1024 / (32 * V)>{});
        return true;
    }
}

template <norm_kind Kind, class T>
void norm_backward(executor& ex, const char* what, const_matrix<T> dL_dy, const_matrix<T> s, const T* gamma,
                   const compute<T>* mean, const compute<T>* rstd, matrix_view<T> dL_ds,
                   const norm_gradients<T>& gradients, const_matrix<T> addend) {
    using A = compute<T>;
    constexpr int sums = Kind == norm_kind::layer ? 2 : 1;
    const index width = s.width();
    arena_scope scratch(ex);
    const bool asked = gradients.bias.sums.data;
    if (s.rows() == 0) return asked ? put_column_sums<T>(ex, what, s, gradients.bias) : void();
    if constexpr (Kind == norm_kind::layer)
        if (asked) {
            if (norm_backward_by_warps<Kind, 3, T>(ex, what, dL_dy, s, gamma, mean, rstd, dL_ds, gradients, addend))
                return;
            // where a block takes a row, its threads have no registers for a third sum: a pass of its own
            const auto made = addend.data ? ex.memory().template matrix<T>(s.rows(), width) : dL_ds;
            norm_backward<Kind, T>(ex, what, dL_dy, s, gamma, mean, rstd, made,
                                   {gradients.dL_dgamma, gradients.dL_dbeta}, {});
            put_column_sums<T>(ex, what, made, gradients.bias);
            if (addend.data) add_kernel<T>(ex, made, 1, dL_ds);  // layer norm adds to dL_ds itself
            return;
        }
    if (norm_backward_by_warps<Kind, sums, T>(ex, what, dL_dy, s, gamma, mean, rstd, dL_ds, gradients, addend)) return;
    const bool packs = takes_packs(dL_dy, s, dL_ds, addend) && vectors_take_packs(width, gamma, gamma);
    with_row_in_block<T>(what, packs, width, [&](auto v, auto p, unsigned threads) {
        const index blocks = std::min<index>(s.rows(), index{8} * ex.multiprocessors());
        A* parts = gradients.dL_dgamma ? ex.memory().template vector<A>(blocks * sums * width).data : nullptr;
        launch(ex, what, static_cast<unsigned>(blocks), threads, 0, norm_backward_rows<Kind, v(), p(), T>, s.rows(),
               width, rows_in(dL_dy), rows_in(s), gamma, mean, rstd, rows_in(dL_ds), rows_in(addend), parts);
        if (parts) column_totals<sums, A>(ex, what, width, blocks, static_cast<const A*>(parts), gradients);
    });
}

}  // namespace detail

template <class T>
void layer_norm_forward_kernel(executor& ex, const_matrix<T> s, const_vector<T> gamma, const_vector<T> beta, double eps,
                               matrix_view<T> y, out_vector<statistic<T>> mean, out_vector<statistic<T>> rstd) {
    detail::norm_forward<detail::norm_kind::layer, false, T>(ex, "layer_norm_forward", s, {}, gamma.data, beta.data,
                                                             eps, {}, y, mean.data, rstd.data);
}

template <class T>
void layer_norm_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> s, const_vector<T> gamma,
                                const_vector<statistic<T>> mean, const_vector<statistic<T>> rstd, matrix_view<T> dL_ds,
                                out_vector<statistic<T>> dL_dgamma, out_vector<statistic<T>> dL_dbeta, write mode,
                                bias_gradient<T> bias) {
    detail::norm_backward<detail::norm_kind::layer, T>(ex, "layer_norm_backward", dL_dy, s, gamma.data, mean.data,
                                                       rstd.data, dL_ds, {dL_dgamma.data, dL_dbeta.data, bias},
                                                       detail::added_to(mode, dL_ds));
}

template <class T>
void add_layer_norm_forward_kernel(executor& ex, const_matrix<T> x, const_matrix<T> r, const_vector<T> gamma,
                                   const_vector<T> beta, double eps, matrix_view<T> s, matrix_view<T> y,
                                   out_vector<statistic<T>> mean, out_vector<statistic<T>> rstd) {
    detail::norm_forward<detail::norm_kind::layer, true, T>(ex, "add_layer_norm_forward", x, r, gamma.data, beta.data,
                                                            eps, s, y, mean.data, rstd.data);
}

template <class T>
void rms_norm_forward_kernel(executor& ex, const_matrix<T> s, const_vector<T> gamma, double eps, matrix_view<T> y,
                             out_vector<statistic<T>> rstd) {
    detail::norm_forward<detail::norm_kind::rms, false, T>(ex, "rms_norm_forward", s, {}, gamma.data, nullptr, eps, {},
                                                           y, nullptr, rstd.data);
}

template <class T>
void rms_norm_backward_kernel(executor& ex, const_matrix<T> dL_dy, const_matrix<T> s, const_vector<T> gamma,
                              const_vector<statistic<T>> rstd, matrix_view<T> dL_ds, out_vector<statistic<T>> dL_dgamma,
                              const_matrix<T> addend) {
    detail::norm_backward<detail::norm_kind::rms, T>(ex, "rms_norm_backward", dL_dy, s, gamma.data, nullptr, rstd.data,
                                                     dL_ds, {dL_dgamma.data}, addend);
}

}  // namespace spectral::cuda
