// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/kernels.hpp: all kernels of the cuda executor, and their list, by which a program of several
// CUDA files compiles each of them once rather than in every file
//
//   target_link_libraries(app PRIVATE spectral::cuda_kernels)   in place of spectral::cuda: with CMake that is all
//
// By hand: every file defines SPECTRAL_CUDA_EXTERN_KERNELS, and backends/cuda/kernels/T.cu is compiled without it, for each
// scalar T of the program. A kernel that is not listed (small, of no scalar, or with a weight of another type than the
// model's) is compiled where it is called, as all are in a program of one file.
#pragma once
#include <spectral/cuda/activation.hpp>
#include <spectral/cuda/attention.hpp>
#include <spectral/cuda/cross_entropy.hpp>
#include <spectral/cuda/dct.hpp>
#include <spectral/cuda/decision.hpp>
#include <spectral/cuda/dropout.hpp>
#include <spectral/cuda/elementwise.hpp>
#include <spectral/cuda/embedding.hpp>
#include <spectral/cuda/few_rows.hpp>
#include <spectral/cuda/gate.hpp>
#include <spectral/cuda/kv_cache.hpp>
#include <spectral/cuda/linear.hpp>
#include <spectral/cuda/next_token.hpp>
#include <spectral/cuda/norm.hpp>
#include <spectral/cuda/optimizer.hpp>
#include <spectral/cuda/partition.hpp>
#include <spectral/cuda/pool.hpp>
#include <spectral/cuda/random_features.hpp>
#include <spectral/cuda/rotary.hpp>
#include <spectral/cuda/row_scale.hpp>
#include <spectral/cuda/spectral_entropy.hpp>
#include <spectral/cuda/spectral_filter.hpp>
#include <spectral/cuda/spectral_route_mix.hpp>

// how: template, to compile it here, or extern template, which says that it is compiled elsewhere
#define SPECTRAL_CUDA_KERNEL(how, T, name) how decltype(name<T>) name<T>;

// In namespace spectral::cuda. T: float, double or bfloat16
// clang-format off
#define SPECTRAL_CUDA_KERNELS(how, T)                                                                                  \
    SPECTRAL_CUDA_KERNEL(how, T, gelu_forward_kernel)                                                                  \
    SPECTRAL_CUDA_KERNEL(how, T, gelu_backward_kernel)                                                                 \
    SPECTRAL_CUDA_KERNEL(how, T, silu_gate_forward_kernel)                                                             \
    SPECTRAL_CUDA_KERNEL(how, T, silu_gate_backward_kernel)                                                            \
    SPECTRAL_CUDA_KERNEL(how, T, attention_forward_kernel)                                                             \
    SPECTRAL_CUDA_KERNEL(how, T, attention_backward_kernel)                                                            \
    SPECTRAL_CUDA_KERNEL(how, T, cross_entropy_kernel)                                                                 \
    SPECTRAL_CUDA_KERNEL(how, T, dct_kernel)                                                                           \
    SPECTRAL_CUDA_KERNEL(how, T, idct_kernel)                                                                          \
    SPECTRAL_CUDA_KERNEL(how, T, argmax_rows_kernel)                                                                   \
    SPECTRAL_CUDA_KERNEL(how, T, pick_columns_forward_kernel)                                                          \
    SPECTRAL_CUDA_KERNEL(how, T, pick_columns_backward_kernel)                                                         \
    SPECTRAL_CUDA_KERNEL(how, T, one_hot_rows_kernel)                                                                  \
    SPECTRAL_CUDA_KERNEL(how, T, threshold_rows_kernel)                                                                \
    SPECTRAL_CUDA_KERNEL(how, T, dropout_kernel)                                                                       \
    SPECTRAL_CUDA_KERNEL(how, T, add_kernel)                                                                           \
    SPECTRAL_CUDA_KERNEL(how, T, copy_kernel)                                                                          \
    SPECTRAL_CUDA_KERNEL(how, T, add_constant_kernel)                                                                  \
    SPECTRAL_CUDA_KERNEL(how, T, permute_columns_kernel)                                                               \
    SPECTRAL_CUDA_KERNEL(how, T, embedding_backward_kernel)                                                            \
    SPECTRAL_CUDA_KERNEL(how, T, attention_half_kernel)                                                                \
    SPECTRAL_CUDA_KERNEL(how, T, feed_forward_half_kernel)                                                             \
    SPECTRAL_CUDA_KERNEL(how, T, head_kernel)                                                                          \
    SPECTRAL_CUDA_KERNEL(how, T, block_halves_kernel)                                                                  \
    SPECTRAL_CUDA_KERNEL(how, T, token_gate_forward_kernel)                                                            \
    SPECTRAL_CUDA_KERNEL(how, T, token_gate_backward_kernel)                                                           \
    SPECTRAL_CUDA_KERNEL(how, T, sigmoid_gate_forward_kernel)                                                          \
    SPECTRAL_CUDA_KERNEL(how, T, sigmoid_gate_backward_kernel)                                                         \
    SPECTRAL_CUDA_KERNEL(how, T, blend_forward_kernel)                                                                 \
    SPECTRAL_CUDA_KERNEL(how, T, blend_backward_kernel)                                                                \
    SPECTRAL_CUDA_KERNEL(how, T, kv_append_kernel)                                                                     \
    SPECTRAL_CUDA_KERNEL(how, T, linear_backward_weight_kernel)                                                        \
    SPECTRAL_CUDA_KERNEL(how, T, choose_tokens_kernel)                                                                 \
    SPECTRAL_CUDA_KERNEL(how, T, draw_tokens_kernel)                                                                   \
    SPECTRAL_CUDA_KERNEL(how, T, layer_norm_forward_kernel)                                                            \
    SPECTRAL_CUDA_KERNEL(how, T, layer_norm_backward_kernel)                                                           \
    SPECTRAL_CUDA_KERNEL(how, T, add_layer_norm_forward_kernel)                                                        \
    SPECTRAL_CUDA_KERNEL(how, T, rms_norm_forward_kernel)                                                              \
    SPECTRAL_CUDA_KERNEL(how, T, rms_norm_backward_kernel)                                                             \
    SPECTRAL_CUDA_KERNEL(how, T, gather_rows_kernel)                                                                   \
    SPECTRAL_CUDA_KERNEL(how, T, scatter_rows_kernel)                                                                  \
    SPECTRAL_CUDA_KERNEL(how, T, copy_rows_kernel)                                                                     \
    SPECTRAL_CUDA_KERNEL(how, T, mean_pool_forward_kernel)                                                             \
    SPECTRAL_CUDA_KERNEL(how, T, mean_pool_backward_kernel)                                                            \
    SPECTRAL_CUDA_KERNEL(how, T, random_features_forward_kernel)                                                       \
    SPECTRAL_CUDA_KERNEL(how, T, random_features_backward_kernel)                                                      \
    SPECTRAL_CUDA_KERNEL(how, T, rotary_kernel)                                                                        \
    SPECTRAL_CUDA_KERNEL(how, T, scale_rows_kernel)                                                                    \
    SPECTRAL_CUDA_KERNEL(how, T, row_dot_kernel)                                                                       \
    SPECTRAL_CUDA_KERNEL(how, T, spectral_entropy_forward_kernel)                                                      \
    SPECTRAL_CUDA_KERNEL(how, T, spectral_entropy_backward_kernel)                                                     \
    SPECTRAL_CUDA_KERNEL(how, T, spectral_filter_forward_kernel)                                                       \
    SPECTRAL_CUDA_KERNEL(how, T, spectral_filter_backward_kernel)                                                      \
    SPECTRAL_CUDA_KERNEL(how, T, spectral_mix_forward_kernel)                                                          \
    SPECTRAL_CUDA_KERNEL(how, T, spectral_mix_backward_kernel)                                                         \
    SPECTRAL_CUDA_KERNEL(how, T, spectral_route_mix_forward_kernel)                                                    \
    how void linear_forward_kernel<T>(executor&, const_matrix<T>, const_matrix<T>, const_vector<T>, matrix_view<T>,    \
                                      const_matrix<T>, double);                                                        \
    how void linear_backward_input_kernel<T>(executor&, const_matrix<T>, const_matrix<T>, matrix_view<T>, write, double); \
    how void linear_cross_entropy_kernel<T>(executor&, view<const T, 2>, const_matrix<T>, const_vector<row_index>,     \
                                            vector_view<statistic<T>>, double, out_matrix<T>, out_matrix<statistic<T>>); \
    how void embedding_forward_kernel<T>(executor&, const_vector<row_index>, const_matrix<T>, matrix_view<T>, write);

// master weights, gates and the optimizer, which have no bfloat16. A: float or double
#define SPECTRAL_CUDA_STATISTIC_KERNELS(how, A)                                                                        \
    SPECTRAL_CUDA_KERNEL(how, A, hard_gate_forward_kernel)                                                             \
    SPECTRAL_CUDA_KERNEL(how, A, hard_gate_backward_kernel)                                                            \
    SPECTRAL_CUDA_KERNEL(how, A, sum_of_squares_kernel)                                                                \
    SPECTRAL_CUDA_KERNEL(how, A, adamw_step_kernel)
// clang-format on

#ifdef SPECTRAL_CUDA_EXTERN_KERNELS
namespace spectral::cuda {
SPECTRAL_CUDA_KERNELS(extern template, float)
SPECTRAL_CUDA_KERNELS(extern template, double)
SPECTRAL_CUDA_KERNELS(extern template, bfloat16)
SPECTRAL_CUDA_STATISTIC_KERNELS(extern template, float)
SPECTRAL_CUDA_STATISTIC_KERNELS(extern template, double)
}  // namespace spectral::cuda
#endif
