// SPDX-License-Identifier: Apache-2.0
// include/spectral/ops/rotary.hpp: rotary position embedding, half-split form, in place
//   for i < D/2, θ = position · base^(−2i/D):
//   (x_i, x_{i+D/2}) ← (x_i cos θ − x_{i+D/2} sin θ, x_{i+D/2} cos θ + x_i sin θ)      (Su et al., arXiv:2104.09864)
// Shapes: x (N, H·D) with D even; position (N); table (max positions, D): cos θ_i in columns 0..D/2, sin θ_i after.
// A rotation: the backward pass is the inverse rotation of the gradient.
// Throws error for odd D, another number of positions, and a width that is no multiple of the table's.
#pragma once
#include <spectral/core/executor.hpp>

#include <cmath>
#include <vector>

namespace spectral {

// `inverse` undoes `forward`; it is its backward pass.
enum class rotation { forward, inverse };

// cos and sin of every angle, computed in double.
template <class T>
std::vector<T> rotary_table(index positions, index head_width, double base) {
    check(head_width % 2 == 0, "rotary_table", "head width must be even, found ", head_width);
    std::vector<T> table(static_cast<std::size_t>(positions * head_width));
    const index half = head_width / 2;
    for (index p = 0; p < positions; ++p)
        for (index i = 0; i < half; ++i) {
            const double angle = static_cast<double>(p) *
                                 std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(head_width));
            table[static_cast<std::size_t>(p * head_width + i)] = static_cast<T>(std::cos(angle));
            table[static_cast<std::size_t>(p * head_width + half + i)] = static_cast<T>(std::sin(angle));
        }
    return table;
}

template <executor Exec, class T>
void rotary(Exec& ex, matrix_view<T> x, const_vector<row_index> position, const_matrix<statistic<T>> table,
            rotation direction) {
    check(table.width() > 0 && x.width() % table.width() == 0, "rotary", "width of x: expected a multiple of ",
          table.width(), ", found ", x.width());
    check_equal(position.size(), x.rows(), "rotary", "number of positions");
    SPECTRAL_CALL_KERNEL(rotary_kernel, ex, x, position, table, direction);
}

}  // namespace spectral
