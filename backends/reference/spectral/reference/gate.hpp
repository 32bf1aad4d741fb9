// SPDX-License-Identifier: Apache-2.0
// backends/reference/spectral/reference/gate.hpp: gates of learned routers and of the MetaRouter, and what a gate
// blends
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

template <class A>
void hard_gate_forward_kernel(executor&, const_vector<A> soft, const hard_gate& how, vector_view<A> gate,
                              out_vector<double> slope) {
    for (index g = 0; g < gate.size(); ++g) {
        const auto value = how(soft[g], g);
        gate[g] = static_cast<A>(value.gate);
        slope[g] = value.slope;
    }
}

template <class A>
void hard_gate_backward_kernel(executor&, const_vector<A> dL_dgate, const_vector<double> slope,
                               const_vector<double> wanted, vector_view<A> dL_dsoft) {
    for (index g = 0; g < dL_dsoft.size(); ++g)
        dL_dsoft[g] = static_cast<A>(dL_dgate[g] * slope[g] + (wanted.data ? wanted[g] : 0.0));
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

}  // namespace spectral::reference
