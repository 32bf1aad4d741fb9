// SPDX-License-Identifier: Apache-2.0
// include/spectral/train/gradient_check.hpp: analytic gradients against finite differences, in double
//   D(h) = (L(x + h) − L(x − h)) / 2h;   numeric = (4 D(h/2) − D(h)) / 3,   h = step (1 + |x|)
// Richardson's combination leaves an error of h⁴, so that h may be large enough (1e-3) for rounding of L not to matter:
// correct gradients of smooth functions agree to about 1e-10. L is any function of what lies in the perturbed view, for
// an operator Σ dL_dy ⊙ f(x), for a model its loss.
#pragma once
#include <spectral/core/parameters.hpp>

#include <algorithm>
#include <cmath>
#include <string>

namespace spectral {

// How many elements are checked, and with which step.
struct gradient_check_options {
    double step = 1e-3;
    index most = 256;  // elements checked of one view: all, or a random sample of this many
    std::uint64_t seed = 1;  // of the sample
};

// The worst element: error = |numeric − analytic| / (|numeric| + root mean square of the analytic gradient + floor).
struct gradient_check_result {
    double error = 0;
    std::string name;  // of the parameter, if any
    index row = 0, column = 0;
    double analytic = 0, numeric = 0;
    index checked = 0;
};

// Compares dL_dx with the differences of loss() -> double while elements of x are moved; x is as before afterwards.
//   auto r = check_gradient(ex, x, dL_dx, [&] { gelu_forward(ex, x, y); return dot(dL_dy, y); });   // r.error < 1e-7
template <executor Exec, class Loss>
gradient_check_result check_gradient(Exec& ex, matrix_view<double> x, const_matrix<double> dL_dx, Loss&& loss,
                                     const gradient_check_options& options = {}) {
    check_shape(dL_dx, {x.rows(), x.width()}, "check_gradient", "dL_dx");
    gradient_check_result worst;
    double squares = 0;
    std::vector<double> row(static_cast<std::size_t>(x.width()));
    for (index n = 0; n < x.rows(); ++n) {
        ex.copy_to_host(row.data(), dL_dx.row(n), row.size() * sizeof(double));
        for (double g : row) squares += g * g;
    }
    const double typical = std::sqrt(squares / static_cast<double>(std::max<index>(x.size(), 1)));
    const random_stream draw{options.seed, stream_of("check_gradient")};
    const bool all = x.size() <= options.most;
    worst.checked = all ? x.size() : options.most;
    for (index i = 0; i < worst.checked; ++i) {
        const index at =
            all ? i : static_cast<index>(draw.uniform(static_cast<std::uint64_t>(i)) * static_cast<double>(x.size()));
        const index n = at / x.width(), c = at % x.width();
        double value = 0, analytic = 0;
        ex.copy_to_host(&value, x.row(n) + c, sizeof value);
        ex.copy_to_host(&analytic, dL_dx.row(n) + c, sizeof analytic);
        const auto at_offset = [&](double h) {
            const double moved = value + h;
            ex.copy_from_host(x.row(n) + c, &moved, sizeof moved);
            return static_cast<double>(loss());
        };
        const auto difference = [&](double h) { return (at_offset(h) - at_offset(-h)) / (2 * h); };
        const double h = options.step * (1 + std::abs(value));
        const double coarse = difference(h), numeric = (4 * difference(h / 2) - coarse) / 3;
        ex.copy_from_host(x.row(n) + c, &value, sizeof value);
        double error = std::abs(numeric - analytic) / (std::abs(numeric) + typical + 1e-6);
        if (!(error >= 0)) error = 1e300;  // NaN
        if (error >= worst.error) worst = {error, {}, n, c, analytic, numeric, worst.checked};
    }
    return worst;
}

// The same for a vector.
template <executor Exec, class Loss>
gradient_check_result check_gradient(Exec& ex, vector_view<double> x, const_vector<double> dL_dx, Loss&& loss,
                                     const gradient_check_options& options = {}) {
    return check_gradient(ex, matrix_view<double>{x.data, {1, x.size()}}, {dL_dx.data, {1, dL_dx.size()}},
                          std::forward<Loss>(loss), options);
}

// Every trainable parameter of a store whose gradients are those of loss(); the worst of them.
template <executor Exec, class Loss>
gradient_check_result check_parameter_gradients(Exec& ex, const parameter_store<Exec, double>& store, Loss&& loss,
                                                const gradient_check_options& options = {}) {
    gradient_check_result worst;
    index checked = 0;
    for (const auto& [name, p] : store.named()) {
        if (!p->grad.data) continue;
        auto r = check_gradient(ex, p->value, p->grad, loss, options);
        checked += r.checked;
        r.name = name;
        if (r.error >= worst.error) worst = r;
    }
    worst.checked = checked;
    return worst;
}

}  // namespace spectral
