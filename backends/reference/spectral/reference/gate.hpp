// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/gate.hpp: what routers and gates compute per row
#pragma once
#include <spectral/ops/gate.hpp>
#include <spectral/reference/activation.hpp>

#include <vector>

namespace spectral::reference {

template <class T>
void token_gate_forward_kernel(executor&, view<const T, 2> x, const_vector<statistic<T>> entropy, const_matrix<T> w,
                               const_vector<T> b, matrix_view<statistic<T>> s) {
    const index d = x.width(), K = s.width();
    for (index n = 0; n < x.rows(); ++n) {
        double z[8], largest = -1e300, total = 0;
        for (index o = 0; o < K; ++o) {
            z[o] = double(b[o]) + double(w(o, d)) * entropy[n];
            for (index i = 0; i < d; ++i) z[o] += double(w(o, i)) * x(n, i);
            largest = std::max(largest, z[o]);
        }
        for (index o = 0; o < K; ++o) total += z[o] = std::exp(z[o] - largest);
        for (index o = 0; o < K; ++o) s(n, o) = static_cast<T>(z[o] / total);
    }
}

template <class T>
void token_gate_backward_kernel(executor&, const_matrix<statistic<T>> dL_ds, const_matrix<statistic<T>> s,
                                const_matrix<T> x, const_vector<statistic<T>> entropy, const_matrix<T> w,
                                matrix_view<T> dL_dx, out_vector<statistic<T>> dL_dentropy,
                                matrix_view<statistic<T>> dL_dw, out_vector<statistic<T>> dL_db) {
    const index d = x.width(), K = s.width();
    std::vector<double> dw(static_cast<std::size_t>(K * (d + 2)));  // per operator: d weights, entropy's weight, bias
    for (index n = 0; n < x.rows(); ++n) {
        double mean = 0, dH = 0;
        for (index o = 0; o < K; ++o) mean += double(s(n, o)) * dL_ds(n, o);
        for (index o = 0; o < K; ++o) {
            const double dz = s(n, o) * (dL_ds(n, o) - mean);
            double* row = dw.data() + o * (d + 2);
            for (index i = 0; i < d; ++i) {
                dL_dx(n, i) += static_cast<T>(dz * w(o, i));
                row[i] += dz * x(n, i);
            }
            dH += dz * w(o, d);
            row[d] += dz * entropy[n];
            row[d + 1] += dz;
        }
        dL_dentropy[n] = static_cast<T>(dH);
    }
    for (index o = 0; o < K; ++o) {
        for (index i = 0; i <= d; ++i) dL_dw(o, i) += static_cast<T>(dw[static_cast<std::size_t>(o * (d + 2) + i)]);
        dL_db[o] += static_cast<T>(dw[static_cast<std::size_t>(o * (d + 2) + d + 1)]);
    }
}

template <class T>
void sigmoid_gate_forward_kernel(executor&, view<const T, 2> pooled, const_matrix<T> u, const_vector<T> b,
                                 vector_view<statistic<T>> gate) {
    for (index g = 0; g < gate.size(); ++g) {
        double z = b[0];
        for (index c = 0; c < pooled.width(); ++c) z += double(pooled(g, c)) * u(0, c);
        gate[g] = static_cast<T>(sigmoid(z));
    }
}

template <class T>
void sigmoid_gate_backward_kernel(executor&, const_vector<statistic<T>> dL_dgate, const_vector<statistic<T>> gate,
                                  const_matrix<T> pooled, const_matrix<T> u, matrix_view<T> dL_dpooled,
                                  matrix_view<statistic<T>> dL_du, out_vector<statistic<T>> dL_db) {
    std::vector<double> du(static_cast<std::size_t>(pooled.width()));
    double db = 0;
    for (index g = 0; g < gate.size(); ++g) {
        const double dz = double(dL_dgate[g]) * gate[g] * (1 - double(gate[g]));
        db += dz;
        for (index c = 0; c < pooled.width(); ++c) {
            du[static_cast<std::size_t>(c)] += dz * pooled(g, c);
            dL_dpooled(g, c) = static_cast<T>(dz * u(0, c));
        }
    }
    for (index c = 0; c < pooled.width(); ++c) dL_du(0, c) += static_cast<T>(du[static_cast<std::size_t>(c)]);
    dL_db[0] += static_cast<T>(db);
}

// which pooled row a row belongs to
inline index pooled_row(const row_map& map, pool_scope scope, index n) {
    return scope == pool_scope::batch ? 0 : scope == pool_scope::sequence ? map.sequence[n] : n;
}

template <class T>
void blend_forward_kernel(executor&, const_matrix<T> a, const_matrix<T> x, const_vector<statistic<T>> gate,
                          const row_map& map, pool_scope scope, matrix_view<T> y) {
    for (index n = 0; n < x.rows(); ++n) {
        const double g = gate[pooled_row(map, scope, n)];
        for (index c = 0; c < x.width(); ++c) y(n, c) = static_cast<T>(g * a(n, c) + (1 - g) * x(n, c));
    }
}

template <class T>
void blend_backward_kernel(executor&, const_matrix<T> dL_dy, const_matrix<T> a, const_matrix<T> x,
                           const_vector<statistic<T>> gate, const row_map& map, pool_scope scope, matrix_view<T> dL_da,
                           matrix_view<T> dL_dx, out_vector<statistic<T>> dL_dgate) {
    std::vector<double> dg(static_cast<std::size_t>(gate.size()));
    for (index n = 0; n < x.rows(); ++n) {
        const index group = pooled_row(map, scope, n);
        const double g = gate[group];
        for (index c = 0; c < x.width(); ++c) {
            const double dy = dL_dy(n, c);
            dg[static_cast<std::size_t>(group)] += dy * (double(a(n, c)) - x(n, c));
            dL_da(n, c) = static_cast<T>(g * dy);
            dL_dx(n, c) = static_cast<T>((1 - g) * dy);
        }
    }
    for (index i = 0; i < gate.size(); ++i) dL_dgate[i] = static_cast<T>(dg[static_cast<std::size_t>(i)]);
}

template <class T>
void scale_rows_kernel(executor&, const_matrix<T> x, const_matrix<statistic<T>> c, matrix_view<T> y, write mode) {
    for (index n = 0; n < x.rows(); ++n)
        for (index i = 0; i < x.width(); ++i)
            y(n, i) = (mode == write::accumulate ? y(n, i) : T(0)) + c(n, 0) * x(n, i);
}

template <class T>
void row_dot_kernel(executor&, view<const T, 2> a, const_matrix<T> b, matrix_view<statistic<T>> d) {
    for (index n = 0; n < a.rows(); ++n) {
        double sum = 0;
        for (index i = 0; i < a.width(); ++i) sum += double(a(n, i)) * b(n, i);
        d(n, 0) = static_cast<T>(sum);
    }
}

template <class T>
void argmax_rows_kernel(executor&, matrix_view<T> s, vector_view<row_index> op) {
    for (index n = 0; n < s.rows(); ++n) {
        op[n] = 0;
        for (index o = 1; o < s.width(); ++o)
            if (s(n, o) > s(n, op[n])) op[n] = static_cast<row_index>(o);
    }
}

template <class T>
void pick_columns_forward_kernel(executor&, const_matrix<T> s, const_vector<row_index> op, matrix_view<T> picked) {
    for (index n = 0; n < s.rows(); ++n) picked(n, 0) = s(n, op[n]);
}

template <class T>
void pick_columns_backward_kernel(executor&, const_matrix<T> dL_dpicked, const_vector<row_index> op,
                                  matrix_view<T> dL_ds) {
    for (index n = 0; n < dL_ds.rows(); ++n)
        for (index o = 0; o < dL_ds.width(); ++o) dL_ds(n, o) = o == op[n] ? dL_dpicked(n, 0) : T(0);
}

template <class T>
void one_hot_rows_kernel(executor&, const_vector<row_index> op, matrix_view<T> y) {
    for (index n = 0; n < y.rows(); ++n)
        for (index o = 0; o < y.width(); ++o) y(n, o) = o == op[n] ? T(1) : T(0);
}

inline void random_rows_kernel(executor&, const_vector<row_index> position, random_stream draw, double share,
                               vector_view<row_index> op) {
    for (index n = 0; n < op.size(); ++n)
        op[n] = share >= 1 || draw.bits(static_cast<std::uint64_t>(position[n])) < probability_threshold(share);
}

template <class T>
void threshold_rows_kernel(executor&, vector_view<T> value, std::span<const double> ascending,
                           vector_view<row_index> op) {
    for (index n = 0; n < value.size(); ++n) {
        op[n] = 0;
        for (double t : ascending) op[n] += value[n] > t;
    }
}

}  // namespace spectral::reference
