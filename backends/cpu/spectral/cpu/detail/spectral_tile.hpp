// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/spectral_tile.hpp: mixing, entropy and their gradients, fused per tile of rows
//
//     filter_norm            s = x + gain C^T(w . Cx),   y = (s - mean) rstd gamma + beta
//     filter_norm_backward   its gradients, from two numbers a row that the forward pass kept
//     filter_backward        dL_dx += dL_ds + gain C^T(w . C dL_ds),   dL_dw_k += gain sum_rows (C dL_ds)_k (C x)_k
//     entropy                P_k = X_k^2 / (sum X^2 + 1e-8),   H = -sum_k P_k ln(P_k + 1e-8) / (ln n + 1e-8)
//     entropy_backward       dL_dx += dL_dH dH/dx
// with X = scale_k (Cx)_k: scale 1 for dct_norm "ortho"; 2 sqrt 2 at k = 0 and 2 elsewhere for "reference" (gain 2).
// Only x and y touch main memory. One call runs in one thread: callers split the rows, share the plan and the table,
// and give every thread its own workspace. All workspaces and tables come from make_aligned.
#pragma once
#include <spectral/cpu/detail/row_loops.hpp>

#include <spectral/cpu/detail/dct_plan.hpp>
#include <spectral/cpu/detail/vector_math.hpp>

#include <algorithm>

namespace spectral::cpu::detail {

// Rows of a matrix: consecutive, or those a list names.
template <class T>
struct listed_rows {
    T* data;
    index stride;
    const row_index* list = nullptr;

    T* operator()(index i) const { return data + (list ? static_cast<index>(list[i]) : i) * stride; }
    listed_rows from(index first) const {
        return list ? listed_rows{data, stride, list + first} : listed_rows{data + first * stride, stride};
    }
};

template <class Value, class T>
SPECTRAL_LANE_INLINE Value load_as(const T* p) {
    if constexpr (std::is_same_v<Value, T>)
        return *p;
    else
        return load_unaligned(p);
}
template <class T>
SPECTRAL_LANE_INLINE void store_as(T* p, T v) {
    *p = v;
}
template <class T>
SPECTRAL_LANE_INLINE void store_as(T* p, lane_vec<T> v) {
    store_unaligned(p, v);
}

// elements of the workspace that every function below takes
template <class T>
index spectral_workspace(const dct_plan<T>& plan) {
    return 2 * align_up<T>(plan.tile_size()) + align_up<T>(plan.scratch_size()) + 2 * align_up<T>(plan.lanes);
}
template <class T>
struct spectral_buffers {
    T *time, *spectrum, *scratch, *a, *b;  // a, b: one number per lane

    spectral_buffers(const dct_plan<T>& plan, T* workspace) {
        time = workspace;
        spectrum = time + align_up<T>(plan.tile_size());
        scratch = spectrum + align_up<T>(plan.tile_size());
        a = scratch + align_up<T>(plan.scratch_size());
        b = a + align_up<T>(plan.lanes);
    }
};

// table: plan.filter_table(w, gain, 1, true, table). mean and rstd (one per row) may hold no data. y may be x.
template <class T>
void filter_norm_tile(const dct_plan<T>& plan, const T* table, listed_rows<const T> x, index rows, const T* gamma,
                      const T* beta, double eps, listed_rows<T> y, listed_rows<T> mean, listed_rows<T> rstd,
                      T* workspace) {
    const spectral_buffers<T> w(plan, workspace);
    const T over = static_cast<T>(1 / static_cast<double>(plan.width()));
    for (index first = 0; first < rows; first += plan.lanes) {
        const index count = std::min(plan.lanes, rows - first);
        plan.load(x.from(first), count, w.time);
        plan.filter(w.time, table, w.a, w.b, w.scratch);
        for (index l = 0; l < plan.lanes; ++l) w.b[l] = 1 / std::sqrt(w.b[l] * over + static_cast<T>(eps));
        T* out[dct_plan<T>::lanes] = {};
        for (index l = 0; l < count; ++l) out[l] = y(first + l);
        plan.store(w.time, count, [&](index l, index i, auto value) {
            using V = decltype(value);
            store_as<T>(out[l] + i, value * w.b[l] * load_as<V>(gamma + i) + load_as<V>(beta + i));
        });
        for (index l = 0; l < count; ++l) {
            if (mean.data) *mean(first + l) = w.a[l];
            if (rstd.data) *rstd(first + l) = w.b[l];
        }
    }
}

// y = C^T((identity + gain w) . Cx), the filter alone. table: plan.filter_table(w, gain, identity, false, table).
template <class T>
void filter_tile(const dct_plan<T>& plan, const T* table, listed_rows<const T> x, index rows, listed_rows<T> y,
                 T* workspace) {
    const spectral_buffers<T> w(plan, workspace);
    for (index first = 0; first < rows; first += plan.lanes) {
        const index count = std::min(plan.lanes, rows - first);
        plan.load(x.from(first), count, w.time);
        plan.filter(w.time, table, w.a, w.b, w.scratch);
        plan.store(w.time, count, [&](index l, index i, auto value) { store_as<T>(y(first + l) + i, value); });
    }
}

// sums_k += sum_lanes G_k X_k, then G_k *= weight_k, for the spectra of one tile
template <class T>
void weigh_spectrum(index n, T* spectrum_g, const T* spectrum_x, const T* weight, T* sums) {
    constexpr index L = dct_plan<T>::lanes;
    lane_vec<T>* const G = as_lanes(spectrum_g);
    const lane_vec<T>* const X = as_lanes(spectrum_x);
    const index whole = n / L * L;
    for (index k = 0; k < whole; k += L) {
        lane_vec<T> r[L];
        SPECTRAL_LANE_UNROLL for (index c = 0; c < L; ++c) {
            r[c] = G[k + c] * X[k + c];
            G[k + c] *= weight[k + c];
        }
        transpose_lanes<T>(r);  // now r[l] holds L bins of row l
        lane_vec<T> sum = r[0];
        SPECTRAL_LANE_UNROLL for (index l = 1; l < L; ++l) sum += r[l];
        store_unaligned(sums + k, load_unaligned(sums + k) + sum);
    }
    for (index k = whole; k < n; ++k) {
        const lane_vec<T> r = G[k] * X[k];
        for (index l = 0; l < L; ++l) sums[k] += r[l];
        G[k] *= weight[k];
    }
}

// rows += the time tile
template <class T>
void add_tile(const dct_plan<T>& plan, const T* time, index count, listed_rows<T> rows) {
    plan.store(time, count, [&](index l, index i, auto value) {
        T* const p = rows(l) + i;
        store_as<T>(p, load_as<decltype(value)>(p) + value);
    });
}

// weight: identity + gain w (n numbers). dL_dx += C^T(weight . C dL_ds); sums_k += sum_rows (C dL_ds)_k (C x)_k.
// The caller owns sums (n numbers, one array per thread), zeroes it before the first call, adds gain * sums to dL_dw.
template <class T>
void filter_backward_tile(const dct_plan<T>& plan, const T* weight, listed_rows<const T> dL_ds, listed_rows<const T> x,
                          index rows, listed_rows<T> dL_dx, T* sums, T* workspace) {
    const spectral_buffers<T> w(plan, workspace);
    T* const spectrum_x = workspace + spectral_workspace(plan);
    for (index first = 0; first < rows; first += plan.lanes) {
        const index count = std::min(plan.lanes, rows - first);
        plan.load(x.from(first), count, w.time);
        plan.forward(w.time, spectrum_x, w.scratch);
        plan.load(dL_ds.from(first), count, w.time);
        plan.forward(w.time, w.spectrum, w.scratch);
        weigh_spectrum<T>(plan.width(), w.spectrum, spectrum_x, weight, sums);
        plan.inverse(w.spectrum, w.time, w.scratch);
        add_tile<T>(plan, w.time, count, dL_dx.from(first));
    }
}
template <class T>
index filter_backward_workspace(const dct_plan<T>& plan) {
    return spectral_workspace(plan) + align_up<T>(plan.tile_size());
}

// The backward pass of filter_norm: with s = C^T(weight . C x), hat = (s - mean) rstd and g = dL_dy gamma:
//     dL_ds = rstd (g - mean(g) - hat mean(g hat)),   dL_dx += C^T(weight . C dL_ds)
// and, added up over the rows, dL_dw_k / gain in sum_w, dL_dy hat in sum_gamma, dL_dy in sum_beta (n numbers each).
template <class T>
void filter_norm_backward_tile(const dct_plan<T>& plan, const T* weight, listed_rows<const T> dL_dy,
                               listed_rows<const T> x, index rows, const T* gamma, listed_rows<const T> mean,
                               listed_rows<const T> rstd, listed_rows<T> dL_dx, T* sum_w, T* sum_gamma, T* sum_beta,
                               T* workspace) {
    const spectral_buffers<T> w(plan, workspace);
    const index n = plan.width(), stride = align_up<T>(n);
    T* const spectrum_x = workspace + spectral_workspace(plan);
    T* const sums = spectrum_x + align_up<T>(plan.tile_size());  // a row of s, then of dL_ds, for each lane
    for (index first = 0; first < rows; first += plan.lanes) {
        const index count = std::min(plan.lanes, rows - first);
        plan.load(x.from(first), count, w.time);
        plan.forward(w.time, spectrum_x, w.scratch);
        for (index k = 0; k < n; ++k) as_lanes(w.spectrum)[k] = as_lanes(spectrum_x)[k] * weight[k];
        plan.inverse(w.spectrum, w.time, w.scratch);
        plan.store(w.time, count, [&](index l, index i, auto value) { store_as<T>(sums + l * stride + i, value); });
        for (index l = 0; l < count; ++l) {
            T* const s = sums + l * stride;
            const T* const dy = dL_dy(first + l);
            const T m = *mean(first + l), r = *rstd(first + l), over = 1 / static_cast<T>(n);
            const T mean_g = over * row_sum<T>(n, [=](index c) { return dy[c] * gamma[c]; });
            const T mean_gs = over * row_sum<T>(n, [=](index c) { return dy[c] * gamma[c] * ((s[c] - m) * r); });
#pragma omp simd
            for (index c = 0; c < n; ++c) {
                const T hat = (s[c] - m) * r;
                sum_gamma[c] += dy[c] * hat;
                sum_beta[c] += dy[c];
                s[c] = r * (dy[c] * gamma[c] - mean_g - hat * mean_gs);
            }
        }
        plan.load(listed_rows<const T>{sums, stride}, count, w.time);
        plan.forward(w.time, w.spectrum, w.scratch);
        weigh_spectrum<T>(n, w.spectrum, spectrum_x, weight, sum_w);
        plan.inverse(w.spectrum, w.time, w.scratch);
        add_tile<T>(plan, w.time, count, dL_dx.from(first));
    }
}
template <class T>
index filter_norm_backward_workspace(const dct_plan<T>& plan) {
    return spectral_workspace(plan) + align_up<T>(plan.tile_size()) + plan.lanes * align_up<T>(plan.width());
}

// y = diag(scale) C x and y = C^T diag(scale) x; y may be x
template <class T>
void dct_tile(const dct_plan<T>& plan, double scale0, double scale, listed_rows<const T> x, index rows,
              listed_rows<T> y, T* workspace) {
    const spectral_buffers<T> w(plan, workspace);
    const index n = plan.width();
    for (index first = 0; first < rows; first += plan.lanes) {
        const index count = std::min(plan.lanes, rows - first);
        plan.load(x.from(first), count, w.time);
        plan.forward(w.time, w.spectrum, w.scratch);
        for (index l = 0; l < count; ++l) {
            T* const out = y(first + l);
            for (index k = 0; k < n; ++k)
                out[k] = static_cast<T>(k == 0 ? scale0 : scale) * w.spectrum[k * plan.lanes + l];
        }
    }
}
template <class T>
void idct_tile(const dct_plan<T>& plan, double scale0, double scale, listed_rows<const T> x, index rows,
               listed_rows<T> y, T* workspace) {
    const spectral_buffers<T> w(plan, workspace);
    const index n = plan.width();
    for (index first = 0; first < rows; first += plan.lanes) {
        const index count = std::min(plan.lanes, rows - first);
        std::fill_n(w.spectrum, plan.tile_size(), T(0));
        for (index l = 0; l < count; ++l) {
            const T* const in = x(first + l);
            for (index k = 0; k < n; ++k)
                w.spectrum[k * plan.lanes + l] = static_cast<T>(k == 0 ? scale0 : scale) * in[k];
        }
        plan.inverse(w.spectrum, w.time, w.scratch);
        plan.store(w.time, count, [&](index l, index i, auto value) { store_as<T>(y(first + l) + i, value); });
    }
}

// Scales the spectrum, leaves P in its place, and returns u = sum X^2 + 1e-8 in energy[l].
template <class T>
void spectral_power(index n, T* spectrum, T scale0, T scale, T* energy) {
    lane_vec<T>* const X = as_lanes(spectrum);
    X[0] *= scale0;
    lane_vec<T> even = X[0] * X[0], odd = lane_vec<T>{};
    for (index k = 1; k < n; ++k) {
        X[k] *= scale;
        (k % 2 ? odd : even) += X[k] * X[k];
    }
    *as_lanes(energy) = even + odd + static_cast<T>(1e-8);
}

template <class T>
void entropy_tile(const dct_plan<T>& plan, double scale0, double scale, listed_rows<const T> x, index rows, T* H,
                  T* workspace) {
    constexpr index L = dct_plan<T>::lanes;
    const spectral_buffers<T> w(plan, workspace);
    const index n = plan.width();
    const T norm = static_cast<T>(-1 / (std::log(static_cast<double>(n)) + 1e-8));
    for (index first = 0; first < rows; first += L) {
        const index count = std::min(L, rows - first);
        plan.load(x.from(first), count, w.time);
        plan.forward(w.time, w.spectrum, w.scratch);
        spectral_power<T>(n, w.spectrum, static_cast<T>(scale0), static_cast<T>(scale), w.a);
        const lane_vec<T>* const X = as_lanes(static_cast<const T*>(w.spectrum));
        const lane_vec<T> over = static_cast<T>(1) / *as_lanes(w.a);
        lane_vec<T>* const P = as_lanes(w.time);
        lane_vec<T> sum[2] = {};
        // 16 bins at a time: the logarithm vectorises over a flat array that stays in the first-level cache
        alignas(64) T logs[16 * L];
        for (index k = 0; k < n; k += 16) {
            const index bins = std::min<index>(16, n - k);
            for (index c = 0; c < bins; ++c) P[c] = X[k + c] * X[k + c] * over;
            const T* const p = w.time;
            T* const out = logs;
            simd_for<T>(bins * L, [=](index i) { out[i] = log(p[i] + static_cast<T>(1e-8)); });
            for (index c = 0; c < bins; ++c) sum[c & 1] += P[c] * as_lanes(logs)[c];
        }
        *as_lanes(w.b) = norm * (sum[0] + sum[1]);
        for (index l = 0; l < count; ++l) H[first + l] = w.b[l];
    }
}

// With u = sum X^2 + d, d = 1e-8, c = -1 / (ln n + d) and G_k = c (ln(P_k + d) + P_k / (P_k + d)) = dH/dP_k:
//     dH/dX_k = (2 X_k / u) (G_k - sum_j G_j P_j),   dL_dx += dL_dH C^T(scale . dH/dX)
template <class T>
void entropy_backward_tile(const dct_plan<T>& plan, double scale0, double scale, listed_rows<const T> x, const T* dL_dH,
                           index rows, listed_rows<T> dL_dx, T* workspace) {
    constexpr index L = dct_plan<T>::lanes;
    const spectral_buffers<T> w(plan, workspace);
    const index n = plan.width();
    const T norm = static_cast<T>(-1 / (std::log(static_cast<double>(n)) + 1e-8)), tiny = static_cast<T>(1e-8);
    for (index first = 0; first < rows; first += L) {
        const index count = std::min(L, rows - first);
        plan.load(x.from(first), count, w.time);
        plan.forward(w.time, w.spectrum, w.scratch);
        spectral_power<T>(n, w.spectrum, static_cast<T>(scale0), static_cast<T>(scale), w.a);
        lane_vec<T>* const X = as_lanes(w.spectrum);
        lane_vec<T>* const G = as_lanes(w.time);
        const lane_vec<T> over = static_cast<T>(1) / *as_lanes(w.a);
        for (index k = 0; k < n; ++k) G[k] = X[k] * X[k] * over;
        lane_vec<T> dot = lane_vec<T>{};
        alignas(64) T slope[16 * L];
        for (index k = 0; k < n; k += 16) {
            const index bins = std::min<index>(16, n - k);
            const T* const p = w.time + k * L;
            T* const out = slope;
            simd_for<T>(bins * L, [=](index i) { out[i] = norm * (log(p[i] + tiny) + p[i] / (p[i] + tiny)); });
            for (index c = 0; c < bins; ++c) {
                dot += as_lanes(slope)[c] * G[k + c];
                G[k + c] = as_lanes(slope)[c];
            }
        }
        for (index l = 0; l < L; ++l) w.b[l] = l < count ? 2 * dL_dH[first + l] : T(0);
        const lane_vec<T> factor = *as_lanes(w.b) * over;
        for (index k = 0; k < n; ++k) X[k] = static_cast<T>(k == 0 ? scale0 : scale) * factor * X[k] * (G[k] - dot);
        plan.inverse(w.spectrum, w.time, w.scratch);
        plan.store(w.time, count, [&](index l, index i, auto value) {
            T* const p = dL_dx(first + l) + i;
            store_as<T>(p, load_as<decltype(value)>(p) + value);
        });
    }
}

}  // namespace spectral::cpu::detail
