// SPDX-License-Identifier: Apache-2.0
// backends/cpu/spectral/cpu/detail/lane_fft.hpp: complex FFT of many rows at once, one row per vector lane
//
// A tile holds `lanes` rows transposed: element j of all rows is one vector register. Every butterfly then is plain
// arithmetic on whole registers, twiddles are scalars, and no shuffle is needed for any length. Rows never mix, so a
// row's bits do not depend on its neighbours or on its place in the tile.
//
// Decimation in frequency for the forward transform: pass i has radix r and sub-length L = r q,
//     z[b L + j + s q]  <-  w_L^(j s) * sum_t z[b L + j + t q] w_r^(s t),     w_L = exp(-2 pi i / L).
// The result stays in digit-reversed order, position(k); the inverse runs the passes backwards from that order, so
// neither ever reorders. The inverse is the same code with real and imaginary parts exchanged: swap(z) = i conj(z).
// After the first pass the sub-blocks are independent, and bins k and m - k lie in blocks s and (r - s) mod r: work
// on the spectrum is done for two sub-blocks at a time while they are in the first-level cache.
#pragma once
#include <spectral/core/view.hpp>

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#if !defined(__GNUC__)
#error "spectral::cpu needs GCC or Clang: its tiles are written with their vector extensions"
#endif

namespace spectral::cpu::detail {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif

// One vector register of T. may_alias: tiles are handed around as plain arrays of T.
template <class T>
struct lane_vector;
template <>
struct lane_vector<float> {
    typedef float type __attribute__((vector_size(vector_bytes), may_alias));
    typedef float unaligned __attribute__((vector_size(vector_bytes), may_alias, aligned(alignof(float))));
};
template <>
struct lane_vector<double> {
    typedef double type __attribute__((vector_size(vector_bytes), may_alias));
    typedef double unaligned __attribute__((vector_size(vector_bytes), may_alias, aligned(alignof(double))));
};

template <class T>
using lane_vec = typename lane_vector<T>::type;
template <class T>
inline constexpr int lane_count = vector_bytes / static_cast<int>(sizeof(T));

template <class T>
lane_vec<T>* as_lanes(T* p) {
    return reinterpret_cast<lane_vec<T>*>(p);
}
template <class T>
const lane_vec<T>* as_lanes(const T* p) {
    return reinterpret_cast<const lane_vec<T>*>(p);
}
template <class T>
lane_vec<T> load_unaligned(const T* p) {
    return *reinterpret_cast<const typename lane_vector<T>::unaligned*>(p);
}
template <class T>
void store_unaligned(T* p, lane_vec<T> v) {
    *reinterpret_cast<typename lane_vector<T>::unaligned*>(p) = v;
}

#define SPECTRAL_LANE_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define SPECTRAL_LANE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SPECTRAL_LANE_UNROLL _Pragma("GCC unroll 32")
#endif

// ---- transpose of lanes x lanes ------------------------------------------------------------------------------------

// Interleaves a and b element by element inside each 128-bit block (unpack), or picks every second 128-bit block of
// (a, b): the patterns for which every x86 vector set has one cheap instruction.
template <class T, int Group, bool High, int... I>
SPECTRAL_LANE_INLINE lane_vec<T> unpack_lanes(lane_vec<T> a, lane_vec<T> b, std::integer_sequence<int, I...>) {
    constexpr int block = 16 / static_cast<int>(sizeof(T)), n = lane_count<T>;
    // position I: block I / block; inside it groups alternate between a and b, taken from the low or high half
    return __builtin_shufflevector(a, b,
                                   (I / block * block + (High ? block / 2 : 0) + I % block / (2 * Group) * Group +
                                    I % Group + (I / Group % 2 ? n : 0))...);
}
template <class T, bool Odd, int... I>
SPECTRAL_LANE_INLINE lane_vec<T> pick_blocks(lane_vec<T> a, lane_vec<T> b, std::integer_sequence<int, I...>) {
    constexpr int block = 16 / static_cast<int>(sizeof(T));
    return __builtin_shufflevector(a, b, ((2 * (I / block) + (Odd ? 1 : 0)) * block + I % block)...);
}

template <class T>
SPECTRAL_LANE_INLINE void transpose_lanes(lane_vec<T>* r) {
    constexpr int n = lane_count<T>, block = 16 / static_cast<int>(sizeof(T)), blocks = n / block;
    constexpr auto all = std::make_integer_sequence<int, n>{};
    lane_vec<T> t[n];
    SPECTRAL_LANE_UNROLL for (int g = 0; g < n; g += block) {  // block x block inside the 128-bit blocks
        if constexpr (block == 4) {
            const lane_vec<T> a = unpack_lanes<T, 1, false>(r[g], r[g + 1], all);
            const lane_vec<T> b = unpack_lanes<T, 1, true>(r[g], r[g + 1], all);
            const lane_vec<T> c = unpack_lanes<T, 1, false>(r[g + 2], r[g + 3], all);
            const lane_vec<T> d = unpack_lanes<T, 1, true>(r[g + 2], r[g + 3], all);
            t[g] = unpack_lanes<T, 2, false>(a, c, all);
            t[g + 1] = unpack_lanes<T, 2, true>(a, c, all);
            t[g + 2] = unpack_lanes<T, 2, false>(b, d, all);
            t[g + 3] = unpack_lanes<T, 2, true>(b, d, all);
        } else {
            t[g] = unpack_lanes<T, 1, false>(r[g], r[g + 1], all);
            t[g + 1] = unpack_lanes<T, 1, true>(r[g], r[g + 1], all);
        }
    }
    SPECTRAL_LANE_UNROLL for (int c = 0; c < block; ++c) {  // then the blocks themselves
        if constexpr (blocks == 4) {
            const lane_vec<T> e0 = pick_blocks<T, false>(t[c], t[block + c], all);
            const lane_vec<T> o0 = pick_blocks<T, true>(t[c], t[block + c], all);
            const lane_vec<T> e1 = pick_blocks<T, false>(t[2 * block + c], t[3 * block + c], all);
            const lane_vec<T> o1 = pick_blocks<T, true>(t[2 * block + c], t[3 * block + c], all);
            r[c] = pick_blocks<T, false>(e0, e1, all);
            r[block + c] = pick_blocks<T, false>(o0, o1, all);
            r[2 * block + c] = pick_blocks<T, true>(e0, e1, all);
            r[3 * block + c] = pick_blocks<T, true>(o0, o1, all);
        } else if constexpr (blocks == 2) {
            r[c] = pick_blocks<T, false>(t[c], t[block + c], all);
            r[block + c] = pick_blocks<T, true>(t[c], t[block + c], all);
        } else {
            r[c] = t[c];
        }
    }
}

// ---- short transforms in registers ---------------------------------------------------------------------------------

template <int R>
struct odd_roots;  // cos and sin of 2 pi j / R, j = 1 .. R / 2
template <>
struct odd_roots<3> {
    static constexpr double c[] = {1, -0.5}, s[] = {0, 0.86602540378443864676};
};
template <>
struct odd_roots<5> {
    static constexpr double c[] = {1, 0.30901699437494742410, -0.80901699437494742410};
    static constexpr double s[] = {0, 0.95105651629515357212, 0.58778525229247312917};
};
template <>
struct odd_roots<7> {
    static constexpr double c[] = {1, 0.62348980185873353053, -0.22252093395631440429, -0.90096886790241912624};
    static constexpr double s[] = {0, 0.78183148246802980871, 0.97492791218182360702, 0.43388373911755812048};
};

// re + i im  <-  DFT of length R, natural order
template <class T, int R>
SPECTRAL_LANE_INLINE void dft(lane_vec<T>* re, lane_vec<T>* im) {
    using V = lane_vec<T>;
    if constexpr (R == 2) {
        const V r = re[0], i = im[0];
        re[0] = r + re[1];
        im[0] = i + im[1];
        re[1] = r - re[1];
        im[1] = i - im[1];
    } else if constexpr (R % 2 == 1) {
        constexpr int h = R / 2;
        V tr[h + 1], ti[h + 1], dr[h + 1], di[h + 1];
        const V r0 = re[0], i0 = im[0];
        V sr = r0, si = i0;
        SPECTRAL_LANE_UNROLL for (int j = 1; j <= h; ++j) {
            tr[j] = re[j] + re[R - j];
            ti[j] = im[j] + im[R - j];
            dr[j] = re[j] - re[R - j];
            di[j] = im[j] - im[R - j];
            sr += tr[j];
            si += ti[j];
        }
        re[0] = sr;
        im[0] = si;
        SPECTRAL_LANE_UNROLL for (int k = 1; k <= h; ++k) {
            V cr = r0, ci = i0, ur = V{}, ui = V{};
            SPECTRAL_LANE_UNROLL for (int j = 1; j <= h; ++j) {
                const int p = j * k % R, f = p <= h ? p : R - p;  // cos is even, sin odd around R / 2
                const T c = static_cast<T>(odd_roots<R>::c[f]);
                const T s = static_cast<T>(p <= h ? odd_roots<R>::s[f] : -odd_roots<R>::s[f]);
                cr += c * tr[j];
                ci += c * ti[j];
                ur += s * dr[j];
                ui += s * di[j];
            }
            re[k] = cr + ui;
            im[k] = ci - ur;
            re[R - k] = cr - ui;
            im[R - k] = ci + ur;
        }
    } else if constexpr (R == 4) {
        const V ar = re[0] + re[2], ai = im[0] + im[2], br = re[0] - re[2], bi = im[0] - im[2];
        const V cr = re[1] + re[3], ci = im[1] + im[3], dr = re[1] - re[3], di = im[1] - im[3];
        re[0] = ar + cr;
        im[0] = ai + ci;
        re[1] = br + di;
        im[1] = bi - dr;
        re[2] = ar - cr;
        im[2] = ai - ci;
        re[3] = br - di;
        im[3] = bi + dr;
    } else {  // R = 2 H: even and odd samples, then one butterfly (6, 8)
        constexpr int H = R / 2;
        V er[H], ei[H], qr[H], qi[H];
        SPECTRAL_LANE_UNROLL for (int j = 0; j < H; ++j) {
            er[j] = re[2 * j];
            ei[j] = im[2 * j];
            qr[j] = re[2 * j + 1];
            qi[j] = im[2 * j + 1];
        }
        dft<T, H>(er, ei);
        dft<T, H>(qr, qi);
        SPECTRAL_LANE_UNROLL for (int k = 0; k < H; ++k) {
            V r = qr[k], i = qi[k];
            if constexpr (R == 8) {
                const T h = static_cast<T>(0.70710678118654752440);
                if (k == 1) r = h * (qr[k] + qi[k]), i = h * (qi[k] - qr[k]);
                if (k == 2) r = qi[k], i = -qr[k];
                if (k == 3) r = h * (qi[k] - qr[k]), i = -h * (qr[k] + qi[k]);
            } else {
                static_assert(R == 6);
                const T c = k == 2 ? T(-0.5) : T(0.5), s = static_cast<T>(0.86602540378443864676);
                if (k > 0) r = c * qr[k] + s * qi[k], i = c * qi[k] - s * qr[k];
            }
            re[k] = er[k] + r;
            im[k] = ei[k] + i;
            re[k + H] = er[k] - r;
            im[k + H] = ei[k] - i;
        }
    }
}

// One pass over `blocks` blocks of R q complex elements; twiddle is [q][R - 1] pairs (cos, sin) of w_L^(j s).
// Squares: also adds the squares of everything stored to *squares (used by the last inverse pass).
template <class T, int R, bool Inverse, bool Squares>
inline void fft_pass_radix(T* tile, index blocks, index q, const T* twiddle, lane_vec<T>* squares) {
    using V = lane_vec<T>;
    V sum_even = V{}, sum_odd = V{};
    for (index b = 0; b < blocks; ++b) {
        for (index j = 0; j < q; ++j) {
            V* const z = as_lanes(tile) + 2 * (b * R * q + j);
            const T* const w = twiddle + 2 * (R - 1) * j;
            V re[R], im[R];
            SPECTRAL_LANE_UNROLL for (int s = 0; s < R; ++s) {
                re[s] = z[2 * q * s + (Inverse ? 1 : 0)];
                im[s] = z[2 * q * s + (Inverse ? 0 : 1)];
            }
            const auto twist = [&] {
                SPECTRAL_LANE_UNROLL for (int s = 1; s < R; ++s) {
                    const T c = w[2 * s - 2], d = w[2 * s - 1];
                    const V r = re[s] * c - im[s] * d;
                    im[s] = re[s] * d + im[s] * c;
                    re[s] = r;
                }
            };
            if (Inverse && q > 1) twist();
            dft<T, R>(re, im);
            if (!Inverse && q > 1) twist();
            SPECTRAL_LANE_UNROLL for (int s = 0; s < R; ++s) {
                z[2 * q * s + (Inverse ? 1 : 0)] = re[s];
                z[2 * q * s + (Inverse ? 0 : 1)] = im[s];
                if constexpr (Squares) {
                    sum_even += re[s] * re[s];
                    sum_odd += im[s] * im[s];
                }
            }
        }
    }
    if constexpr (Squares) *squares = sum_even + sum_odd;
}

template <class T, bool Inverse, bool Squares = false>
void fft_pass(int radix, T* tile, index blocks, index q, const T* twiddle, lane_vec<T>* squares = nullptr) {
    switch (radix) {
        case 2: return fft_pass_radix<T, 2, Inverse, Squares>(tile, blocks, q, twiddle, squares);
        case 3: return fft_pass_radix<T, 3, Inverse, Squares>(tile, blocks, q, twiddle, squares);
        case 4: return fft_pass_radix<T, 4, Inverse, Squares>(tile, blocks, q, twiddle, squares);
        case 5: return fft_pass_radix<T, 5, Inverse, Squares>(tile, blocks, q, twiddle, squares);
        case 6: return fft_pass_radix<T, 6, Inverse, Squares>(tile, blocks, q, twiddle, squares);
        case 7: return fft_pass_radix<T, 7, Inverse, Squares>(tile, blocks, q, twiddle, squares);
        case 8: return fft_pass_radix<T, 8, Inverse, Squares>(tile, blocks, q, twiddle, squares);
    }
}

// ---- the transform -------------------------------------------------------------------------------------------------

// Complex FFT of length m (products of 2, 3, 5, 7) on tiles of m complex vectors: re, im alternate.
template <class T>
class lane_fft {
public:
    static bool supports(index m) {
        if (m < 1) return false;
        for (index p : {2, 3, 5, 7})
            while (m % p == 0) m /= p;
        return m == 1;
    }

    explicit lane_fft(index m) : m_(m) {
        // 8 is the largest radix whose butterfly stays in 32 registers. The odd radices go first: then the remaining
        // blocks are powers of two, small enough for the first-level cache.
        index rest = m;
        int twos = 0;
        std::vector<int> odd;
        while (rest % 2 == 0) rest /= 2, ++twos;
        for (int p : {7, 5, 3})
            while (rest % p == 0) rest /= p, odd.push_back(p);
        if (twos % 3 == 1 && !odd.empty() && odd.back() == 3) odd.back() = 6, --twos;
        std::vector<int> even;
        while (twos > 4 || twos == 3) even.push_back(8), twos -= 3;
        while (twos >= 2) even.push_back(4), twos -= 2;
        if (twos == 1) even.push_back(2);
        radices_ = odd;
        radices_.insert(radices_.end(), even.rbegin(), even.rend());

        index length = m;
        for (int r : radices_) {
            const index q = length / r;
            offsets_.push_back(static_cast<index>(twiddles_.size()));
            for (index j = 0; j < q; ++j)
                for (index s = 1; s < r; ++s) {
                    const double turns = static_cast<double>(j * s % length) / static_cast<double>(length);
                    const double angle = -6.283185307179586476925 * turns;
                    twiddles_.push_back(static_cast<T>(std::cos(angle)));
                    twiddles_.push_back(static_cast<T>(std::sin(angle)));
                }
            length = q;
        }
    }

    index size() const { return m_; }
    // sub-blocks after the first pass: block s holds the bins k = s (mod blocks())
    index blocks() const { return radices_.empty() ? 1 : radices_.front(); }

    // where bin k lies after the forward passes
    index position(index k) const {
        index length = m_, at = 0;
        for (int r : radices_) {
            length /= r;
            at += k % r * length;
            k /= r;
        }
        return at;
    }

    void first_pass(T* tile) const {
        if (!radices_.empty()) fft_pass<T, false>(radices_[0], tile, 1, m_ / radices_[0], twiddles_.data());
    }
    void forward_block(T* tile, index s) const {
        const index length = m_ / blocks();
        T* const z = tile + 2 * lane_count<T> * s * length;
        index q = length;
        for (std::size_t i = 1; i < radices_.size(); ++i) {
            const index blocks = length / q;
            q /= radices_[i];
            fft_pass<T, false>(radices_[i], z, blocks, q, twiddles_.data() + offsets_[i]);
        }
    }
    void inverse_block(T* tile, index s) const {
        const index length = m_ / blocks();
        T* const z = tile + 2 * lane_count<T> * s * length;
        index q = 1;
        for (std::size_t i = radices_.size(); i-- > 1;) {
            fft_pass<T, true>(radices_[i], z, length / (q * radices_[i]), q, twiddles_.data() + offsets_[i]);
            q *= radices_[i];
        }
    }
    // undoes first_pass up to the factor m; *squares receives the sum of squares of the result when wanted
    void last_pass(T* tile, lane_vec<T>* squares) const {
        if (radices_.empty()) {
            const lane_vec<T>* z = as_lanes(tile);
            if (squares) *squares = z[0] * z[0] + z[1] * z[1];
        } else if (squares) {
            fft_pass<T, true, true>(radices_[0], tile, 1, m_ / radices_[0], twiddles_.data(), squares);
        } else {
            fft_pass<T, true>(radices_[0], tile, 1, m_ / radices_[0], twiddles_.data());
        }
    }

private:
    index m_;
    std::vector<int> radices_;
    std::vector<index> offsets_;
    std::vector<T> twiddles_;
};

}  // namespace spectral::cpu::detail
