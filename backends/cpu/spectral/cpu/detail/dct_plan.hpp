// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/dct_plan.hpp: orthonormal DCT-II, its inverse and spectral filters on tiles of rows
//
//     X_k = c_k sum_i x_i cos(pi (2 i + 1) k / 2n),     c_0 = sqrt(1 / n), c_k = sqrt(2 / n),     X = C x,  x = C^T X
//
// Makhoul (1980): reorder v = (x_0, x_2, x_4, ..., x_5, x_3, x_1), take V = FFT(v), rotate by t_k = exp(-i pi k / 2n):
//     X_k = c_k Re(t_k V_k),   X_(n-k) = -c_k Im(t_k V_k).
// A filter between a transform and its inverse needs no rotations at all: the two collapse into
//     W_k = p_k V_k + q_k conj(t_k)^2 conj(V_k),   p_k = (w_k + w_(n-k)) / 2,  q_k = (w_k - w_(n-k)) / 2.
// For even n the real FFT is a complex one of m = n / 2 points, z_j = v_2j + i v_(2j+1), and splitting it,
//     V_k = A f + B g,  conj V_(m-k) = B f + A g,   f = Z_k, g = conj Z_(m-k), A, B = (1 -+ i exp(-i pi k / m)) / 2,
// is linear too. So filter, split and merge together are one real symmetric 4 x 4 matrix for the numbers of the bins k
// and m - k: nine distinct coefficients, sixteen multiply-adds, made once per filter (filter_table).
// A residual is part of the filter as well: x + gain C^T(w . Cx) = C^T((1 + gain w) . Cx).
//
// Time tile: v_p of row l at tile[p * lanes + l].  Spectrum tile: X_k of row l at tile[k * lanes + l]. Both n * lanes.
//
// Three engines behind one interface, chosen by the width alone, so a width always gives the same bits:
// lane_fft for n = 2 m with m a product of 2, 3, 5, 7; FFTW r2c / c2r row by row for the rest; with SPECTRAL_NO_FFTW,
// a matrix product for the rest.
#pragma once
#include <spectral/cpu/detail/lane_fft.hpp>

#include <complex>
#include <memory>
#include <new>
#include <numbers>
#include <optional>
#if defined(SPECTRAL_NO_FFTW)
#include <Eigen/Core>
#else
#include <fftw3.h>

#include <mutex>
#endif

namespace spectral::cpu::detail {

// Raw storage on a cache line. Every tile, workspace and filter table below must start on one.
struct aligned_delete {
    void operator()(void* p) const { ::operator delete (p, std::align_val_t{64}); }
};
template <class T>
using aligned_array = std::unique_ptr<T[], aligned_delete>;
template <class T>
aligned_array<T> make_aligned(index count) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    return aligned_array<T>(static_cast<T*>(::operator new (bytes, std::align_val_t{64})));
}
// a multiple of a cache line, so that what follows in the same array is aligned too
template <class T>
constexpr index align_up(index count) {
    constexpr index line = 64 / static_cast<index>(sizeof(T));
    return (count + line - 1) / line * line;
}

// ---- the engine for widths lane_fft does not cover -----------------------------------------------------------------

#if !defined(SPECTRAL_NO_FFTW)

template <class T>
struct fftw;
template <>
struct fftw<float> {
    using plan = fftwf_plan;
    static plan r2c(int n, float* in, float* out) {
        return fftwf_plan_dft_r2c_1d(n, in, reinterpret_cast<fftwf_complex*>(out), FFTW_ESTIMATE);
    }
    static plan c2r(int n, float* in, float* out) {
        return fftwf_plan_dft_c2r_1d(n, reinterpret_cast<fftwf_complex*>(in), out, FFTW_ESTIMATE);
    }
    static void run_r2c(plan p, float* in, float* out) {
        fftwf_execute_dft_r2c(p, in, reinterpret_cast<fftwf_complex*>(out));
    }
    static void run_c2r(plan p, float* in, float* out) {
        fftwf_execute_dft_c2r(p, reinterpret_cast<fftwf_complex*>(in), out);
    }
    static void destroy(plan p) { fftwf_destroy_plan(p); }
};
template <>
struct fftw<double> {
    using plan = fftw_plan;
    static plan r2c(int n, double* in, double* out) {
        return fftw_plan_dft_r2c_1d(n, in, reinterpret_cast<fftw_complex*>(out), FFTW_ESTIMATE);
    }
    static plan c2r(int n, double* in, double* out) {
        return fftw_plan_dft_c2r_1d(n, reinterpret_cast<fftw_complex*>(in), out, FFTW_ESTIMATE);
    }
    static void run_r2c(plan p, double* in, double* out) {
        fftw_execute_dft_r2c(p, in, reinterpret_cast<fftw_complex*>(out));
    }
    static void run_c2r(plan p, double* in, double* out) {
        fftw_execute_dft_c2r(p, reinterpret_cast<fftw_complex*>(in), out);
    }
    static void destroy(plan p) { fftw_destroy_plan(p); }
};

// FFTW makes and destroys plans one at a time; only execution may run in several threads.
inline std::mutex& fftw_planner() {
    static std::mutex m;
    return m;
}

// Any width, one row at a time: strided copy out of the tile, r2c, c2r, copy back.
template <class T>
class row_engine {
public:
    explicit row_engine(index n) : n_(n), half_(n / 2 + 1) {
        const aligned_array<T> a = make_aligned<T>(scratch_size());
        const std::lock_guard lock(fftw_planner());
        forward_ = fftw<T>::r2c(static_cast<int>(n), a.get(), a.get() + align_up<T>(n));
        inverse_ = fftw<T>::c2r(static_cast<int>(n), a.get() + align_up<T>(n), a.get());
        if (!forward_ || !inverse_) {
            destroy();
            fail("dct_plan", "FFTW made no plan for width ", n);
        }
    }
    row_engine(const row_engine&) = delete;
    row_engine& operator=(const row_engine&) = delete;
    ~row_engine() {
        const std::lock_guard lock(fftw_planner());
        destroy();
    }

    index scratch_size() const { return align_up<T>(n_) + align_up<T>(2 * half_); }
    index filter_size() const { return 3 * half_; }

    void forward(const T* v, T* X, T* scratch) const {
        constexpr index L = lane_count<T>;
        T* const V = scratch + align_up<T>(n_);
        for (index l = 0; l < L; ++l) {
            for (index p = 0; p < n_; ++p) scratch[p] = v[p * L + l];
            fftw<T>::run_r2c(forward_, scratch, V);
            X[l] = V[0] * static_cast<T>(1 / std::sqrt(static_cast<double>(n_)));
            for (index k = 1; k < half_; ++k) {
                const std::complex<T> t = rotation(k), u{V[2 * k], V[2 * k + 1]};
                X[k * L + l] = t.real() * u.real() - t.imag() * u.imag();
                X[(n_ - k) * L + l] = -(t.real() * u.imag() + t.imag() * u.real());
            }
            // at k = n / 2 both lines wrote the same element; V is real there and both give c_k V / sqrt(2)
        }
    }
    void inverse(const T* X, T* v, T* scratch) const {
        constexpr index L = lane_count<T>;
        T* const V = scratch + align_up<T>(n_);
        for (index l = 0; l < L; ++l) {
            V[0] = X[l] * static_cast<T>(1 / std::sqrt(static_cast<double>(n_)));
            V[1] = 0;
            for (index k = 1; k < half_; ++k) {  // conj(t_k) (X_k - i X_(n-k)) / (n c_k)
                const std::complex<T> t = rotation(k) * T(0.5);
                const T a = X[k * L + l], b = -X[(n_ - k) * L + l];
                V[2 * k] = t.real() * a + t.imag() * b;
                V[2 * k + 1] = t.real() * b - t.imag() * a;
            }
            fftw<T>::run_c2r(inverse_, V, scratch);
            for (index p = 0; p < n_; ++p) v[p * L + l] = scratch[p];
        }
    }
    // p_k, then q_k conj(t_k)^2, both over n
    template <class Weight>
    void filter_table(Weight w, T* table) const {
        for (index k = 0; k < half_; ++k, table += 3) {
            const double n = static_cast<double>(n_), angle = std::numbers::pi * static_cast<double>(k) / n;
            const double a = w(k), b = k == 0 ? a : w(n_ - k), p = (a + b) / (2 * n), q = (a - b) / (2 * n);
            table[0] = static_cast<T>(p);
            table[1] = static_cast<T>(q * std::cos(angle));
            table[2] = static_cast<T>(q * std::sin(angle));
        }
    }
    void filter(T* v, const T* table, T* sums, T* scratch) const {
        constexpr index L = lane_count<T>;
        T* const V = scratch + align_up<T>(n_);
        for (index l = 0; l < L; ++l) {
            for (index p = 0; p < n_; ++p) scratch[p] = v[p * L + l];
            fftw<T>::run_r2c(forward_, scratch, V);
            sums[l] = V[0];
            for (index k = 0; k < half_; ++k) {
                const T p = table[3 * k], c = table[3 * k + 1], s = table[3 * k + 2], a = V[2 * k], b = V[2 * k + 1];
                V[2 * k] = p * a + c * a + s * b;
                V[2 * k + 1] = p * b + s * a - c * b;
            }
            fftw<T>::run_c2r(inverse_, V, scratch);
            for (index p = 0; p < n_; ++p) v[p * L + l] = scratch[p];
        }
    }

private:
    void destroy() {
        if (forward_) fftw<T>::destroy(forward_);
        if (inverse_) fftw<T>::destroy(inverse_);
    }
    std::complex<T> rotation(index k) const { return rotations_[static_cast<std::size_t>(k)]; }

    index n_, half_;
    typename fftw<T>::plan forward_ = nullptr, inverse_ = nullptr;
    std::vector<std::complex<T>> rotations_ = [this] {  // c_k t_k
        std::vector<std::complex<T>> t;
        const double c = std::sqrt(2.0 / static_cast<double>(n_));
        for (index k = 0; k < half_; ++k) {
            const double angle = std::numbers::pi * static_cast<double>(k) / (2.0 * static_cast<double>(n_));
            t.emplace_back(static_cast<T>(c * std::cos(angle)), static_cast<T>(-c * std::sin(angle)));
        }
        return t;
    }();
};

#else

// Any width without FFTW: the tile times the orthonormal matrix, its columns in tile order.
template <class T>
class row_engine {
    using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using tile = Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, lane_count<T>, Eigen::RowMajor>>;
    using const_tile = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, lane_count<T>, Eigen::RowMajor>>;

public:
    explicit row_engine(index n) : n_(n), c_(n, n) {
        for (index k = 0; k < n; ++k)
            for (index i = 0; i < n; ++i) {
                const double turns = static_cast<double>((2 * i + 1) * k % (4 * n)) / static_cast<double>(4 * n);
                const double angle = 2 * std::numbers::pi * turns;
                c_(k, i % 2 == 0 ? i / 2 : n - 1 - i / 2) =
                    static_cast<T>(std::sqrt((k == 0 ? 1.0 : 2.0) / static_cast<double>(n)) * std::cos(angle));
            }
    }
    index scratch_size() const { return align_up<T>(n_ * lane_count<T>); }
    index filter_size() const { return n_; }
    void forward(const T* v, T* X, T*) const {
        tile(X, n_, lane_count<T>).noalias() = c_ * const_tile(v, n_, lane_count<T>);
    }
    void inverse(const T* X, T* v, T*) const {
        tile(v, n_, lane_count<T>).noalias() = c_.transpose() * const_tile(X, n_, lane_count<T>);
    }
    template <class Weight>
    void filter_table(Weight w, T* table) const {
        for (index k = 0; k < n_; ++k) table[k] = static_cast<T>(w(k));
    }
    void filter(T* v, const T* table, T* sums, T* scratch) const {
        forward(v, scratch, nullptr);
        const T root = static_cast<T>(std::sqrt(static_cast<double>(n_)));
        for (index l = 0; l < lane_count<T>; ++l) sums[l] = scratch[l] * root;
        for (index k = 0; k < n_; ++k)
            for (index l = 0; l < lane_count<T>; ++l) scratch[k * lane_count<T> + l] *= table[k];
        inverse(scratch, v, nullptr);
    }

private:
    index n_;
    matrix c_;
};

#endif

// ---- the plan ------------------------------------------------------------------------------------------------------

// Immutable after construction: any number of threads may share one, each with its own tiles and scratch.
//
//     dct_plan<float> plan(1024);
//     plan.load(row_pointer, rows, time);      // row_pointer(i) -> const float*, rows <= lanes
//     plan.forward(time, spectrum, scratch);   // spectrum = C x; time is destroyed
template <class T>
class dct_plan {
public:
    static constexpr index lanes = lane_count<T>;

    explicit dct_plan(index n) : n_(n) {
        check(n >= 1, "dct_plan", "width must be at least 1, found ", n);
        if (n % 2 == 0 && lane_fft<T>::supports(n / 2)) {
            fft_.emplace(n / 2);
            make_pairs();
        } else {
            rows_ = std::make_unique<row_engine<T>>(n);
        }
    }

    index width() const { return n_; }
    index tile_size() const { return n_ * lanes; }  // elements of a time or spectrum tile
    index scratch_size() const { return rows_ ? rows_->scratch_size() : 0; }
    index filter_size() const { return head + (rows_ ? rows_->filter_size() : 9 * static_cast<index>(pairs_.size())); }

    // rows -> time tile; lanes past `count` become zero
    template <class Rows>
    void load(const Rows& rows, index count, T* tile) const {
        const T* row[lanes] = {};
        for (index l = 0; l < count; ++l) row[l] = rows(l);
        lane_vec<T>* const out = as_lanes(tile);
        const index whole = n_ / lanes * lanes;
        for (index i = 0; i < whole; i += lanes) {
            lane_vec<T> r[lanes];
            if (count == lanes) {
                SPECTRAL_LANE_UNROLL for (index l = 0; l < lanes; ++l) r[l] = load_unaligned(row[l] + i);
            } else {
                for (index l = 0; l < lanes; ++l) r[l] = l < count ? load_unaligned(row[l] + i) : lane_vec<T>{};
            }
            transpose_lanes<T>(r);
            SPECTRAL_LANE_UNROLL for (index c = 0; c < lanes; c += 2) {
                out[(i + c) / 2] = r[c];
                out[n_ - 1 - (i + c) / 2] = r[c + 1];
            }
        }
        for (index i = whole; i < n_; ++i)
            for (index l = 0; l < lanes; ++l) tile[slot(i) * lanes + l] = l < count ? row[l][i] : T(0);
    }

    // time tile -> rows: put(l, i, value) for row l, columns from i on, value a vector of `lanes` columns or one T
    template <class Put>
    void store(const T* tile, index count, Put&& put) const {
        const lane_vec<T>* const in = as_lanes(tile);
        const index whole = n_ / lanes * lanes;
        for (index i = 0; i < whole; i += lanes) {
            lane_vec<T> r[lanes];
            SPECTRAL_LANE_UNROLL for (index c = 0; c < lanes; c += 2) {
                r[c] = in[(i + c) / 2];
                r[c + 1] = in[n_ - 1 - (i + c) / 2];
            }
            transpose_lanes<T>(r);
            if (count == lanes) {
                SPECTRAL_LANE_UNROLL for (index l = 0; l < lanes; ++l) put(l, i, r[l]);
            } else {
                for (index l = 0; l < count; ++l) put(l, i, r[l]);
            }
        }
        for (index i = whole; i < n_; ++i)
            for (index l = 0; l < count; ++l) put(l, i, tile[slot(i) * lanes + l]);
    }

    // spectrum = C v. The time tile is destroyed.
    void forward(T* time, T* spectrum, T* scratch) const {
        if (rows_) return rows_->forward(time, spectrum, scratch);
        fft_->first_pass(time);
        lane_vec<T>* const z = as_lanes(time);
        lane_vec<T>* const X = as_lanes(spectrum);
        const index m = n_ / 2;
        for (std::size_t g = 0; g + 1 < groups_.size(); ++g) {
            forward_blocks(time, static_cast<index>(g));
            for (index i = groups_[g]; i < groups_[g + 1]; ++i) {
                const bin_pair at = pairs_[static_cast<std::size_t>(i)];
                const lane_vec<T> fr = z[at.f], fi = z[at.f + 1], gr = z[at.g], gi = -z[at.g + 1];
                if (at.k == 0) {
                    X[0] = dc_scale_ * (fr + fi);
                    X[m] = dc_scale_ * (fr - fi);
                    continue;
                }
                const T* const c = rotations_.data() + 8 * i;
                X[at.k] = c[0] * fr - c[1] * fi + c[2] * gr - c[3] * gi;
                X[n_ - at.k] = -(c[1] * fr + c[0] * fi + c[3] * gr + c[2] * gi);
                X[m - at.k] = c[4] * fr - c[5] * fi + c[6] * gr - c[7] * gi;
                X[m + at.k] = c[5] * fr + c[4] * fi + c[7] * gr + c[6] * gi;
            }
        }
    }

    // v = C^T X. The spectrum tile is kept.
    void inverse(const T* spectrum, T* time, T* scratch) const {
        if (rows_) return rows_->inverse(spectrum, time, scratch);
        lane_vec<T>* const z = as_lanes(time);
        const lane_vec<T>* const X = as_lanes(spectrum);
        const index m = n_ / 2;
        for (std::size_t g = 0; g + 1 < groups_.size(); ++g) {
            for (index i = groups_[g]; i < groups_[g + 1]; ++i) {
                const bin_pair at = pairs_[static_cast<std::size_t>(i)];
                if (at.k == 0) {
                    z[at.f] = dc_scale_ * (X[0] + X[m]);
                    z[at.f + 1] = dc_scale_ * (X[0] - X[m]);
                    continue;
                }
                const T* const c = rotations_.data() + 8 * i;
                const lane_vec<T> pr = X[at.k], pi = -X[n_ - at.k], qr = X[m - at.k], qi = X[m + at.k];
                z[at.f] = c[0] * pr + c[1] * pi + c[4] * qr + c[5] * qi;
                z[at.f + 1] = c[0] * pi - c[1] * pr + c[4] * qi - c[5] * qr;
                z[at.g] = c[2] * pr + c[3] * pi + c[6] * qr + c[7] * qi;
                z[at.g + 1] = -(c[2] * pi - c[3] * pr + c[6] * qi - c[7] * qr);
            }
            inverse_blocks(time, static_cast<index>(g));
        }
        fft_->last_pass(time, nullptr);
    }

    // Table for filter(): v <- C^T((identity + gain w) . C v). Centred: the result's mean is left out (see filter).
    // Made once per change of w; about 50 operations per element.
    void filter_table(const T* w, double gain, double identity, bool centred, T* table) const {
        const auto weight = [&](index k) { return identity + gain * static_cast<double>(w[k]); };
        table[0] = static_cast<T>(weight(0) / static_cast<double>(n_));  // sum of x -> mean of the result
        const auto kept = [&](index k) { return k == 0 && centred ? 0.0 : weight(k); };
        T* c = table + head;
        if (rows_) return rows_->filter_table(kept, c);
        using complex = std::complex<double>;
        const index m = n_ / 2;
        for (const bin_pair& at : pairs_) {
            const index k = at.k;
            // p and r of the bin k, and of its partner m - k; the bins 0 and m are their own mirror images
            const double a = kept(k), b = k == 0 ? a : kept(n_ - k), d = kept(m - k), e = k == 0 ? d : kept(m + k);
            const double over = 1.0 / static_cast<double>(m), p = (a + b) / 2 * over, p2 = (d + e) / 2 * over;
            const complex turn = turns_[static_cast<std::size_t>(&at - pairs_.data())];  // exp(i pi k / n)
            const complex r = (a - b) / 2 * over * turn;
            const complex r2 = (d - e) / 2 * over * complex(turn.imag(), turn.real());  // exp(i pi (m - k) / n)
            const complex alpha = complex(0, -1) * std::conj(turn * turn);
            const complex A = (1.0 + alpha) / 2.0, B = (1.0 - alpha) / 2.0;
            const complex Ac = std::conj(A), Bc = std::conj(B), r2c = std::conj(r2);
            // f' = c1 f + i c2 g + c3 conj f + c4 conj g,   g' = -i c2 f + c5 g + c4 conj f + c6 conj g
            const double c1 = p * std::norm(A) + p2 * std::norm(B), c5 = p * std::norm(B) + p2 * std::norm(A);
            const double c2 = (p - p2) * (Ac * B).imag();
            const complex c3 = r * Ac * Ac + r2c * Bc * Bc, c4 = (r + r2c) * Ac * Bc, c6 = r * Bc * Bc + r2c * Ac * Ac;
            const double nine[9] = {c1 + c3.real(), c1 - c3.real(), c3.imag(),      c4.real(), c4.imag() - c2,
                                    c4.imag() + c2, c5 + c6.real(), c5 - c6.real(), c6.imag()};
            for (double x : nine) *c++ = static_cast<T>(x);
        }
    }

    // In place. mean (one per lane): the mean of the full result, which a centred table leaves out of the tile; that
    // then holds s - mean(s) with no further pass and no cancellation. squares (one per lane): its sum of squares.
    void filter(T* time, const T* table, T* mean, T* squares, T* scratch) const {
        if (rows_) {
            rows_->filter(time, table + head, mean, scratch);
            *as_lanes(mean) *= table[0];
            lane_vec<T> sum = lane_vec<T>{};
            for (index p = 0; p < n_; ++p) sum += as_lanes(time)[p] * as_lanes(time)[p];
            *as_lanes(squares) = sum;
            return;
        }
        fft_->first_pass(time);
        lane_vec<T>* const z = as_lanes(time);
        const T* c = table + head;
        for (std::size_t g = 0; g + 1 < groups_.size(); ++g) {
            forward_blocks(time, static_cast<index>(g));
            if (g == 0) *as_lanes(mean) = table[0] * (z[0] + z[1]);
            for (index i = groups_[g]; i < groups_[g + 1]; ++i, c += 9) {
                const bin_pair at = pairs_[static_cast<std::size_t>(i)];
                const lane_vec<T> fr = z[at.f], fi = z[at.f + 1], gr = z[at.g], gi = -z[at.g + 1];
                z[at.g] = c[3] * fr + c[5] * fi + c[6] * gr + c[8] * gi;
                z[at.g + 1] = -(c[4] * fr - c[3] * fi + c[8] * gr + c[7] * gi);
                z[at.f] = c[0] * fr + c[2] * fi + c[3] * gr + c[4] * gi;  // after g: where both are one bin, f holds
                z[at.f + 1] = c[2] * fr + c[1] * fi + c[5] * gr - c[3] * gi;
            }
            inverse_blocks(time, static_cast<index>(g));
        }
        fft_->last_pass(time, as_lanes(squares));
    }

private:
    static constexpr index head = 16;  // table[0] and room up to a cache line
    struct bin_pair {
        std::int32_t f, g, k;  // vector offsets of Z_k and Z_(m-k)
    };

    // where x_i lies in the time tile
    index slot(index i) const { return i % 2 == 0 ? i / 2 : n_ - 1 - i / 2; }

    void forward_blocks(T* tile, index g) const {
        fft_->forward_block(tile, g);
        if (const index other = (fft_->blocks() - g) % fft_->blocks(); other != g) fft_->forward_block(tile, other);
    }
    void inverse_blocks(T* tile, index g) const {
        fft_->inverse_block(tile, g);
        if (const index other = (fft_->blocks() - g) % fft_->blocks(); other != g) fft_->inverse_block(tile, other);
    }

    // Bins k and m - k, grouped by the pair of blocks they lie in.
    void make_pairs() {
        const index m = n_ / 2, blocks = fft_->blocks();
        dc_scale_ = static_cast<T>(1 / std::sqrt(static_cast<double>(n_)));
        for (index g = 0; 2 * g <= blocks; ++g) {
            groups_.push_back(static_cast<index>(pairs_.size()));
            const bool alone = (blocks - g) % blocks == g;
            for (index k = g; k < m; k += blocks) {
                if (alone && 2 * k > m) continue;
                const auto offset = [&](index bin) { return static_cast<std::int32_t>(2 * fft_->position(bin)); };
                pairs_.push_back({offset(k), offset((m - k) % m), static_cast<std::int32_t>(k)});
                using complex = std::complex<double>;
                const double step = std::numbers::pi / static_cast<double>(2 * n_);
                const double scale = std::sqrt(2.0 / static_cast<double>(n_));
                const complex t = std::polar(scale, -step * static_cast<double>(k));
                const complex t2 = std::polar(scale, step * static_cast<double>(m - k));
                const complex alpha = std::polar(1.0, -step * static_cast<double>(4 * k)) * complex(0, -1);
                const complex A = (1.0 + alpha) / 2.0, B = (1.0 - alpha) / 2.0;
                for (const complex& c : {t * A, t * B, t2 * B, t2 * A}) {
                    rotations_.push_back(static_cast<T>(c.real()));
                    rotations_.push_back(static_cast<T>(c.imag()));
                }
                turns_.push_back(std::polar(1.0, 2 * step * static_cast<double>(k)));
            }
        }
        groups_.push_back(static_cast<index>(pairs_.size()));
    }

    index n_;
    std::optional<lane_fft<T>> fft_;
    std::unique_ptr<row_engine<T>> rows_;  // set exactly when fft_ is not
    std::vector<bin_pair> pairs_;
    std::vector<index> groups_;  // pairs_[groups_[g] .. groups_[g + 1]) lie in blocks g and -g
    std::vector<T> rotations_;  // 8 per pair
    std::vector<std::complex<double>> turns_;
    T dc_scale_ = 0;
};

}  // namespace spectral::cpu::detail
